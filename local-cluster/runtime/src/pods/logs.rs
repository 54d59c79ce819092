//! Containers' logs: a file each, rotated by size, the previous one beside it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::files;

/// A log that has grown to this size becomes the previous one.
const MAX_LOG: u64 = 10 << 20;
/// A line longer than this is cut into several.
const MAX_LINE: u64 = 64 << 10;
/// How much of a log's end is looked at for its last line.
const MAX_WORDS: u64 = 4 << 10;

/// A log that several streams write to, line by line.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    size: u64,
}

/// A fresh log; the one that was there becomes the previous.
pub(crate) fn open(path: &Path) -> io::Result<Log> {
    if let Some(folder) = path.parent() {
        files::make(folder)?;
    }
    let open = Open {
        path: path.to_path_buf(),
        file: fresh(path)?,
        size: 0,
    };
    Ok(Log(Arc::new(Mutex::new(open))))
}

fn fresh(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|about| about.len() > 0) {
        fs::rename(path, previous(path))?;
    }
    File::options().create(true).append(true).open(path)
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl Log {
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.size >= MAX_LOG {
            open.file = fresh(&open.path)?;
            open.size = 0;
        }
        open.file.write_all(line)?;
        open.size += line.len() as u64;
        Ok(())
    }
}

/// The last line of a log that is not empty, cut to what a status can hold; none where there is no log.
pub(crate) fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_WORDS)))
        .ok()?;
    let mut end = Vec::new();
    file.take(MAX_WORDS).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(without_time(line).chars().take(500).collect())
}

/// A record without the time that it begins with: whoever shows it says when.
fn without_time(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.parse::<jiff::Timestamp>().is_ok() => rest.trim_start(),
        _ => line,
    }
}

/// Copies a child's output to the log until it ends. When the disk is full the output is read on and lost, so that the
/// child does not hang on its own log.
pub(crate) async fn keep(output: impl AsyncRead + Unpin, log: Log) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    let mut failing = false;
    loop {
        line.clear();
        match (&mut output).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        let result = log.write(&line);
        if let Err(error) = &result
            && !failing
        {
            tracing::warn!(%error, "a container's log cannot be written");
        }
        failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_log_becomes_the_previous_one() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("a/c.log");
        let log = open(&path).unwrap();
        let long = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            log.write(&long).unwrap();
        }
        keep(&b"one\n2026-11-21T10:09:32.279207Z two"[..], log).await;
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "one\n2026-11-21T10:09:32.279207Z two\n"
        );
        assert_eq!(last_line(&path).as_deref(), Some("two"));
        assert_eq!(previous(&path).metadata().unwrap().len(), 10 << 20);
        open(&path).unwrap();
        assert_eq!(fs::read_to_string(previous(&path)).unwrap().lines().count(), 2);
    }
}
