//! Objects as a watch tells of them.

use std::collections::HashMap;
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// Namespace and name.
pub(super) type Key = (String, String);

/// Objects of one kind. A kind that nobody asks for keeps no objects, only what there is.
pub(super) struct Store<K> {
    objects: HashMap<Key, Option<Arc<K>>>,
    /// What a new list has told so far, for each watch (a namespace has one of its own).
    listing: HashMap<usize, Vec<Key>>,
    keeps: bool,
}

impl<K: ResourceExt> Store<K> {
    pub(super) fn new(keeps: bool) -> Self {
        Store {
            objects: HashMap::new(),
            listing: HashMap::new(),
            keeps,
        }
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        // A borrowed pair cannot be looked up in a map of owned ones.
        self.objects
            .get(&(namespace.to_owned(), name.to_owned()))?
            .clone()
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
        let object = Arc::new(object);
        let kept = self.keeps.then(|| object.clone());
        self.objects.insert(key.clone(), kept);
        (key, Some(object))
    }
}

fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
