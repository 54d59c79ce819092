//! Strategic merge patch: lists merged by the keys that the schema names, and `$patch`, `$retainKeys`,
//! `$setElementOrder`, `$deleteFromPrimitiveList`.

use crate::{error::ApiError, schema::Schema};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) fn merge(
    mut original: Object,
    patch: &Object,
    schema: Option<Schema<'_>>,
) -> Result<Object, ApiError> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Object::new()),
        Some("merge") | None => {}
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "unknown $patch directive {other:?}; give replace, delete or merge"
            )));
        }
    }
    if let Some(retained) = patch.get(RETAIN).and_then(Value::as_array) {
        original.retain(|name, _| retained.iter().any(|r| r.as_str() == Some(name)));
    }
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(DELETE_PRIMITIVE) {
            remove_primitives(&mut original, field, value);
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let child = schema.and_then(|s| s.child(name));
        if value.is_null() {
            original.shift_remove(name);
            continue;
        }
        let merged = match (original.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge(old.clone(), new, child)?),
            (None, Value::Object(new)) => Value::Object(merge(Object::new(), new, child)?),
            (Some(Value::Array(old)), Value::Array(new)) => Value::Array(merge_list(old, new, child)?),
            (None, Value::Array(new)) => Value::Array(merge_list(&[], new, child)?),
            (_, other) => other.clone(),
        };
        original.insert(name.clone(), merged);
    }
    for (name, order) in patch {
        if let (Some(field), Some(order)) = (name.strip_prefix(ORDER), order.as_array()) {
            let key = schema.and_then(|s| s.child(field)).and_then(|s| s.merge_key());
            if let Some(Value::Array(list)) = original.get_mut(field) {
                reorder(list, order, key);
            }
        }
    }
    Ok(original)
}

/// A patch's object as a value: directives and nulls are not data.
fn without_directives(patch: &Object) -> Object {
    patch
        .iter()
        .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

fn remove_primitives(original: &mut Object, field: &str, removed: &Value) {
    if let (Some(Value::Array(list)), Some(removed)) = (original.get_mut(field), removed.as_array()) {
        list.retain(|item| !removed.contains(item));
    }
}

fn merge_list(old: &[Value], new: &[Value], schema: Option<Schema<'_>>) -> Result<Vec<Value>, ApiError> {
    let merges = schema.is_some_and(|s| s.patch_strategy().split(',').any(|strategy| strategy == "merge"));
    if !merges {
        return Ok(new.to_vec());
    }
    let Some(key) = schema.and_then(|s| s.merge_key()) else {
        let mut merged = old.to_vec();
        for item in new {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(merged);
    };
    let replaces = |item: &Value| {
        item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") && item.get(key).is_none()
    };
    let mut merged = if new.iter().any(replaces) {
        Vec::new()
    } else {
        old.to_vec()
    };
    let items = schema.and_then(|s| s.items());
    for item in new.iter().filter(|item| !replaces(item)) {
        merge_item(&mut merged, item, key, items)?;
    }
    Ok(merged)
}

fn merge_item(
    merged: &mut Vec<Value>,
    item: &Value,
    key: &str,
    schema: Option<Schema<'_>>,
) -> Result<(), ApiError> {
    let Value::Object(patch) = item else {
        return Err(ApiError::bad_request(
            "an element of a list that is merged by key is no object",
        ));
    };
    let Some(id) = patch.get(key) else {
        return Err(ApiError::bad_request(format!(
            "map: an element does not contain declared merge key: {key}"
        )));
    };
    if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
        merged.retain(|existing| existing.get(key) != Some(id));
        return Ok(());
    }
    match merged.iter_mut().find(|existing| existing.get(key) == Some(id)) {
        Some(Value::Object(existing)) => *existing = merge(std::mem::take(existing), patch, schema)?,
        _ => merged.push(Value::Object(merge(Object::new(), patch, schema)?)),
    }
    Ok(())
}

/// Puts the elements that `order` lists into that order, in the places they hold now; others stay where they are.
fn reorder(list: &mut [Value], order: &[Value], key: Option<&str>) {
    let rank = |item: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) => wanted.get(key).is_some() && wanted.get(key) == item.get(key),
            None => wanted == item,
        })
    };
    let places: Vec<usize> = (0..list.len()).filter(|at| rank(&list[*at]).is_some()).collect();
    let mut items: Vec<Value> = places.iter().map(|at| list[*at].clone()).collect();
    items.sort_by_key(|item| rank(item));
    for (place, item) in places.into_iter().zip(items) {
        list[place] = item;
    }
}
