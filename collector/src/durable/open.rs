//! Opening a queue's folder: lock, read, set aside what is damaged, and go on where the last one stopped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Disk, SegmentFile, segment_path, sync_folder};
use super::frame::{self, QueueId};
use super::lanes::Entry;
use super::record::MAX_NAME;
use super::recover::{self, Kept, Recovered, Recovery, Segment, Verdict};

/// The largest segment that is read: a full one and one more batch.
const MAX_SEGMENT: u64 = 1 << 30;
/// How many damaged segments are kept for someone to look at; the oldest goes first.
const MAX_QUARANTINED: usize = 16;

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another has it.
    #[error("{} is in use by another collector", .0.display())]
    Locked(PathBuf),
    /// Something in its folder cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

/// How a queue's files are to be kept.
#[derive(Debug, Clone)]
pub(crate) struct FileSettings {
    pub(crate) folder: PathBuf,
    /// Whether what is acknowledged is on the disk itself, not only with the operating system.
    pub(crate) sync: bool,
    pub(crate) segment_size: u64,
    /// How long another's lock is waited for.
    pub(crate) lock_timeout: Duration,
}

/// An opened queue and what waits in it, in order.
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) entries: Vec<Entry>,
    /// Items lost by damage, newly found.
    pub(super) lost: u64,
    /// Where damaged segments were set aside.
    pub(super) quarantined: Vec<PathBuf>,
}

/// Opens a folder, making it if it is not there.
pub(super) fn open(settings: &FileSettings) -> Result<Opened, OpenError> {
    let folder = &settings.folder;
    fs::create_dir_all(folder).map_err(at(folder))?;
    let lock = lock(folder, settings.lock_timeout)?;
    let state_path = folder.join("state");
    let state = match fs::read(&state_path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(at(&state_path)(error)),
    };
    let firsts = segments(folder)?;
    let id = first_id(folder, &firsts).unwrap_or_else(|| rand::random::<u64>().to_le_bytes());
    let mut recovery = Recovery::new(&state, id);
    let mut looked = Looked::default();
    for (index, first) in firsts.iter().enumerate() {
        looked.segment(folder, *first, index + 1 == firsts.len(), &mut recovery)?;
    }
    let id = recovery.id();
    let recovered = recovery.finish();
    let new_state = OpenOptions::new().append(true).create(true).open(&state_path);
    let mut disk = Disk {
        folder: folder.clone(),
        id,
        sync: settings.sync,
        segment_size: settings.segment_size,
        segments: looked.segments,
        active: None,
        accounts: BTreeMap::new(),
        settled: recovered.settled.clone(),
        next: recovered.next,
        state: new_state.map_err(at(&state_path))?,
        state_size: state.len() as u64,
        snapshot_size: 0,
        unwritten: Vec::new(),
        reserve_missing: Some(Instant::now()),
        _lock: lock,
    };
    take_accounts(&mut disk, &recovered);
    begin(&mut disk, &state_path)?;
    let entries = entries(looked.kept, &disk);
    Ok(Opened {
        disk,
        entries,
        lost: recovered.lost,
        quarantined: looked.quarantined,
    })
}

fn take_accounts(disk: &mut Disk, recovered: &Recovered) {
    for (name, counts) in &recovered.accounts {
        disk.accounts.insert(name.as_str().into(), *counts);
    }
}

/// Writes a new snapshot, with which all that was found out is settled, and gives spent segments back.
fn begin(disk: &mut Disk, state_path: &Path) -> Result<(), OpenError> {
    if let Err(error) = disk.write_snapshot() {
        // A full disk is no reason not to start: delivering is what makes room. The old state still holds.
        if !matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Err(at(state_path)(error));
        }
        let _ = fs::remove_file(disk.folder.join("reserve"));
        if let Err(error) = disk.write_snapshot() {
            tracing::warn!(folder = %disk.folder.display(), %error, "the disk is full");
        }
    }
    disk.flush();
    disk.reserve();
    Ok(())
}

fn entries(kept: Vec<(u64, Kept)>, disk: &Disk) -> Vec<Entry> {
    let entry = |(segment, kept): (u64, Kept)| {
        let account = disk.accounts.get_key_value(kept.account.as_str());
        Entry {
            sequence: kept.sequence,
            segment,
            offset: kept.offset,
            length: kept.length,
            items: kept.items,
            signal: kept.signal,
            account: account.map_or_else(|| Arc::from(kept.account.as_str()), |(name, _)| name.clone()),
            payload: None,
        }
    };
    kept.into_iter().map(entry).collect()
}

fn lock(folder: &Path, timeout: Duration) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    let file = opened.map_err(at(&path))?;
    let deadline = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(OpenError::Locked(folder.to_owned()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
    }
}

/// The segments' first sequence numbers, in order.
fn segments(folder: &Path) -> Result<Vec<u64>, OpenError> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let name = entry.map_err(at(folder))?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".segment"));
        firsts.extend(first.and_then(|first| u64::from_str_radix(first, 16).ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

fn first_id(folder: &Path, firsts: &[u64]) -> Option<QueueId> {
    firsts.iter().find_map(|first| {
        use std::io::Read as _;
        let mut start = [0; frame::PREAMBLE];
        let mut file = File::open(segment_path(folder, *first)).ok()?;
        file.read_exact(&mut start).ok()?;
        frame::queue_id(&start)
    })
}

#[derive(Default)]
struct Looked {
    segments: BTreeMap<u64, SegmentFile>,
    kept: Vec<(u64, Kept)>,
    quarantined: Vec<PathBuf>,
}

impl Looked {
    fn segment(
        &mut self,
        folder: &Path,
        first: u64,
        newest: bool,
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let path = segment_path(folder, first);
        let size = fs::metadata(&path).map_err(at(&path))?.len();
        if size > MAX_SEGMENT {
            let error = io::Error::other("larger than any segment; move it away");
            return Err(at(&path)(error));
        }
        let bytes = fs::read(&path).map_err(at(&path))?;
        let Segment { verdict, end, kept } = recovery.segment(first, &bytes, newest);
        let mut size = bytes.len() as u64;
        let mut kept = kept;
        match verdict {
            Verdict::Keep => {}
            Verdict::Cut(length) => {
                let opened = OpenOptions::new().write(true).open(&path);
                opened.and_then(|file| file.set_len(length)).map_err(at(&path))?;
                tracing::info!(segment = %path.display(), from = length, "a write that was cut off is removed");
                size = length;
            }
            Verdict::Quarantine => {
                let whole = recover::rewrite(&bytes, recovery.id());
                match set_aside(folder, &path, &whole) {
                    Ok(aside) => {
                        self.quarantined.push(aside);
                        size = whole.len() as u64;
                        relocate(&mut kept, &whole, recovery.id());
                    }
                    // It is used as it is: its whole records can be read where they stand.
                    Err(error) => tracing::error!(%error, "a damaged segment cannot be set aside"),
                }
            }
        }
        let segment = SegmentFile {
            size,
            live: kept.len() as u64,
            end,
        };
        self.segments.insert(first, segment);
        self.kept.extend(kept.into_iter().map(|kept| (first, kept)));
        Ok(())
    }
}

/// Where the kept items stand in the new file.
fn relocate(kept: &mut [Kept], whole: &[u8], id: QueueId) {
    let mut places = BTreeMap::new();
    for found in frame::frames(whole, id) {
        if let frame::Found::Frame { offset, body } = found
            && let Some(super::record::Record::Item { item, .. }) = super::record::read(body)
        {
            places.insert(item.sequence, offset as u64);
        }
    }
    for kept in kept {
        kept.offset = places.get(&kept.sequence).copied().unwrap_or(kept.offset);
    }
}

/// Keeps a damaged segment under another name and puts its whole records in its place. At any instant one of both is
/// there under the segment's name.
fn set_aside(folder: &Path, path: &Path, whole: &[u8]) -> Result<PathBuf, OpenError> {
    let quarantine = folder.join("quarantine");
    fs::create_dir_all(&quarantine).map_err(at(&quarantine))?;
    make_room(&quarantine);
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let aside = quarantine.join(format!("{name}.{}.damaged", now.map_or(0, |now| now.as_millis())));
    let new = folder.join("segment.new");
    fs::write(&new, whole).map_err(at(&new))?;
    let synced = File::open(&new).and_then(|file| file.sync_all());
    synced.map_err(at(&new))?;
    fs::hard_link(path, &aside).map_err(at(&aside))?;
    fs::rename(&new, path).map_err(at(path))?;
    sync_folder(folder).map_err(at(folder))?;
    Ok(aside)
}

fn make_room(quarantine: &Path) {
    let entries = fs::read_dir(quarantine).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    let surplus = (files.len() + 1).saturating_sub(MAX_QUARANTINED);
    for (_, path) in files.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

/// Whether a queue may hold an account of this name.
pub(crate) fn fits(name: &str) -> bool {
    name.len() <= MAX_NAME
}
