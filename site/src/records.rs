//! Which local sites run: one small file each below `$XDG_STATE_HOME/karez/.running`, believed only while the
//! site's state folder is locked.
//!
//! `site run` writes a record, commands read them to find the site that they act on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The lock in a site's state folder.
const LOCK: &str = "site.lock";

/// A local site that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteRecord {
    /// Its local name.
    pub name: String,
    /// Its state folder.
    pub state: PathBuf,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// The namespace that its manifests are in by default.
    pub namespace: String,
    /// The process that runs it.
    pub pid: u32,
}

/// Why a site's state cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No home is known.
    #[error("no place for state is known: neither XDG_STATE_HOME nor HOME is set; name one with --state")]
    NoHome,
    /// The folder or a file in it cannot be used.
    #[error("cannot use the state folder {path}: {source}; name another with --state")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process runs this site.
    #[error(
        "the state folder {path} is in use by {holder}; stop that site, or name another folder with --state"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
}

/// Where state of local sites is kept: `$XDG_STATE_HOME/karez`, else `~/.local/state/karez`.
///
/// # Errors
/// When neither is known.
pub fn state_home() -> Result<PathBuf, StateError> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    home.map(|home| home.join("karez")).ok_or(StateError::NoHome)
}

/// A state folder that no other process uses; given back when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the folder (readable by its owner alone) and locks it.
    ///
    /// # Errors
    /// When it cannot be made, or another process holds it.
    pub fn take(state: &Path) -> Result<StateLock, StateError> {
        let failed = |source| StateError::Io {
            path: state.to_owned(),
            source,
        };
        make_private(state).map_err(failed)?;
        let path = state.join(LOCK);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let holder = if holder.trim().is_empty() {
                    "another process".into()
                } else {
                    holder.trim().to_owned()
                };
                return Err(StateError::InUse {
                    path: state.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "karez, process {}", std::process::id()).map_err(failed)?;
        Ok(StateLock { _file: file })
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let existed = folder.is_dir();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if !existed {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Whether some process holds this state folder.
fn is_held(state: &Path) -> bool {
    let Ok(file) = File::open(state.join(LOCK)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// A record that is there while the site runs.
#[derive(Debug)]
pub struct Announced {
    path: PathBuf,
}

impl Announced {
    /// Writes a site's record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(record: &SiteRecord) -> Result<Announced, StateError> {
        let folder = state_home()?.join(".running");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        make_private(&folder).map_err(failed(&folder))?;
        let digest = Sha256::digest(record.state.as_os_str().as_encoded_bytes());
        let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{}-{short}.json", file_name(&record.name)));
        let text = serde_json::to_vec_pretty(record).expect("strings and a number");
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text).map_err(failed(&partial))?;
        std::fs::rename(&partial, &path).map_err(failed(&path))?;
        Ok(Announced { path })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // A record that stays is not believed: its state folder is no longer locked.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn file_name(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// The local sites that run, sorted by name; records of dead ones are removed.
pub fn running() -> Vec<SiteRecord> {
    let Ok(home) = state_home() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(home.join(".running")) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let records = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut alive: Vec<SiteRecord> = records.filter_map(|path| read_record(&path)).collect();
    alive.sort_by(|a, b| (&a.name, &a.state).cmp(&(&b.name, &b.state)));
    alive
}

fn read_record(path: &Path) -> Option<SiteRecord> {
    let record: SiteRecord = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    if is_held(&record.state) {
        return Some(record);
    }
    let _ = std::fs::remove_file(path);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_is_one_sites() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let lock = StateLock::take(&state).unwrap();
        assert!(is_held(&state));
        let error = StateLock::take(&state).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(lock);
        assert!(!is_held(&state));
        StateLock::take(&state).unwrap();
    }
}
