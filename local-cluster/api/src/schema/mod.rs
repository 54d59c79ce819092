//! The shape of an object, as OpenAPI JSON: built-in kinds from `schemas/builtin.json`, custom ones from their definitions.
//!
//! One view over both; what reads it: unknown fields, pruning, defaulting, validation, merging by key.

mod check;
mod shape;

use serde_json::{Map, Value};
use std::sync::LazyLock;

pub(crate) use check::validate;
pub(crate) use shape::{apply_defaults, prune, unknown_fields};

static BUILTIN: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../schemas/builtin.json"))
        .expect("the compiled-in schemas are JSON")
});

/// The compiled-in definitions by name (`io.k8s.api.core.v1.Pod`).
pub(crate) fn builtin() -> &'static Map<String, Value> {
    &BUILTIN
}

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map,
}

/// A place in a schema. Cheap to copy; references are followed when it is made.
#[derive(Clone, Copy)]
pub(crate) struct Schema<'a> {
    /// The node as written where it is used: merge strategies and defaults stand here.
    outer: &'a Value,
    /// The node with references followed: type, properties, items.
    node: &'a Value,
}

impl<'a> Schema<'a> {
    pub(crate) fn new(outer: &'a Value) -> Self {
        let mut node = outer;
        // References are at most one deep in what we generate; the bound guards against a cycle of bare references.
        for _ in 0..8 {
            let target = node
                .get("$ref")
                .or_else(|| {
                    node.get("allOf")
                        .and_then(|all| all.get(0))
                        .and_then(|first| first.get("$ref"))
                })
                .and_then(Value::as_str)
                .and_then(|path| builtin().get(path.rsplit('/').next().unwrap_or(path)));
            match target {
                Some(next) => node = next,
                None => break,
            }
        }
        Self { outer, node }
    }

    /// A compiled-in definition.
    pub(crate) fn named(name: &str) -> Option<Schema<'static>> {
        builtin().get(name).map(Schema::new)
    }

    fn field(&self, key: &str) -> Option<&'a Value> {
        self.outer.get(key).or_else(|| self.node.get(key))
    }

    fn flag(&self, key: &str) -> bool {
        self.field(key).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(crate) fn property(&self, name: &str) -> Option<Schema<'a>> {
        self.node.get("properties")?.get(name).map(Schema::new)
    }

    pub(crate) fn properties(&self) -> Option<&'a Map<String, Value>> {
        self.node.get("properties")?.as_object()
    }

    /// The schema of a map's values.
    pub(crate) fn additional(&self) -> Option<Schema<'a>> {
        self.node
            .get("additionalProperties")
            .filter(|v| v.is_object())
            .map(Schema::new)
    }

    /// The schema of `name` in an object or map.
    pub(crate) fn child(&self, name: &str) -> Option<Schema<'a>> {
        self.property(name).or_else(|| self.additional())
    }

    pub(crate) fn items(&self) -> Option<Schema<'a>> {
        self.node.get("items").map(Schema::new)
    }

    pub(crate) fn preserves_unknown(&self) -> bool {
        self.flag("x-kubernetes-preserve-unknown-fields")
    }

    pub(crate) fn embeds_object(&self) -> bool {
        self.flag("x-kubernetes-embedded-resource")
    }

    /// Nothing is known about what may stand here.
    pub(crate) fn is_open(&self) -> bool {
        self.node.get("properties").is_none()
            && self
                .node
                .get("additionalProperties")
                .is_none_or(|v| v.as_bool() == Some(true))
            && (self.preserves_unknown()
                || self.kind().is_none()
                || self.node.get("additionalProperties").is_some())
    }

    pub(crate) fn kind(&self) -> Option<&'a str> {
        self.node.get("type").and_then(Value::as_str)
    }

    pub(crate) fn list_type(&self) -> ListType {
        match self.field("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("map") => ListType::Map,
            Some("set") => ListType::Set,
            _ => ListType::Atomic,
        }
    }

    pub(crate) fn list_keys(&self) -> Vec<&'a str> {
        let keys = self.field("x-kubernetes-list-map-keys").and_then(Value::as_array);
        keys.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub(crate) fn is_atomic_map(&self) -> bool {
        self.field("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
    }

    pub(crate) fn merge_key(&self) -> Option<&'a str> {
        self.field("x-kubernetes-patch-merge-key").and_then(Value::as_str)
    }

    pub(crate) fn patch_strategy(&self) -> &'a str {
        self.field("x-kubernetes-patch-strategy")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    pub(crate) fn default(&self) -> Option<&'a Value> {
        self.field("default")
    }

    pub(crate) fn raw(&self) -> &'a Value {
        self.node
    }
}
