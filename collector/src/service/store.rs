//! Where an exporter's batches wait: in memory or on disk, taken one by one or several to be sent as one.

use std::sync::Arc;
use std::time::Duration;

use karez_collector_config::Signal;
use karez_collector_config::common::{Queue, QueueBatch, Sizer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::memory::{MemoryQueue, Waiting};
use crate::batch::Batch;
use crate::component::{BatchName, ComponentContext, Refusal, StartError};
use crate::durable::{Delivery, DurableQueue, FileSettings, OpenError, Settings};
use crate::ledger::{Account, Fate, Ledger, spread};
use crate::metrics::ExporterMeter;

/// How much of what came lately is kept in memory beside the disk.
const KEEP: usize = 32 << 20;
/// A segment's size, unless the queue may only hold little.
const SEGMENT: u64 = 16 << 20;

/// The queue of an exporter.
pub(super) enum Store {
    Memory(MemoryQueue),
    Durable(DurableQueue),
}

/// What a worker has taken.
pub(super) struct Taken {
    pub(super) batch: Batch,
    pub(super) name: BatchName,
    from: From,
}

enum From {
    Memory(Vec<Waiting>),
    Durable(Box<Delivery>),
}

/// Opens the queue on disk that a component's storage names.
pub(super) async fn open(
    storage: &str,
    queue: &Queue,
    cx: &ComponentContext,
    meters: &[ExporterMeter; 3],
    ledger: &Arc<Ledger>,
) -> Result<Store, StartError> {
    const KEY: &str = "sending_queue.storage";
    let storage = cx.storage("exporter", KEY, storage)?;
    let settings = Settings {
        files: FileSettings {
            folder: storage.folder,
            sync: storage.fsync,
            segment_size: SEGMENT.min(storage.max_bytes / 8).max(64 << 10),
            lock_timeout: storage.timeout,
        },
        workers: queue.num_consumers as usize,
        capacity: queue.queue_size,
        sizer: queue.sizer,
        max_bytes: storage.max_bytes,
        when_full: storage.when_full,
        block: queue.block_on_overflow,
        keep: KEEP,
        backlog_rate: storage.backlog_bytes_per_second,
    };
    let (ledger, exporter) = (ledger.clone(), cx.id.clone());
    let meters = meters.clone();
    let meter = move |signal: Signal, batches: i64, items: i64, bytes: i64| {
        let meter = &meters[signal as usize];
        meter.queue_size.inc_by(batches);
        meter.queue_items.inc_by(items);
        meter.queue_bytes.inc_by(bytes);
    };
    let account = move |pipeline: &str| ledger.account(pipeline, &exporter);
    let opened = DurableQueue::open(&cx.key, settings, Box::new(account), Box::new(meter)).await;
    opened.map(Store::Durable).map_err(|error| {
        let mend = match &error {
            OpenError::Locked(_) => "stop the other, or give each exporter's storage a directory of its own",
            OpenError::Io { .. } => "give the collector the right to read and write there, and room",
        };
        StartError::config(KEY, error.to_string(), mend)
    })
}

impl Store {
    /// What a worker is to deliver next; nothing when the queue is closed (and, in memory, empty).
    pub(super) async fn take(&self, queue: &Queue, gate: &Mutex<()>) -> Option<Taken> {
        let Some(batch) = &queue.batch else {
            return match self {
                Store::Memory(memory) => memory
                    .next(queue.sizer)
                    .await
                    .map(|waiting| Taken::memory(vec![waiting])),
                Store::Durable(durable) => durable.next().await.map(Taken::durable),
            };
        };
        // One worker gathers; the others wait for their turn.
        let _gate = gate.lock().await;
        match self {
            Store::Memory(memory) => gather_memory(memory, queue.sizer, batch).await,
            Store::Durable(durable) => gather_durable(durable, batch).await,
        }
    }

    /// Whether workers are to leave what they have.
    pub(super) fn is_shut(&self) -> bool {
        matches!(self, Store::Durable(durable) if durable.is_shut())
    }

    /// Notes what became of what was taken; `told` goes to senders that wait.
    pub(super) fn settle(&self, taken: Taken, fates: &[(usize, Fate)], told: &Result<(), Refusal>) {
        match (taken.from, self) {
            (From::Memory(parts), _) => {
                let items = parts.iter().map(|part| part.batch.items as u32);
                let settlements = spread(items.collect::<Vec<_>>().into_iter(), fates);
                for (part, settlement) in parts.into_iter().zip(settlements) {
                    part.settle(&settlement, told);
                }
            }
            (From::Durable(delivery), Store::Durable(durable)) => durable.settle(&delivery, fates),
            (From::Durable(_), Store::Memory(_)) => {}
        }
    }
}

impl Taken {
    fn memory(parts: Vec<Waiting>) -> Self {
        let mut name = parts.first().map_or([0; 16], |part| part.name);
        if let Some(last) = parts.get(1..).and_then(<[Waiting]>::last) {
            name[..8].copy_from_slice(&last.name[8..]);
        }
        let batches = parts.iter().map(|part| part.batch.clone()).collect();
        let batch = Batch::join(batches).unwrap_or(Batch {
            signal: Signal::Traces,
            payload: bytes::Bytes::new(),
            items: 0,
            context: None,
        });
        Taken {
            batch,
            name,
            from: From::Memory(parts),
        }
    }

    fn durable(delivery: Delivery) -> Self {
        Taken {
            batch: delivery.batch.clone(),
            name: delivery.id,
            from: From::Durable(Box::new(delivery)),
        }
    }

    /// Its batches, each with its account, for a queue in memory.
    pub(super) fn meters(&self, mut each: impl FnMut(&Batch)) {
        if let From::Memory(parts) = &self.from {
            parts.iter().for_each(|part| each(&part.batch));
        }
    }
}

/// How full a batch that is being gathered is.
struct Filling<'a> {
    config: &'a QueueBatch,
    until: Instant,
    items: usize,
    bytes: usize,
}

impl<'a> Filling<'a> {
    fn new(config: &'a QueueBatch, first: &Batch) -> Self {
        // However long the document says, a stop does not wait for it.
        let wait = config.flush_timeout.min(Duration::from_secs(3600));
        Filling {
            config,
            until: Instant::now() + wait,
            items: first.items,
            bytes: first.bytes(),
        }
    }

    fn size(&self, items: usize, bytes: usize) -> u64 {
        match self.config.sizer {
            Sizer::Requests => 1,
            Sizer::Items => items as u64,
            Sizer::Bytes => bytes as u64,
        }
    }

    fn enough(&self) -> bool {
        self.size(self.items, self.bytes) >= self.config.min_size || Instant::now() >= self.until
    }

    fn fits(&self, items: usize, bytes: usize) -> bool {
        let most = self.config.max_size;
        most == 0 || self.size(self.items + items, self.bytes + bytes) <= most
    }

    fn add(&mut self, batch: &Batch) {
        self.items += batch.items;
        self.bytes += batch.bytes();
    }
}

async fn gather_memory(memory: &MemoryQueue, sizer: Sizer, config: &QueueBatch) -> Option<Taken> {
    let first = memory.next(sizer).await?;
    let signal = first.batch.signal;
    let partition = config
        .partition
        .as_ref()
        .map_or(&[][..], |partition| &partition.metadata_keys);
    let context = first.batch.context.clone().filter(|_| !partition.is_empty());
    let headers = headers(&first.batch, partition);
    let mut filling = Filling::new(config, &first.batch);
    let mut parts = vec![first];
    while !filling.enough() {
        let fits = |batch: &Batch| {
            let alike = batch.signal == signal && self::headers(batch, partition) == headers;
            alike && filling.fits(batch.items, batch.bytes())
        };
        let mut full = false;
        let next = memory.take(sizer, |batch| {
            full = !fits(batch);
            !full
        });
        match next {
            Some(waiting) => {
                filling.add(&waiting.batch);
                parts.push(waiting);
            }
            None if full || memory.is_closed() => break,
            None => {
                let _ = tokio::time::timeout_at(filling.until, memory.filled()).await;
            }
        }
    }
    let mut taken = Taken::memory(parts);
    // What is alike in its headers is still of one sender, as far as these matter.
    taken.batch.context = taken.batch.context.or(context);
    Some(taken)
}

/// The headers by which is kept apart.
fn headers(batch: &Batch, names: &[String]) -> Vec<Vec<http::HeaderValue>> {
    let metadata = batch.context.as_ref().map(|context| &context.metadata);
    let values =
        |name: &String| metadata.map_or_else(Vec::new, |all| all.get_all(name).iter().cloned().collect());
    names.iter().map(values).collect()
}

async fn gather_durable(durable: &DurableQueue, config: &QueueBatch) -> Option<Taken> {
    let first = durable.next().await?;
    let mut filling = Filling::new(config, &first.batch);
    let mut parts = Vec::new();
    while !filling.enough() && !durable.is_shut() {
        match durable
            .next_alike(&first, |items, bytes| filling.fits(items, bytes))
            .await
        {
            Some(next) => {
                filling.add(&next.batch);
                parts.push(next);
            }
            None => {
                // What does not fit may stay in front: then the next look comes when something is added.
                let _ = tokio::time::timeout_at(filling.until, durable.filled()).await;
            }
        }
    }
    Some(Taken::durable(first.join(parts)))
}

/// The account of a pipeline, by its name.
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) account: Arc<Account>,
}
