//! What is delivered next. Pure: time is an argument.
//!
//! The *fresh* lane holds what came lately, still in memory; the *backlog* holds what is only on disk: what was there at
//! the start, and what had to make room in memory while nothing could be delivered. Each is in the order in which it was
//! accepted. Fresh data goes first; beside it the backlog has a share of the workers, and, if one is set, a rate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use karez_collector_config::Signal;

/// What is kept in memory of an item that waits.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    /// The segment that holds it, by its first sequence number.
    pub(crate) segment: u64,
    /// Where its frame begins.
    pub(crate) offset: u64,
    /// The length of its frame.
    pub(crate) length: u32,
    pub(crate) items: u32,
    pub(crate) signal: Signal,
    pub(crate) account: Arc<str>,
    /// In the fresh lane only.
    pub(crate) payload: Option<Bytes>,
}

/// Where an entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Fresh,
    Backlog,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    Deliver(Entry, Lane),
    /// There is a backlog, and its rate allows more after so long.
    Wait(Duration),
    /// There is nothing that this worker may take.
    Nothing,
}

/// Both lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    fresh: VecDeque<Entry>,
    backlog: VecDeque<Entry>,
    fresh_bytes: usize,
    /// How much of what is fresh stays in memory.
    keep: usize,
    workers: usize,
    backlog_under_way: usize,
    turn: u32,
    bucket: Option<Bucket>,
}

/// How many bytes of backlog may go.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    /// Below zero after a batch that was larger than what there was.
    tokens: f64,
    filled: Instant,
}

impl Lanes {
    /// Empty lanes. `rate` bounds the backlog in bytes a second; 0 is no bound.
    pub(crate) fn new(workers: usize, keep: usize, rate: u64, now: Instant) -> Self {
        Lanes {
            fresh: VecDeque::new(),
            backlog: VecDeque::new(),
            fresh_bytes: 0,
            keep,
            workers: workers.max(1),
            backlog_under_way: 0,
            turn: 0,
            bucket: (rate > 0).then_some(Bucket {
                rate: rate as f64,
                tokens: rate as f64,
                filled: now,
            }),
        }
    }

    /// Adds what was just accepted.
    pub(crate) fn push(&mut self, entry: Entry) {
        match &entry.payload {
            Some(payload) => {
                self.fresh_bytes += payload.len();
                self.fresh.push_back(entry);
            }
            None => self.backlog.push_back(entry),
        }
        while self.fresh_bytes > self.keep {
            let Some(mut oldest) = self.fresh.pop_front() else {
                break;
            };
            self.fresh_bytes -= oldest.payload.take().map_or(0, |payload| payload.len());
            self.backlog.push_back(oldest);
        }
    }

    /// What a worker is to do.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        let turn = self.turn;
        self.turn = self.turn.wrapping_add(1);
        let most = match (self.fresh.is_empty(), self.workers) {
            // With one worker the lanes take turns.
            (false, 1) => usize::from(turn % 4 == 3),
            (false, workers) => (workers / 4).max(1),
            // One worker stays free, so that what comes fresh need not wait for the backlog.
            (true, workers) => (workers - 1).max(1),
        };
        let mut wait = None;
        if self.backlog_under_way < most && !self.backlog.is_empty() {
            match self
                .bucket
                .as_mut()
                .map_or(Duration::ZERO, |bucket| bucket.wait(now))
            {
                Duration::ZERO => return self.take_backlog(),
                longer => wait = Some(longer),
            }
        }
        match (self.fresh.pop_front(), wait) {
            (Some(entry), _) => {
                self.fresh_bytes -= entry.payload.as_ref().map_or(0, Bytes::len);
                Next::Deliver(entry, Lane::Fresh)
            }
            (None, Some(wait)) => Next::Wait(wait),
            (None, None) => Next::Nothing,
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.backlog.is_empty()
    }

    fn take_backlog(&mut self) -> Next {
        let Some(entry) = self.backlog.pop_front() else {
            return Next::Nothing;
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens -= f64::from(entry.length);
        }
        self.backlog_under_way += 1;
        Next::Deliver(entry, Lane::Backlog)
    }

    /// The next of a signal from the same lane, while it is at the front: to be sent together with one already taken.
    pub(crate) fn next_alike(&mut self, lane: Lane, fits: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let queue = match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Backlog => &mut self.backlog,
        };
        if !queue.front().is_some_and(fits) {
            return None;
        }
        let entry = queue.pop_front()?;
        match lane {
            Lane::Fresh => self.fresh_bytes -= entry.payload.as_ref().map_or(0, Bytes::len),
            Lane::Backlog => {
                if let Some(bucket) = &mut self.bucket {
                    bucket.tokens -= f64::from(entry.length);
                }
            }
        }
        Some(entry)
    }

    /// A worker has done with what it took.
    pub(crate) fn done(&mut self, lane: Lane) {
        if lane == Lane::Backlog {
            self.backlog_under_way = self.backlog_under_way.saturating_sub(1);
        }
    }

    /// Takes the oldest of all that waits, to make room.
    pub(crate) fn oldest(&mut self) -> Option<Entry> {
        if let Some(entry) = self.backlog.pop_front() {
            return Some(entry);
        }
        let entry = self.fresh.pop_front()?;
        self.fresh_bytes -= entry.payload.as_ref().map_or(0, Bytes::len);
        Some(entry)
    }
}

impl Bucket {
    /// How long until anything may go.
    fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        match self.tokens > 0.0 {
            true => Duration::ZERO,
            // At least a moment, so that rounding cannot make it none.
            false => Duration::from_secs_f64((-self.tokens / self.rate).min(60.0)) + Duration::from_millis(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, bytes: Option<usize>) -> Entry {
        Entry {
            sequence,
            segment: 0,
            offset: 0,
            length: 100,
            items: 1,
            signal: Signal::Traces,
            account: "traces".into(),
            payload: bytes.map(|bytes| vec![0; bytes].into()),
        }
    }

    fn taken(lanes: &mut Lanes, now: Instant) -> Option<(u64, Lane)> {
        match lanes.next(now) {
            Next::Deliver(entry, lane) => Some((entry.sequence, lane)),
            _ => None,
        }
    }

    #[test]
    fn fresh_data_goes_first_and_the_backlog_beside_it() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4, 1 << 20, 0, now);
        (0..8).for_each(|n| lanes.push(entry(n, None)));
        (8..12).for_each(|n| lanes.push(entry(n, Some(10))));
        // One of four workers has the backlog, the others what is fresh, each in order.
        assert_eq!(taken(&mut lanes, now), Some((0, Lane::Backlog)));
        for n in 8..12 {
            assert_eq!(taken(&mut lanes, now), Some((n, Lane::Fresh)));
        }
        // Nothing is fresh: all but one worker take the backlog.
        assert_eq!(taken(&mut lanes, now), Some((1, Lane::Backlog)));
        assert_eq!(taken(&mut lanes, now), Some((2, Lane::Backlog)));
        assert_eq!(taken(&mut lanes, now), None);
        lanes.done(Lane::Backlog);
        assert_eq!(taken(&mut lanes, now), Some((3, Lane::Backlog)));
    }

    #[test]
    fn one_worker_lets_the_lanes_take_turns() {
        let now = Instant::now();
        let mut lanes = Lanes::new(1, 1 << 20, 0, now);
        (0..3).for_each(|n| lanes.push(entry(n, None)));
        (3..9).for_each(|n| lanes.push(entry(n, Some(10))));
        let mut order = Vec::new();
        while let Some((n, lane)) = taken(&mut lanes, now) {
            order.push(n);
            lanes.done(lane);
        }
        assert_eq!(order, [3, 4, 5, 0, 6, 7, 8, 1, 2]);
    }

    #[test]
    fn what_does_not_fit_in_memory_becomes_backlog_in_order() {
        let now = Instant::now();
        let mut lanes = Lanes::new(2, 25, 0, now);
        (0..5).for_each(|n| lanes.push(entry(n, Some(10))));
        assert_eq!(
            (lanes.fresh.len(), lanes.backlog.len(), lanes.fresh_bytes),
            (2, 3, 20)
        );
        assert!(lanes.backlog.iter().all(|entry| entry.payload.is_none()));
        let order: Vec<u64> = std::iter::from_fn(|| lanes.oldest())
            .map(|e| e.sequence)
            .collect();
        assert_eq!((order, lanes.fresh_bytes), (vec![0, 1, 2, 3, 4], 0));
    }

    #[test]
    fn the_backlog_keeps_to_its_rate() {
        let start = Instant::now();
        let mut lanes = Lanes::new(8, 0, 100, start);
        (0..100).for_each(|n| lanes.push(entry(n, None)));
        let mut sent = 0;
        for millis in 0..5000 {
            let now = start + Duration::from_millis(millis);
            if let Some((_, lane)) = taken(&mut lanes, now) {
                sent += 100;
                lanes.done(lane);
            }
        }
        assert!((500..=700).contains(&sent), "{sent} bytes in 5 s at 100 a second");
    }
}
