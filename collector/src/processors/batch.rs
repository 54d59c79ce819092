//! `batch`: joins small batches, so that an exporter sends fewer and larger ones.
//!
//! What it holds is bounded in bytes. What the next component does not take for now stays here and is offered again;
//! meanwhile the bound is reached and the receivers refuse. So nothing that was acknowledged is dropped for being early.
//!
//! Before a queue on disk nothing is acknowledged that is only held here: each sender is answered when the batch that
//! holds its data is on the disk, and is told what the queue says. Senders that wait send nothing else meanwhile, so the
//! timeout is not waited for: what came while the last batch was written goes next, see `Pace`.
//!
//! With `metadata_keys` only what came with the same values of these headers is joined, and the joined batch keeps them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use karez_collector_config::Signal;
use karez_collector_config::processors as config;
use karez_lifecycle::Shutdown;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::batch::{Batch, Context};
use crate::component::{ComponentContext, Consume, Consumer, Processor, Refusal, Running, StartError};
use crate::metrics::{Metrics, ProcessorMeter};
use crate::wire::split;

mod pace;

use pace::Pace;

/// The most that one instance holds.
const MAX_HELD: usize = 64 << 20;
/// The most groups, if the document says no limit.
const MAX_GROUPS: usize = 100_000;
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
        let names = self.config.metadata_keys.iter();
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            durable: next.is_durable(),
            next,
            names: names
                .filter_map(|name| name.to_ascii_lowercase().parse().ok())
                .collect(),
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

/// For each of `metadata_keys` the values that data came with.
type Key = Vec<Vec<HeaderValue>>;

#[derive(Default)]
struct Held {
    groups: HashMap<Key, Group>,
    bytes: usize,
    /// How long senders are kept waiting, before a queue on disk.
    pace: Pace,
}

#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    items: usize,
    since: Option<Instant>,
    /// When the newest came.
    latest: Option<Instant>,
    /// The senders, before a queue on disk.
    waiting: Vec<oneshot::Sender<Result<(), Refusal>>>,
}

struct Shared {
    config: config::BatchProcessor,
    next: Consumer,
    durable: bool,
    names: Vec<HeaderName>,
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
                shared.hand_on(batch).await?;
                meter.outgoing.inc_by(items);
                return Ok(());
            }
            let hear = shared.hold(batch)?;
            let stopping = |_| Err(Refusal::later(format!("{} is stopping", shared.key)));
            match hear {
                None => Ok(()),
                Some(hear) => hear.await.unwrap_or_else(stopping),
            }
        })
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, batch: &Batch) -> Key {
        let metadata = batch.context.as_ref().map(|context| &context.metadata);
        let values = |name| metadata.map_or_else(Vec::new, |all| all.get_all(name).iter().cloned().collect());
        self.names.iter().map(values).collect()
    }

    /// Holds a batch; gives what to wait for, if the sender is to wait.
    fn hold(&self, batch: Batch) -> Result<Option<oneshot::Receiver<Result<(), Refusal>>>, Refusal> {
        let key = self.group(&batch);
        let most = match self.config.metadata_cardinality_limit {
            0 => MAX_GROUPS,
            limit => limit as usize,
        };
        let mut held = self.held();
        if held.bytes + batch.bytes() > MAX_HELD && held.bytes > 0 {
            let bytes = held.bytes;
            return Err(Refusal::later(format!(
                "{} holds {bytes} bytes, its bound",
                self.key
            )));
        }
        if !self.names.is_empty() && held.groups.len() >= most && !held.groups.contains_key(&key) {
            let reason = format!(
                "{} holds {most} combinations of its metadata_keys, its limit",
                self.key
            );
            return Err(Refusal::later(reason));
        }
        held.bytes += batch.bytes();
        let Held { groups, pace, .. } = &mut *held;
        let group = groups.entry(key).or_default();
        let before = self.gathers(group, pace);
        let now = Instant::now();
        group.since.get_or_insert(now);
        group.latest = Some(now);
        group.items += batch.items;
        group.batches.push(batch);
        let hear = self.durable.then(|| {
            let (told, hear) = oneshot::channel();
            group.waiting.push(told);
            hear
        });
        // Whoever comes in between changes nothing about when it is due.
        if before != self.gathers(group, pace) {
            self.ready.notify_one();
        }
        Ok(hear)
    }

    /// For how long a group gathers, from when its first came; `None` while nothing has come.
    fn gathers(&self, group: &Group, pace: &Pace) -> Option<Duration> {
        group.since?;
        let size = self.config.send_batch_size as usize;
        Some(match (size > 0 && group.items >= size, self.durable) {
            (true, _) => Duration::ZERO,
            (false, true) => pace.wait(group.waiting.len(), self.config.timeout),
            (false, false) => self.config.timeout,
        })
    }

    /// When the next group is to go: at once when there is enough of it, else when its oldest has waited.
    fn due(&self) -> Option<Instant> {
        let held = self.held();
        let due = |group| self.due_of(group, &held.pace);
        held.groups.values().filter_map(due).min()
    }

    fn due_of(&self, group: &Group, pace: &Pace) -> Option<Instant> {
        Some(group.since? + self.gathers(group, pace)?)
    }

    /// Takes the groups that are due, or all.
    fn take(&self, all: bool) -> Vec<(Key, Group)> {
        let now = Instant::now();
        let mut held = self.held();
        let Held { groups, bytes, pace } = &mut *held;
        let due = |group: &Group| all || self.due_of(group, pace).is_some_and(|due| due <= now);
        let taken: Vec<_> = groups.extract_if(|_, group| due(group)).collect();
        for (_, group) in &taken {
            *bytes -= group.batches.iter().map(Batch::bytes).sum::<usize>();
            if let Some((since, latest)) = group.since.zip(group.latest).filter(|_| self.durable) {
                pace.went(group.waiting.len(), latest - since, self.config.timeout);
            }
        }
        taken
    }

    async fn flush(&self, all: bool, stop: &Shutdown) {
        let taken = self.take(all).into_iter();
        if self.durable {
            // One write and one sync are for all of them.
            let flushed = taken.map(|(key, group)| self.flush_group(key, group, stop));
            futures::future::join_all(flushed).await;
            return;
        }
        for (key, group) in taken {
            self.flush_group(key, group, stop).await;
        }
    }

    async fn flush_group(&self, key: Key, group: Group, stop: &Shutdown) {
        let Some(mut batch) = Batch::join(group.batches) else {
            return;
        };
        if !self.names.is_empty() {
            batch.context = Some(Arc::new(self.context(&key)));
        }
        match self.durable {
            true => self.flush_durable(batch, group.waiting).await,
            false => self.flush_held(batch, stop).await,
        }
    }

    fn context(&self, key: &Key) -> Context {
        let mut metadata = HeaderMap::new();
        for (name, values) in self.names.iter().zip(key) {
            values.iter().for_each(|value| {
                metadata.append(name, value.clone());
            });
        }
        Context {
            metadata,
            ..Context::default()
        }
    }

    async fn flush_durable(&self, batch: Batch, waiting: Vec<oneshot::Sender<Result<(), Refusal>>>) {
        let (meter, items) = (&self.meters[batch.signal as usize], batch.items as u64);
        let told = self.hand_on(batch).await;
        if told.is_ok() {
            meter.outgoing.inc_by(items);
        }
        for sender in waiting {
            // Who no longer waits was told nothing and sends again.
            let _ = sender.send(told.clone());
        }
    }

    /// Hands a batch on; what is not taken is its senders' again.
    async fn hand_on(&self, batch: Batch) -> Result<(), Refusal> {
        for part in split(batch, self.config.send_batch_max_size as usize) {
            self.next.send(part).await?;
        }
        Ok(())
    }

    async fn flush_held(&self, batch: Batch, stop: &Shutdown) {
        let meter = &self.meters[batch.signal as usize];
        for part in split(batch, self.config.send_batch_max_size as usize) {
            let items = part.items as u64;
            match self.offer(part, stop).await {
                Ok(()) => meter.outgoing.inc_by(items),
                Err(refusal) => {
                    meter.dropped.inc_by(items);
                    let reason = refusal.reason;
                    tracing::error!(
                        component = self.key,
                        items,
                        reason,
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
                shared.flush(false, &stop).await;
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
    while shared.due().is_some() {
        shared.flush(true, &stop).await;
    }
}
