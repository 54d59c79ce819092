//! Groups of targets as discovery gave them last, placed for each job that they are found for.

use std::collections::HashMap;
use std::sync::Arc;

use karez_scrape_config::{Group, Labels};

use crate::entries::mix;
use crate::lists::Slot;

/// In the place of a target that a rule dropped.
pub(crate) const DROPPED: Slot = Slot::MAX;
/// In the place of a target that cannot be scraped.
pub(crate) const WRONG: Slot = Slot::MAX - 1;

/// Whether a place holds a target.
pub(crate) fn is_target(slot: Slot) -> bool {
    slot < WRONG
}

/// A group for a job.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) job: u32,
    pub(crate) group: Arc<Group>,
    /// What became of each target of the group.
    pub(crate) slots: Box<[Slot]>,
    /// The hash of the group's labels.
    pub(crate) content: u64,
}

impl Placement {
    /// The hash of a target's labels as they are found here.
    pub(crate) fn content_of(&self, target: &Labels) -> u64 {
        content(self.content, target)
    }
}

/// The hash of a target's labels in a group whose labels have that hash.
pub(crate) fn content(group: u64, target: &Labels) -> u64 {
    mix(group ^ target.hash64().rotate_left(17))
}

/// A group as discovery gave it last.
#[derive(Debug)]
pub(crate) struct KnownGroup {
    pub(crate) group: Arc<Group>,
    /// Where it is placed: job and placement.
    pub(crate) placed: Vec<(u32, u32)>,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    placements: Vec<Option<Placement>>,
    free: Vec<u32>,
    pub(crate) providers: HashMap<usize, HashMap<Arc<str>, KnownGroup>>,
}

impl Groups {
    pub(crate) fn get(&self, placement: u32) -> Option<&Placement> {
        self.placements.get(placement as usize)?.as_ref()
    }

    /// The number that the next placement gets.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.placements.push(None);
            u32::try_from(self.placements.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(crate) fn put(&mut self, number: u32, placement: Placement) {
        if let Some(place) = self.placements.get_mut(number as usize) {
            *place = Some(placement);
        }
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<Placement> {
        self.placements.get_mut(number as usize)?.take()
    }

    pub(crate) fn release(&mut self, number: u32) {
        self.free.push(number);
    }

    /// All placements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Placement> {
        self.placements.iter().flatten()
    }
}

/// No place in the group before.
pub(crate) const NEW: u32 = u32::MAX;

/// For each target of a group its place in the group that was there before, if it is there unchanged.
pub(crate) fn unchanged(old: &Group, new: &Group) -> Vec<u32> {
    if old.labels != new.labels {
        return vec![NEW; new.targets.len()];
    }
    let same = |index: usize, target: &Labels| old.targets.get(index) == Some(target);
    let mut places: Vec<u32> = (0..)
        .zip(&new.targets)
        .map(|(index, target)| if same(index as usize, target) { index } else { NEW })
        .collect();
    if places.iter().all(|place| *place != NEW) {
        return places;
    }
    // What was added or taken out in the middle has moved the rest.
    let mut others: HashMap<&Labels, u32> = HashMap::new();
    for (index, target) in (0..).zip(&old.targets) {
        if places.get(index as usize).is_none_or(|place| *place == NEW) {
            others.entry(target).or_insert(index);
        }
    }
    for (place, target) in places.iter_mut().zip(&new.targets) {
        if *place == NEW
            && let Some(index) = others.remove(target)
        {
            *place = index;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(addresses: &[&str]) -> Group {
        Group {
            labels: Labels::default(),
            targets: addresses
                .iter()
                .map(|a| Labels::of([("__address__", *a)]))
                .collect(),
        }
    }

    #[test]
    fn what_moved_within_a_group_is_found_again() {
        let old = group(&["a", "b", "c", "c"]);
        assert_eq!(unchanged(&old, &old), [0, 1, 2, 3]);
        assert_eq!(unchanged(&old, &group(&["x", "a", "b"])), [NEW, 0, 1]);
        assert_eq!(unchanged(&old, &group(&["a", "c", "c"])), [0, 3, 2]);
        let mut other = group(&["a"]);
        other.labels = Labels::of([("a", "b")]);
        assert_eq!(unchanged(&old, &other), [NEW]);
    }
}
