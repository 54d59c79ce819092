//! Objects as files: one YAML file an object, each written beside, made durable and renamed into place.
//!
//! `<state>/objects/<group or core>/<resource>/<namespace or _cluster>/<name>.yaml`. A file that was being written when
//! the process died has another name and is removed at the next start.

use crate::store::{Change, Key, Store, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Why a state folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the state folder {} is in use by another site; stop it, or name another folder with --state", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot {action} {}: {source}; check that the folder is writable and the disk not full", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A stored object cannot be read.
    #[error("{} holds no object that can be read: {problem}; repair the file or move it away", path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Objects that every cluster has could not be made.
    #[error("cannot prepare the state folder: {0}")]
    Prepare(String),
}

const TEMPORARY: &str = ".tmp";
/// Versions handed out before the reservation is written again.
const RESERVED: u64 = 10_000;
/// Larger files are none of ours.
const FILE_BYTES: u64 = 16 << 20;

/// The state folder, locked while this lives.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    /// Held for its lock, which ends with the process whatever happens to it.
    _lock: File,
    reserved: u64,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Files {
    /// Locks the folder and reads what it holds.
    pub(crate) fn open(state: &Path) -> Result<(Self, Store), OpenError> {
        let root = state.join("objects");
        make_folder(&root).map_err(io_error("create", &root))?;
        let path = state.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(state.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
        let mut found = Vec::new();
        read_objects(&root, &mut found)?;
        // Definitions first: they say what the others are.
        found.sort_by_key(|(key, _)| (key.resource != "customresourcedefinitions", key.clone()));
        let seen = found
            .iter()
            .map(|(_, o)| text(o, "/metadata/resourceVersion").parse().unwrap_or(0))
            .max()
            .unwrap_or(0);
        let reserved = fs::read_to_string(reservation(&root))
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(0);
        let mut store = Store::new(seen.max(reserved).max(1));
        for (key, object) in found {
            store.restore(key, object);
        }
        let mut files = Self {
            root,
            _lock: lock,
            reserved: 0,
        };
        let path = reservation(&files.root);
        files.reserve(store.version()).map_err(io_error("write", &path))?;
        Ok((files, store))
    }

    /// Makes a change durable. After an error nothing has changed.
    pub(crate) fn apply(&mut self, change: &Change) -> io::Result<()> {
        let (Change::Put { key, object } | Change::Remove { key, last: object }) = change;
        let version: u64 = text(object, "/metadata/resourceVersion").parse().unwrap_or(0);
        if version >= self.reserved {
            self.reserve(version)?;
        }
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        match change {
            Change::Put { object, .. } => {
                make_folder(&folder)?;
                write_durably(&path, encode(object).as_bytes(), 0o600)
            }
            Change::Remove { .. } => {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                sync_folder(&folder)
            }
        }
    }

    /// Versions up to a bound are written down ahead, so that none is given twice even when the object that had it is gone.
    fn reserve(&mut self, version: u64) -> io::Result<()> {
        let until = version + RESERVED;
        write_durably(&reservation(&self.root), format!("{until}\n").as_bytes(), 0o600)?;
        self.reserved = until;
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        let group = if key.group.is_empty() { "core" } else { &key.group };
        let namespace = if key.namespace.is_empty() {
            "_cluster"
        } else {
            &key.namespace
        };
        self.root
            .join(group)
            .join(&key.resource)
            .join(namespace)
            .join(file_name(&key.name))
    }
}

fn reservation(root: &Path) -> PathBuf {
    root.with_file_name("resource-version")
}

/// An object's name may be longer than a file's.
fn file_name(name: &str) -> String {
    const LONGEST: usize = 200;
    if name.len() <= LONGEST && !name.starts_with('.') {
        return format!("{name}.yaml");
    }
    let start: String = name.chars().filter(|c| *c != '.').take(100).collect();
    format!(
        "{start}~{}.yaml",
        hex::encode(&Sha256::digest(name.as_bytes())[..16])
    )
}

/// Writes beside, syncs, renames, syncs the folder: the file is the old one or the new one at any time.
pub(crate) fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(TEMPORARY);
    let beside = PathBuf::from(beside);
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// As YAML; as JSON, which is YAML too, should a value not survive the way there and back.
fn encode(object: &Value) -> String {
    match serde_saphyr::to_string(object) {
        Ok(yaml) if decode(&yaml).is_ok_and(|back| back == *object) => yaml,
        _ => format!("{object:#}\n"),
    }
}

pub(crate) fn decode(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|e| e.to_string());
    }
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

fn read_objects(root: &Path, found: &mut Vec<(Key, Value)>) -> Result<(), OpenError> {
    for group in folders(root)? {
        for resource in folders(&root.join(&group))? {
            for namespace in folders(&root.join(&group).join(&resource))? {
                let folder = root.join(&group).join(&resource).join(&namespace);
                for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
                    let path = entry.map_err(io_error("read", &folder))?.path();
                    let Some(object) = read_object(&path)? else {
                        continue;
                    };
                    let key = Key {
                        group: if group == "core" {
                            String::new()
                        } else {
                            group.clone()
                        },
                        resource: resource.clone(),
                        namespace: if namespace == "_cluster" {
                            String::new()
                        } else {
                            namespace.clone()
                        },
                        name: text(&object, "/metadata/name").to_owned(),
                    };
                    found.push((key, object));
                }
            }
        }
    }
    Ok(())
}

fn folders(path: &Path) -> Result<Vec<String>, OpenError> {
    let entries = fs::read_dir(path).map_err(io_error("read", path))?;
    let folders = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    Ok(folders.filter_map(|e| e.file_name().into_string().ok()).collect())
}

fn read_object(path: &Path) -> Result<Option<Value>, OpenError> {
    let extension = path.extension().and_then(|e| e.to_str());
    if extension == Some("tmp") {
        // Half-written when a process died; the object's own file is whole.
        fs::remove_file(path).map_err(io_error("remove", path))?;
        return Ok(None);
    }
    if extension != Some("yaml") {
        return Ok(None);
    }
    let broken = |problem: String| OpenError::Object {
        path: path.to_owned(),
        problem,
    };
    let size = fs::metadata(path).map_err(io_error("read", path))?.len();
    if size > FILE_BYTES {
        return Err(broken(format!("it is {size} bytes")));
    }
    let content = fs::read_to_string(path).map_err(io_error("read", path))?;
    let object = decode(&content).map_err(broken)?;
    let broken = |problem: &str| OpenError::Object {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        if text(&object, field).is_empty() {
            return Err(broken(&format!("{} is missing", field[1..].replace('/', "."))));
        }
    }
    Ok(Some(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,20}",
            "[ \\n\\t:#|>'\"0-9a-z~-]{0,30}",
            Just("no".to_owned()),
            Just("1e3".to_owned())
        ]
    }

    proptest! {
        #[test]
        fn every_text_comes_back(key in any_text(), value in any_text(), list in prop::collection::vec(any_text(), 0..3)) {
            let object = json!({"data": {key: value}, "list": list, "n": 1, "f": 0.5, "t": true, "e": {}, "l": []});
            prop_assert_eq!(decode(&encode(&object)).unwrap(), object);
        }
    }

    #[test]
    fn long_names_have_files_too() {
        let long = "a".repeat(253);
        assert!(file_name(&long).len() < 200);
        assert_ne!(file_name(&long), file_name(&"a".repeat(252)));
        assert_eq!(file_name("a.b"), "a.b.yaml");
    }
}
