//! The files of a queue: segments that are appended to, and the state beside them. Only the writer's thread is here.
//!
//! Order of what reaches the disk, which is what a crash at any instant relies on:
//! items → (synced) → acknowledged; settlements → state → (synced) → their segment is deleted.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use karez_collector_config::Signal;

use super::frame::{self, QueueId};
use super::lanes::Entry;
use super::ranges::Ranges;
use super::record;
use crate::ledger::{Counts, Settlement};

/// A state file that has grown to this, and to several times its snapshot, is written anew.
const STATE_GROWS: u64 = 256 << 10;
/// Room that is given up when the disk is full, so that the state can still be written.
const RESERVE: usize = 256 << 10;
/// How often it is tried to have it again.
const RESERVE_AGAIN: Duration = Duration::from_millis(200);

/// An item to append.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) time: u64,
    pub(super) signal: Signal,
    pub(super) items: u32,
    pub(super) account: Arc<str>,
    pub(super) payload: Bytes,
}

impl Item {
    /// About what it takes on the disk.
    pub(super) fn size(&self) -> u64 {
        (frame::HEAD + 32 + self.account.len() + self.payload.len()) as u64
    }
}

/// An item that has found its end.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) sequence: u64,
    pub(super) segment: u64,
    pub(super) settlement: Settlement,
    pub(super) account: Arc<str>,
}

/// A segment's file.
#[derive(Debug, Default)]
pub(super) struct SegmentFile {
    pub(super) size: u64,
    /// Items that are not settled.
    pub(super) live: u64,
    /// One past its last item.
    pub(super) end: u64,
}

/// The files.
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    pub(super) id: QueueId,
    pub(super) sync: bool,
    pub(super) segment_size: u64,
    pub(super) segments: BTreeMap<u64, SegmentFile>,
    /// The segment that is appended to.
    pub(super) active: Option<(u64, File)>,
    pub(super) accounts: BTreeMap<Arc<str>, Counts>,
    pub(super) settled: Ranges,
    pub(super) next: u64,
    pub(super) state: File,
    pub(super) state_size: u64,
    pub(super) snapshot_size: u64,
    /// Records that are to go into the state.
    pub(super) unwritten: Vec<u8>,
    /// When the room for hard times was last tried for; `None` while it is there.
    pub(super) reserve_missing: Option<Instant>,
    /// Held for as long as the queue is open.
    pub(super) _lock: File,
}

/// The file of a segment.
pub(super) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:016x}.segment"))
}

impl Disk {
    /// What all segments take.
    pub(super) fn used(&self) -> u64 {
        self.segments.values().map(|segment| segment.size).sum()
    }

    /// Appends as many items as go into one segment, at least one, and gives their entries. On an error none of them
    /// is there.
    pub(super) fn append(&mut self, group: &[Item]) -> io::Result<Vec<Entry>> {
        if self.reserve_missing.is_some() {
            // What room there is belongs to the state, which makes more of it.
            self.reserve_again();
            if self.reserve_missing.is_some() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let first = self.writable_segment()?;
        let mut offset = self.segments.get(&first).map_or(0, |segment| segment.size);
        let start = offset;
        let (mut heads, mut entries) = (Vec::new(), Vec::new());
        let mut accepted: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (item, sequence) in group.iter().zip(self.next..) {
            if !entries.is_empty() && offset >= self.segment_size {
                break;
            }
            let before = accepted
                .entry(item.account.clone())
                .or_insert_with(|| self.accounts.get(&item.account).map_or(0, |c| c.accepted));
            let fields = record::item(&record::Item {
                sequence,
                time: item.time,
                signal: item.signal,
                items: item.items,
                accepted: *before,
                account: &item.account,
            });
            *before += u64::from(item.items);
            let mut head = frame::head(self.id, &[&fields, &item.payload]).to_vec();
            head.extend_from_slice(&fields);
            let length = head.len() + item.payload.len();
            entries.push(Entry {
                sequence,
                segment: first,
                offset,
                length: u32::try_from(length).unwrap_or(u32::MAX),
                items: item.items,
                signal: item.signal,
                account: item.account.clone(),
                payload: Some(item.payload.clone()),
            });
            offset += length as u64;
            heads.push(head);
        }
        let parts = heads.iter().zip(group);
        let mut parts: Vec<IoSlice<'_>> = parts
            .flat_map(|(head, item)| [IoSlice::new(head), IoSlice::new(&item.payload)])
            .collect();
        self.write(first, &mut parts, start)?;
        self.next += entries.len() as u64;
        for (account, accepted) in accepted {
            self.accounts.entry(account).or_default().accepted = accepted;
        }
        if let Some(segment) = self.segments.get_mut(&first) {
            segment.size = offset;
            segment.live += entries.len() as u64;
            segment.end = self.next;
        }
        Ok(entries)
    }

    /// Writes, and syncs where that is asked for. On failure the file is as long as before.
    fn write(&mut self, first: u64, parts: &mut [IoSlice<'_>], start: u64) -> io::Result<()> {
        let sync = self.sync;
        let Some((_, file)) = &mut self.active else {
            return Err(io::Error::other("there is no segment to write to"));
        };
        let written = write_all(file, parts).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        let Err(error) = written else { return Ok(()) };
        if file.set_len(start).is_err() {
            // What stands behind the last whole record is found to be damage when the queue is opened again.
            self.active = None;
            if self.segments.get(&first).is_some_and(|segment| segment.live == 0) {
                self.delete(first);
            }
        }
        Err(error)
    }

    /// The segment to append to: a new one when there is none or it is full.
    fn writable_segment(&mut self) -> io::Result<u64> {
        if let Some((first, _)) = self.active {
            let full = self
                .segments
                .get(&first)
                .is_none_or(|s| s.size >= self.segment_size);
            if !full {
                return Ok(first);
            }
            self.active = None;
        }
        let first = self.next;
        let path = segment_path(&self.folder, first);
        let mut start = frame::preamble(self.id).to_vec();
        let accounts: Vec<_> = self
            .accounts
            .iter()
            .map(|(name, c)| (&**name, c.accepted))
            .collect();
        frame::put(&mut start, self.id, &record::head(first, accounts.into_iter()));
        let created = OpenOptions::new().append(true).create_new(true).open(&path);
        let made = created.and_then(|mut file| {
            file.write_all(&start)?;
            if self.sync {
                file.sync_data()?;
                sync_folder(&self.folder)?;
            }
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // Half a file would stand in the way of the next try.
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        };
        let segment = SegmentFile {
            size: start.len() as u64,
            live: 0,
            end: first,
        };
        self.segments.insert(first, segment);
        self.active = Some((first, file));
        Ok(first)
    }

    /// Notes what became of items. It is on its way to the state; [`Disk::flush`] writes it.
    pub(super) fn settle(&mut self, settled: &Settled) {
        if !self.settled.insert(settled.sequence) {
            return;
        }
        let counts = self.accounts.entry(settled.account.clone()).or_default();
        settled.settlement.apply(counts);
        if let Some(segment) = self.segments.get_mut(&settled.segment) {
            segment.live = segment.live.saturating_sub(1);
        }
        let body = record::settled(settled.sequence, &settled.settlement, &settled.account);
        frame::put(&mut self.unwritten, self.id, &body);
    }

    /// Notes how much is acknowledged.
    pub(super) fn mark(&mut self) {
        let accounts: Vec<_> = self
            .accounts
            .iter()
            .map(|(name, c)| (&**name, c.accepted))
            .collect();
        let body = record::mark(self.next, accounts.into_iter());
        frame::put(&mut self.unwritten, self.id, &body);
    }

    /// Writes what is noted, gives the space of settled segments back, and keeps the state small.
    pub(super) fn flush(&mut self) {
        let mut written = self.write_state();
        if written.is_err() && self.reserve_missing.is_none() {
            let _ = fs::remove_file(self.folder.join("reserve"));
            self.reserve_missing = Some(Instant::now());
            written = self.write_state();
        }
        if let Err(error) = &written {
            tracing::warn!(folder = %self.folder.display(), %error, "the state of the queue cannot be written");
        }
        self.sweep();
        if written.is_err() {
            // Deleting segments is what makes room; then the state can be written after all.
            written = self.write_state();
        }
        let grown = self.state_size > STATE_GROWS && self.state_size > self.snapshot_size * 4;
        if (written.is_err() || grown)
            && let Err(error) = self.write_snapshot()
        {
            tracing::debug!(folder = %self.folder.display(), %error, "cannot write the state anew");
        }
        self.reserve_again();
    }

    fn write_state(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        match self.state.write_all(&self.unwritten) {
            Ok(()) => {
                self.state_size += self.unwritten.len() as u64;
                self.unwritten.clear();
                Ok(())
            }
            Err(error) => {
                // A frame that was begun is passed over when the state is read.
                let _ = self.state.set_len(self.state_size);
                Err(error)
            }
        }
    }

    /// Deletes every segment in which nothing is left to deliver.
    fn sweep(&mut self) {
        let active = self.active.as_ref().map(|(first, _)| *first);
        let spent: Vec<u64> = self
            .segments
            .iter()
            .filter(|(first, segment)| {
                let begun = Some(**first) == active && segment.size < self.segment_size / 2;
                segment.live == 0 && !begun
            })
            .map(|(first, _)| *first)
            .collect();
        if self.sync
            && !spent.is_empty()
            && let Err(error) = self.state.sync_data()
        {
            // The items are settled: should the machine lose its power now, only the ledger would be wrong.
            tracing::warn!(folder = %self.folder.display(), %error, "the state of the queue cannot be synced");
        }
        for first in spent {
            if active == Some(first) {
                self.active = None;
            }
            self.delete(first);
        }
    }

    fn delete(&mut self, first: u64) {
        match fs::remove_file(segment_path(&self.folder, first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), segment = first, %error, "cannot delete a segment");
            }
            _ => {
                self.segments.remove(&first);
            }
        }
    }

    /// Writes the state as one snapshot in a new file that takes the old one's place.
    pub(super) fn write_snapshot(&mut self) -> io::Result<()> {
        let settled: Vec<Ranges> = self
            .segments
            .iter()
            .map(|(first, segment)| self.settled.within(*first, segment.end))
            .collect();
        let references: Vec<&Ranges> = settled.iter().collect();
        let accounts: Vec<_> = self.accounts.iter().map(|(name, c)| (&**name, c)).collect();
        let body = record::snapshot(self.next, accounts.into_iter(), &references);
        let mut bytes = frame::preamble(self.id).to_vec();
        frame::put(&mut bytes, self.id, &body);
        let (new, path) = (self.folder.join("state.new"), self.folder.join("state"));
        let mut file = OpenOptions::new().append(true).create(true).open(&new)?;
        let written = (|| {
            file.set_len(0)?;
            file.write_all(&bytes)?;
            if self.sync {
                file.sync_data()?;
            }
            fs::rename(&new, &path)?;
            if self.sync {
                sync_folder(&self.folder)?;
            }
            Ok(())
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
            return written;
        }
        self.state = file;
        self.state_size = bytes.len() as u64;
        self.snapshot_size = self.state_size;
        self.unwritten.clear();
        self.settled = Ranges::default();
        for ranges in settled {
            ranges.iter().for_each(|(from, to)| self.settled.add(from, to));
        }
        Ok(())
    }

    fn reserve_again(&mut self) {
        let waited = |since: Instant| since.elapsed() > RESERVE_AGAIN;
        if self.reserve_missing.is_some_and(waited) {
            self.reserve();
        }
    }

    /// Keeps some room for hard times.
    pub(super) fn reserve(&mut self) {
        let path = self.folder.join("reserve");
        self.reserve_missing = match fs::write(&path, vec![b'.'; RESERVE]) {
            Ok(()) => None,
            Err(_) => {
                let _ = fs::remove_file(&path);
                Some(Instant::now())
            }
        };
    }
}

fn write_all(file: &mut File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes names that were made or removed in a folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
