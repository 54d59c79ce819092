//! The loss ledger: what became of every item that a pipeline handed to an exporter.
//!
//! For each pipeline and exporter, at any time and across restarts of a durable queue:
//!
//! ```text
//! accepted = delivered + queued + refused + dropped (by reasons)
//! ```
//!
//! *Accepted* is what the exporter's queue took; *refused* is what the other side does not want; *dropped* is lost by
//! our own doing, with the reason. *Queued* counts what waits and what is under way. Whoever moves items from one to
//! another does so under one lock, so that no reader ever sees a sum that does not hold. What a client was refused
//! was never accepted, and is in the receiver's own counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use karez_collector_config::{ComponentId, PipelineId};
use serde::Serialize;

/// Why accepted items are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Tried for as long as `retry_on_failure` allows.
    RetriedTooLong,
    /// The queue was full and its policy drops what is oldest.
    Overflow,
    /// The bytes on the disk were damaged.
    Corrupt,
    /// A queue in memory was not empty when the collector stopped.
    Stopped,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 4] = [
        Reason::RetriedTooLong,
        Reason::Overflow,
        Reason::Corrupt,
        Reason::Stopped,
    ];

    /// The name in metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::RetriedTooLong => "retried_too_long",
            Reason::Overflow => "overflow",
            Reason::Corrupt => "corrupt",
            Reason::Stopped => "stopped",
        }
    }
}

/// What became of items that were queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The other side has them.
    Delivered,
    /// The other side does not want them.
    Refused,
    /// They are lost.
    Dropped(Reason),
}

/// What became of the items of one batch: all of it in most cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settlement {
    /// Items that the other side has.
    pub delivered: u32,
    /// Items that it does not want.
    pub refused: u32,
    /// Items that are lost.
    pub dropped: u32,
    /// Why they are.
    pub reason: Option<Reason>,
}

impl Settlement {
    /// One fate for all.
    pub fn of(items: u32, fate: Fate) -> Self {
        let mut settlement = Settlement::default();
        settlement.add(items, fate);
        settlement
    }

    fn add(&mut self, items: u32, fate: Fate) {
        match fate {
            Fate::Delivered => self.delivered += items,
            Fate::Refused => self.refused += items,
            Fate::Dropped(reason) => {
                self.dropped += items;
                self.reason = Some(reason);
            }
        }
    }

    fn items(&self) -> u64 {
        u64::from(self.delivered) + u64::from(self.refused) + u64::from(self.dropped)
    }

    /// Counts it.
    pub fn apply(&self, counts: &mut Counts) {
        counts.delivered += u64::from(self.delivered);
        counts.refused += u64::from(self.refused);
        let reason = self.reason.unwrap_or(Reason::RetriedTooLong);
        counts.dropped[reason as usize] += u64::from(self.dropped);
    }
}

/// Shares fates out: batches of so many items each were sent together, and of the whole so many items in a row had
/// each of the fates.
pub fn spread(batches: impl Iterator<Item = u32>, fates: &[(usize, Fate)]) -> Vec<Settlement> {
    let mut fates = fates
        .iter()
        .map(|(items, fate)| (*items as u64, *fate))
        .peekable();
    let share = |mut items: u32| {
        let mut settlement = Settlement::default();
        while items > 0 {
            let Some((left, fate)) = fates.peek_mut() else {
                // Items that a split cannot count stand at the end of what went out.
                settlement.add(items, Fate::Delivered);
                break;
            };
            let taken = items.min(u32::try_from(*left).unwrap_or(u32::MAX));
            settlement.add(taken, *fate);
            items -= taken;
            *left -= u64::from(taken);
            if *left == 0 {
                fates.next();
            }
        }
        settlement
    };
    batches.map(share).collect()
}

/// Numbers of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Taken by the queue.
    pub accepted: u64,
    /// The other side has them.
    pub delivered: u64,
    /// The other side does not want them.
    pub refused: u64,
    /// Lost, by [`Reason::ALL`].
    pub dropped: [u64; 4],
    /// Waiting or under way.
    pub queued: u64,
}

impl Counts {
    /// All that is settled.
    pub fn settled(&self) -> u64 {
        self.delivered + self.refused + self.dropped.iter().sum::<u64>()
    }

    /// Whether nothing is missing and nothing is there twice.
    pub fn balances(&self) -> bool {
        self.accepted == self.settled() + self.queued
    }
}

/// The account of a pipeline at an exporter.
#[derive(Debug, Default)]
pub struct Account(Mutex<Counts>);

impl Account {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items were queued.
    pub fn accept(&self, items: u64) {
        let mut counts = self.lock();
        counts.accepted += items;
        counts.queued += items;
    }

    /// Queued items have found their end.
    pub fn settle(&self, settlement: &Settlement) {
        let mut counts = self.lock();
        counts.queued = counts.queued.saturating_sub(settlement.items());
        settlement.apply(&mut counts);
    }

    /// Goes on from what a durable queue remembers.
    pub fn resume(&self, counts: Counts) {
        *self.lock() = counts;
    }

    /// The numbers as they are.
    pub fn counts(&self) -> Counts {
        *self.lock()
    }
}

/// Pipeline and exporter, as they are written.
pub type Key = (String, String);

/// All accounts. They outlive a reload.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<Key, Arc<Account>>>);

impl Ledger {
    /// The account of a pipeline at an exporter.
    pub fn account(&self, pipeline: &str, exporter: &ComponentId) -> Arc<Account> {
        let key = (pipeline.to_owned(), exporter.to_string());
        self.lock().entry(key).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Account>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All accounts with their numbers.
    pub fn lines(&self) -> Vec<Line> {
        let accounts = self.lock();
        let lines = accounts
            .iter()
            .map(|((pipeline, exporter), account)| Line::new(pipeline, exporter, account.counts()));
        lines.collect()
    }
}

/// A line of the ledger, as the status endpoint gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Line {
    /// `traces/a`.
    pub pipeline: String,
    /// What it carries.
    pub signal: String,
    /// Where it goes.
    pub exporter: String,
    /// Items that the exporter's queue took.
    pub accepted: u64,
    /// Items that the other side has.
    pub delivered: u64,
    /// Items that wait or are under way.
    pub queued: u64,
    /// Items that the other side does not want.
    pub refused: u64,
    /// Items lost, by reason; reasons with none are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Whether accepted = delivered + queued + refused + dropped.
    pub balanced: bool,
}

impl Line {
    fn new(pipeline: &str, exporter: &str, counts: Counts) -> Self {
        let dropped = Reason::ALL
            .into_iter()
            .map(|reason| (reason.as_str().to_owned(), counts.dropped[reason as usize]));
        Line {
            pipeline: pipeline.to_owned(),
            signal: pipeline.split('/').next().unwrap_or_default().to_owned(),
            exporter: exporter.to_owned(),
            accepted: counts.accepted,
            delivered: counts.delivered,
            queued: counts.queued,
            refused: counts.refused,
            dropped: dropped.filter(|(_, items)| *items > 0).collect(),
            balanced: counts.balances(),
        }
    }
}

/// The name of a pipeline in the ledger.
pub(crate) fn name(pipeline: &PipelineId) -> String {
    pipeline.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_balances_at_every_step() {
        let account = Account::default();
        account.accept(10);
        assert!(account.counts().balances());
        account.settle(&Settlement::of(4, Fate::Delivered));
        account.settle(&Settlement::of(3, Fate::Refused));
        account.settle(&Settlement::of(2, Fate::Dropped(Reason::Overflow)));
        let counts = account.counts();
        assert!(counts.balances());
        assert_eq!((counts.queued, counts.settled()), (1, 9));
    }

    #[test]
    fn fates_are_shared_out_in_order() {
        let fates = [(5, Fate::Delivered), (4, Fate::Refused)];
        let spread = spread([3, 4, 2].into_iter(), &fates);
        assert_eq!(spread[0], Settlement::of(3, Fate::Delivered));
        assert_eq!((spread[1].delivered, spread[1].refused), (2, 2));
        assert_eq!(spread[2], Settlement::of(2, Fate::Refused));
    }
}
