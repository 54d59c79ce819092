//! How many replicas each ReplicaSet of a Deployment should have next.

/// What a Deployment allows on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// The old ones go before the new ones come.
    Recreate { desired: i32 },
    /// Up to `surge` too many, up to `unavailable` too few.
    Rolling {
        desired: i32,
        surge: i32,
        unavailable: i32,
    },
}

impl Budget {
    /// The same with numbers: recreating may miss all of them.
    pub(crate) fn as_rolling(self) -> Self {
        match self {
            Self::Recreate { desired } => Self::Rolling {
                desired,
                surge: 0,
                unavailable: 0,
            },
            rolling @ Self::Rolling { .. } => rolling,
        }
    }
}

/// One ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// What its specification asks for.
    pub(crate) wanted: i32,
    /// Its Pods.
    pub(crate) running: i32,
    /// Its Pods that are available.
    pub(crate) available: i32,
}

/// What each ReplicaSet's specification should ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) new: i32,
    pub(crate) old: Vec<i32>,
}

/// The next step from the old ReplicaSets to the new one. `old_left` counts the old ones' Pods, those that are ending
/// included.
pub(crate) fn step(budget: Budget, new: Counts, old: &[Counts], old_left: i32) -> Step {
    match budget {
        Budget::Recreate { desired } => {
            let gone = old_left == 0 && old.iter().all(|set| set.running == 0);
            Step {
                new: if gone { desired } else { new.wanted.min(desired) },
                old: vec![0; old.len()],
            }
        }
        Budget::Rolling {
            desired,
            surge,
            unavailable,
        } => roll(desired, surge, unavailable, new, old),
    }
}

fn roll(desired: i32, surge: i32, unavailable: i32, new: Counts, old: &[Counts]) -> Step {
    let old_wanted: i32 = old.iter().map(|set| set.wanted).sum();
    let room = (desired + surge - new.wanted - old_wanted).max(0);
    let grown = if new.wanted >= desired {
        desired
    } else {
        new.wanted + room.min(desired - new.wanted)
    };

    let minimum = (desired - unavailable).max(0);
    let new_missing = (new.wanted - new.available).max(0);
    let mut removable = (new.wanted + old_wanted - minimum - new_missing).max(0);
    let mut next: Vec<i32> = old.iter().map(|set| set.wanted).collect();
    // First those that serve nobody anyway.
    for (wanted, set) in next.iter_mut().zip(old) {
        let idle = (set.wanted - set.available).clamp(0, removable);
        *wanted -= idle;
        removable -= idle;
    }
    let available: i32 = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut spare = (available - minimum).clamp(0, removable);
    for wanted in &mut next {
        let taken = spare.min(*wanted);
        *wanted -= taken;
        spare -= taken;
    }
    Step {
        new: grown,
        old: next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Budget = Budget::Rolling {
        desired: 1,
        surge: 1,
        unavailable: 0,
    };

    fn counts(wanted: i32, available: i32) -> Counts {
        Counts {
            wanted,
            running: wanted,
            available,
        }
    }

    #[test]
    fn the_first_one_starts_at_once() {
        assert_eq!(step(ONE, Counts::default(), &[], 0), Step { new: 1, old: vec![] });
    }

    #[test]
    fn the_old_one_stays_until_the_new_one_is_available() {
        assert_eq!(
            step(ONE, counts(1, 0), &[counts(1, 1)], 1),
            Step { new: 1, old: vec![1] }
        );
        assert_eq!(
            step(ONE, counts(1, 1), &[counts(1, 1)], 1),
            Step { new: 1, old: vec![0] }
        );
    }

    #[test]
    fn an_old_one_that_never_became_available_goes_first() {
        assert_eq!(
            step(ONE, counts(0, 0), &[counts(1, 1), counts(1, 0)], 2).old,
            vec![1, 0]
        );
    }

    #[test]
    fn recreating_waits_for_the_last_old_pod() {
        let budget = Budget::Recreate { desired: 2 };
        assert_eq!(
            step(budget, Counts::default(), &[counts(2, 2)], 2),
            Step { new: 0, old: vec![0] }
        );
        assert_eq!(
            step(budget, Counts::default(), &[Counts::default()], 1),
            Step { new: 0, old: vec![0] }
        );
        assert_eq!(
            step(budget, Counts::default(), &[Counts::default()], 0),
            Step { new: 2, old: vec![0] }
        );
    }

    #[test]
    fn every_rollout_ends_without_breaking_its_bounds() {
        for desired in 0..6 {
            for surge in 0..3 {
                for unavailable in i32::from(surge == 0)..3 {
                    let budget = Budget::Rolling {
                        desired,
                        surge,
                        unavailable,
                    };
                    let (mut new, mut old) = (Counts::default(), vec![counts(desired, desired)]);
                    for _ in 0..40 {
                        let next = step(budget, new, &old, 0);
                        new = counts(next.new, new.wanted.min(next.new));
                        old = next.old.iter().map(|wanted| counts(*wanted, *wanted)).collect();
                        assert!(new.wanted + old[0].wanted <= desired + surge);
                        assert!(new.available + old[0].available >= desired - unavailable);
                    }
                    assert_eq!((new.wanted, old[0].wanted), (desired, 0), "{budget:?}");
                }
            }
        }
    }
}
