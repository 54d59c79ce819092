//! A set of fields, as `fieldsV1` writes it: `f:name`, `k:{"key":"value"}`, `v:value`, `.` for the place itself.

use crate::schema::{ListType, Schema};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A tree of places in an object; those with `here` belong to the set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    pub(super) here: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

/// What stands at a place when a list is read as a map: its elements by their notation.
pub(crate) fn element_name(schema: Option<Schema<'_>>, list: ListType, item: &Value) -> Option<String> {
    match list {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map => {
            let schema = schema?;
            let items = schema.items();
            let mut keys = BTreeMap::new();
            for key in schema.list_keys() {
                let value = item
                    .get(key)
                    .cloned()
                    .or_else(|| items?.property(key)?.default().cloned());
                if let Some(value) = value.filter(|v| !v.is_null()) {
                    keys.insert(key, value);
                }
            }
            (!keys.is_empty()).then(|| format!("k:{}", json!(keys)))
        }
    }
}

/// How a list merges: atomic without a schema that says otherwise, or when an element has no key.
pub(crate) fn list_type(schema: Option<Schema<'_>>, list: &[Value]) -> ListType {
    let declared = schema.map_or(ListType::Atomic, |s| s.list_type());
    let keyed = |item: &Value| element_name(schema, declared, item).is_some();
    if declared == ListType::Atomic || list.iter().all(keyed) {
        declared
    } else {
        ListType::Atomic
    }
}

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.children.is_empty()
    }

    /// The fields that applying `value` claims.
    pub(crate) fn of(value: &Value, schema: Option<Schema<'_>>) -> Self {
        let mut set = Self::default();
        set.add(value, schema);
        set.strip_system_fields();
        set
    }

    fn add(&mut self, value: &Value, schema: Option<Schema<'_>>) {
        match value {
            Value::Object(map) if !schema.is_some_and(|s| s.is_atomic_map()) => {
                for (name, inner) in map {
                    let known = schema.is_some_and(|s| s.property(name).is_some());
                    let child = self.children.entry(format!("f:{name}")).or_default();
                    child.add(inner, schema.and_then(|s| s.child(name)));
                    let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                    if empty || (!known && schema.is_some()) || child.is_empty() {
                        child.here = true;
                    }
                }
            }
            Value::Array(list) if list_type(schema, list) != ListType::Atomic => {
                let kind = list_type(schema, list);
                for item in list {
                    let Some(name) = element_name(schema, kind, item) else {
                        continue;
                    };
                    let child = self.children.entry(name).or_default();
                    child.here = true;
                    if kind == ListType::Map {
                        child.add(item, schema.and_then(|s| s.items()));
                    }
                }
            }
            _ => self.here = true,
        }
    }

    /// What names an object or is the server's own is owned by nobody.
    pub(crate) fn strip_system_fields(&mut self) {
        self.children.remove("f:apiVersion");
        self.children.remove("f:kind");
        if let Some(metadata) = self.children.get_mut("f:metadata") {
            for name in [
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "generation",
                "managedFields",
                "resourceVersion",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            ] {
                metadata.children.remove(&format!("f:{name}"));
            }
            metadata.here = false;
            if metadata.children.is_empty() {
                self.children.remove("f:metadata");
            }
        }
    }

    pub(crate) fn remove_child(&mut self, name: &str) {
        self.children.remove(name);
    }

    pub(crate) fn keep_child(&mut self, name: &str) {
        self.children.retain(|child, _| child == name);
    }

    pub(crate) fn from_json(fields: &Value) -> Self {
        let Some(map) = fields.as_object() else {
            return Self::default();
        };
        let mut set = Self {
            here: map.is_empty() || map.contains_key("."),
            children: BTreeMap::new(),
        };
        for (name, inner) in map.iter().filter(|(name, _)| *name != ".") {
            set.children.insert(name.clone(), Self::from_json(inner));
        }
        set
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (name, child) in &self.children {
            map.insert(name.clone(), child.to_json());
        }
        Value::Object(map)
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.here |= other.here;
        for (name, child) in &other.children {
            self.children.entry(name.clone()).or_default().union(child);
        }
    }

    /// Takes away what is in `other`.
    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.here {
            self.here = false;
        }
        for (name, child) in &other.children {
            if let Some(mine) = self.children.get_mut(name) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(name);
                }
            }
        }
    }

    /// Takes away what is in `other` and everything below it: it no longer exists.
    pub(crate) fn subtract_below(&mut self, other: &Self) {
        for (name, child) in &other.children {
            if child.here {
                self.children.remove(name);
            } else if let Some(mine) = self.children.get_mut(name) {
                mine.subtract_below(child);
                if mine.is_empty() {
                    self.children.remove(name);
                }
            }
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self {
            here: self.here && other.here,
            children: BTreeMap::new(),
        };
        for (name, child) in &self.children {
            if let Some(theirs) = other.children.get(name) {
                let common = child.intersection(theirs);
                if !common.is_empty() {
                    both.children.insert(name.clone(), common);
                }
            }
        }
        both
    }

    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.get(name)
    }

    pub(crate) fn children(&self) -> &BTreeMap<String, FieldSet> {
        &self.children
    }

    /// The place itself belongs to the set.
    pub(crate) fn here(&self) -> bool {
        self.here
    }

    /// The places of the set as `.spec.replicas`, `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        if self.here && !prefix.is_empty() {
            paths.push(prefix.to_owned());
        }
        for (name, child) in &self.children {
            child.collect(&format!("{prefix}{}", spelled(name)), paths);
        }
    }
}

fn spelled(name: &str) -> String {
    match name.split_at_checked(2) {
        Some(("f:", field)) => format!(".{field}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", pairs.join(","))
        }
        _ => format!(".{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_fields_as_kubernetes_does() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}});
        let set = FieldSet::of(&pod, Schema::named("io.k8s.api.core.v1.Pod"));
        let wanted = json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
            ".": {}, "f:image": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":1,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}});
        assert_eq!(set.to_json(), wanted);
        assert_eq!(FieldSet::from_json(&wanted), set);
        assert!(
            set.paths()
                .contains(&".spec.containers[name=\"c\"].image".to_owned())
        );
    }
}
