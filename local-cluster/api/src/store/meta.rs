//! Reading and writing an object's metadata.

use serde_json::{Map, Value, json};

/// The text at a pointer, or the empty string.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

pub(crate) fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The metadata, made when it is missing. `object` must be an object; anything else becomes one.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let map = object.as_object_mut().expect("it was made an object above");
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("it was made an object above")
}

pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    metadata(object).insert(field.to_owned(), value);
}

pub(crate) fn unset(object: &mut Value, field: &str) {
    metadata(object).shift_remove(field);
}

/// Gives `new` a metadata field of `old`, or takes it away where `old` has none.
pub(crate) fn carry(new: &mut Value, old: &Value, field: &str) {
    match old.pointer("/metadata").and_then(|m| m.get(field)) {
        Some(value) => set(new, field, value.clone()),
        None => unset(new, field),
    }
}

pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        unset(object, "finalizers");
    } else {
        set(object, "finalizers", json!(finalizers));
    }
}

/// Gives or takes a top-level field as in `old`.
pub(crate) fn carry_top(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(field);
        }
    }
}

/// Roughly how many bytes an object takes.
pub(crate) fn weight(value: &Value) -> usize {
    const NODE: usize = 32;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(name, inner)| name.len() + weight(inner)).sum(),
        _ => 0,
    }
}
