//! The queue as the exporter's workers see it: admission, lanes, what is under way.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use karez_collector_config::Signal;
use karez_collector_config::common::Sizer;
use karez_collector_config::extensions::WhenFull;
use tokio::sync::{Notify, oneshot};

use super::disk::{Item, Settled, segment_path};
use super::frame::{self, QueueId};
use super::lanes::{Entry, Lane, Lanes, Next};
use super::open::{self, FileSettings, OpenError};
use super::record::{self, MAX_ACCOUNTS, Record};
use super::writer::{self, Append, Inbox};
use crate::batch::Batch;
use crate::component::Refusal;
use crate::ledger::{Account, Counts, Fate, Reason, Settlement, spread};

/// Entries that wait in one queue, each of which takes memory.
const MAX_ENTRIES: usize = 1 << 20;
/// What may be about to be written.
const MAX_COMING: u64 = 64 << 20;
/// For how long room is waited for when the oldest is dropped: its segment has to be deleted first.
const MAKING_ROOM: Duration = Duration::from_secs(5);

/// How a queue is to be.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) files: FileSettings,
    pub(crate) workers: usize,
    /// How much it holds, in its measure.
    pub(crate) capacity: u64,
    pub(crate) sizer: Sizer,
    /// What its files may take together.
    pub(crate) max_bytes: u64,
    pub(crate) when_full: WhenFull,
    pub(crate) block: bool,
    /// Bytes of fresh data that stay in memory.
    pub(crate) keep: usize,
    /// Bytes a second of backlog; 0 is no bound.
    pub(crate) backlog_rate: u64,
}

/// Gives the account of a pipeline.
pub(crate) type Accounts = Box<dyn Fn(&str) -> Arc<Account> + Send + Sync>;

/// Hears of items that are queued or no longer: signal, batches, items, bytes.
pub(crate) type Meter = Box<dyn Fn(Signal, i64, i64, i64) + Send + Sync>;

/// An open queue. Dropped, it is closed; what waits is there when it is opened again.
pub(crate) struct DurableQueue {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What workers and the writer share.
pub(super) struct Shared {
    pub(super) key: String,
    pub(super) inbox: Inbox,
    settings: Settings,
    id: QueueId,
    state: Mutex<State>,
    accounts: Mutex<HashMap<Arc<str>, Arc<Account>>>,
    make_account: Accounts,
    meter: Meter,
    filled: Notify,
    emptied: Notify,
    closed: AtomicBool,
}

struct State {
    lanes: Lanes,
    /// In the queue's measure: what waits, is under way, or is being written.
    size: u64,
    /// What the segments take.
    used: u64,
    /// What is about to be appended.
    coming: u64,
    entries: usize,
}

/// Something to deliver: one batch, or several that are sent as one.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// What to send.
    pub(crate) batch: Batch,
    /// Names the batch to the other side, the same however often it is sent.
    pub(crate) id: [u8; 16],
    parts: Vec<Entry>,
    lane: Lane,
}

impl Delivery {
    /// Makes one of several, in their order.
    pub(crate) fn join(mut self, more: Vec<Delivery>) -> Self {
        if more.is_empty() {
            return self;
        }
        let mut batches = vec![self.batch.clone()];
        for other in more {
            // Named by all its parts: the same parts sent again have the same name.
            for (byte, part) in self.id.iter_mut().zip(&other.id) {
                *byte = byte.rotate_left(1).wrapping_mul(31).wrapping_add(*part);
            }
            self.parts.extend(other.parts);
            batches.push(other.batch);
        }
        if let Some(joined) = Batch::join(batches) {
            self.batch = joined;
        }
        self
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, name: &Arc<str>) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || (self.make_account)(name);
        accounts.entry(name.clone()).or_insert_with(make).clone()
    }

    fn weight(&self, items: u32, bytes: u64) -> u64 {
        match self.settings.sizer {
            Sizer::Requests => 1,
            Sizer::Items => u64::from(items),
            Sizer::Bytes => bytes,
        }
    }

    /// Items are on the disk.
    pub(super) fn committed(&self, entries: Vec<Entry>) {
        let count = entries.len();
        let mut state = self.state();
        for entry in entries {
            let items = u64::from(entry.items);
            self.account(&entry.account).accept(items);
            let bytes = i64::from(entry.length);
            (self.meter)(entry.signal, 1, i64::from(entry.items), bytes);
            state.coming = state.coming.saturating_sub(u64::from(entry.length));
            state.used += u64::from(entry.length);
            state.lanes.push(entry);
        }
        drop(state);
        // Each entry may be for another worker; waking more of them would be for nothing.
        (0..count.min(self.settings.workers)).for_each(|_| self.filled.notify_one());
    }

    /// An item could not be written.
    pub(super) fn gave_back(&self, item: &Item) {
        let mut state = self.state();
        state.size = state.size.saturating_sub(self.weight(item.items, item.size()));
        state.coming = state.coming.saturating_sub(item.size());
        state.entries = state.entries.saturating_sub(1);
        drop(state);
        self.emptied.notify_waiters();
    }

    /// What the segments take now.
    pub(super) fn uses(&self, bytes: u64) {
        let mut state = self.state();
        let less = bytes < state.used;
        state.used = bytes;
        drop(state);
        if less {
            self.emptied.notify_waiters();
        }
    }

    /// Makes sure that there is room for an item, by the queue's policy.
    async fn admit(&self, item: &Item) -> Result<(), Refusal> {
        let (bytes, weight) = (item.size(), self.weight(item.items, item.size()));
        let deadline = tokio::time::Instant::now() + MAKING_ROOM;
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            let wait = {
                let mut state = self.state();
                if self.closed.load(Ordering::Relaxed) {
                    return Err(Refusal::later(format!("{} is stopping", self.key)));
                }
                let Some(short) = self.short(&state, weight, bytes) else {
                    state.size += weight;
                    state.coming += bytes;
                    state.entries += 1;
                    return Ok(());
                };
                match (self.settings.when_full, self.settings.block) {
                    (WhenFull::DropOldest, _) => match state.lanes.oldest() {
                        Some(entry) => {
                            drop(state);
                            self.drop_entry(&entry, Reason::Overflow);
                            // The number of entries is less at once, the space on the disk when a segment is spent.
                            match short {
                                Short::Disk => Some(deadline),
                                Short::Queue => continue,
                            }
                        }
                        None => Some(deadline),
                    },
                    (WhenFull::Refuse, true) => None,
                    (WhenFull::Refuse, false) => {
                        return Err(Refusal::later(format!(
                            "the sending queue of {} is full",
                            self.key
                        )));
                    }
                }
            };
            match wait {
                None => emptied.await,
                Some(deadline) => {
                    let step = (tokio::time::Instant::now() + Duration::from_millis(30)).min(deadline);
                    let waited = tokio::time::timeout_at(step, emptied).await;
                    if waited.is_err() && tokio::time::Instant::now() >= deadline {
                        return Err(Refusal::later(format!(
                            "the sending queue of {} is full",
                            self.key
                        )));
                    }
                }
            }
        }
    }

    /// What there is too little of.
    fn short(&self, state: &State, weight: u64, bytes: u64) -> Option<Short> {
        let settings = &self.settings;
        let empty = state.entries == 0;
        if state.coming > MAX_COMING {
            return Some(Short::Disk);
        }
        if state.entries >= MAX_ENTRIES || (state.size + weight > settings.capacity.max(1) && !empty) {
            return Some(Short::Queue);
        }
        let full = state.used + state.coming + bytes > settings.max_bytes;
        (full && !empty).then_some(Short::Disk)
    }

    /// Settles an entry that is in no lane any more.
    fn settle_entry(&self, entry: &Entry, settlement: Settlement) {
        self.account(&entry.account).settle(&settlement);
        let (items, bytes) = (i64::from(entry.items), i64::from(entry.length));
        (self.meter)(entry.signal, -1, -items, -bytes);
        self.inbox.settle(Settled {
            sequence: entry.sequence,
            segment: entry.segment,
            settlement,
            account: entry.account.clone(),
        });
        let mut state = self.state();
        let weight = self.weight(entry.items, u64::from(entry.length));
        state.size = state.size.saturating_sub(weight);
        state.entries = state.entries.saturating_sub(1);
        drop(state);
        self.emptied.notify_waiters();
    }

    fn drop_entry(&self, entry: &Entry, reason: Reason) {
        self.settle_entry(entry, Settlement::of(entry.items, Fate::Dropped(reason)));
    }

    /// The payload of an entry, from memory or from its segment.
    async fn payload(&self, entry: &Entry) -> Result<Bytes, String> {
        if let Some(payload) = &entry.payload {
            return Ok(payload.clone());
        }
        let path = segment_path(&self.settings.files.folder, entry.segment);
        let (offset, length, id) = (entry.offset, entry.length as usize, self.id);
        let sequence = entry.sequence;
        let read = move || read_payload(&path, offset, length, id, sequence);
        let done = tokio::task::spawn_blocking(read).await;
        done.unwrap_or_else(|error| Err(error.to_string()))
    }
}

#[derive(Clone, Copy)]
enum Short {
    Queue,
    Disk,
}

fn read_payload(
    path: &Path,
    offset: u64,
    length: usize,
    id: QueueId,
    sequence: u64,
) -> Result<Bytes, String> {
    let mut bytes = vec![0; length];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    let damaged = || format!("{}: the bytes at {offset} are damaged", path.display());
    let body = frame::at(&bytes, 0, id).ok_or_else(damaged)?;
    match record::read(body) {
        Some(Record::Item { item, payload }) if item.sequence == sequence => {
            Ok(Bytes::from(bytes).slice(frame::HEAD + payload..))
        }
        _ => Err(damaged()),
    }
}

impl DurableQueue {
    /// Opens the queue's folder. What waits in it is the backlog.
    pub(crate) async fn open(
        key: &str,
        settings: Settings,
        make_account: Accounts,
        meter: Meter,
    ) -> Result<Self, OpenError> {
        let files = settings.files.clone();
        let opening = tokio::task::spawn_blocking(move || open::open(&files));
        let opened = opening.await.map_err(|error| OpenError::Io {
            path: settings.files.folder.clone(),
            source: std::io::Error::other(error),
        })??;
        for path in &opened.quarantined {
            let path = path.display();
            tracing::error!(component = key, aside = %path, "a damaged segment is set aside; its whole records are kept");
        }
        if opened.lost > 0 {
            tracing::error!(component = key, items = opened.lost, "lost by damage on the disk");
        }
        if !opened.entries.is_empty() {
            tracing::info!(
                component = key,
                batches = opened.entries.len(),
                "delivering what waited on the disk"
            );
        }
        let lanes = Lanes::new(
            settings.workers,
            settings.keep,
            settings.backlog_rate,
            Instant::now(),
        );
        let shared = Arc::new(Shared {
            key: key.to_owned(),
            inbox: Inbox::default(),
            id: opened.disk.id,
            state: Mutex::new(State {
                lanes,
                size: 0,
                used: opened.disk.used(),
                coming: 0,
                entries: opened.entries.len(),
            }),
            settings,
            accounts: Mutex::default(),
            make_account,
            meter,
            filled: Notify::new(),
            emptied: Notify::new(),
            closed: AtomicBool::new(false),
        });
        shared.resume(opened.disk.accounts.iter().map(|(name, counts)| (name, *counts)));
        shared.take(opened.entries);
        let (disk, writing) = (opened.disk, shared.clone());
        let thread = std::thread::Builder::new()
            .name("durable-queue".to_owned())
            .spawn(move || writer::run(disk, &writing));
        let thread = thread.map_err(|source| OpenError::Io {
            path: shared.settings.files.folder.clone(),
            source,
        })?;
        Ok(DurableQueue {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes a batch: when this is `Ok`, it is on the disk.
    pub(crate) async fn append(&self, batch: Batch, account: &Arc<str>) -> Result<(), Refusal> {
        let shared = &self.shared;
        let largest = frame::MAX_BODY - 4096;
        if batch.bytes() > largest || u32::try_from(batch.items).is_err() {
            let reason = format!(
                "a batch of {} bytes is too large for the queue on disk",
                batch.bytes()
            );
            return Err(Refusal::never(reason));
        }
        if !shared.knows(account) {
            return Err(Refusal::never(format!(
                "{} has too many pipelines to account for",
                shared.key
            )));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let item = Item {
            time: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            signal: batch.signal,
            items: batch.items as u32,
            account: account.clone(),
            payload: batch.payload,
        };
        shared.admit(&item).await?;
        let (done, told) = oneshot::channel();
        if let Err(append) = shared.inbox.append(Append { item, done }) {
            shared.gave_back(&append.item);
            return Err(Refusal::later(format!("{} is stopping", shared.key)));
        }
        told.await
            .unwrap_or_else(|_| Err(Refusal::later(format!("{} is stopping", shared.key))))
    }

    /// What to deliver next; `None` once the queue is closed.
    pub(crate) async fn next(&self) -> Option<Delivery> {
        let shared = &self.shared;
        loop {
            let filled = shared.filled.notified();
            tokio::pin!(filled);
            // Registered before the look, so that nothing is missed between the look and the wait.
            filled.as_mut().enable();
            if shared.closed.load(Ordering::Relaxed) {
                return None;
            }
            let (next, more) = {
                let mut state = shared.state();
                (state.lanes.next(Instant::now()), !state.lanes.is_empty())
            };
            match next {
                Next::Deliver(entry, lane) => {
                    if more {
                        // For another worker.
                        shared.filled.notify_one();
                    }
                    if let Some(delivery) = self.load(entry, lane, true).await {
                        return Some(delivery);
                    }
                }
                Next::Wait(wait) => {
                    let _ = tokio::time::timeout(wait, filled).await;
                }
                Next::Nothing => filled.await,
            }
        }
    }

    /// Loads an entry. One whose bytes are damaged is dropped, and said to be. `counted`: it is under way in its lane.
    async fn load(&self, entry: Entry, lane: Lane, counted: bool) -> Option<Delivery> {
        let shared = &self.shared;
        match shared.payload(&entry).await {
            Ok(payload) => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&shared.id);
                id[8..].copy_from_slice(&entry.sequence.to_be_bytes());
                let batch = Batch {
                    signal: entry.signal,
                    payload,
                    items: entry.items as usize,
                    context: None,
                };
                Some(Delivery {
                    batch,
                    id,
                    parts: vec![entry],
                    lane,
                })
            }
            Err(error) => {
                let items = entry.items;
                tracing::error!(
                    component = shared.key,
                    error,
                    items,
                    "dropped: cannot be read from the disk"
                );
                if counted {
                    shared.state().lanes.done(lane);
                }
                shared.drop_entry(&entry, Reason::Corrupt);
                None
            }
        }
    }

    /// What waits next in the lane of a delivery, if it is of the same signal and `fits`: its items and bytes.
    pub(crate) async fn next_alike(
        &self,
        of: &Delivery,
        fits: impl FnOnce(usize, usize) -> bool,
    ) -> Option<Delivery> {
        let alike = |entry: &Entry| {
            entry.signal == of.batch.signal && fits(entry.items as usize, entry.length as usize)
        };
        let next = self.shared.state().lanes.next_alike(of.lane, alike);
        self.load(next?, of.lane, false).await
    }

    /// What became of a delivery: of its items in their order, so many delivered, then so many refused or dropped.
    pub(crate) fn settle(&self, delivery: &Delivery, fates: &[(usize, Fate)]) {
        let more = {
            let mut state = self.shared.state();
            state.lanes.done(delivery.lane);
            !state.lanes.is_empty()
        };
        let items = delivery.parts.iter().map(|entry| entry.items);
        for (entry, settlement) in delivery.parts.iter().zip(spread(items, fates)) {
            self.shared.settle_entry(entry, settlement);
        }
        if more {
            // The share of the backlog may allow another.
            self.shared.filled.notify_one();
        }
    }

    /// Ends when there may be something to take.
    pub(crate) async fn filled(&self) {
        self.shared.filled.notified().await;
    }

    /// Whether nothing more is taken or given.
    pub(crate) fn is_shut(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Nothing more is taken or given.
    pub(crate) fn shut(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.filled.notify_waiters();
        self.shared.emptied.notify_waiters();
    }

    /// Writes what there is and closes the files; what was not delivered stays.
    pub(crate) async fn close(&self) {
        self.shut();
        self.shared.inbox.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if !matches!(joined.await, Ok(Ok(()))) {
                tracing::error!(component = self.shared.key, "the queue's writer ended badly");
            }
        }
    }
}

impl Drop for DurableQueue {
    fn drop(&mut self) {
        self.shut();
        self.shared.inbox.close();
    }
}

impl Shared {
    /// The accounts go on from what the files say.
    fn resume<'a>(&self, accounts: impl Iterator<Item = (&'a Arc<str>, Counts)>) {
        for (name, counts) in accounts {
            self.account(name).resume(counts);
        }
    }

    fn take(&self, entries: Vec<Entry>) {
        let mut state = self.state();
        for entry in entries {
            state.size += self.weight(entry.items, u64::from(entry.length));
            (self.meter)(entry.signal, 1, i64::from(entry.items), i64::from(entry.length));
            state.lanes.push(entry);
        }
    }

    /// Whether an account is there or may still be made.
    fn knows(&self, name: &Arc<str>) -> bool {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.contains_key(name) || (open::fits(name) && accounts.len() < MAX_ACCOUNTS)
    }
}
