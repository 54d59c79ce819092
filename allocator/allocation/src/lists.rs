//! What one collector has of one job.

use std::collections::{HashMap, HashSet};

/// The number of a target.
pub(crate) type Slot = u32;

/// The targets of a job that a collector has.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// Those it owns, in no order.
    pub(crate) owned: Vec<Slot>,
    /// Those that another owns who does not have them yet.
    pub(crate) staying: HashSet<Slot>,
    /// Those it owns and another still has, with the revision that gave them.
    pub(crate) pending: HashMap<Slot, u64>,
    /// A sum over what it has, whatever the order: the same for the same targets.
    pub(crate) sum: u64,
    /// The revision that changed it last.
    pub(crate) changed: u64,
}

impl List {
    /// Everything that it scrapes.
    pub(crate) fn held(&self) -> impl Iterator<Item = Slot> {
        self.owned.iter().chain(&self.staying).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.owned.len() + self.staying.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
