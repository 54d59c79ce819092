//! The targets: one small entry each, found by identity. Their labels stay in the groups they were found in.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::lists::Slot;
use crate::seats::{NOBODY, Seat};

/// A weight that somebody measured, not one that is assumed.
const MEASURED: u32 = 1 << 31;

/// A target.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) identity: u64,
    /// Where its labels are.
    pub(crate) origin: Origin,
    pub(crate) job: u32,
    /// In how many places it is found.
    pub(crate) found: u32,
    /// Its place in its owner's list.
    pub(crate) place: u32,
    /// The number of its node; 0 for none.
    pub(crate) node: u32,
    weight: u32,
    pub(crate) owner: Seat,
    /// The hash of its address, modulo the partitions of consistent hashing.
    pub(crate) partition: u16,
}

/// A place where a target is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The hash of its labels there.
    pub(crate) content: u64,
    /// The group, placed for a job.
    pub(crate) placement: u32,
    /// Its place in that group.
    pub(crate) index: u32,
}

impl Entry {
    pub(crate) fn weight(&self) -> u64 {
        u64::from(self.weight & !MEASURED)
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.weight & MEASURED != 0
    }

    pub(crate) fn weigh(&mut self, weight: u32) {
        self.weight = weight.clamp(1, MEASURED - 1) | MEASURED;
    }

    /// What it adds to the sum of a list that it is in.
    pub(crate) fn mark(&self) -> u64 {
        mix(self.identity ^ self.origin.content.rotate_left(32))
    }
}

/// Spreads every bit over all.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What is known of a target when it is found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) identity: u64,
    pub(crate) job: u32,
    pub(crate) node: u32,
    pub(crate) partition: u16,
    pub(crate) weight: u32,
}

/// Identities are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Strangers choose labels, and a hash of them is no secret: a table must not be filled by aim.
        self.0 = mix(value);
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = mix(u64::from(value));
    }
}

type ByIdentity = HashMap<u64, Slot, BuildHasherDefault<Identity>>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    slots: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_identity: ByIdentity,
    /// Where else targets are found that are found more than once.
    twins: HashMap<Slot, Vec<Origin>>,
}

/// What finding a target once more, or once less, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new, or gone.
    Presence,
    /// It is there as before, with other labels; the entry's mark before.
    Content(u64),
    /// Nothing.
    Nothing,
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.by_identity.len()
    }

    pub(crate) fn find(&self, identity: u64) -> Option<Slot> {
        self.by_identity.get(&identity).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// All that there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        let numbered = self.slots.iter().zip(0..);
        numbered.filter_map(|(entry, slot)| entry.as_ref().map(|entry| (slot, entry)))
    }

    /// A target is found.
    pub(crate) fn add(&mut self, facts: Facts, origin: Origin) -> (Slot, Change) {
        if let Some(slot) = self.find(facts.identity) {
            return (slot, self.add_twin(slot, origin));
        }
        let entry = Entry {
            identity: facts.identity,
            origin,
            job: facts.job,
            found: 1,
            place: 0,
            node: facts.node,
            weight: facts.weight.clamp(1, MEASURED - 1),
            owner: NOBODY,
            partition: facts.partition,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                Slot::try_from(self.slots.len() - 1).unwrap_or(Slot::MAX)
            }
        };
        self.by_identity.insert(facts.identity, slot);
        (slot, Change::Presence)
    }

    /// A target that is known is found at one more place; of several the one with the smallest origin is shown, so
    /// that every allocator shows the same.
    pub(crate) fn add_twin(&mut self, slot: Slot, origin: Origin) -> Change {
        let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Change::Nothing;
        };
        let mark = entry.mark();
        entry.found += 1;
        let other = match origin < entry.origin {
            true => std::mem::replace(&mut entry.origin, origin),
            false => origin,
        };
        let changed = entry.mark() != mark;
        self.twins.entry(slot).or_default().push(other);
        if changed {
            Change::Content(mark)
        } else {
            Change::Nothing
        }
    }

    /// A target is found at another place of its group, with the same labels.
    pub(crate) fn relocate(&mut self, slot: Slot, from: Origin, to: Origin) {
        let Some(entry) = self.get_mut(slot) else {
            return;
        };
        if entry.origin == from {
            entry.origin = to;
        } else if let Some(twin) = self
            .twins
            .get_mut(&slot)
            .into_iter()
            .flatten()
            .find(|twin| **twin == from)
        {
            *twin = to;
        }
    }

    /// A target is no longer found at a place. The entry of one that is gone stays until [`Entries::free`].
    pub(crate) fn release(&mut self, slot: Slot, origin: Origin) -> Change {
        let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Change::Nothing;
        };
        let mark = entry.mark();
        entry.found = entry.found.saturating_sub(1);
        if entry.found == 0 {
            return Change::Presence;
        }
        let Some(twins) = self.twins.get_mut(&slot) else {
            return Change::Nothing;
        };
        if entry.origin == origin {
            let least = twins.iter().enumerate().min_by_key(|(_, origin)| **origin);
            if let Some(place) = least.map(|(place, _)| place) {
                entry.origin = twins.swap_remove(place);
            }
        } else if let Some(place) = twins.iter().position(|other| *other == origin) {
            twins.swap_remove(place);
        }
        if twins.is_empty() {
            self.twins.remove(&slot);
        }
        if entry.mark() == mark {
            Change::Nothing
        } else {
            Change::Content(mark)
        }
    }

    /// Forgets a target.
    pub(crate) fn free(&mut self, slot: Slot) {
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.by_identity.remove(&entry.identity);
            self.twins.remove(&slot);
            self.free.push(slot);
        }
    }

    /// Gives back memory that many vanished targets have left.
    pub(crate) fn shrink(&mut self) {
        if self.by_identity.capacity() > 4 * self.by_identity.len() + 1024 {
            self.by_identity.shrink_to_fit();
        }
    }
}
