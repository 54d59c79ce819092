//! Follows a directory of manifests and keeps a cluster's objects as the files say.
//!
//! ```text
//! files ─ scan ─► last good manifests of each file ─ plan (pure) ─► apply, remove ─► Kubernetes API
//!                         │                                               │
//!                         └──────────── Notice (what happened) ◄──────────┘
//! ```
//! An object is applied when its content changed, never because time went by. A broken file keeps its last good
//! objects. A vanished file is waited for a moment, since editors rename.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use karez_document::{Diagnosis, Place};
use karez_lifecycle::Shutdown;
use notify::Watcher as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::apply::{Applier, ApplyError};
use crate::diagnose::diagnose;
use crate::manifest::{self, Manifest};

/// How often the directory is looked at even when the kernel reports nothing.
const POLL: Duration = Duration::from_secs(1);
/// How long a change is waited for to be complete.
const SETTLE: Duration = Duration::from_millis(50);
/// How long an object whose file vanished is kept.
const GRACE: Duration = Duration::from_millis(1500);
/// How long until a refused object is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What happened to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An object was applied.
    Applied {
        /// `kind/name`
        object: String,
        /// Where it is declared.
        place: Place,
    },
    /// An object was removed since no file declares it any more.
    Removed {
        /// `kind/name`
        object: String,
    },
    /// An object is stored, but nothing here runs its kind.
    Stored {
        /// `kind/name`
        object: String,
        /// Where it is declared.
        place: Place,
    },
    /// Something is wrong.
    Wrong(Diagnosis),
    /// The directory was read and applied for the first time.
    Loaded {
        /// How many objects.
        objects: usize,
        /// How many files.
        files: usize,
    },
}

/// Which object: group, kind, namespace (empty for the default one), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    fn of(manifest: &Manifest) -> Key {
        Key {
            api_version: manifest.api_version().to_owned(),
            kind: manifest.kind().to_owned(),
            namespace: manifest.namespace().unwrap_or_default().to_owned(),
            name: manifest.name().to_owned(),
        }
    }

    /// The same object in another version of its group is the same object.
    fn identity(&self) -> (String, String, String, String) {
        let group = self.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        (
            group.to_owned(),
            self.kind.clone(),
            self.namespace.clone(),
            self.name.clone(),
        )
    }

    fn show(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// What was applied, and from where; kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    key: Key,
    file: String,
    hash: String,
}

/// A file as it was last read.
#[derive(Debug, Default)]
struct FileState {
    stamp: Option<(SystemTime, u64)>,
    manifests: Vec<Manifest>,
    broken: bool,
}

/// Where the loader gets its files and what it does with them.
pub struct Loader {
    directory: PathBuf,
    record: PathBuf,
    applier: Arc<Applier>,
    notices: mpsc::UnboundedSender<Notice>,
    files: BTreeMap<PathBuf, FileState>,
    known: BTreeMap<(String, String, String, String), Known>,
    missing: BTreeMap<(String, String, String, String), Instant>,
    refused: BTreeMap<(String, String, String, String), (String, Instant)>,
    said: BTreeSet<String>,
    loaded: bool,
}

impl Loader {
    /// Follows `directory`; what was applied is remembered in the file `record`.
    pub fn new(
        directory: PathBuf,
        record: PathBuf,
        applier: Arc<Applier>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Loader {
        let known = std::fs::read(&record)
            .ok()
            .and_then(|text| serde_json::from_slice::<Vec<Known>>(&text).ok());
        let known = known
            .unwrap_or_default()
            .into_iter()
            .map(|known| (known.key.identity(), known))
            .collect();
        Loader {
            directory,
            record,
            applier,
            notices,
            files: BTreeMap::new(),
            known,
            missing: BTreeMap::new(),
            refused: BTreeMap::new(),
            said: BTreeSet::new(),
            loaded: false,
        }
    }

    /// Follows the directory until shutdown.
    pub async fn run(mut self, shutdown: Shutdown) {
        let (changed, mut changes) = mpsc::channel(1);
        // Without the kernel's reports the poll alone finds every change.
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an event as well: heeding it would be a loop without end.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = changed.try_send(());
            }
        })
        .ok();
        loop {
            if let Some(watcher) = &mut watcher {
                self.watch_folders(watcher);
            }
            self.round().await;
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(POLL) => {}
                Some(()) = changes.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    let _ = changes.try_recv();
                }
            }
        }
    }

    /// Watches each folder of a manifest itself: links lead out of the directory.
    fn watch_folders(&self, watcher: &mut notify::RecommendedWatcher) {
        let folders: BTreeSet<&Path> = self
            .files
            .keys()
            .filter_map(|path| path.parent())
            .chain([self.directory.as_path()])
            .collect();
        for folder in folders {
            let _ = watcher.watch(folder, notify::RecursiveMode::NonRecursive);
        }
    }

    async fn round(&mut self) {
        let Some(paths) = self.list() else { return };
        let changed = self.read(&paths);
        if !changed && self.missing.is_empty() && self.refused.is_empty() && self.loaded {
            return;
        }
        let now = Instant::now();
        let desired = in_order(self.desired().into_values().cloned().collect());
        if changed {
            self.say_new(diagnose(&desired));
        }
        let identities: BTreeSet<_> = desired
            .iter()
            .map(|manifest| Key::of(manifest).identity())
            .collect();
        self.apply_all(&desired, now).await;
        self.remove_missing(&identities, now).await;
        if !self.loaded {
            self.loaded = true;
            let (objects, files) = (desired.len(), self.files.len());
            self.tell(Notice::Loaded { objects, files });
        }
    }

    fn list(&mut self) -> Option<Vec<PathBuf>> {
        match manifest::find(&self.directory) {
            Ok(paths) => Some(paths),
            Err(error) => {
                let place = Place::file(self.directory.display().to_string());
                let message = format!("cannot read the directory: {error}");
                self.say_new(vec![Diagnosis::error(
                    place,
                    "",
                    message,
                    "what runs keeps running; restore it",
                )]);
                None
            }
        }
    }

    /// Reads what changed; says whether anything did.
    fn read(&mut self, paths: &[PathBuf]) -> bool {
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut changed = before != self.files.len();
        for path in paths {
            let stamp = stamp(path);
            let state = self.files.entry(path.clone()).or_default();
            if state.stamp == stamp && stamp.is_some() {
                continue;
            }
            changed = true;
            state.stamp = stamp;
            match manifest::read(path) {
                Ok(manifests) => {
                    state.manifests = manifests;
                    state.broken = false;
                }
                Err(problems) => {
                    state.broken = true;
                    for problem in problems {
                        let _ = self.notices.send(Notice::Wrong(problem));
                    }
                }
            }
        }
        changed
    }

    /// The objects that the files declare now; of two with the same name the later one.
    fn desired(&self) -> BTreeMap<(String, String, String, String), &Manifest> {
        let manifests = self.files.values().flat_map(|file| &file.manifests);
        manifests
            .map(|manifest| (Key::of(manifest).identity(), manifest))
            .collect()
    }

    async fn apply_all(&mut self, desired: &[Manifest], now: Instant) {
        for manifest in desired {
            let key = Key::of(manifest);
            let identity = key.identity();
            self.missing.remove(&identity);
            let hash = hash(manifest);
            if self.known.get(&identity).is_some_and(|known| known.hash == hash) {
                continue;
            }
            if let Some((refused, since)) = self.refused.get(&identity)
                && *refused == hash
                && now.duration_since(*since) < RETRY
            {
                continue;
            }
            match self.applier.apply(manifest).await {
                Ok(outcome) => {
                    self.refused.remove(&identity);
                    self.applied(manifest, key, hash, outcome.runs);
                }
                Err(error) => {
                    self.refused.insert(identity, (hash, now));
                    self.say_new(vec![refusal(manifest, &error)]);
                }
            }
        }
    }

    fn applied(&mut self, manifest: &Manifest, key: Key, hash: String, runs: bool) {
        let (object, place) = (key.show(), manifest.place());
        self.tell(if runs {
            Notice::Applied { object, place }
        } else {
            Notice::Stored { object, place }
        });
        self.known.insert(
            key.identity(),
            Known {
                key,
                file: manifest.file.clone(),
                hash,
            },
        );
        self.save();
    }

    async fn remove_missing(&mut self, desired: &BTreeSet<(String, String, String, String)>, now: Instant) {
        let broken: BTreeSet<String> = self
            .files
            .iter()
            .filter(|(_, file)| file.broken)
            .map(|(path, _)| path.display().to_string())
            .collect();
        self.refused.retain(|identity, _| desired.contains(identity));
        let gone: Vec<Known> = self
            .known
            .iter()
            .filter(|(identity, known)| !desired.contains(*identity) && !broken.contains(&known.file))
            .map(|(_, known)| known.clone())
            .collect();
        for known in gone {
            let identity = known.key.identity();
            let since = *self.missing.entry(identity.clone()).or_insert(now);
            if now.duration_since(since) < GRACE {
                continue;
            }
            match self.applier.remove(&known.key).await {
                Ok(()) => {
                    self.missing.remove(&identity);
                    self.known.remove(&identity);
                    self.save();
                    self.tell(Notice::Removed {
                        object: known.key.show(),
                    });
                }
                Err(error) => {
                    let place = Place::file(known.file.clone());
                    let message = format!("cannot remove {}: {error}", known.key.show());
                    self.say_new(vec![Diagnosis::error(place, "", message, "it is tried again")]);
                }
            }
        }
    }

    /// Says what was not said since the files last changed it.
    fn say_new(&mut self, diagnoses: Vec<Diagnosis>) {
        for diagnosis in diagnoses {
            if self.said.insert(diagnosis.to_string()) {
                self.tell(Notice::Wrong(diagnosis));
            }
        }
    }

    fn tell(&self, notice: Notice) {
        // Nobody listens any more while the site stops.
        let _ = self.notices.send(notice);
    }

    fn save(&self) {
        let known: Vec<&Known> = self.known.values().collect();
        let text = serde_json::to_vec_pretty(&known).expect("strings only");
        let partial = self.record.with_extension("partial");
        let saved = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, &self.record));
        if let Err(error) = saved {
            tracing::warn!(file = %self.record.display(), %error, "cannot remember which manifests are applied");
        }
    }
}

/// In the order of the files, which is the order their author chose by their names.
fn in_order(mut manifests: Vec<Manifest>) -> Vec<Manifest> {
    manifests.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    // What others live in or are an instance of comes first, wherever it stands.
    manifests.sort_by_key(|manifest| !matches!(manifest.kind(), "Namespace" | "CustomResourceDefinition"));
    manifests
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn hash(manifest: &Manifest) -> String {
    let text = serde_json::to_vec(&(&manifest.object, &manifest.file, manifest.line)).expect("JSON");
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn refusal(manifest: &Manifest, error: &ApplyError) -> Diagnosis {
    let message = format!("{} {} is not applied: {error}", manifest.kind(), manifest.name());
    Diagnosis::error(
        manifest.place(),
        "",
        message,
        "mend the manifest; what runs keeps running",
    )
}
