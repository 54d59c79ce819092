//! What stands before an exporter that sends: a bounded queue in memory, workers, retry with back-off.
//!
//! ```text
//! consume ─▶ queue (requests, items or bytes; never more than a bound of bytes) ─▶ worker ─▶ export ─▶ Delivered
//!    │ full: Refusal::later                                             ▲── wait ◀── Retry ┘   └─▶ Refused: dropped
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::common::{Queue as QueueConfig, Retry, Sending, Sizer};
use karez_lifecycle::Shutdown;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::batch::Batch;
use crate::component::{ComponentContext, Consume, Consumer, Exporter, Outcome, Refusal, Running};
use crate::metrics::ExporterMeter;
use crate::registry::BuiltExporter;

/// However a queue is measured, it never holds more than this.
const MAX_BYTES: usize = 256 << 20;
/// A retry that is asked for later than this is made then.
const MAX_AFTER: Duration = Duration::from_secs(300);
/// While stopping, a retry is not waited for longer than this.
const STOPPING_WAIT: Duration = Duration::from_millis(500);

/// An exporter with what stands before it. Its `consumer` is shared by all pipelines that use it.
pub(crate) struct Queued {
    pub(crate) consumer: Consumer,
    pub(crate) running: Running,
    shared: Arc<Shared>,
}

struct Shared {
    key: String,
    exporter: Arc<dyn Exporter>,
    sending: Option<Sending>,
    meters: [ExporterMeter; 3],
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    stop: Shutdown,
    /// Whether the last attempt failed: a failure is logged when it begins and when it ends.
    failing: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    size: u64,
    bytes: usize,
    /// Nothing more is taken.
    closed: bool,
}

struct Waiting {
    batch: Batch,
    /// Told what became of it, where the sender waits for that.
    done: Option<oneshot::Sender<Result<(), Refusal>>>,
}

impl Queued {
    /// Starts the workers.
    pub(crate) fn start(built: BuiltExporter, cx: &ComponentContext) -> Self {
        let meters = Signal::ALL.map(|signal| cx.metrics.exporter(&cx.id, signal));
        let mut running = Running::none();
        let queue = built
            .sending
            .as_ref()
            .map(|sending| &sending.sending_queue)
            .filter(|queue| queue.enabled);
        let workers = queue.map_or(0, |queue| queue.num_consumers.clamp(1, 1000));
        for meter in meters.iter().filter(|_| workers > 0) {
            meter
                .queue_capacity
                .set(queue.map_or(0, |q| i64::try_from(q.queue_size).unwrap_or(i64::MAX)));
        }
        let shared = Arc::new(Shared {
            key: cx.key.clone(),
            exporter: built.exporter,
            sending: built.sending,
            meters,
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            stop: running.stopping(),
            failing: AtomicBool::new(false),
        });
        for _ in 0..workers {
            running.spawn(work(shared.clone()));
        }
        Queued {
            consumer: Consumer::new(Entrance(shared.clone())),
            running,
            shared,
        }
    }

    /// Takes nothing more, sends what is there until the deadline, and says how many items are then left.
    pub(crate) async fn stop(self, deadline: Instant) -> u64 {
        self.shared.state().closed = true;
        self.shared.filled.notify_waiters();
        self.running.stop(deadline).await;
        let mut left = 0;
        for meter in &self.shared.meters {
            let items = meter.queue_items.get();
            if items > 0 {
                meter.queue_items.set(0);
                meter.queue_bytes.set(0);
                meter.queue_size.set(0);
                meter.send_failed.inc_by(items.unsigned_abs());
                left += items.unsigned_abs();
            }
        }
        left
    }
}

struct Entrance(Arc<Shared>);

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        let shared = &self.0;
        Box::pin(async move {
            let queue = shared
                .sending
                .as_ref()
                .map(|sending| &sending.sending_queue)
                .filter(|queue| queue.enabled);
            let Some(queue) = queue else {
                shared.under_way(&batch, 1);
                let fate = shared.deliver(&batch).await;
                shared.under_way(&batch, -1);
                return fate;
            };
            let (sender, receiver) = oneshot::channel();
            let done = queue.wait_for_result.then_some(sender);
            shared.enqueue(queue, Waiting { batch, done }).await?;
            match queue.wait_for_result {
                false => Ok(()),
                true => receiver
                    .await
                    .unwrap_or_else(|_| Err(Refusal::later("the exporter is stopping"))),
            }
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meter(&self, batch: &Batch) -> &ExporterMeter {
        &self.meters[batch.signal as usize]
    }

    fn under_way(&self, batch: &Batch, sign: i64) {
        let meter = self.meter(batch);
        meter
            .queue_items
            .inc_by(sign * i64::try_from(batch.items).unwrap_or(0));
        meter
            .queue_bytes
            .inc_by(sign * i64::try_from(batch.bytes()).unwrap_or(0));
    }

    async fn enqueue(&self, queue: &QueueConfig, waiting: Waiting) -> Result<(), Refusal> {
        let weight = weight(queue.sizer, &waiting.batch);
        let meter = self.meter(&waiting.batch);
        loop {
            let emptied = self.emptied.notified();
            {
                let mut state = self.state();
                if state.closed {
                    return Err(Refusal::later(format!("{} is stopping", self.key)));
                }
                let fits = state.size + weight <= queue.queue_size.max(1) || state.waiting.is_empty();
                let small = state.bytes + waiting.batch.bytes() <= MAX_BYTES || state.waiting.is_empty();
                if fits && small {
                    state.size += weight;
                    state.bytes += waiting.batch.bytes();
                    self.under_way(&waiting.batch, 1);
                    meter.queue_size.inc();
                    state.waiting.push_back(waiting);
                    break;
                }
            }
            if !queue.block_on_overflow {
                meter.enqueue_failed.inc_by(waiting.batch.items as u64);
                return Err(Refusal::later(format!(
                    "the sending queue of {} is full",
                    self.key
                )));
            }
            emptied.await;
        }
        self.filled.notify_one();
        Ok(())
    }

    /// The next batch, or nothing when the queue is closed and empty.
    async fn next(&self, sizer: Sizer) -> Option<Waiting> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            // Registered before the look, so that nothing is missed between the look and the wait.
            filled.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(waiting) = state.waiting.pop_front() {
                    state.size -= weight(sizer, &waiting.batch);
                    state.bytes -= waiting.batch.bytes();
                    self.meter(&waiting.batch).queue_size.dec();
                    self.emptied.notify_one();
                    return Some(waiting);
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Tries until the batch is delivered, refused or given up.
    async fn deliver(&self, batch: &Batch) -> Result<(), Refusal> {
        let retry = self
            .sending
            .as_ref()
            .map(|sending| &sending.retry_on_failure)
            .filter(|retry| retry.enabled);
        let began = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            match self.exporter.export(batch.clone()).await {
                Outcome::Delivered => {
                    self.meter(batch).sent.inc_by(batch.items as u64);
                    if self.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!(component = self.key, "delivers again");
                    }
                    return Ok(());
                }
                Outcome::Refused { reason } => {
                    self.gave_up(batch, &reason, "refused for good");
                    return Err(Refusal::never(format!("{}: {reason}", self.key)));
                }
                Outcome::Retry { after, reason } => {
                    let Some(retry) = retry else {
                        self.gave_up(batch, &reason, "retry is disabled");
                        return Err(Refusal {
                            reason: format!("{}: {reason}", self.key),
                            retryable: true,
                            after,
                        });
                    };
                    let wait = backoff.next(retry).max(after.unwrap_or_default().min(MAX_AFTER));
                    let most = retry.max_elapsed_time;
                    if !most.is_zero() && began.elapsed() + wait > most {
                        self.gave_up(batch, &reason, "retried for too long");
                        return Err(Refusal::later(format!("{}: {reason}", self.key)));
                    }
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            component = self.key,
                            reason,
                            ?wait,
                            "cannot deliver; trying again"
                        );
                    }
                    self.wait(wait).await;
                }
            }
        }
    }

    async fn wait(&self, wait: Duration) {
        if self.stop.is_triggered() {
            tokio::time::sleep(wait.min(STOPPING_WAIT)).await;
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.triggered() => {}
        }
    }

    fn gave_up(&self, batch: &Batch, reason: &str, why: &str) {
        self.meter(batch).send_failed.inc_by(batch.items as u64);
        let (signal, items) = (batch.signal, batch.items);
        tracing::error!(component = self.key, %signal, items, reason, "gave up: {why}");
    }
}

async fn work(shared: Arc<Shared>) {
    let sizer = shared
        .sending
        .as_ref()
        .map_or(Sizer::Requests, |sending| sending.sending_queue.sizer);
    while let Some(Waiting { batch, done }) = shared.next(sizer).await {
        let fate = shared.deliver(&batch).await;
        shared.under_way(&batch, -1);
        if let Some(done) = done {
            // A sender that no longer waits has been told nothing, and so will send again.
            let _ = done.send(fate);
        }
    }
    // The others wait for the same end.
    shared.filled.notify_one();
}

fn weight(sizer: Sizer, batch: &Batch) -> u64 {
    match sizer {
        Sizer::Requests => 1,
        Sizer::Items => batch.items as u64,
        Sizer::Bytes => batch.bytes() as u64,
    }
}

/// Waits that grow, each chosen at random around its middle.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    pub(crate) fn next(&mut self, retry: &Retry) -> Duration {
        let middle = match self.last {
            None => retry.initial_interval,
            Some(last) => last.mul_f64(retry.multiplier.clamp(1.0, 100.0)),
        };
        let middle = middle.min(retry.max_interval.max(Duration::from_millis(1)));
        self.last = Some(middle);
        let factor = retry.randomization_factor.clamp(0.0, 1.0);
        middle.mul_f64(1.0 + factor * (rand::random::<f64>() * 2.0 - 1.0))
    }
}

/// Stands for an exporter that cannot work as it is configured.
pub(crate) struct Rejecting(pub(crate) String);

impl Exporter for Rejecting {
    fn export(&self, _: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            Outcome::Refused {
                reason: self.0.clone(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let retry = Retry {
            randomization_factor: 0.0,
            ..Retry::default()
        };
        let mut backoff = Backoff::default();
        let waits: Vec<f64> = (0..8).map(|_| backoff.next(&retry).as_secs_f64()).collect();
        assert_eq!(&waits[..3], [5.0, 7.5, 11.25]);
        assert_eq!(waits[7], 30.0);
    }
}
