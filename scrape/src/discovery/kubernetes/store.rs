//! Objects as a watch tells of them, packed: the API's types have a place for every field that there could be, so that a
//! Pod of which little is set takes several times the memory of its text.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Namespace and name.
pub(super) type Key = (String, String);

/// Objects of one kind. A kind that nobody asks for keeps no objects, only what there is.
pub(super) struct Store<K> {
    objects: HashMap<Key, Option<Box<[u8]>>>,
    /// What a new list has told so far, for each watch (a namespace has one of its own).
    listing: HashMap<usize, Vec<Key>>,
    keeps: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K: ResourceExt + Serialize + DeserializeOwned> Store<K> {
    pub(super) fn new(keeps: bool) -> Self {
        Store {
            objects: HashMap::new(),
            listing: HashMap::new(),
            keeps,
            kind: PhantomData,
        }
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        // A borrowed pair cannot be looked up in a map of owned ones.
        let packed = self.objects.get(&(namespace.to_owned(), name.to_owned()))?;
        serde_json::from_slice(packed.as_deref()?).ok().map(Arc::new)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Takes an event of a watch: what changed, with the object if it is there.
    pub(super) fn apply(&mut self, watch: usize, scope: &str, event: Event<K>) -> Vec<(Key, Option<Arc<K>>)> {
        match event {
            Event::Apply(object) => vec![self.put(object)],
            Event::InitApply(object) => {
                let put = self.put(object);
                self.listing.entry(watch).or_default().push(put.0.clone());
                vec![put]
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.objects.remove(&key);
                vec![(key, None)]
            }
            Event::Init => {
                self.listing.insert(watch, Vec::new());
                Vec::new()
            }
            Event::InitDone => {
                let listed: std::collections::HashSet<Key> = self
                    .listing
                    .remove(&watch)
                    .unwrap_or_default()
                    .into_iter()
                    .collect();
                let mine = |key: &Key| scope.is_empty() || key.0 == scope;
                let gone: Vec<Key> = self
                    .objects
                    .keys()
                    .filter(|key| mine(key) && !listed.contains(key))
                    .cloned()
                    .collect();
                for key in &gone {
                    self.objects.remove(key);
                }
                gone.into_iter().map(|key| (key, None)).collect()
            }
        }
    }

    fn put(&mut self, object: K) -> (Key, Option<Arc<K>>) {
        let key = key(&object);
        // Objects that came as JSON can be written as JSON.
        let packed = self.keeps.then(|| serde_json::to_vec(&object).ok()).flatten();
        self.objects
            .insert(key.clone(), packed.map(Vec::into_boxed_slice));
        (key, Some(Arc::new(object)))
    }
}

fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
