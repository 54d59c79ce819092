//! A Pod's folder: `volumes/<name>` is a link to the current content of the volume; new content is written beside it
//! and the link is put in its place, so that a reader sees the old files or the new ones, never some of each.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use karez_lifecycle::volumes::Volumes;

use super::env::{Missing, expand};
use super::volumes::{Files, Source};

/// A Pod's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Where the folders of claims are, which outlive the Pod.
    claims: PathBuf,
    /// What each volume's link points to, and how often it was replaced.
    written: BTreeMap<String, (Files, u64)>,
    /// Where each volume is.
    places: BTreeMap<String, PathBuf>,
}

impl std::fmt::Debug for super::volumes::Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // May be a secret.
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// Makes a folder, and those above it, for this user only.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file for this user only, whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside = path.with_file_name(name);
    write(&beside, bytes, mode)?;
    fs::rename(&beside, path)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?
        .write_all(bytes)
}

impl Folder {
    /// The folder of a Pod; what an earlier run left of its volumes is written anew.
    pub(crate) fn new(path: PathBuf, claims: PathBuf) -> io::Result<Self> {
        make(&path.join("volumes"))?;
        Ok(Self {
            path,
            claims,
            written: BTreeMap::new(),
            places: BTreeMap::new(),
        })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a volume in place; says whether its files changed.
    pub(crate) fn put(&mut self, name: &str, source: Source) -> io::Result<bool> {
        let place = self.path.join("volumes").join(name);
        match source {
            Source::Host(path) => drop(self.places.insert(name.to_owned(), path)),
            Source::Claim(claim) => {
                let path = self.claims.join(claim);
                make(&path)?;
                self.places.insert(name.to_owned(), path);
            }
            Source::Empty => {
                make(&place)?;
                self.places.insert(name.to_owned(), place);
            }
            Source::Files(files) => {
                self.places.insert(name.to_owned(), place.clone());
                return self.put_files(name, &place, files);
            }
        }
        Ok(false)
    }

    fn put_files(&mut self, name: &str, place: &Path, files: Files) -> io::Result<bool> {
        let generation = match self.written.get(name) {
            Some((known, _)) if *known == files => return Ok(false),
            Some((_, generation)) => generation + 1,
            None => 0,
        };
        let folder = |generation: u64| format!("..{name}.{generation}");
        let fresh = place.with_file_name(folder(generation));
        let _ = fs::remove_dir_all(&fresh);
        make(&fresh)?;
        for (path, content) in &files {
            let path = fresh.join(path);
            if let Some(parent) = path.parent() {
                make(parent)?;
            }
            write(&path, &content.bytes, content.mode)?;
        }
        let link = place.with_file_name(format!("..{name}.link"));
        let _ = fs::remove_file(&link);
        symlink(folder(generation), &link)?;
        if place.is_dir() && !place.is_symlink() {
            fs::remove_dir_all(place)?;
        }
        fs::rename(&link, place)?;
        if generation > 0 {
            let _ = fs::remove_dir_all(place.with_file_name(folder(generation - 1)));
        }
        self.written.insert(name.to_owned(), (files, generation));
        Ok(true)
    }

    /// Where a container's mounts are.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        variables: &BTreeMap<String, String>,
    ) -> Result<Volumes, Missing> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let missing = || Missing::Volume {
                volume: mount.name.clone(),
            };
            let place = self.places.get(&mount.name).ok_or_else(missing)?;
            let inside = match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) => path.clone(),
                (None, Some(path)) => expand(path, variables),
                (None, None) => String::new(),
            };
            if inside.starts_with('/') || inside.split('/').any(|part| part == "..") {
                return Err(Missing::Path {
                    volume: mount.name.clone(),
                    path: inside,
                });
            }
            let host = if inside.is_empty() {
                place.clone()
            } else {
                place.join(inside)
            };
            mounts.push((PathBuf::from(&mount.mount_path), host));
        }
        Ok(Volumes::new(mounts))
    }

    /// Removes the folder and all that is in it; claims stay.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "a Pod's folder cannot be removed");
        }
    }
}

/// Whether a name may be part of a path: the API's names may, and foreign files could say anything.
pub(crate) fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !name.is_empty() && name.len() <= 253 && name.chars().all(fits) && !name.starts_with('.')
}

/// Whether all names of a Pod that become part of paths may.
pub(crate) fn has_plain_names(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    let own = [&meta.name, &meta.namespace, &meta.uid]
        .into_iter()
        .all(|name| name.as_deref().is_some_and(is_plain));
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    own && containers
        .map(|one| &one.name)
        .chain(spec.volumes.iter().flatten().map(|one| &one.name))
        .all(|n| is_plain(n))
}

#[cfg(test)]
mod tests {
    use super::super::volumes::Content;
    use super::*;

    fn files(text: &str) -> Source {
        let content = Content {
            bytes: text.into(),
            mode: 0o600,
        };
        Source::Files(Files::from([(PathBuf::from("sub/file"), content)]))
    }

    #[test]
    fn a_volume_changes_at_once() {
        let state = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(state.path().join("pods/u"), state.path().join("claims")).unwrap();
        assert!(folder.put("v", files("one")).unwrap());
        let path = state.path().join("pods/u/volumes/v/sub/file");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert!(!folder.put("v", files("one")).unwrap());
        assert!(folder.put("v", files("two")).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        let left = fs::read_dir(state.path().join("pods/u/volumes")).unwrap().count();
        assert_eq!(left, 2, "the link and what it points to");
    }

    #[test]
    fn after_a_restart_the_volume_is_written_anew() {
        let state = tempfile::tempdir().unwrap();
        let open = || Folder::new(state.path().join("pods/u"), state.path().join("claims")).unwrap();
        open().put("v", files("one")).unwrap();
        assert!(open().put("v", files("two")).unwrap());
        let text = fs::read_to_string(state.path().join("pods/u/volumes/v/sub/file")).unwrap();
        assert_eq!(text, "two");
    }

    #[test]
    fn mounts_stay_inside_their_volume() {
        let state = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(state.path().join("pods/u"), state.path().join("claims")).unwrap();
        folder.put("v", Source::Empty).unwrap();
        folder.put("data", Source::Claim("c".into())).unwrap();
        let container = |inside: &str| -> Container {
            let mounts = serde_json::json!([{"name": "v", "mountPath": "/v", "subPath": inside}, {"name": "data", "mountPath": "/data"}]);
            serde_json::from_value(serde_json::json!({"name": "c", "volumeMounts": mounts})).unwrap()
        };
        let none = BTreeMap::new();
        let mounts = folder.mounts(&container("x"), &none).unwrap();
        assert!(mounts.locate(Path::new("/v/f")).ends_with("pods/u/volumes/v/x/f"));
        assert!(mounts.locate(Path::new("/data/f")).ends_with("claims/c/f"));
        assert!(folder.mounts(&container("../../x"), &none).is_err());
        assert!(!is_plain("../x") && !is_plain("") && is_plain("a-b.c"));
    }
}
