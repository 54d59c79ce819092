//! Patches in three languages: JSON merge patch, strategic merge patch, JSON patch. Pure: object and patch in, object out.

mod strategic;

use crate::{error::ApiError, schema::Schema};
use serde_json::{Map, Value};

/// A patch as it came, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub(crate) fn from_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// The object after a patch of any kind but apply.
pub(crate) fn patched(
    kind: PatchKind,
    object: &Value,
    patch: &Value,
    schema: Option<Schema<'_>>,
) -> Result<Value, ApiError> {
    match kind {
        PatchKind::Json => json_patch(object, patch),
        PatchKind::Strategic => {
            let (Value::Object(original), Value::Object(patch)) = (object, patch) else {
                return Err(ApiError::bad_request("a strategic merge patch is an object"));
            };
            Ok(Value::Object(strategic::merge(original.clone(), patch, schema)?))
        }
        PatchKind::Merge | PatchKind::Apply => {
            if !patch.is_object() {
                return Err(ApiError::bad_request("a merge patch is an object"));
            }
            let mut object = object.clone();
            merge(&mut object, patch);
            Ok(object)
        }
    }
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            merge(target.entry(name.as_str()).or_insert(Value::Null), value);
        }
    }
}

fn json_patch(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    const OPERATIONS: usize = 10_000;
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| ApiError::bad_request(format!("the body is not a JSON patch: {e}")))?;
    if operations.0.len() > OPERATIONS {
        let words = format!(
            "the allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            operations.0.len()
        );
        return Err(ApiError::new(413, "RequestEntityTooLarge", words));
    }
    let mut object = object.clone();
    json_patch::patch(&mut object, &operations).map_err(|e| {
        ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {e}"),
        )
    })?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod_patch(original: Value, patch: Value) -> Value {
        patched(
            PatchKind::Strategic,
            &original,
            &patch,
            Schema::named("io.k8s.api.core.v1.Pod"),
        )
        .unwrap()
    }

    #[test]
    fn merge_patch_removes_with_null() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(
            &mut object,
            &json!({"a": {"b": null, "e": {"f": null}}, "d": [2]}),
        );
        assert_eq!(object, json!({"a": {"c": 2, "e": {}}, "d": [2]}));
    }

    #[test]
    fn strategic_merges_containers_by_name() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
        let patch =
            json!({"spec": {"containers": [{"name": "b", "image": "z"}, {"name": "c", "image": "w"}]}});
        let wanted = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}, {"name": "c", "image": "w"}]}});
        assert_eq!(pod_patch(pod, patch), wanted);
    }

    #[test]
    fn strategic_puts_new_elements_before_those_it_does_not_name() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let patch = json!({"spec": {"containers": [{"name": "n"}, {"name": "b"}]}});
        let wanted = json!({"spec": {"containers": [{"name": "n"}, {"name": "a"}, {"name": "b"}]}});
        assert_eq!(pod_patch(pod, patch), wanted);
    }

    #[test]
    fn strategic_deletes_and_orders() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "image": "i"}]}});
        assert_eq!(
            pod_patch(pod, patch),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "b", "image": "i"}]}})
        );
    }

    #[test]
    fn strategic_replaces_atomic_lists_and_whole_maps() {
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}});
        let patch = json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}, "spec": {"containers": [{"name": "a", "args": ["3"]}]}});
        let wanted = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"containers": [{"name": "a", "args": ["3"]}]}});
        assert_eq!(pod_patch(pod, patch), wanted);
    }

    #[test]
    fn strategic_removes_from_primitive_lists() {
        let pod = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(
            pod_patch(pod, patch),
            json!({"metadata": {"finalizers": ["c", "b"]}})
        );
    }

    #[test]
    fn strategic_retains_keys() {
        let pod = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}});
        assert_eq!(
            pod_patch(pod, patch),
            json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}})
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0i64..9).prop_map(Value::from),
            "[a-c$]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = prop_oneof![
                Just("spec".to_owned()),
                Just("containers".to_owned()),
                Just("metadata".to_owned()),
                Just("name".to_owned()),
                Just("$patch".to_owned()),
                Just("$retainKeys".to_owned()),
                Just("$setElementOrder/containers".to_owned()),
                "[a-c]"
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn strategic_never_panics(object in any_json(), patch in any_json()) {
            let _ = patched(PatchKind::Strategic, &object, &patch, Schema::named("io.k8s.api.core.v1.Pod"));
        }

        #[test]
        fn a_merge_patch_applied_twice_changes_nothing_more(object in any_json(), patch in any_json()) {
            let mut once = object;
            merge(&mut once, &patch);
            let mut twice = once.clone();
            merge(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
