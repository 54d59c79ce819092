//! What a write changed, as sets of fields.

use super::set::{FieldSet, element_name, list_type};
use crate::schema::{ListType, Schema};
use serde_json::Value;
use std::collections::BTreeMap;

/// Places that are new or hold another value, and places that are gone.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) changed: FieldSet,
    pub(crate) removed: FieldSet,
}

impl Difference {
    /// `typed`: a built-in kind, whose structs are there even when they are empty and therefore owned by nobody.
    pub(crate) fn between(old: &Value, new: &Value, schema: Option<Schema<'_>>, typed: bool) -> Self {
        let mut difference = Self::default();
        compare(
            old,
            new,
            Place { schema, spine: typed },
            &mut difference.changed,
            &mut difference.removed,
        );
        difference.changed.strip_system_fields();
        difference.removed.strip_system_fields();
        difference
    }
}

/// Structs that the API's types hold by pointer: they are there only when written.
const POINTERS: [&str; 5] = [
    "f:rollingUpdate",
    "f:persistentVolumeClaimRetentionPolicy",
    "f:conversion",
    "f:sessionAffinityConfig",
    "f:valueFrom",
];
/// Lists that the API's types always write.
const ALWAYS: [&str; 1] = ["f:containers"];

/// Where a comparison stands: the schema, and whether everything down to here is a struct held by value.
#[derive(Clone, Copy)]
struct Place<'a> {
    schema: Option<Schema<'a>>,
    spine: bool,
}

impl<'a> Place<'a> {
    fn child(self, name: &str, schema: Option<Schema<'a>>) -> Self {
        let is_struct = schema.is_some_and(|s| s.properties().is_some());
        // Metadata is typed in every kind.
        let spine = (self.spine || name == "f:metadata") && name.starts_with("f:") && is_struct;
        Place {
            schema,
            spine: spine && !POINTERS.contains(&name),
        }
    }
}

fn compare(old: &Value, new: &Value, place: Place<'_>, changed: &mut FieldSet, removed: &mut FieldSet) {
    if old == new {
        return;
    }
    let (Some(before), Some(after)) = (members(old, place.schema), members(new, place.schema)) else {
        changed.here = true;
        return;
    };
    if old.is_object() != new.is_object() {
        changed.here = true;
        return;
    }
    for (name, (value, inner)) in &after {
        let inner = place.child(name, *inner);
        match before.get(name) {
            Some((old, _)) => {
                let (mut c, mut r) = (FieldSet::default(), FieldSet::default());
                compare(old, value, inner, &mut c, &mut r);
                if !c.is_empty() {
                    changed.children.insert(name.clone(), c);
                }
                if !r.is_empty() {
                    removed.children.insert(name.clone(), r);
                }
            }
            None => {
                let always = place.spine && ALWAYS.contains(&name.as_str());
                changed.children.insert(name.clone(), added(value, inner, always));
            }
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        removed.children.insert(
            name.clone(),
            FieldSet {
                here: true,
                children: BTreeMap::new(),
            },
        );
    }
}

/// Everything in a value that was not there: what is a struct by value is only its fields.
fn added(value: &Value, place: Place<'_>, always: bool) -> FieldSet {
    let mut set = FieldSet::default();
    for (name, (value, inner)) in members(value, place.schema).into_iter().flatten() {
        let always = place.spine && ALWAYS.contains(&name.as_str());
        set.children
            .insert(name.clone(), added(value, place.child(&name, inner), always));
    }
    set.here = set.children.is_empty() || !(place.spine || always);
    set
}

type Members<'a> = BTreeMap<String, (&'a Value, Option<Schema<'a>>)>;

/// What is below a place, when it is no single value.
fn members<'a>(value: &'a Value, schema: Option<Schema<'a>>) -> Option<Members<'a>> {
    match value {
        Value::Object(_) if schema.is_some_and(|s| s.is_atomic_map()) => None,
        Value::Object(map) => {
            let child = |(name, v): (&String, &'a Value)| {
                (format!("f:{name}"), (v, schema.and_then(|s| s.child(name))))
            };
            Some(map.iter().map(child).collect())
        }
        Value::Array(list) => {
            let kind = list_type(schema, list);
            let items = schema.and_then(|s| s.items());
            let element = |v: &'a Value| Some((element_name(schema, kind, v)?, (v, items)));
            // A set's elements are single values.
            (kind != ListType::Atomic).then(|| list.iter().filter_map(element).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_a_change_did() {
        let schema = Schema::named("io.k8s.api.core.v1.ConfigMap");
        let old = json!({"metadata": {}, "data": {"a": "1", "b": "2"}});
        let new = json!({"data": {"a": "1", "b": "3", "c": "4"}, "metadata": {"labels": {"l": ""}}});
        let difference = Difference::between(&old, &new, schema, true);
        assert_eq!(
            difference.changed.paths(),
            [".data.b", ".data.c", ".metadata.labels", ".metadata.labels.l"]
        );
        let back = Difference::between(&new, &old, schema, true);
        assert_eq!(back.removed.paths(), [".data.c", ".metadata.labels"]);
    }

    #[test]
    fn owns_of_structs_only_their_fields() {
        let schema = Schema::named("io.k8s.api.apps.v1.Deployment");
        let new = json!({"spec": {"strategy": {"type": "x", "rollingUpdate": {"maxSurge": 1}}, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "env": [{"name": "E"}]}]}}}});
        let set = Difference::between(&json!({}), &new, schema, true)
            .changed
            .to_json();
        let container =
            json!({".": {}, "f:name": {}, "f:env": {".": {}, "k:{\"name\":\"E\"}": {".": {}, "f:name": {}}}});
        let wanted = json!({"f:spec": {
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}}, "f:selector": {},
            "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": container}}}}});
        assert_eq!(set, wanted);
    }
}
