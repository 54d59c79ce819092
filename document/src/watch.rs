//! Follows a source: file or object → `watch` channel, until every receiver is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use crate::yaml::MAX_TEXT;
use crate::{Document, Origin, Source};

/// A Secret's data.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// Why a source cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// An object is named but there is no API to ask.
    #[error("{0} is an object of a Kubernetes API, and none is configured: set KUBECONFIG or name a file")]
    NoClient(Source),
}

/// How often a file is looked at, for changes that no event tells of.
const POLL: Duration = Duration::from_secs(1);
/// For how long a file may be gone (editors rename) before its document is.
const GONE_AFTER: Duration = Duration::from_secs(2);

/// Watches a source. A file's document is there at once if the file is; an object's as soon as the API has told.
/// The value is `None` while there is no such file or object.
pub async fn watch(
    source: Source,
    client: Option<Client>,
) -> Result<watch::Receiver<Option<Document>>, WatchError> {
    match source {
        Source::File(path) => Ok(watch_file(path).await),
        Source::Kube {
            ref namespace,
            ref name,
            ref key,
        } => {
            let client = client.ok_or_else(|| WatchError::NoClient(source.clone()))?;
            let api: Api<ConfigMap> = Api::namespaced(client, namespace);
            let (sender, receiver) = watch::channel(None);
            let key = key.clone();
            let read = move |map: &ConfigMap| document_of(map, key.as_deref());
            tokio::spawn(follow(api, name.clone(), sender, read));
            Ok(receiver)
        }
    }
}

/// Watches a Secret's data; `None` while there is no such Secret.
pub async fn watch_secret(
    namespace: &str,
    name: &str,
    client: Client,
) -> watch::Receiver<Option<SecretData>> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let (sender, receiver) = watch::channel(None);
    let read = |secret: &Secret| {
        let data = secret.data.iter().flatten();
        Some(data.map(|(key, value)| (key.clone(), value.0.clone())).collect())
    };
    tokio::spawn(follow(api, name.to_owned(), sender, read));
    receiver
}

/// Follows one object until nobody listens. The watcher itself starts again after errors, with back-off.
async fn follow<K, T>(
    api: Api<K>,
    name: String,
    sender: watch::Sender<Option<T>>,
    read: impl Fn(&K) -> Option<T>,
) where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    T: PartialEq,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sender.closed() => return,
        };
        let value = match event {
            None => return,
            Some(Err(error)) => {
                tracing::warn!(object = name, %error, "cannot watch the object; trying again");
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listed = None;
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed = read(&object);
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => listed.take(),
            Some(Ok(watcher::Event::Apply(object))) => read(&object),
            Some(Ok(watcher::Event::Delete(_))) => None,
        };
        sender.send_if_modified(|old| {
            let changed = *old != value;
            *old = value;
            changed
        });
    }
}

/// The annotations by which an object says where its document's author wrote it.
const SOURCE_FILE: &str = "karez.dev/source-file";
const CONFIG_LINE: &str = "karez.dev/config-line";

fn document_of(map: &ConfigMap, key: Option<&str>) -> Option<Document> {
    let name = format!("{}/{}", map.namespace().unwrap_or_default(), map.name_any());
    let data = map.data.as_ref()?;
    let text = match key {
        Some(key) => data.get(key),
        None if data.len() == 1 => data.values().next(),
        None => {
            let mut yaml = data
                .iter()
                .filter(|(key, _)| key.ends_with(".yaml") || key.ends_with(".yml"));
            yaml.next()
                .filter(|_| yaml.next().is_none())
                .map(|(_, text)| text)
        }
    };
    if text.is_none() {
        tracing::warn!(
            config_map = name,
            key,
            "the ConfigMap has no such key, or several: name one with #KEY"
        );
    }
    let annotations = map.annotations();
    let origin = match annotations.get(SOURCE_FILE) {
        Some(file) => {
            let line = annotations.get(CONFIG_LINE).and_then(|line| line.parse().ok());
            Origin::embedded(file.clone(), line.unwrap_or(1))
        }
        None => Origin::file(format!("ConfigMap {name}")),
    };
    Some(Document {
        text: text?.clone(),
        origin,
        version: map.resource_version().unwrap_or_default(),
    })
}

/// What tells that a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
    })
}

async fn read_text(path: &Path) -> Option<String> {
    let length = tokio::fs::metadata(path).await.ok()?.len();
    if length > MAX_TEXT as u64 {
        tracing::error!(file = %path.display(), bytes = length, "the file is too large to be a document");
        return None;
    }
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "cannot read the document");
            None
        }
    }
}

async fn watch_file(path: PathBuf) -> watch::Receiver<Option<Document>> {
    let before = stamp(&path).await;
    let text = read_text(&path).await;
    let first = text.map(|text| file_document(&path, text, 1));
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(follow_file(path, before, sender));
    receiver
}

fn file_document(path: &Path, text: String, version: u64) -> Document {
    Document {
        text,
        origin: Origin::file(path.display().to_string()),
        version: version.to_string(),
    }
}

/// Hears of changes in the file's folder. The poll finds them too, so a machine without such events still works.
fn listen(path: &Path) -> (Option<notify::RecommendedWatcher>, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel(1);
    let told = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event as well: heeding it would be a loop without end.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        // Full means that a change is already told.
        let _ = sender.try_send(());
    };
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => (Some(watcher), receiver),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "no events for this folder; polling");
            (None, receiver)
        }
    }
}

async fn follow_file(path: PathBuf, mut seen: Option<Stamp>, sender: watch::Sender<Option<Document>>) {
    let (_watcher, mut events) = listen(&path);
    let mut version = 1;
    let mut gone_since = None;
    loop {
        let told = tokio::select! {
            Some(()) = events.recv() => true,
            () = tokio::time::sleep(POLL) => false,
            () = sender.closed() => return,
        };
        let now = stamp(&path).await;
        if now.is_none() {
            let since = *gone_since.get_or_insert_with(tokio::time::Instant::now);
            if since.elapsed() >= GONE_AFTER && sender.borrow().is_some() {
                sender.send_replace(None);
            }
            seen = None;
            continue;
        }
        gone_since = None;
        if !told && now == seen {
            continue;
        }
        seen = now;
        let Some(text) = read_text(&path).await else {
            continue;
        };
        if sender.borrow().as_ref().is_some_and(|old| old.text == text) {
            continue;
        }
        version += 1;
        sender.send_replace(Some(file_document(&path, text, version)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(receiver: &mut watch::Receiver<Option<Document>>, want: Option<&str>) {
        let met = receiver.wait_for(|d| d.as_ref().map(|d| d.text.as_str()) == want);
        tokio::time::timeout(Duration::from_secs(20), met)
            .await
            .expect("in time")
            .expect("open");
    }

    #[tokio::test]
    async fn follows_a_file_through_writes_renames_and_removal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        let mut receiver = watch(Source::File(path.clone()), None).await.unwrap();
        assert!(receiver.borrow().is_none());
        std::fs::write(&path, "a: 1").unwrap();
        until(&mut receiver, Some("a: 1")).await;
        std::fs::write(folder.path().join("new"), "a: 2").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        until(&mut receiver, Some("a: 2")).await;
        std::fs::remove_file(&path).unwrap();
        until(&mut receiver, None).await;
    }

    #[test]
    fn a_config_maps_document_knows_where_its_author_wrote_it() {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n", "namespace": "ns", "resourceVersion": "7",
                "annotations": {SOURCE_FILE: "a/30.yaml", CONFIG_LINE: "9"}},
            "data": {"collector.yaml": "x: 1"}}))
        .unwrap();
        let document = document_of(&map, None).unwrap();
        assert_eq!(document.origin, Origin::embedded("a/30.yaml", 9));
        assert_eq!((document.text.as_str(), document.version.as_str()), ("x: 1", "7"));
        assert!(document_of(&map, Some("other")).is_none());
    }
}
