//! A small file that holds a secret and may be replaced while the collector runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::CredentialsError;
use karez_lifecycle::volumes;

const MAX_BYTES: u64 = 1 << 20;
/// A replaced file takes effect within this time.
const FRESH: Duration = Duration::from_secs(1);

/// A file whose content is read again when it is older than a second; what was read last stays when reading fails.
#[derive(Debug)]
pub(super) struct SecretFile<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    last: Mutex<(Instant, T)>,
}

impl<T: Clone> SecretFile<T> {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path, parse: fn(&str) -> T) -> Result<Self, CredentialsError> {
        let text = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            parse,
            last: Mutex::new((Instant::now(), parse(&text))),
        })
    }

    /// The content now.
    pub(super) fn current(&self) -> T {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() >= FRESH {
            match read(&self.path) {
                Ok(text) => last.1 = (self.parse)(&text),
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "kept what the file held before")
                }
            }
            last.0 = Instant::now();
        }
        last.1.clone()
    }

    #[cfg(test)]
    pub(super) fn expire(&self) {
        self.last.lock().unwrap().0 -= FRESH;
    }
}

/// Reads a file as text, through the Pod's volumes.
pub(super) fn read(path: &Path) -> Result<String, CredentialsError> {
    let real = volumes::locate(path);
    let mut text = String::new();
    File::open(&real)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .and_then(|length| match length as u64 > MAX_BYTES {
            true => Err(io::Error::other("the file is larger than 1 MiB")),
            false => Ok(()),
        })
        .map_err(|source| CredentialsError::File {
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}
