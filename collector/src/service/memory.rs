//! A queue in memory: requests, items or bytes, and never more than a bound of bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use karez_collector_config::common::{Queue as QueueConfig, Sizer};
use tokio::sync::{Notify, oneshot};

use crate::batch::Batch;
use crate::component::{BatchName, Refusal};
use crate::ledger::{Account, Fate, Reason, Settlement};

/// However a queue is measured, it never holds more than this.
const MAX_BYTES: usize = 256 << 20;

/// A batch that waits.
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) name: BatchName,
    pub(super) account: Arc<Account>,
    /// Told what became of it, where the sender waits for that.
    pub(super) done: Option<oneshot::Sender<Result<(), Refusal>>>,
    /// Whether it is in its account, as queued.
    pub(super) counted: bool,
}

impl Waiting {
    /// It has found its end.
    pub(super) fn settle(mut self, settlement: &Settlement, told: &Result<(), Refusal>) {
        self.counted = false;
        self.account.settle(settlement);
        if let Some(done) = self.done.take() {
            // A sender that no longer waits has been told nothing, and so will send again.
            let _ = done.send(told.clone());
        }
    }
}

impl Drop for Waiting {
    /// A stop ended what held it.
    fn drop(&mut self) {
        if self.counted {
            let items = u32::try_from(self.batch.items).unwrap_or(u32::MAX);
            self.account
                .settle(&Settlement::of(items, Fate::Dropped(Reason::Stopped)));
        }
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct MemoryQueue {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    size: u64,
    bytes: usize,
    /// Nothing more is taken.
    closed: bool,
}

impl MemoryQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch when there is room, or says that there is none. `taken` is called while nobody else can take it.
    pub(super) async fn add(
        &self,
        key: &str,
        config: &QueueConfig,
        mut waiting: Waiting,
        taken: impl Fn(&Waiting),
    ) -> Result<(), Refusal> {
        let weight = weight(config.sizer, &waiting.batch);
        loop {
            let emptied = self.emptied.notified();
            {
                let mut state = self.state();
                if state.closed {
                    return Err(Refusal::later(format!("{key} is stopping")));
                }
                let fits = state.size + weight <= config.queue_size.max(1) || state.waiting.is_empty();
                let small = state.bytes + waiting.batch.bytes() <= MAX_BYTES || state.waiting.is_empty();
                if fits && small {
                    state.size += weight;
                    state.bytes += waiting.batch.bytes();
                    waiting.account.accept(waiting.batch.items as u64);
                    waiting.counted = true;
                    taken(&waiting);
                    state.waiting.push_back(waiting);
                    break;
                }
            }
            if !config.block_on_overflow {
                return Err(Refusal::later(format!("the sending queue of {key} is full")));
            }
            emptied.await;
        }
        self.filled.notify_one();
        Ok(())
    }

    /// The next batch, or nothing when the queue is closed and empty.
    pub(super) async fn next(&self, sizer: Sizer) -> Option<Waiting> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            // Registered before the look, so that nothing is missed between the look and the wait.
            filled.as_mut().enable();
            if let Some(waiting) = self.take(sizer, |_| true) {
                return Some(waiting);
            }
            if self.is_closed() {
                // The others wait for the same end.
                self.filled.notify_one();
                return None;
            }
            filled.await;
        }
    }

    /// What waits next, if it fits.
    pub(super) fn take(&self, sizer: Sizer, fits: impl FnOnce(&Batch) -> bool) -> Option<Waiting> {
        let mut state = self.state();
        if !state.waiting.front().is_some_and(|waiting| fits(&waiting.batch)) {
            return None;
        }
        let waiting = state.waiting.pop_front()?;
        state.size -= weight(sizer, &waiting.batch);
        state.bytes -= waiting.batch.bytes();
        drop(state);
        self.emptied.notify_one();
        Some(waiting)
    }

    /// Ends when something was added.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_waiters();
        self.emptied.notify_waiters();
    }

    /// Whether it takes nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

fn weight(sizer: Sizer, batch: &Batch) -> u64 {
    match sizer {
        Sizer::Requests => 1,
        Sizer::Items => batch.items as u64,
        Sizer::Bytes => batch.bytes() as u64,
    }
}
