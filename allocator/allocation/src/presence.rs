//! Which Pods of collectors count: one that is not ready keeps its targets for a while, then they are handed over.

use std::time::Duration;

use crate::seats::{Collector, Standing};

/// A collector's Pod as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The Pod's name, which is the collector's id.
    pub name: String,
    /// The node it runs on; a Pod without one is no collector yet.
    pub node: String,
    /// Since when (after 1970) it does not run or is not ready; `None` when it is.
    pub unready: Option<Duration>,
    /// Its processes run, ready or not.
    pub runs: bool,
    /// It is being deleted.
    pub ending: bool,
}

/// The collectors of these Pods, and when to look again because somebody's grace ends. Without a grace period nobody's
/// health is asked. Who is not ready for longer but runs may well scrape: each of its targets stays until another has it.
pub fn collectors(seen: &[Seen], grace: Duration, now: Duration) -> (Vec<Collector>, Option<Duration>) {
    let mut again: Option<Duration> = None;
    let mut found = Vec::new();
    for pod in seen.iter().filter(|pod| !pod.node.is_empty()) {
        let lost = pod
            .unready
            .filter(|_| !grace.is_zero())
            .map(|since| since + grace);
        if let Some(until) = lost.filter(|until| *until > now) {
            again = Some(again.map_or(until, |again| again.min(until)));
        }
        let late = lost.is_some_and(|until| until <= now);
        if late && !pod.runs {
            continue;
        }
        let standing = match pod.ending || late {
            true => Standing::Leaving,
            false => Standing::Serving,
        };
        found.push(Collector {
            name: pod.name.clone(),
            node: pod.node.clone(),
            standing,
        });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    (found, again)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, unready: Option<u64>) -> Seen {
        Seen {
            name: name.into(),
            node: "n".into(),
            unready: unready.map(Duration::from_secs),
            runs: true,
            ending: false,
        }
    }

    #[test]
    fn who_is_not_ready_has_a_grace() {
        let mut seen = vec![pod("a", None), pod("b", Some(100)), pod("c", Some(60))];
        let standings = |found: &[Collector]| {
            let standing = |c: &Collector| (c.name.clone(), c.standing == Standing::Serving);
            found.iter().map(standing).collect::<Vec<_>>()
        };
        let at = |seen: &[Seen], grace, now| {
            collectors(seen, Duration::from_secs(grace), Duration::from_secs(now))
        };
        let (found, again) = at(&seen, 30, 110);
        assert_eq!(
            (standings(&found), again),
            (
                vec![("a".into(), true), ("b".into(), true), ("c".into(), false)],
                Some(Duration::from_secs(130))
            )
        );
        seen[2].runs = false;
        assert_eq!(at(&seen, 30, 110).0.len(), 2, "what does not run scrapes nothing");
        let (found, again) = at(&seen, 0, 110);
        assert_eq!((found.len(), again), (3, None));
        seen[0].ending = true;
        seen[1].node.clear();
        let (found, _) = at(&seen, 30, 110);
        assert_eq!((found.len(), found[0].standing), (1, Standing::Leaving));
    }
}
