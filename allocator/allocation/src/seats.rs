//! The collectors, each with a number, and what each has.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::lists::List;

/// A collector as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Its id, which it asks with.
    pub name: String,
    /// The node it runs on; empty if it is on none.
    pub node: String,
    /// Whether it gets targets.
    pub standing: Standing,
}

/// Whether a collector gets targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Serving,
    /// It is about to end: it gets no more, and keeps each target until another has it.
    Leaving,
}

/// The number of a collector.
pub(crate) type Seat = u16;

/// No collector.
pub(crate) const NOBODY: Seat = u16::MAX;

/// More collectors than this are not taken.
const MAX_SEATS: usize = NOBODY as usize - 1;

/// A collector that is known.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Arc<str>,
    pub(crate) node: String,
    pub(crate) standing: Standing,
    /// It is no longer there at all.
    pub(crate) gone: bool,
    /// For rendezvous hashing.
    pub(crate) hash: u64,
    /// Targets it owns.
    pub(crate) targets: u64,
    /// Their weight.
    pub(crate) load: u64,
    /// What it has of each job, by the job's number.
    pub(crate) lists: Vec<Option<Box<List>>>,
}

impl Member {
    pub(crate) fn list(&self, job: u32) -> Option<&List> {
        self.lists.get(job as usize)?.as_deref()
    }

    pub(crate) fn list_mut(&mut self, job: u32) -> &mut List {
        let place = job as usize;
        if self.lists.len() <= place {
            self.lists.resize_with(place + 1, || None);
        }
        self.lists[place].get_or_insert_default()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    seats: Vec<Option<Member>>,
    by_name: HashMap<Arc<str>, Seat>,
    /// Those that get targets, by name.
    pub(crate) serving: Vec<Seat>,
}

/// What a new set of collectors means.
#[derive(Debug, Default)]
pub(crate) struct Seated {
    /// Those that are gone; their seats are taken away by [`Seats::clear`].
    pub(crate) gone: Vec<Seat>,
    /// Whether who gets targets, or where, is other than before.
    pub(crate) changed: bool,
}

impl Seats {
    pub(crate) fn get(&self, seat: Seat) -> Option<&Member> {
        self.seats.get(usize::from(seat))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, seat: Seat) -> Option<&mut Member> {
        self.seats.get_mut(usize::from(seat))?.as_mut()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Seat> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn is_serving(&self, seat: Seat) -> bool {
        self.get(seat)
            .is_some_and(|member| member.standing == Standing::Serving)
    }

    /// All, by name.
    pub(crate) fn named(&self) -> Vec<(Seat, &Member)> {
        let numbered = self.seats.iter().zip(0..);
        let mut all: Vec<_> = numbered
            .filter_map(|(member, seat)| member.as_ref().map(|member| (seat, member)))
            .collect();
        all.sort_unstable_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        all
    }

    /// These are the collectors now. Of two with one name the first counts.
    pub(crate) fn set(&mut self, collectors: &[Collector]) -> Seated {
        let before = self.facts();
        let mut known = HashMap::new();
        for collector in collectors.iter().take(MAX_SEATS) {
            known.entry(collector.name.as_str()).or_insert(collector);
        }
        let gone = self
            .by_name
            .iter()
            .filter(|(name, _)| !known.contains_key(&***name));
        let gone: Vec<Seat> = gone.map(|(_, seat)| *seat).collect();
        for seat in &gone {
            if let Some(member) = self.get_mut(*seat) {
                member.standing = Standing::Leaving;
                member.gone = true;
            }
        }
        let mut new: Vec<&Collector> = Vec::new();
        for collector in known.into_values() {
            match self.by_name.get(collector.name.as_str()).copied() {
                Some(seat) => {
                    if let Some(member) = self.get_mut(seat) {
                        member.standing = collector.standing;
                        member.node.clone_from(&collector.node);
                    }
                }
                None => new.push(collector),
            }
        }
        new.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        new.into_iter().for_each(|collector| self.seat(collector));
        self.serving = self.named().into_iter().filter_map(serving).collect();
        Seated {
            changed: self.facts() != before,
            gone,
        }
    }

    fn seat(&mut self, collector: &Collector) {
        let name: Arc<str> = collector.name.as_str().into();
        let member = Member {
            hash: xxh64(name.as_bytes(), 0),
            name: name.clone(),
            node: collector.node.clone(),
            standing: collector.standing,
            gone: false,
            targets: 0,
            load: 0,
            lists: Vec::new(),
        };
        let free = self.seats.iter().position(Option::is_none);
        let seat = free.unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        // Fewer than MAX_SEATS are seated beside those that go, which `set` bounds by twice as many at most.
        let Ok(number) = Seat::try_from(seat) else {
            self.seats.pop();
            return;
        };
        self.seats[seat] = Some(member);
        self.by_name.insert(name, number);
    }

    /// Who gets targets and where it is.
    fn facts(&self) -> Vec<(Seat, Arc<str>, String)> {
        let fact = |seat: &Seat| {
            let member = self.get(*seat)?;
            Some((*seat, member.name.clone(), member.node.clone()))
        };
        self.serving.iter().filter_map(fact).collect()
    }

    /// Takes a seat away from a collector that is gone and has nothing left.
    pub(crate) fn clear(&mut self, seat: Seat) {
        if let Some(member) = self.seats.get_mut(usize::from(seat)).and_then(Option::take) {
            self.by_name.remove(&member.name);
        }
    }
}

fn serving((seat, member): (Seat, &Member)) -> Option<Seat> {
    (member.standing == Standing::Serving).then_some(seat)
}
