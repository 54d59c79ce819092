//! What follows from a deletion: dependents of owners that are gone, the content of namespaces and definitions.
//!
//! Pure: looks at the store, gives steps; the shell carries each out as a write and asks again until there is none.

use super::{
    Change, Context, DeleteOptions, Key, Planned, Store, delete, finish,
    meta::{self, text},
    write::Target,
};
use crate::{error::ApiError, kinds::Kind};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Delete {
        key: Key,
        propagation: &'static str,
    },
    /// Takes a finalizer away that the collector itself served.
    Release {
        key: Key,
        finalizer: &'static str,
    },
    /// Takes an owner's reference away.
    Disown {
        key: Key,
        owner: String,
    },
    /// A namespace or a definition has no content any more.
    Finish {
        key: Key,
    },
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether anything can follow from a change; most writes need no look at all objects.
pub(crate) fn may_follow(change: &Change) -> bool {
    match change {
        Change::Remove { .. } => true,
        Change::Put { object, .. } => meta::is_deleting(object) || owners(object).next().is_some(),
    }
}

/// Everything that follows now.
pub(crate) fn steps(store: &Store) -> Vec<Step> {
    let mut by_uid: HashMap<&str, &Value> = HashMap::new();
    let mut dependents: HashMap<&str, Vec<(&Key, &Value, bool)>> = HashMap::new();
    for (key, object) in store.objects() {
        by_uid.insert(text(object, "/metadata/uid"), object);
        for owner in owners(object) {
            let blocks = owner
                .get("blockOwnerDeletion")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            dependents
                .entry(text(owner, "/uid"))
                .or_default()
                .push((key, object, blocks));
        }
    }
    let mut steps = Vec::new();
    for (key, object) in store.objects() {
        let mine = dependents
            .get(text(object, "/metadata/uid"))
            .map_or(&[][..], Vec::as_slice);
        if meta::is_deleting(object) {
            deleting(store, key, object, mine, &mut steps);
        } else if let Some(propagation) = abandoned(object, &by_uid, !mine.is_empty()) {
            steps.push(Step::Delete {
                key: key.clone(),
                propagation,
            });
        }
    }
    // Content steps of a namespace and of an owner may name an object twice.
    let mut seen = HashSet::new();
    steps.retain(|step| match step {
        Step::Delete { key, .. } => seen.insert(key.clone()),
        _ => true,
    });
    steps
}

/// How an object goes whose owners are gone, or are being deleted and wait for it.
fn abandoned(object: &Value, by_uid: &HashMap<&str, &Value>, has_dependents: bool) -> Option<&'static str> {
    let (mut any, mut waiting) = (false, false);
    for owner in owners(object) {
        any = true;
        match by_uid.get(text(owner, "/uid")) {
            None => {}
            Some(owner) if meta::is_deleting(owner) && meta::finalizers(owner).contains(&FOREGROUND) => {
                waiting = true
            }
            Some(_) => return None,
        }
    }
    match (any, waiting && has_dependents) {
        (false, _) => None,
        (true, true) => Some("Foreground"),
        (true, false) => Some("Background"),
    }
}

fn deleting(
    store: &Store,
    key: &Key,
    object: &Value,
    dependents: &[(&Key, &Value, bool)],
    steps: &mut Vec<Step>,
) {
    let finalizers = meta::finalizers(object);
    if finalizers.contains(&ORPHAN) {
        let owner = text(object, "/metadata/uid").to_owned();
        steps.extend(dependents.iter().map(|(key, ..)| Step::Disown {
            key: (*key).clone(),
            owner: owner.clone(),
        }));
        steps.push(Step::Release {
            key: key.clone(),
            finalizer: ORPHAN,
        });
    } else if finalizers.contains(&FOREGROUND) && !dependents.iter().any(|(_, _, blocks)| *blocks) {
        steps.push(Step::Release {
            key: key.clone(),
            finalizer: FOREGROUND,
        });
    }
    let Some(content) = content(store, key, object) else {
        return;
    };
    if content.is_empty() && finalizers.is_empty() {
        steps.push(Step::Finish { key: key.clone() });
    }
    let marked = |key: &Key| store.find(key).is_some_and(|o| meta::is_deleting(o));
    steps.extend(
        content
            .into_iter()
            .filter(|k| !marked(k))
            .map(|key| Step::Delete {
                key,
                propagation: "Background",
            }),
    );
}

/// What a namespace or a definition holds; `None` for other objects.
fn content(store: &Store, key: &Key, object: &Value) -> Option<Vec<Key>> {
    let within: Box<dyn Fn(&Key) -> bool> = match (key.group.as_str(), key.resource.as_str()) {
        ("", "namespaces") => {
            let name = key.name.clone();
            Box::new(move |k| k.namespace == name)
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            let group = text(object, "/spec/group").to_owned();
            let plural = text(object, "/spec/names/plural").to_owned();
            Box::new(move |k| k.group == group && k.resource == plural)
        }
        _ => return None,
    };
    Some(
        store
            .objects()
            .map(|(k, _)| k)
            .filter(|k| within(k))
            .cloned()
            .collect(),
    )
}

/// The object cannot go yet, because it holds others.
pub(super) fn holds_content(store: &Store, kind: &Kind, object: &Value) -> bool {
    let key = Store::key(kind, "", text(object, "/metadata/name"));
    content(store, &key, object).is_some_and(|content| !content.is_empty())
}

/// A step as a write; `None` when what it was about has changed meanwhile.
pub(crate) fn plan(store: &Store, step: &Step, ctx: &Context<'_>) -> Result<Option<Planned>, ApiError> {
    let (Step::Delete { key, .. }
    | Step::Release { key, .. }
    | Step::Disown { key, .. }
    | Step::Finish { key }) = step;
    let (Some(kind), Some(stored)) = (
        store.registry.any_version(&key.group, &key.resource),
        store.find(key),
    ) else {
        return Ok(None);
    };
    let mut object = (**stored).clone();
    match step {
        Step::Delete { propagation, .. } => {
            let target = Target {
                kind: &kind,
                namespace: &key.namespace,
                name: &key.name,
                subresource: "",
            };
            let options = DeleteOptions {
                propagation: Some((*propagation).to_owned()),
                ..DeleteOptions::default()
            };
            return delete(store, target, &options, ctx).map(Some);
        }
        Step::Release { finalizer, .. } => {
            let left: Vec<String> = meta::finalizers(&object)
                .into_iter()
                .filter(|f| f != finalizer)
                .map(str::to_owned)
                .collect();
            meta::set_finalizers(&mut object, &left);
        }
        Step::Disown { owner, .. } => {
            let left: Vec<Value> = owners(&object)
                .filter(|o| text(o, "/uid") != owner)
                .cloned()
                .collect();
            if left.is_empty() {
                meta::unset(&mut object, "ownerReferences");
            } else {
                meta::set(&mut object, "ownerReferences", json!(left));
            }
        }
        Step::Finish { .. } => meta::set(&mut object, "deletionGracePeriodSeconds", json!(0)),
    }
    meta::set(
        &mut object,
        "resourceVersion",
        json!((store.version() + 1).to_string()),
    );
    let gone = finish::is_done_deleting(store, &kind, &object);
    let object = Arc::new(object);
    let key = key.clone();
    let change = if gone {
        Change::Remove {
            key,
            last: object.clone(),
        }
    } else {
        Change::Put {
            key,
            object: object.clone(),
        }
    };
    Ok(Some(Planned {
        change: Some(change),
        object,
        created: false,
        warnings: Vec::new(),
    }))
}
