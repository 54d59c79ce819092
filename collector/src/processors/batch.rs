//! `batch`: joins small batches, so that an exporter sends fewer and larger ones.
//!
//! What it holds is bounded in bytes. What the next component does not take for now stays here and is offered again;
//! meanwhile the bound is reached and the receivers refuse. So nothing that was acknowledged is dropped for being early.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::processors as config;
use karez_lifecycle::Shutdown;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::component::{ComponentContext, Consume, Consumer, Processor, Refusal, Running, StartError};
use crate::metrics::{Metrics, ProcessorMeter};
use crate::wire::split;

/// The most that one instance holds.
const MAX_HELD: usize = 64 << 20;
/// The first and the longest wait before what was not taken is offered again.
const OFFER_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// For how long what is held is offered again while stopping; less than the drain's deadline.
const STOPPING: Duration = Duration::from_secs(7);

/// The processor.
pub struct BatchProcessor {
    config: config::BatchProcessor,
}

impl BatchProcessor {
    /// A processor of this configuration.
    pub fn new(config: config::BatchProcessor) -> Self {
        BatchProcessor { config }
    }
}

impl Processor for BatchProcessor {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let mut running = Running::none();
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            next,
            held: Mutex::default(),
            ready: Notify::new(),
            key: cx.key.clone(),
            meters: meters(&cx.metrics, cx),
        });
        if !self.config.timeout.is_zero() {
            running.spawn(flush_for_ever(shared.clone(), running.stopping()));
        }
        Ok((Consumer::new(Entrance(shared)), running))
    }
}

fn meters(metrics: &Metrics, cx: &ComponentContext) -> [ProcessorMeter; 3] {
    Signal::ALL.map(|signal| metrics.processor(&cx.id, signal))
}

#[derive(Default)]
struct Held {
    batches: Vec<Batch>,
    items: usize,
    bytes: usize,
    since: Option<Instant>,
}

struct Shared {
    config: config::BatchProcessor,
    next: Consumer,
    held: Mutex<Held>,
    /// Something came, or enough of it.
    ready: Notify,
    key: String,
    meters: [ProcessorMeter; 3],
}

struct Entrance(Arc<Shared>);

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let shared = &self.0;
            let meter = &shared.meters[batch.signal as usize];
            let items = batch.items as u64;
            meter.incoming.inc_by(items);
            if shared.config.timeout.is_zero() {
                for part in split(batch, shared.config.send_batch_max_size as usize) {
                    shared.next.send(part).await?;
                }
                meter.outgoing.inc_by(items);
                return Ok(());
            }
            let mut held = shared.held();
            if held.bytes + batch.bytes() > MAX_HELD && !held.batches.is_empty() {
                return Err(Refusal::later(format!(
                    "{} holds {} bytes, its bound",
                    shared.key, held.bytes
                )));
            }
            held.since.get_or_insert_with(Instant::now);
            held.items += batch.items;
            held.bytes += batch.bytes();
            held.batches.push(batch);
            drop(held);
            shared.ready.notify_one();
            Ok(())
        })
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When what is held is to go: at once when there is enough, else when the oldest has waited.
    fn due(&self) -> Option<Instant> {
        let held = self.held();
        let since = held.since?;
        let size = self.config.send_batch_size as usize;
        match size > 0 && held.items >= size {
            true => Some(since),
            false => Some(since + self.config.timeout),
        }
    }

    fn take(&self) -> Option<Batch> {
        let held = std::mem::take(&mut *self.held());
        Batch::join(held.batches)
    }

    async fn flush(&self, stop: &Shutdown) {
        let Some(batch) = self.take() else { return };
        let meter = &self.meters[batch.signal as usize];
        for part in split(batch, self.config.send_batch_max_size as usize) {
            let items = part.items as u64;
            match self.offer(part, stop).await {
                Ok(()) => meter.outgoing.inc_by(items),
                Err(refusal) => {
                    meter.dropped.inc_by(items);
                    tracing::error!(
                        component = self.key,
                        items,
                        reason = refusal.reason,
                        "dropped: the next component does not take it"
                    );
                    items
                }
            };
        }
    }

    /// Offers a batch until it is taken, refused for good, or the stop has waited long enough for it.
    async fn offer(&self, batch: Batch, stop: &Shutdown) -> Result<(), Refusal> {
        let mut wait = OFFER_AGAIN.0;
        let mut give_up = None;
        loop {
            let refusal = match self.next.send(batch.clone()).await {
                Ok(()) => return Ok(()),
                Err(refusal) if !refusal.retryable => return Err(refusal),
                Err(refusal) => refusal,
            };
            tracing::debug!(
                component = self.key,
                reason = refusal.reason,
                ?wait,
                "not taken for now"
            );
            let wait_now = refusal.after.unwrap_or(wait).min(OFFER_AGAIN.1);
            if stop.is_triggered() {
                // What cannot be delivered while stopping is counted as dropped, not lost without a word.
                if Instant::now() >= *give_up.get_or_insert_with(|| Instant::now() + STOPPING) {
                    return Err(refusal);
                }
                tokio::time::sleep(OFFER_AGAIN.0).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(wait_now) => {}
                    () = stop.triggered() => {}
                }
            }
            wait = (wait * 2).min(OFFER_AGAIN.1);
        }
    }
}

async fn flush_for_ever(shared: Arc<Shared>, stop: Shutdown) {
    loop {
        let ready = shared.ready.notified();
        match shared.due() {
            Some(due) if due <= Instant::now() => {
                shared.flush(&stop).await;
                continue;
            }
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = ready => {}
                () = stop.triggered() => break,
            },
            None => tokio::select! {
                () = ready => {}
                () = stop.triggered() => break,
            },
        }
    }
    // Nobody sends any more when this is asked to stop.
    while shared.held().since.is_some() {
        shared.flush(&stop).await;
    }
}
