//! `metadata.managedFields`: one entry a manager, operation and subresource.

use super::{difference::Difference, set::FieldSet};
use crate::schema::Schema;
use serde_json::{Value, json};

/// Who writes, by which operation, when.
#[derive(Debug, Clone)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    /// `Apply` or `Update`.
    pub(crate) operation: &'static str,
    pub(crate) subresource: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) now: &'a str,
    /// A built-in kind.
    pub(crate) typed: bool,
    /// The status is another subresource's.
    pub(crate) has_status: bool,
}

/// An entry of `managedFields`, decoded.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) raw: Value,
    pub(crate) set: FieldSet,
}

impl Entry {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.raw.get(key).and_then(Value::as_str).unwrap_or("")
    }

    pub(crate) fn belongs_to(&self, writer: &Writer<'_>) -> bool {
        self.text("manager") == writer.manager
            && self.text("operation") == writer.operation
            && self.text("subresource") == writer.subresource
    }
}

pub(crate) fn entries(object: &Value) -> Vec<Entry> {
    let list = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let entry = |raw: &Value| Entry {
        set: FieldSet::from_json(raw.get("fieldsV1").unwrap_or(&Value::Null)),
        raw: raw.clone(),
    };
    list.into_iter().flatten().map(entry).collect()
}

pub(crate) fn new_entry(writer: &Writer<'_>, set: FieldSet) -> Entry {
    let mut raw = json!({
        "manager": writer.manager, "operation": writer.operation, "apiVersion": writer.api_version,
        "time": writer.now, "fieldsType": "FieldsV1",
    });
    if !writer.subresource.is_empty() {
        raw["subresource"] = json!(writer.subresource);
    }
    Entry { raw, set }
}

/// Writes the entries back; those that own nothing are dropped.
pub(crate) fn store(object: &mut Value, entries: &[Entry]) {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by_key(|e| {
        ["operation", "time", "manager", "apiVersion", "subresource"].map(|field| e.text(field))
    });
    let list: Vec<Value> = entries
        .into_iter()
        .filter(|e| !e.set.is_empty())
        .map(|entry| {
            let mut raw = entry.raw.clone();
            raw["fieldsV1"] = entry.set.to_json();
            if let Some(subresource) = raw.as_object_mut().and_then(|r| r.shift_remove("subresource")) {
                raw["subresource"] = subresource;
            }
            raw
        })
        .collect();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if list.is_empty() {
        metadata.shift_remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), Value::Array(list));
    }
}

/// Records an ordinary write: what it changed is the writer's now, what it removed is nobody's.
///
/// `old` is `Null` for a new object. A client that clears `managedFields` resets them.
pub(crate) fn record_update(old: &Value, new: &mut Value, schema: Option<Schema<'_>>, writer: &Writer<'_>) {
    let cleared = new
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(|list| {
            list.is_empty() || (list.len() == 1 && list[0].as_object().is_some_and(|e| e.is_empty()))
        });
    if cleared && !old.is_null() {
        store(new, &[]);
        return;
    }
    // kubectl migrates ownership by writing the list itself; a well-formed list is taken as it is.
    let mut entries = entries(new);
    if entries.is_empty() {
        entries = super::managed::entries(old);
    }
    let empty = json!({});
    let base = if old.is_null() { &empty } else { old };
    let mut difference = Difference::between(base, new, schema, writer.typed);
    if writer.subresource == "status" {
        difference.changed.keep_child("f:status");
    } else if writer.subresource.is_empty() && writer.has_status {
        difference.changed.remove_child("f:status");
    }
    let changed_at_all = !difference.changed.is_empty();
    for entry in &mut entries {
        if entry.belongs_to(writer) {
            continue;
        }
        entry.set.subtract(&difference.changed);
        entry.set.subtract_below(&difference.removed);
    }
    let mine = entries.iter().position(|e| e.belongs_to(writer));
    match mine {
        Some(at) => {
            let mut set = std::mem::take(&mut entries[at].set);
            set.subtract_below(&difference.removed);
            set.union(&difference.changed);
            if changed_at_all {
                entries[at] = new_entry(writer, set);
            } else {
                entries[at].set = set;
            }
        }
        None if changed_at_all => entries.push(new_entry(writer, difference.changed)),
        None => {}
    }
    store(new, &entries);
}
