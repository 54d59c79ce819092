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
    let order = |name: &str| {
        patch
            .get(&format!("{ORDER}{name}"))
            .and_then(Value::as_array)
            .map(Vec::as_slice)
    };
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let child = schema.and_then(|s| s.child(name));
        if value.is_null() {
            original.shift_remove(name);
            continue;
        }
        let merged = match (original.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge(old.clone(), new, child)?),
            (None, Value::Object(new)) => Value::Object(merge(Object::new(), new, child)?),
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(old, new, child, order(name))?)
            }
            (None, Value::Array(new)) => Value::Array(merge_list(&[], new, child, order(name))?),
            (_, other) => other.clone(),
        };
        original.insert(name.clone(), merged);
    }
    // An order may come for a list that is not patched itself.
    for (name, order) in patch {
        let Some(field) = name
            .strip_prefix(ORDER)
            .filter(|field| !patch.contains_key(*field))
        else {
            continue;
        };
        if let (Some(order), Some(Value::Array(list))) = (order.as_array(), original.get_mut(field)) {
            let key = schema.and_then(|s| s.child(field)).and_then(|s| s.merge_key());
            let before = list.clone();
            *list = ordered(std::mem::take(list), order, &before, key);
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

fn merge_list(
    old: &[Value],
    new: &[Value],
    schema: Option<Schema<'_>>,
    order: Option<&[Value]>,
) -> Result<Vec<Value>, ApiError> {
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
        return Ok(ordered(merged, order.unwrap_or(new), old, None));
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
    Ok(ordered(merged, order.unwrap_or(new), old, Some(key)))
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

/// Puts a merged list in order: what the patch names in the patch's order, before what only the server has, unless both
/// stood on the server the other way round.
fn ordered(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let index = |list: &[Value], item: &Value| {
        list.iter().position(|other| match key {
            Some(key) => other.get(key).is_some() && other.get(key) == item.get(key),
            None => other == item,
        })
    };
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(order, item).is_some());
    named.sort_by_key(|item| index(order, item));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let server_first = match (rest.peek(), named.peek()) {
            (Some(left), Some(right)) => {
                matches!((index(server, left), index(server, right)), (Some(l), Some(r)) if l < r)
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return out,
        };
        out.extend(if server_first { rest.next() } else { named.next() });
    }
}
