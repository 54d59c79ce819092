//! The queue's one thread that writes. While it writes one group, the next gathers: so a sync is shared by all that
//! came meanwhile, and nobody waits for more than two of them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::disk::{Disk, Item, Settled};
use super::queue::Shared;
use crate::component::Refusal;

/// A group is written when it is so large, whatever else waits.
const GROUP_BYTES: u64 = 8 << 20;
/// How long settlements gather: what is lost of them by a crash is delivered twice.
const SETTLE: Duration = Duration::from_millis(25);
/// How often it is noted how much is acknowledged.
const MARK: Duration = Duration::from_millis(250);

/// What the writer is to do.
#[derive(Default)]
pub(super) struct Inbox {
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Default)]
struct Work {
    appends: VecDeque<Append>,
    settled: Vec<Settled>,
    closing: bool,
}

/// An item to append, and who is to be told.
pub(super) struct Append {
    pub(super) item: Item,
    pub(super) done: oneshot::Sender<Result<(), Refusal>>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders an append; gives it back when the queue is closing.
    pub(super) fn append(&self, append: Append) -> Result<(), Append> {
        let mut work = self.lock();
        if work.closing {
            return Err(append);
        }
        work.appends.push_back(append);
        drop(work);
        self.wake.notify_one();
        Ok(())
    }

    /// Notes what became of an item.
    pub(super) fn settle(&self, settled: Settled) {
        self.lock().settled.push(settled);
        self.wake.notify_one();
    }

    /// Writes what there is, then ends.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Waits for something to do: appends at once, settlements when they have gathered.
    fn next(&self) -> (Vec<Append>, Vec<Settled>, bool) {
        let mut work = self.lock();
        let mut until: Option<Instant> = None;
        while work.appends.is_empty() && !work.closing {
            let waits = match (work.settled.is_empty(), until) {
                (true, _) => None,
                (false, None) => Some(*until.insert(Instant::now() + SETTLE)),
                (false, Some(until)) => Some(until),
            };
            let now = Instant::now();
            match waits {
                Some(until) if until <= now => break,
                Some(until) => {
                    let waited = self.wake.wait_timeout(work, until - now);
                    work = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => work = self.wake.wait(work).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES {
            let Some(append) = work.appends.pop_front() else {
                break;
            };
            bytes += append.item.size();
            group.push(append);
        }
        let closing = work.closing && work.appends.is_empty();
        let settled = std::mem::take(&mut work.settled);
        drop(work);
        (group, settled, closing)
    }
}

/// Runs until the queue is closed.
pub(super) fn run(mut disk: Disk, shared: &Arc<Shared>) {
    let mut marked = (disk.next, Instant::now());
    let mut failing = false;
    loop {
        let (group, settled, closing) = shared.inbox.next();
        if !group.is_empty() {
            append(&mut disk, group, shared, &mut failing);
        }
        let idle = settled.is_empty();
        settled.iter().for_each(|settled| disk.settle(settled));
        let mark = disk.next != marked.0 && (closing || !idle || marked.1.elapsed() >= MARK);
        if mark {
            disk.mark();
            marked = (disk.next, Instant::now());
        }
        if mark || !idle {
            disk.flush();
        }
        shared.uses(disk.used());
        if closing {
            break;
        }
    }
    if let Err(error) = disk.write_snapshot() {
        tracing::debug!(folder = %disk.folder.display(), %error, "cannot write the state anew");
    }
}

/// Appends a group in as many parts as it has segments. What is on the disk is queued before anybody is told.
fn append(disk: &mut Disk, group: Vec<Append>, shared: &Shared, failing: &mut bool) {
    let (items, mut waiting): (Vec<Item>, VecDeque<_>) =
        group.into_iter().map(|append| (append.item, append.done)).unzip();
    let mut rest = &items[..];
    while !rest.is_empty() {
        match disk.append(rest) {
            Ok(entries) => {
                let count = entries.len();
                shared.committed(entries);
                rest = &rest[count..];
                for done in waiting.drain(..count) {
                    // Who no longer waits was told nothing and sends again: then it is there twice.
                    let _ = done.send(Ok(()));
                }
                if std::mem::take(failing) {
                    tracing::info!(component = shared.key, "the queue can be written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    let folder = disk.folder.display();
                    tracing::error!(
                        component = shared.key, %folder, %error,
                        "the queue cannot be written: data is refused, to be sent again; free space on its disk"
                    );
                }
                // Room may be had by what is settled already.
                disk.flush();
                rest.iter().for_each(|item| shared.gave_back(item));
                for done in waiting.drain(..) {
                    let reason = format!("the queue of {} cannot be written: {error}", shared.key);
                    let _ = done.send(Err(Refusal::later(reason)));
                }
                return;
            }
        }
    }
}
