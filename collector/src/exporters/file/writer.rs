//! One file that is written to, and its old ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Zoned;
use jiff::tz::TimeZone;
use karez_collector_config::file::Rotation;

/// An open file.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
    rotation: Option<Rotation>,
    dirty: bool,
}

impl Writer {
    /// Opens a file: a new one, or one to go on with.
    pub(super) fn open(path: &Path, rotation: Option<&Rotation>, append: bool) -> io::Result<Self> {
        let keep = append || rotation.is_some();
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(!keep)
            .append(keep)
            .open(path)?;
        Ok(Writer {
            path: path.to_owned(),
            length: file.metadata()?.len(),
            file,
            rotation: rotation.cloned(),
            dirty: false,
        })
    }

    /// Writes bytes whole, or not at all.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let most = self
            .rotation
            .as_ref()
            .map(|rotation| rotation.max_megabytes.saturating_mul(1 << 20));
        if most.is_some_and(|most| self.length > 0 && self.length + bytes.len() as u64 > most) {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            // Half a batch would make the next one unreadable.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// Syncs what was written.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.dirty) {
            true => self.file.sync_data(),
            false => Ok(()),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(rotation) = self.rotation.clone() else {
            return Ok(());
        };
        self.sync()?;
        let now = match rotation.localtime {
            true => Zoned::now(),
            false => Zoned::now().with_time_zone(TimeZone::UTC),
        };
        let (stem, end) = names(&self.path);
        let time = now.strftime("%Y-%m-%dT%H-%M-%S").to_string();
        let milliseconds = now.millisecond();
        let old = |count: u32| {
            let more = if count == 0 {
                String::new()
            } else {
                format!("-{count}")
            };
            self.path
                .with_file_name(format!("{stem}-{time}.{milliseconds:03}{more}{end}"))
        };
        let free = (0..1000).map(old).find(|path| !path.exists());
        let free = free.ok_or_else(|| io::Error::other("there are a thousand files of this millisecond"))?;
        fs::rename(&self.path, free)?;
        let opened = Writer::open(&self.path, Some(&rotation), false)?;
        *self = opened;
        if let Err(error) = self.prune(&rotation) {
            tracing::warn!(path = %self.path.display(), %error, "old files cannot be removed");
        }
        Ok(())
    }

    /// Removes old files that are too many or too old.
    fn prune(&self, rotation: &Rotation) -> io::Result<()> {
        let (stem, end) = names(&self.path);
        let start = format!("{stem}-");
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let middle = name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(&end));
            if middle.is_some_and(is_time) {
                old.push(path);
            }
        }
        // Names sort by time, and what is newest comes first.
        old.sort_unstable_by(|a, b| b.cmp(a));
        let age = Duration::from_secs(u64::from(rotation.max_days) * 24 * 3600);
        let now = SystemTime::now();
        for (index, path) in old.iter().enumerate() {
            let many = rotation.max_backups > 0 && index >= rotation.max_backups as usize;
            // What is of the future, since the clock was put back, is not old.
            let aged = || {
                io::Result::Ok(
                    now.duration_since(fs::metadata(path)?.modified()?)
                        .is_ok_and(|is| is > age),
                )
            };
            if many || (rotation.max_days > 0 && aged()?) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// A file's name without its ending, and the ending.
fn names(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or_default().to_owned();
    let end = match text(path.extension()) {
        end if end.is_empty() => end,
        end => format!(".{end}"),
    };
    (text(path.file_stem()), end)
}

/// Whether a name's middle is a time, as in `2024-02-29T12-00-00.123`.
fn is_time(text: &str) -> bool {
    text.len() >= 23
        && text
            .bytes()
            .take(23)
            .enumerate()
            .all(|(index, byte)| match index {
                4 | 7 | 13 | 16 => byte == b'-',
                10 => byte == b'T',
                19 => byte == b'.',
                _ => byte.is_ascii_digit(),
            })
}
