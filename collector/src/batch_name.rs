//! The name of a batch on its way between two Karez collectors, by which the second knows it when it comes twice.
//!
//! An exporter that does not know whether its data arrived sends it again. The header says that it is the same: the
//! other side answers as if it had just taken it. Ids are remembered in memory, a bounded number of them, the oldest
//! forgotten first; after a restart of the receiving side, or between programs that do not know the header, delivery is
//! at least once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::component::BatchName;

/// The header; its value is 32 hexadecimal digits.
const HEADER: HeaderName = HeaderName::from_static("karez-batch-id");
/// How many names a receiver remembers.
const REMEMBERED: usize = 1 << 16;

/// The header that names a batch.
pub(crate) fn header(name: &BatchName) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(hex::encode(name)).ok()?;
    Some((HEADER, value))
}

/// The name that a request's headers give its batch.
pub(crate) fn of(headers: &HeaderMap) -> Option<BatchName> {
    let mut name = BatchName::default();
    hex::decode_to_slice(headers.get(HEADER)?.as_bytes(), &mut name).ok()?;
    Some(name)
}

/// The names that a receiver has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: HashSet<BatchName>,
    order: VecDeque<BatchName>,
    under_way: HashSet<BatchName>,
}

/// What is known of a batch.
#[derive(Debug)]
pub(crate) enum Known {
    /// Nothing: it is to be taken, and the guard told when it was.
    New(UnderWay),
    /// It is being taken right now.
    UnderWay,
    /// It was taken.
    Taken,
}

/// A batch that is being taken. Dropped, it was not.
#[derive(Debug)]
pub(crate) struct UnderWay {
    seen: Arc<Seen>,
    name: BatchName,
    taken: bool,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a batch up, and notes that it is under way if it is new.
    pub(crate) fn look(self: &Arc<Self>, name: BatchName) -> Known {
        let mut state = self.lock();
        if state.taken.contains(&name) {
            return Known::Taken;
        }
        match state.under_way.insert(name) {
            false => Known::UnderWay,
            true => Known::New(UnderWay {
                seen: self.clone(),
                name,
                taken: false,
            }),
        }
    }
}

impl UnderWay {
    /// It was taken.
    pub(crate) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.seen.lock();
        state.under_way.remove(&self.name);
        if !self.taken {
            return;
        }
        if state.order.len() >= REMEMBERED
            && let Some(oldest) = state.order.pop_front()
        {
            state.taken.remove(&oldest);
        }
        state.order.push_back(self.name);
        state.taken.insert(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> BatchName {
        let mut name = BatchName::default();
        name[..8].copy_from_slice(&number.to_be_bytes());
        name
    }

    #[test]
    fn a_name_travels_in_a_header() {
        let (header, value) = super::header(&name(7)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header, value);
        assert_eq!(of(&headers), Some(name(7)));
        headers.insert("karez-batch-id", HeaderValue::from_static("07"));
        assert_eq!(of(&headers), None);
    }

    #[test]
    fn what_was_taken_is_known_what_failed_is_not_and_memory_is_bounded() {
        let seen = Arc::new(Seen::default());
        let Known::New(first) = seen.look(name(0)) else {
            panic!("new")
        };
        assert!(matches!(seen.look(name(0)), Known::UnderWay));
        drop(first);
        let Known::New(again) = seen.look(name(0)) else {
            panic!("it was not taken")
        };
        again.taken();
        assert!(matches!(seen.look(name(0)), Known::Taken));
        for number in 1..=REMEMBERED as u64 {
            let Known::New(next) = seen.look(name(number)) else {
                panic!("new")
            };
            next.taken();
        }
        assert!(
            matches!(seen.look(name(0)), Known::New(_)),
            "the oldest is forgotten"
        );
        let state = seen.lock();
        assert!(state.taken.len() <= REMEMBERED && state.order.len() <= REMEMBERED);
    }
}
