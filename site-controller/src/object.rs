//! Small helpers to build objects and to compare what is planned with what is there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::Value;

use karez_kubernetes::labels;

/// A string map, as labels and annotations are.
pub(crate) type Strings = BTreeMap<String, String>;

/// A map of strings from pairs.
pub(crate) fn strings<const N: usize>(pairs: [(&str, &str); N]) -> Strings {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// `None` for an empty map, so that nothing is written for it.
pub(crate) fn non_empty(map: Strings) -> Option<Strings> {
    (!map.is_empty()).then_some(map)
}

/// Metadata of a generated object: name, namespace, who made it, who owns it.
pub(crate) fn meta(name: &str, namespace: &str, managed: &str, owner: Option<&OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(strings([(labels::MANAGED, managed)])),
        owner_references: owner.map(|owner| vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// A built-in object as JSON, with `apiVersion` and `kind`.
pub(crate) fn json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("API types serialise: their maps have string keys")
}

/// Which object is meant, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef {
    /// `group/version` or `v1`.
    pub(crate) api_version: String,
    /// Its kind.
    pub(crate) kind: String,
    /// Its namespace; empty for cluster-wide kinds.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl ObjectRef {
    /// The object that this JSON is.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    /// What the API calls its kind. Every kind used here has the plain plural.
    pub(crate) fn resource(&self) -> ApiResource {
        let (group, version) = self
            .api_version
            .split_once('/')
            .unwrap_or(("", &self.api_version));
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            plural: format!("{}s", self.kind.to_lowercase()),
        }
    }

    /// The same without the version, so that two versions of one object are one.
    pub(crate) fn key(&self) -> (String, String, String) {
        (self.kind.clone(), self.namespace.clone(), self.name.clone())
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A reference for an Event about an object.
pub(crate) fn reference(api_version: &str, kind: &str, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Whether everything that is planned is already so: maps may have more keys, lists must agree in length and
/// order, `null` and empty mean absent.
pub(crate) fn is_within(planned: &Value, live: &Value) -> bool {
    match (planned, live) {
        (Value::Object(planned), Value::Object(live)) => planned
            .iter()
            .all(|(key, value)| is_empty(value) || live.get(key).is_some_and(|live| is_within(value, live))),
        (Value::Array(planned), Value::Array(live)) => {
            planned.len() == live.len() && planned.iter().zip(live).all(|(a, b)| is_within(a, b))
        }
        (planned, live) => planned == live,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_api_adds_is_no_difference() {
        let planned = json!({"a": {"b": [{"c": 1}], "n": null, "e": {}}});
        assert!(is_within(
            &planned,
            &json!({"a": {"b": [{"c": 1, "d": 2}]}, "status": {}})
        ));
        assert!(!is_within(&planned, &json!({"a": {"b": [{"c": 2}]}})));
        assert!(!is_within(&planned, &json!({"a": {"b": []}})));
        assert!(!is_within(&json!({"data": {"k": ""}}), &json!({"data": {}})));
    }
}
