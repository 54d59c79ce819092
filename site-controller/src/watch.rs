//! Caches of what an API holds, kept by watches, and the set of namespaces that changed since one last looked.
//!
//! Objects are read one by one: one that cannot be read is set aside with the reason, the others stay usable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject, TypeMeta};
use kube::core::ApiResource;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Namespace and name.
type Key = (String, String);

/// An object that is there but cannot be read as its kind.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) metadata: ObjectMeta,
    pub(crate) message: String,
}

struct Contents<K> {
    objects: BTreeMap<Key, Arc<K>>,
    broken: BTreeMap<Key, Broken>,
}

/// The objects of one kind, as last seen.
pub(crate) struct Store<K>(Arc<Mutex<Contents<K>>>);

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Store<K> {
    /// An empty one, filled by a watch.
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Contents {
            objects: BTreeMap::new(),
            broken: BTreeMap::new(),
        })))
    }

    /// The objects of one namespace, by name.
    pub(crate) fn of(&self, namespace: &str) -> Vec<Arc<K>> {
        let contents = lock(&self.0);
        let in_namespace = contents.objects.iter().filter(|((ns, _), _)| ns == namespace);
        in_namespace.map(|(_, object)| Arc::clone(object)).collect()
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        lock(&self.0)
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(Arc::clone)
    }

    /// Namespaces that hold any.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        lock(&self.0)
            .objects
            .keys()
            .map(|(namespace, _)| namespace.clone())
            .collect()
    }

    /// Objects of one namespace that cannot be read.
    pub(crate) fn broken(&self, namespace: &str) -> Vec<Broken> {
        let contents = lock(&self.0);
        let in_namespace = contents.broken.iter().filter(|((ns, _), _)| ns == namespace);
        in_namespace.map(|(_, broken)| broken.clone()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held would leave whole entries: each change is one insertion.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which objects of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Select {
    pub(crate) labels: Option<&'static str>,
    pub(crate) fields: Option<&'static str>,
}

impl Select {
    /// Every object.
    pub(crate) const ALL: Self = Self {
        labels: None,
        fields: None,
    };

    /// Those with these labels.
    pub(crate) const fn labels(labels: &'static str) -> Self {
        Self {
            labels: Some(labels),
            fields: None,
        }
    }

    /// Those with these fields.
    pub(crate) const fn fields(fields: &'static str) -> Self {
        Self {
            labels: None,
            fields: Some(fields),
        }
    }
}

/// The namespaces that changed.
#[derive(Clone, Default)]
pub(crate) struct Dirty(Arc<(Mutex<BTreeSet<String>>, Notify)>);

impl Dirty {
    /// Marks one.
    pub(crate) fn mark(&self, namespace: &str) {
        lock(&self.0.0).insert(namespace.to_owned());
        self.0.1.notify_one();
    }

    /// Waits until there are some, lets a burst settle, and takes them.
    pub(crate) async fn take(&self) -> BTreeSet<String> {
        loop {
            let notified = self.0.1.notified();
            if !lock(&self.0.0).is_empty() {
                tokio::time::sleep(Duration::from_millis(15)).await;
                return std::mem::take(&mut *lock(&self.0.0));
            }
            notified.await;
        }
    }
}

/// The watches of one controller; they end when this is dropped.
pub(crate) struct Watches {
    client: Client,
    namespace: Option<String>,
    pub(crate) dirty: Dirty,
    tasks: JoinSet<()>,
    listed: Vec<watch::Receiver<bool>>,
}

impl Watches {
    /// Over one namespace, or all.
    pub(crate) fn new(client: Client, namespace: Option<String>) -> Self {
        Self {
            client,
            namespace,
            dirty: Dirty::default(),
            tasks: JoinSet::new(),
            listed: Vec::new(),
        }
    }

    /// Watches a kind.
    pub(crate) fn add<K>(&mut self, select: Select) -> Store<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
    {
        self.add_as(&ApiResource::erase::<K>(&()), select)
    }

    /// Watches a kind, named as the API names it.
    pub(crate) fn add_as<K>(&mut self, resource: &ApiResource, select: Select) -> Store<K>
    where
        K: DeserializeOwned + Send + Sync + 'static,
    {
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let store = Store::new();
        let (listed, receiver) = watch::channel(false);
        self.listed.push(receiver);
        let follower = Follower {
            store: store.clone(),
            dirty: self.dirty.clone(),
            resource: resource.clone(),
            listed,
        };
        self.tasks.spawn(follower.run(api, select));
        store
    }

    /// Waits until every watch has listed once.
    pub(crate) async fn listed(&mut self) {
        for receiver in &mut self.listed {
            // A closed channel means that its task ended: nothing more will come.
            let _ = receiver.wait_for(|listed| *listed).await;
        }
    }
}

struct Follower<K> {
    store: Store<K>,
    dirty: Dirty,
    resource: ApiResource,
    listed: watch::Sender<bool>,
}

impl<K: DeserializeOwned + Send + Sync + 'static> Follower<K> {
    async fn run(self, api: Api<DynamicObject>, select: Select) {
        let mut config = watcher::Config::default();
        if let Some(labels) = select.labels {
            config = config.labels(labels);
        }
        if let Some(fields) = select.fields {
            config = config.fields(fields);
        }
        let mut events = watcher(api, config).boxed();
        let mut failures = 0_u32;
        let mut listing: BTreeSet<Key> = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failures = 0;
                    self.take(event, &mut listing);
                }
                Err(error) => {
                    self.failed(&error, failures);
                    let pause = Duration::from_millis(100) * 2_u32.pow(failures.min(6));
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn take(&self, event: watcher::Event<DynamicObject>, listing: &mut BTreeSet<Key>) {
        match event {
            watcher::Event::Init => listing.clear(),
            watcher::Event::InitApply(object) => {
                listing.insert(self.insert(object));
            }
            watcher::Event::InitDone => {
                self.keep_only(listing);
                self.listed.send_replace(true);
            }
            watcher::Event::Apply(object) => {
                self.insert(object);
            }
            watcher::Event::Delete(object) => self.remove(&key(&object.metadata)),
        }
    }

    fn failed(&self, error: &watcher::Error, failures: u32) {
        let status = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        };
        if status == Some(404) {
            // The kind is not installed here: as good as an empty list, until it is.
            self.listed.send_replace(true);
            tracing::debug!(kind = self.resource.kind, "the API does not serve this kind");
        } else if failures == 0 || failures.is_power_of_two() {
            tracing::warn!(kind = self.resource.kind, %error, failures, "cannot watch; trying again");
        }
    }

    fn insert(&self, mut object: DynamicObject) -> Key {
        let key = key(&object.metadata);
        // Lists leave out what each item is; a reader of JSON may want it.
        object.types.get_or_insert_with(|| TypeMeta {
            api_version: self.resource.api_version.clone(),
            kind: self.resource.kind.clone(),
        });
        let metadata = object.metadata.clone();
        let read = serde_json::to_value(object).and_then(read::<K>);
        {
            let mut contents = lock(&self.store.0);
            match read {
                Ok(object) => {
                    contents.broken.remove(&key);
                    contents.objects.insert(key.clone(), Arc::new(object));
                }
                Err(error) => {
                    let (kind, message) = (&self.resource.kind, error.to_string());
                    tracing::warn!(
                        kind,
                        namespace = key.0,
                        name = key.1,
                        message,
                        "cannot read the object"
                    );
                    contents.objects.remove(&key);
                    contents.broken.insert(key.clone(), Broken { metadata, message });
                }
            }
        }
        self.dirty.mark(&key.0);
        key
    }

    fn remove(&self, key: &Key) {
        {
            let mut contents = lock(&self.store.0);
            contents.objects.remove(key);
            contents.broken.remove(key);
        }
        self.dirty.mark(&key.0);
    }

    fn keep_only(&self, listed: &BTreeSet<Key>) {
        let gone: Vec<Key> = {
            let contents = lock(&self.store.0);
            let all = contents.objects.keys().chain(contents.broken.keys());
            all.filter(|key| !listed.contains(*key)).cloned().collect()
        };
        for key in gone {
            self.remove(&key);
        }
    }
}

/// Reads an object. A custom resource without `spec` means one with an empty one.
fn read<K: DeserializeOwned>(mut value: Value) -> serde_json::Result<K> {
    if let Some(fields) = value.as_object_mut()
        && fields
            .get("apiVersion")
            .and_then(Value::as_str)
            .is_some_and(|version| version.contains('.'))
        && fields.get("spec").is_none_or(Value::is_null)
    {
        fields.insert("spec".to_owned(), Value::Object(serde_json::Map::new()));
    }
    serde_json::from_value(value)
}

fn key(metadata: &ObjectMeta) -> Key {
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use karez_kubernetes::Jaeger;
    use serde_json::json;

    #[test]
    fn a_custom_resource_needs_no_spec() {
        let bare = json!({"apiVersion": "jaegertracing.io/v1", "kind": "Jaeger", "metadata": {"name": "j"}});
        let jaeger: Jaeger = read(bare).unwrap();
        assert_eq!(jaeger.spec, karez_kubernetes::JaegerSpec::default());
        let null =
            json!({"apiVersion": "jaegertracing.io/v1", "kind": "Jaeger", "metadata": {}, "spec": null});
        assert!(read::<Jaeger>(null).is_ok());
    }
}
