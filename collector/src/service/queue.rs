//! What stands before an exporter that sends: a bounded queue in memory or on disk, workers, retry with back-off.
//!
//! ```text
//! consume ─▶ store (requests, items or bytes, bounded) ─▶ worker ─▶ export ─▶ Delivered
//!    │ full: Refusal::later                     ▲── wait ◀── Retry ┘   └─▶ Refused: given up
//! ```
//!
//! Whatever is taken is in the account of its pipeline, and what becomes of it is told to that account once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use karez_collector_config::common::{Queue as QueueConfig, Sending};
use karez_collector_config::{PipelineId, Signal};
use karez_lifecycle::Shutdown;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::memory::{MemoryQueue, Waiting};
use super::store::{self, Named, Store, Taken};
use crate::batch::Batch;
use crate::client::with_context;
use crate::component::{
    BatchName, ComponentContext, Consume, Consumer, Exporter, Outcome, Refusal, Running, StartError,
};
use crate::ledger::{self, Fate, Ledger, Reason, Settlement};
use crate::metrics::ExporterMeter;
use crate::registry::BuiltExporter;
use crate::wire::split;

/// A retry that is asked for later than this is made then.
const MAX_AFTER: Duration = Duration::from_secs(300);
/// While stopping, a retry is not waited for longer than this.
const STOPPING_WAIT: Duration = Duration::from_millis(500);

/// An exporter with what stands before it. It is shared by all pipelines that use it.
pub(crate) struct Queued {
    running: Running,
    shared: Arc<Shared>,
}

struct Shared {
    key: String,
    id: karez_collector_config::ComponentId,
    exporter: Arc<dyn Exporter>,
    sending: Option<Sending>,
    /// `None` for an exporter without a queue.
    store: Option<Store>,
    ledger: Arc<Ledger>,
    meters: [ExporterMeter; 3],
    stop: Shutdown,
    /// Whether the last attempt failed: a failure is logged when it begins and when it ends.
    failing: AtomicBool,
    /// Held by the worker that gathers.
    gate: Mutex<()>,
    /// Names batches that wait in memory: a random half and a count.
    names: (u64, AtomicU64),
}

/// How an attempt to deliver ended.
enum End {
    Settled(Fate, Result<(), Refusal>),
    /// Asked to stop: what is on disk stays there.
    Left,
}

impl Queued {
    /// Opens the queue and starts the workers.
    pub(crate) async fn start(built: BuiltExporter, cx: &ComponentContext) -> Result<Self, StartError> {
        let meters = Signal::ALL.map(|signal| cx.metrics.exporter(&cx.id, signal));
        let ledger = cx.metrics.ledger();
        let mut running = Running::none();
        running.join(built.exporter.start(cx).await?);
        let sending = built.sending.as_ref().map(|sending| &sending.sending_queue);
        let queue = sending.filter(|queue| queue.enabled);
        let workers = queue.map_or(0, |queue| queue.num_consumers.clamp(1, 1000));
        for meter in meters.iter().filter(|_| workers > 0) {
            let capacity = queue.map_or(0, |q| i64::try_from(q.queue_size).unwrap_or(i64::MAX));
            meter.queue_capacity.set(capacity);
        }
        let store = match queue {
            None => None,
            Some(queue) => Some(match &queue.storage {
                None => Store::Memory(MemoryQueue::default()),
                Some(storage) => store::open(storage, queue, cx, &meters, &ledger).await?,
            }),
        };
        let shared = Arc::new(Shared {
            key: cx.key.clone(),
            id: cx.id.clone(),
            exporter: built.exporter,
            sending: built.sending,
            store,
            ledger,
            meters,
            stop: running.stopping(),
            failing: AtomicBool::new(false),
            gate: Mutex::default(),
            names: (rand::random(), AtomicU64::new(0)),
        });
        for _ in 0..workers {
            running.spawn(work(shared.clone()));
        }
        Ok(Queued { running, shared })
    }

    /// Addresses that the exporter bound.
    pub(crate) fn addresses(&self) -> &[std::net::SocketAddr] {
        self.running.addresses()
    }

    /// How many items wait or are under way.
    pub(crate) fn items(&self) -> i64 {
        self.shared
            .meters
            .iter()
            .map(|meter| meter.queue_items.get())
            .sum()
    }

    /// The entrance for a pipeline.
    pub(crate) fn consumer(&self, pipeline: &PipelineId) -> Consumer {
        let name = ledger::name(pipeline);
        let entrance = Entrance {
            account: Named {
                account: self.shared.ledger.account(&name, &self.shared.id),
                name: name.into(),
            },
            shared: self.shared.clone(),
        };
        let durable = matches!(self.shared.store, Some(Store::Durable(_)));
        Consumer::new(entrance).with_durable(durable)
    }

    /// Takes nothing more, sends what is there until the deadline, and says how many items are then lost. What waits
    /// on disk stays there.
    pub(crate) async fn stop(self, deadline: Instant) -> u64 {
        match &self.shared.store {
            Some(Store::Memory(memory)) => memory.close(),
            Some(Store::Durable(durable)) => durable.shut(),
            None => {}
        }
        self.running.stop(deadline).await;
        let mut left = 0;
        for meter in &self.shared.meters {
            let items = meter.queue_items.get();
            meter.queue_items.set(0);
            meter.queue_bytes.set(0);
            meter.queue_size.set(0);
            if items > 0 && !matches!(self.shared.store, Some(Store::Durable(_))) {
                meter.send_failed.inc_by(items.unsigned_abs());
                left += items.unsigned_abs();
            }
        }
        if let Some(Store::Memory(memory)) = &self.shared.store {
            let sizer = self
                .shared
                .queue()
                .map_or_else(Default::default, |queue| queue.sizer);
            while memory.take(sizer, |_| true).is_some() {}
        }
        // The tasks have ended: nobody else holds it, but for entrances that are gone with their pipelines.
        if let Some(Store::Durable(durable)) = &self.shared.store {
            durable.close().await;
        }
        left
    }
}

struct Entrance {
    shared: Arc<Shared>,
    account: Named,
}

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let shared = &self.shared;
            match &shared.store {
                None => self.deliver_now(batch).await,
                Some(Store::Memory(memory)) => self.queue(memory, batch).await,
                Some(Store::Durable(durable)) => {
                    let (meter, items) = (shared.meter(&batch).clone(), batch.items as u64);
                    let appended = durable.append(batch, &self.account.name).await;
                    if appended.is_err() {
                        meter.enqueue_failed.inc_by(items);
                    }
                    appended
                }
            }
        })
    }
}

impl Entrance {
    /// Without a queue the sender hears what became of it; only what is delivered was accepted.
    async fn deliver_now(&self, batch: Batch) -> Result<(), Refusal> {
        let shared = &self.shared;
        shared.under_way(&batch, 1);
        let end = shared.deliver(&batch, shared.name()).await;
        shared.under_way(&batch, -1);
        let End::Settled(_, told) = end else {
            return Err(Refusal::later(format!("{} is stopping", shared.key)));
        };
        if told.is_ok() {
            let items = batch.items as u64;
            self.account.account.accept(items);
            let items = u32::try_from(items).unwrap_or(u32::MAX);
            self.account
                .account
                .settle(&Settlement::of(items, Fate::Delivered));
        }
        told
    }

    async fn queue(&self, memory: &MemoryQueue, batch: Batch) -> Result<(), Refusal> {
        let shared = &self.shared;
        let Some(queue) = shared.queue() else {
            return Err(Refusal::later(format!("{} has no queue", shared.key)));
        };
        let (sender, receiver) = oneshot::channel();
        let (meter, items) = (shared.meter(&batch).clone(), batch.items as u64);
        let waiting = Waiting {
            batch,
            name: shared.name(),
            account: self.account.account.clone(),
            done: queue.wait_for_result.then_some(sender),
            counted: false,
        };
        let taken = |waiting: &Waiting| {
            shared.under_way(&waiting.batch, 1);
            meter.queue_size.inc();
        };
        if let Err(refusal) = memory.add(&shared.key, queue, waiting, taken).await {
            meter.enqueue_failed.inc_by(items);
            return Err(refusal);
        }
        match queue.wait_for_result {
            false => Ok(()),
            true => receiver
                .await
                .unwrap_or_else(|_| Err(Refusal::later("the exporter is stopping"))),
        }
    }
}

impl Shared {
    fn queue(&self) -> Option<&QueueConfig> {
        let queue = self.sending.as_ref().map(|sending| &sending.sending_queue);
        queue.filter(|queue| queue.enabled)
    }

    fn name(&self) -> BatchName {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&self.names.0.to_be_bytes());
        let count = self.names.1.fetch_add(1, Ordering::Relaxed);
        name[8..].copy_from_slice(&count.to_be_bytes());
        name
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

    /// Tries until the batch is delivered, refused or given up.
    async fn deliver(&self, batch: &Batch, name: BatchName) -> End {
        let retry = self
            .sending
            .as_ref()
            .map(|sending| &sending.retry_on_failure)
            .filter(|retry| retry.enabled);
        let began = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let export = self.exporter.export_named(batch.clone(), name);
            match with_context(batch.context.clone(), export).await {
                Outcome::Delivered => {
                    self.meter(batch).sent.inc_by(batch.items as u64);
                    if self.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!(component = self.key, "delivers again");
                    }
                    return End::Settled(Fate::Delivered, Ok(()));
                }
                Outcome::Refused { reason } => {
                    self.gave_up(batch, &reason, "refused for good");
                    let told = Refusal::never(format!("{}: {reason}", self.key));
                    return End::Settled(Fate::Refused, Err(told));
                }
                Outcome::Retry { after, reason } => {
                    let Some(retry) = retry else {
                        self.gave_up(batch, &reason, "retry is disabled");
                        let told = Refusal {
                            reason: format!("{}: {reason}", self.key),
                            retryable: true,
                            after,
                        };
                        return End::Settled(Fate::Dropped(Reason::RetriedTooLong), Err(told));
                    };
                    let wait = backoff.next(retry).max(after.unwrap_or_default().min(MAX_AFTER));
                    let most = retry.max_elapsed_time;
                    if !most.is_zero() && began.elapsed() + wait > most {
                        self.gave_up(batch, &reason, "retried for too long");
                        let told = Refusal::later(format!("{}: {reason}", self.key));
                        return End::Settled(Fate::Dropped(Reason::RetriedTooLong), Err(told));
                    }
                    if self.store.as_ref().is_some_and(Store::is_shut) {
                        return End::Left;
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
    let (Some(store), Some(queue)) = (&shared.store, shared.queue()) else {
        return;
    };
    while let Some(taken) = store.take(queue, &shared.gate).await {
        taken.meters(|batch| {
            shared.meter(batch).queue_size.dec();
        });
        let Some((fates, told)) = shared.deliver_parts(&taken, queue).await else {
            continue;
        };
        taken.meters(|batch| shared.under_way(batch, -1));
        store.settle(taken, &fates, &told);
    }
}

impl Shared {
    /// Delivers what was taken, in parts where the document bounds them. `None`: it is left in its queue.
    async fn deliver_parts(
        &self,
        taken: &Taken,
        queue: &QueueConfig,
    ) -> Option<(Vec<(usize, Fate)>, Result<(), Refusal>)> {
        let most = queue
            .batch
            .as_ref()
            .map_or(0, karez_collector_config::common::QueueBatch::max_items);
        let mut fates = Vec::new();
        let mut all = Ok(());
        let parts = split(taken.batch.clone(), most);
        for (index, part) in parts.into_iter().enumerate() {
            let mut name = taken.name;
            name[0] = name[0].wrapping_add(index as u8);
            match self.deliver(&part, name).await {
                End::Settled(fate, told) => {
                    fates.push((part.items, fate));
                    all = all.and(told);
                }
                End::Left => return None,
            }
        }
        Some((fates, all))
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
