//! Several allocators, one assignment: the one that leads tells the others who has what, and they do as it did. So
//! each of them can take the lead without moving a target, whatever the strategy remembers.
//!
//! ```text
//! leader: Allocation ─ every change of a place ─▶ journal ─▶ Copy (whole, or what changed since) ─ bytes ─▶
//! follower: Copy ─▶ guide: identity ─▶ owner, holder, weight ─▶ the same places in its own Allocation
//! ```
//!
//! Targets are named by their identity, which all allocators compute alike. What a follower has found before its leader
//! did it places by itself until it is told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::allocation::{Allocation, Outcome};
use crate::entries::Identity;
use crate::lists::Slot;
use crate::seats::{NOBODY, Seat};

/// Changes that are remembered; who asks for older ones gets the whole.
const REMEMBERED: usize = 1 << 16;
/// More targets than this are not taken from another.
const MAX_PLACES: usize = 1 << 24;
/// How a copy begins, with the version of its form.
const MAGIC: &[u8; 4] = b"KZA1";
/// Bytes of a place.
const PLACE: usize = 16;

/// Who has a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The target's identity.
    pub identity: u64,
    /// Samples that a scrape of it gives; 0 where nobody measured.
    pub weight: u32,
    /// Its owner, by the number in [`Copy::collectors`]; [`u16::MAX`] for none.
    pub owner: u16,
    /// Who still has it beside its owner; [`u16::MAX`] for nobody.
    pub holder: u16,
}

/// What one allocator tells another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What to ask for next time.
    pub next: u64,
    /// Whether this is everything, rather than what changed.
    pub whole: bool,
    /// Names of collectors.
    pub collectors: Vec<String>,
    /// Targets. One without an owner is gone, or nobody takes it.
    pub places: Vec<Place>,
}

/// Why bytes are no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no copy of an assignment: {0}")]
pub struct CopyError(&'static str);

impl Copy {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.collectors.len() * 32 + self.places.len() * PLACE);
        out.extend_from_slice(MAGIC);
        out.push(u8::from(self.whole));
        out.extend_from_slice(&self.next.to_le_bytes());
        let names = self.collectors.iter().take(usize::from(NOBODY));
        out.extend_from_slice(&u16::try_from(names.len()).unwrap_or(NOBODY).to_le_bytes());
        for name in names {
            let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
            out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(name);
        }
        for place in &self.places {
            out.extend_from_slice(&place.identity.to_le_bytes());
            out.extend_from_slice(&place.weight.to_le_bytes());
            out.extend_from_slice(&place.owner.to_le_bytes());
            out.extend_from_slice(&place.holder.to_le_bytes());
        }
        out
    }

    /// Of bytes that another sent.
    ///
    /// # Errors
    /// When they are none of a copy.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, CopyError> {
        let short = CopyError("it ends too early");
        if take(&mut bytes)? != *MAGIC {
            return Err(CopyError("it begins otherwise"));
        }
        let [whole] = take(&mut bytes)?;
        let next = u64::from_le_bytes(take(&mut bytes)?);
        let count = u16::from_le_bytes(take(&mut bytes)?);
        let mut collectors = Vec::new();
        for _ in 0..count {
            let length = usize::from(u16::from_le_bytes(take(&mut bytes)?));
            let (name, rest) = bytes.split_at_checked(length).ok_or(short)?;
            let name = std::str::from_utf8(name).map_err(|_| CopyError("a name is no text"))?;
            collectors.push(name.to_owned());
            bytes = rest;
        }
        let (places, rest) = bytes.as_chunks::<PLACE>();
        if !rest.is_empty() {
            return Err(short);
        }
        if places.len() > MAX_PLACES {
            return Err(CopyError("it holds too many targets"));
        }
        let place = |mut bytes: &[u8]| {
            Ok(Place {
                identity: u64::from_le_bytes(take(&mut bytes)?),
                weight: u32::from_le_bytes(take(&mut bytes)?),
                owner: u16::from_le_bytes(take(&mut bytes)?),
                holder: u16::from_le_bytes(take(&mut bytes)?),
            })
        };
        Ok(Copy {
            next,
            whole: whole == 1,
            collectors,
            places: places
                .iter()
                .map(|bytes| place(bytes))
                .collect::<Result<_, CopyError>>()?,
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CopyError> {
    let (first, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(CopyError("it ends too early"))?;
    *bytes = rest;
    Ok(*first)
}

/// Targets whose place changed, in order, each with a number.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The number of the first that is remembered.
    first: u64,
    changed: VecDeque<u64>,
    /// The number that others were told last to ask from: what was noted before it they have.
    told: AtomicU64,
}

impl Journal {
    fn new(first: u64) -> Self {
        Self {
            first,
            changed: VecDeque::new(),
            told: AtomicU64::new(first),
        }
    }

    /// One that changes several times in a row is noted once, unless others were told between.
    fn note(&mut self, identity: u64) {
        let is_last = self.changed.back() == Some(&identity);
        if is_last && self.told.load(Ordering::Relaxed) < self.next() {
            return;
        }
        if self.changed.len() >= REMEMBERED {
            self.changed.pop_front();
            self.first += 1;
        }
        self.changed.push_back(identity);
    }

    fn next(&self) -> u64 {
        self.first + self.changed.len() as u64
    }

    /// The number to ask from next time.
    fn tell(&self) -> u64 {
        let next = self.next();
        self.told.store(next, Ordering::Relaxed);
        next
    }

    /// What changed from a number on; `None` when that is no longer known.
    fn since(&self, number: u64) -> Option<HashSet<u64>> {
        let skip = number.checked_sub(self.first)?;
        if number > self.next() {
            return None;
        }
        Some(
            self.changed
                .iter()
                .skip(usize::try_from(skip).ok()?)
                .copied()
                .collect(),
        )
    }
}

/// What a leader says of each target.
#[derive(Debug, Default)]
pub(crate) struct Guide {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u16>,
    places: HashMap<u64, Place, BuildHasherDefault<Identity>>,
}

impl Guide {
    /// The number of a name here, where the leader's numbers mean nothing.
    fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let Ok(number) = u16::try_from(self.names.len()) else {
            return NOBODY;
        };
        if number == NOBODY {
            return NOBODY;
        }
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }
}

impl Allocation {
    /// Remembers from now on what changes, for [`Allocation::copy`]; `first` numbers the first change, and is larger than
    /// any number that another journal had.
    pub fn keep_journal(&mut self, first: u64) {
        self.journal = Some(Journal::new(first));
    }

    /// A target's place changed.
    pub(crate) fn note_place(&mut self, slot: Slot) {
        if let (Some(journal), Some(entry)) = (&mut self.journal, self.entries.get(slot)) {
            journal.note(entry.identity);
        }
    }

    /// The number of the next change; `None` where no journal is kept.
    pub fn next_change(&self) -> Option<u64> {
        self.journal.as_ref().map(Journal::next)
    }

    /// What changed since a number, or the whole when that is too long ago; `None` where no journal is kept.
    pub fn copy(&self, since: Option<u64>) -> Option<Copy> {
        let journal = self.journal.as_ref()?;
        let members = self.seats.named();
        let mut numbers: HashMap<Seat, u16> = HashMap::new();
        let mut collectors = Vec::with_capacity(members.len());
        for ((seat, member), number) in members.into_iter().zip(0..NOBODY) {
            numbers.insert(seat, number);
            collectors.push(member.name.to_string());
        }
        let number = |seat: &Seat| numbers.get(seat).copied().unwrap_or(NOBODY);
        let place = |slot: Slot, entry: &crate::entries::Entry| Place {
            identity: entry.identity,
            weight: match entry.is_measured() {
                true => u32::try_from(entry.weight()).unwrap_or(u32::MAX),
                false => 0,
            },
            owner: number(&entry.owner),
            holder: self.staying.get(&slot).map_or(NOBODY, number),
        };
        let gone = |identity| Place {
            identity,
            weight: 0,
            owner: NOBODY,
            holder: NOBODY,
        };
        let changed = since.and_then(|since| journal.since(since));
        let places = match &changed {
            None => self
                .entries
                .iter()
                .map(|(slot, entry)| place(slot, entry))
                .collect(),
            Some(changed) => {
                let known = changed.iter().map(|identity| {
                    let slot = self.entries.find(*identity);
                    let entry = slot.and_then(|slot| Some((slot, self.entries.get(slot)?)));
                    entry.map_or_else(|| gone(*identity), |(slot, entry)| place(slot, entry))
                });
                known.collect()
            }
        };
        Some(Copy {
            next: journal.tell(),
            whole: changed.is_none(),
            collectors,
            places,
        })
    }

    /// Does as the leader did.
    pub fn follow(&mut self, copy: &Copy) -> Outcome {
        self.revision += 1;
        let mut guide = self.guide.take().unwrap_or_default();
        if copy.whole {
            guide.places.clear();
        }
        let numbers: Vec<u16> = copy.collectors.iter().map(|name| guide.number(name)).collect();
        let own = |number: u16| numbers.get(usize::from(number)).copied().unwrap_or(NOBODY);
        for place in &copy.places {
            let place = Place {
                owner: own(place.owner),
                holder: own(place.holder),
                ..*place
            };
            if place.owner == NOBODY {
                guide.places.remove(&place.identity);
            } else if guide.places.len() < MAX_PLACES {
                guide.places.insert(place.identity, place);
            }
        }
        self.guide = Some(guide);
        let mut outcome = Outcome::default();
        for place in &copy.places {
            let Some(slot) = self.entries.find(place.identity) else {
                continue;
            };
            // Whom nobody takes there nobody takes here.
            outcome.moved += usize::from(match place.owner {
                NOBODY => self.give(slot, NOBODY),
                _ => self.obey(slot) == Some(true),
            });
        }
        outcome
    }

    /// Decides by itself from now on, beginning with what there is.
    pub fn lead(&mut self) {
        self.guide = None;
    }

    /// Whether it does as another does.
    pub fn is_following(&self) -> bool {
        self.guide.is_some()
    }

    /// Whom the leader gave a target to, if that collector is known here.
    pub(crate) fn guided(&self, identity: u64) -> Option<Seat> {
        let guide = self.guide.as_ref()?;
        self.seat_of(guide, guide.places.get(&identity)?.owner)
    }

    fn seat_of(&self, guide: &Guide, number: u16) -> Option<Seat> {
        let seat = self.seats.find(guide.names.get(usize::from(number))?)?;
        self.seats.get(seat).filter(|member| !member.gone)?;
        Some(seat)
    }

    /// Puts a target where the leader has it; whether it has another owner then. `None` if the leader says nothing of it,
    /// or names a collector that is not known here.
    pub(crate) fn obey(&mut self, slot: Slot) -> Option<bool> {
        let entry = self.entries.get(slot)?;
        let (identity, job, before) = (entry.identity, entry.job, entry.owner);
        let guide = self.guide.as_ref()?;
        let place = *guide.places.get(&identity)?;
        let owner = self.seat_of(guide, place.owner)?;
        let holder = self
            .seat_of(guide, place.holder)
            .filter(|holder| *holder != owner);
        if place.weight > 0 {
            self.weigh([(identity, place.weight)]);
        }
        if before == owner && self.staying.get(&slot).copied() == holder {
            return Some(false);
        }
        self.vacate(slot);
        self.unassigned.remove(&slot);
        self.take(slot, owner);
        if let Some(holder) = holder {
            self.stay(slot, job, holder, owner);
        }
        Some(before != owner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn copies_are_read_as_they_were_written() {
        let copy = Copy {
            next: 7,
            whole: true,
            collectors: vec!["a".into(), "ü".into()],
            places: vec![Place {
                identity: 1 << 60,
                weight: 3,
                owner: 1,
                holder: NOBODY,
            }],
        };
        let bytes = copy.to_bytes();
        assert_eq!(Copy::from_bytes(&bytes), Ok(copy));
        for end in 0..bytes.len() {
            let cut = Copy::from_bytes(&bytes[..end]);
            // Without its last place it is a copy without it.
            assert_eq!(cut.is_ok(), end == bytes.len() - PLACE, "{end}");
        }
    }

    #[test]
    fn a_journal_forgets_the_oldest() {
        let mut journal = Journal::new(100);
        for identity in 0..=REMEMBERED as u64 {
            journal.note(identity);
        }
        assert_eq!(journal.since(100), None);
        assert_eq!(journal.since(101).map(|changed| changed.len()), Some(REMEMBERED));
        assert_eq!(journal.since(journal.next()), Some(HashSet::new()));
        assert_eq!(journal.since(journal.next() + 1), None);
    }

    #[test]
    fn what_changes_again_after_it_was_told_is_noted_again() {
        let mut journal = Journal::new(1);
        journal.note(7);
        journal.note(7);
        let told = journal.tell();
        assert_eq!(told, 2);
        assert_eq!(journal.since(told), Some(HashSet::new()));
        journal.note(7);
        assert_eq!(journal.since(told), Some(HashSet::from([7])));
        journal.note(7);
        assert_eq!(journal.next(), 3);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Copy::from_bytes(&bytes);
            let mut framed = MAGIC.to_vec();
            framed.extend(bytes);
            let _ = Copy::from_bytes(&framed);
        }
    }
}
