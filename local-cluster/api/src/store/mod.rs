//! The core: objects in memory and the operations on them. No clock, no files, no sockets.
//!
//! Data goes one way: a request becomes a [`Planned`] write (`write`, `delete`, `gc`, all `&Store` in), the shell makes
//! its [`Change`] durable, then [`Store::commit`] takes it in and gives the [`Event`] for those who watch.

mod addresses;
pub(crate) mod convert;
mod delete;
mod finish;
pub(crate) mod gc;
mod meta;
mod prepare;
mod write;

use crate::{
    admission::Read,
    crd,
    kinds::{Kind, Registry, Shape, guess_plural, split_api_version},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

pub(crate) use delete::{DeleteOptions, delete};
pub(crate) use meta::text;
pub(crate) use write::{Target, apply, create, patch, scale_of, update};

/// How many events are kept for watches that resume.
const HISTORY: usize = 8192;
/// And how much they may hold together, roughly.
const HISTORY_BYTES: usize = 64 << 20;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) resource: String,
    /// Empty for objects of the cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What a write does to the store; at most one for each write.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put {
        key: Key,
        object: Arc<Value>,
    },
    /// `last` carries the version of the deletion.
    Remove {
        key: Key,
        last: Arc<Value>,
    },
}

/// A write that is decided and not yet done.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) change: Option<Change>,
    /// What the client is answered with.
    pub(crate) object: Arc<Value>,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

/// One change as watches see it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) kind: EventType,
    pub(crate) object: Arc<Value>,
    pub(crate) before: Option<Arc<Value>>,
}

/// How unknown fields are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What comes from outside for one write.
#[derive(Clone)]
pub(crate) struct Context<'a> {
    pub(crate) now: jiff::Timestamp,
    /// A fresh identity for an object that is created.
    pub(crate) uid: String,
    /// For generated names.
    pub(crate) random: u64,
    pub(crate) manager: &'a str,
    pub(crate) validation: FieldValidation,
    pub(crate) admission: &'a [Arc<dyn crate::admission::Admission>],
}

impl Context<'_> {
    /// The time as objects carry it: to the second.
    pub(crate) fn time(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// All objects, the kinds they are of, and the recent past.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) registry: Registry,
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    history: VecDeque<Arc<Event>>,
    /// What the events hold together, roughly.
    history_bytes: usize,
    /// The newest version whose event is no longer kept.
    forgotten: u64,
}

impl Store {
    /// A store whose versions go on from `version`.
    pub(crate) fn new(version: u64) -> Self {
        Self {
            registry: Registry::builtin(),
            objects: BTreeMap::new(),
            version,
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: version,
        }
    }

    /// Puts a stored object back, without an event. Definitions must come before their objects.
    pub(crate) fn restore(&mut self, key: Key, object: Value) {
        self.follow_definition(&key, Some(&object));
        if self.registry.any_version(&key.group, &key.resource).is_none() {
            let (api_version, kind) = (
                text(&object, "/apiVersion").to_owned(),
                text(&object, "/kind").to_owned(),
            );
            self.accept(
                &api_version,
                &kind,
                Some(&key.resource),
                !key.namespace.is_empty(),
            );
        }
        self.objects.insert(key, Arc::new(object));
    }

    /// Serves a kind without a definition: whatever it holds is stored.
    pub(crate) fn accept(&mut self, api_version: &str, kind: &str, plural: Option<&str>, namespaced: bool) {
        let (group, version) = split_api_version(api_version);
        let plural = plural.map_or_else(|| guess_plural(kind), str::to_owned);
        if kind.is_empty() || version.is_empty() || self.registry.named(api_version, kind).is_some() {
            return;
        }
        let mut versions: Vec<Kind> = self
            .registry
            .all()
            .filter(|k| k.group == group && k.plural == plural)
            .map(|k| (**k).clone())
            .collect();
        versions.push(Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            singular: kind.to_lowercase(),
            plural,
            short: Vec::new(),
            categories: Vec::new(),
            namespaced,
            status: false,
            scale: false,
            shape: Shape::Open,
            columns: Vec::new(),
            fields: Vec::new(),
        });
        self.registry.put(versions);
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
        Key {
            group: convert::storage_group(&kind.group, &kind.plural).to_owned(),
            resource: kind.plural.clone(),
            namespace: if kind.namespaced {
                namespace.to_owned()
            } else {
                String::new()
            },
            name: name.to_owned(),
        }
    }

    pub(crate) fn find(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The objects of a kind, after `after` (namespace and name) when a list is continued.
    pub(crate) fn objects_of<'a>(
        &'a self,
        kind: &Kind,
        namespace: Option<&'a str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let start = match after {
            Some((namespace, name)) => Bound::Excluded(Self::key(kind, namespace, name)),
            None => Bound::Included(Self::key(kind, namespace.unwrap_or(""), "")),
        };
        let first = Self::key(kind, "", "");
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.group == first.group && key.resource == first.resource)
            .take_while(move |(key, _)| namespace.is_none_or(|n| key.namespace == n))
    }

    /// Takes a durable change in.
    pub(crate) fn commit(&mut self, change: Change) -> Arc<Event> {
        let (key, object, removed) = match change {
            Change::Put { key, object } => (key, object, false),
            Change::Remove { key, last } => (key, last, true),
        };
        self.version = meta::version(&object).max(self.version + 1);
        self.follow_definition(&key, (!removed).then_some(&*object));
        let before = if removed {
            self.objects.remove(&key)
        } else {
            self.objects.insert(key.clone(), object.clone())
        };
        let kind = match (removed, &before) {
            (true, _) => EventType::Deleted,
            (false, Some(_)) => EventType::Modified,
            (false, None) => EventType::Added,
        };
        let event = Arc::new(Event {
            version: self.version,
            key,
            kind,
            object,
            before,
        });
        self.remember(event.clone());
        event
    }

    fn remember(&mut self, event: Arc<Event>) {
        self.history_bytes += meta::weight(&event.object);
        self.history.push_back(event);
        while self.history.len() > HISTORY || (self.history_bytes > HISTORY_BYTES && self.history.len() > 1) {
            let Some(old) = self.history.pop_front() else {
                return;
            };
            self.history_bytes = self.history_bytes.saturating_sub(meta::weight(&old.object));
            self.forgotten = old.version;
        }
    }

    fn follow_definition(&mut self, key: &Key, definition: Option<&Value>) {
        if key.resource != "customresourcedefinitions" || key.group != "apiextensions.k8s.io" {
            return;
        }
        match definition.map(crd::kinds) {
            Some(kinds) if !kinds.is_empty() => self.registry.put(kinds),
            _ => {
                if let Some((plural, group)) = key.name.split_once('.') {
                    self.registry.remove(group, plural);
                }
            }
        }
    }

    /// The events after a version, or `None` when they are no longer all kept.
    pub(crate) fn events_after(&self, version: u64) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if version < self.forgotten {
            return None;
        }
        let start = self.history.partition_point(|event| event.version <= version);
        Some(self.history.range(start..))
    }
}

impl Read for Store {
    fn get(&self, group: &str, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        let kind = self.registry.in_group(group, kind)?;
        let object = self.find(&Self::key(&kind, namespace.unwrap_or(""), name))?;
        Some(convert::present(&kind, object).into_owned())
    }

    fn list(&self, group: &str, kind: &str, namespace: Option<&str>) -> Vec<Value> {
        let Some(kind) = self.registry.in_group(group, kind) else {
            return Vec::new();
        };
        let objects = self.objects_of(&kind, namespace, None);
        objects
            .map(|(_, object)| convert::present(&kind, object).into_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests;
