//! The series of a target that are remembered, in the order in which they were exposed: the next scrape mostly has the same
//! order, so that each is found where the last one ended. Only a scrape that has another order, or new series, makes an
//! index, for itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Part;

/// A series that was seen.
#[derive(Debug)]
pub(super) struct Known {
    /// A hash of its text.
    pub(super) key: u64,
    /// How long that is.
    pub(super) length: u32,
    /// The scrape in which it was seen last.
    pub(super) seen: u32,
    /// The scrape in which it was seen first.
    pub(super) born: u32,
    /// What was known of types when it was resolved.
    pub(super) epoch: u32,
    pub(super) metric: u32,
    /// Where it stood in the scrape in which it was seen last.
    pub(super) order: u32,
    /// Its end is told: not so for series with timestamps of their own.
    pub(super) tracked: bool,
    pub(super) part: Part,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: Vec<Known>,
    /// Where the next one is, if the order is the same.
    next: usize,
    index: Option<HashMap<u64, u32, Hashed>>,
    /// Encoded attributes, many of which belong to several series.
    attributes: HashSet<Arc<[u8]>>,
}

impl Memory {
    /// A new scrape.
    pub(super) fn start(&mut self) {
        self.next = 0;
    }

    /// The series that comes next, if the order is the same.
    #[inline]
    pub(super) fn expected(&self) -> Option<&Known> {
        self.known.get(self.next)
    }

    /// Where a series is.
    pub(super) fn find(&mut self, key: u64) -> Option<usize> {
        if self.known.get(self.next).is_some_and(|known| known.key == key) {
            self.next += 1;
            return Some(self.next - 1);
        }
        let known = &self.known;
        let index = self.index.get_or_insert_with(|| {
            let places = known.iter().zip(0..).map(|(known, place)| (known.key, place));
            places.collect()
        });
        let found = *index.get(&key)? as usize;
        self.next = found + 1;
        Some(found)
    }

    /// Remembers one that was not found; gives where it is.
    pub(super) fn add(&mut self, known: Known) -> usize {
        let place = self.known.len();
        if let Some(index) = &mut self.index {
            index.insert(known.key, place as u32);
        }
        self.known.push(known);
        place
    }

    pub(super) fn at(&self, place: usize) -> Option<&Known> {
        self.known.get(place)
    }

    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut Known> {
        self.known.get_mut(place)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        self.known.iter_mut()
    }

    /// Forgets some.
    pub(super) fn retain(&mut self, stays: impl FnMut(&Known) -> bool) {
        let before = self.known.len();
        self.known.retain(stays);
        if self.known.len() == before {
            return;
        }
        self.index = None;
        self.attributes.retain(|text| Arc::strong_count(text) > 1);
    }

    /// The end of a scrape: puts all in its order, if it had another.
    pub(super) fn order(&mut self) {
        if self.index.take().is_some() {
            self.known.sort_by_key(|known| known.order);
            self.known.shrink_to_fit();
        }
    }

    /// Attributes, the same as others' if they are equal.
    pub(super) fn share(&mut self, attributes: Vec<u8>) -> Arc<[u8]> {
        if let Some(known) = self.attributes.get(attributes.as_slice()) {
            return known.clone();
        }
        let attributes: Arc<[u8]> = attributes.into();
        self.attributes.insert(attributes.clone());
        attributes
    }
}

/// Keys that are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Hashed;

impl std::hash::BuildHasher for Hashed {
    type Hasher = Pass;

    fn build_hasher(&self) -> Pass {
        Pass(0)
    }
}

pub(super) struct Pass(u64);

impl std::hash::Hasher for Pass {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
