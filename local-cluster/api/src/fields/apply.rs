//! Server-side apply: merges what a manager wants into what there is, gives up what it no longer wants, finds conflicts.

use super::{
    difference::Difference,
    managed::{self, Entry, Writer},
    set::{FieldSet, element_name, list_type},
};
use crate::{
    error::{ApiError, Cause, causes_json},
    schema::{ListType, Schema},
};
use serde_json::{Value, json};

/// Merges `config` into `live` (`Null` when there is none) for `writer`, and records what it owns.
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    schema: Option<Schema<'_>>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApiError> {
    let mut wanted = FieldSet::of(config, schema);
    if writer.subresource == "status" {
        wanted.keep_child("f:status");
    }
    let mut entries = managed::entries(live);
    let mut given_up = entries
        .iter()
        .find(|e| e.belongs_to(writer))
        .map(|e| e.set.clone())
        .unwrap_or_default();
    given_up.subtract(&wanted);

    let empty = json!({});
    let base = if live.is_null() { &empty } else { live };
    let mut object = merge(base, config, schema);
    let mut changed = Difference::between(base, &object, schema, writer.typed).changed;
    changed = changed.intersection(&wanted);
    settle_conflicts(&mut entries, writer, &changed, force)?;

    let mut others = FieldSet::default();
    for entry in entries.iter().filter(|e| !e.belongs_to(writer)) {
        others.union(&entry.set);
    }
    remove(&mut object, &given_up, Some(&wanted), Some(&others), schema);

    match entries.iter().position(|e| e.belongs_to(writer)) {
        Some(at) if entries[at].set == wanted && entries[at].text("apiVersion") == writer.api_version => {}
        Some(at) => entries[at] = managed::new_entry(writer, wanted),
        None => entries.push(managed::new_entry(writer, wanted)),
    }
    if !object.get("metadata").is_some_and(Value::is_object) {
        object["metadata"] = json!({});
    }
    managed::store(&mut object, &entries);
    Ok(object)
}

/// Other managers' fields that the write changes: refused, or taken from them by force.
fn settle_conflicts(
    entries: &mut [Entry],
    writer: &Writer<'_>,
    changed: &FieldSet,
    force: bool,
) -> Result<(), ApiError> {
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|e| !e.belongs_to(writer)) {
        let theirs = entry.set.intersection(changed);
        let paths = theirs.paths();
        if paths.is_empty() {
            continue;
        }
        if force {
            entry.set.subtract(&theirs);
        } else {
            conflicts.push((described(entry), paths));
        }
    }
    if conflicts.is_empty() {
        Ok(())
    } else {
        Err(refusal(&conflicts))
    }
}

fn described(entry: &Entry) -> String {
    let mut words = format!("\"{}\"", entry.text("manager"));
    if !entry.text("subresource").is_empty() {
        words += &format!(" with subresource \"{}\"", entry.text("subresource"));
    }
    if entry.text("operation") == "Update" {
        words += &format!(" using {}", entry.text("apiVersion"));
    }
    words
}

fn refusal(conflicts: &[(String, Vec<String>)]) -> ApiError {
    let mut causes = Vec::new();
    for (manager, paths) in conflicts {
        for path in paths {
            let message = format!("conflict with {manager}");
            causes.push(Cause {
                reason: "FieldManagerConflict",
                message,
                field: path.clone(),
            });
        }
    }
    let each: Vec<String> = conflicts
        .iter()
        .map(|(manager, paths)| match paths.as_slice() {
            [path] => format!("conflict with {manager}: {path}"),
            paths => format!("conflicts with {manager}:\n- {}", paths.join("\n- ")),
        })
        .collect();
    let (number, noun) = (
        causes.len(),
        if causes.len() == 1 {
            "conflict"
        } else {
            "conflicts"
        },
    );
    let message = format!("Apply failed with {number} {noun}: {}", each.join("\n"));
    let mut error = ApiError::new(409, "Conflict", message);
    error.details = Some(Box::new(json!({"causes": causes_json(&causes)})));
    error
}

fn merge(live: &Value, config: &Value, schema: Option<Schema<'_>>) -> Value {
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if !schema.is_some_and(|s| s.is_atomic_map()) => {
            let mut merged = old.clone();
            for (name, value) in new {
                if value.is_null() {
                    merged.shift_remove(name);
                    continue;
                }
                let child = schema.and_then(|s| s.child(name));
                let value = match old.get(name) {
                    Some(old) => merge(old, value, child),
                    None => without_nulls(value),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) => {
            let kind = list_type(schema, new);
            if kind == ListType::Atomic || list_type(schema, old) == ListType::Atomic {
                return config.clone();
            }
            let mut merged = old.clone();
            for item in new {
                let name = element_name(schema, kind, item);
                match merged
                    .iter_mut()
                    .find(|existing| element_name(schema, kind, existing) == name)
                {
                    Some(existing) => *existing = merge(existing, item, schema.and_then(|s| s.items())),
                    None => merged.push(without_nulls(item)),
                }
            }
            Value::Array(merged)
        }
        _ => without_nulls(config),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_nulls(v)))
            .collect(),
        other => other.clone(),
    }
}

/// Removes from `value` what was given up, unless it is still wanted or someone else's.
fn remove(
    value: &mut Value,
    given_up: &FieldSet,
    wanted: Option<&FieldSet>,
    others: Option<&FieldSet>,
    schema: Option<Schema<'_>>,
) {
    for (name, gone) in given_up.children() {
        let wanted = wanted.and_then(|w| w.child(name));
        let others = others.and_then(|o| o.child(name));
        let free = wanted.is_none_or(FieldSet::is_empty) && others.is_none_or(FieldSet::is_empty);
        match value {
            Value::Object(map) => {
                let Some(field) = name.strip_prefix("f:") else {
                    continue;
                };
                if gone.here() && free {
                    map.shift_remove(field);
                    continue;
                }
                let child = schema.and_then(|s| s.child(field));
                let Some(inner) = map.get_mut(field) else { continue };
                remove(inner, gone, wanted, others, child);
                let is_map = child.is_none_or(|c| c.properties().is_none());
                let emptied = inner.as_object().is_some_and(serde_json::Map::is_empty)
                    || inner.as_array().is_some_and(Vec::is_empty);
                if emptied && is_map && free {
                    map.shift_remove(field);
                }
            }
            Value::Array(list) => {
                let kind = list_type(schema, list);
                let Some(at) = list
                    .iter()
                    .position(|item| element_name(schema, kind, item).as_ref() == Some(name))
                else {
                    continue;
                };
                if gone.here() && free {
                    list.remove(at);
                } else {
                    remove(
                        &mut list[at],
                        gone,
                        wanted,
                        others,
                        schema.and_then(|s| s.items()),
                    );
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &'static str) -> Writer<'static> {
        Writer {
            manager,
            operation: "Apply",
            subresource: "",
            api_version: "apps/v1",
            now: "2026-01-01T00:00:00Z",
            typed: true,
            has_status: true,
        }
    }

    fn schema() -> Option<Schema<'static>> {
        Schema::named("io.k8s.api.apps.v1.Deployment")
    }

    fn deployment(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    }

    #[test]
    fn refuses_another_managers_field_unless_forced() {
        let live = apply(
            &Value::Null,
            &deployment(json!({"replicas": 1})),
            schema(),
            &writer("one"),
            false,
        )
        .unwrap();
        let config = deployment(json!({"replicas": 2}));
        let error = apply(&live, &config, schema(), &writer("two"), false).unwrap_err();
        assert_eq!(error.reason, "Conflict");
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
        );
        let forced = apply(&live, &config, schema(), &writer("two"), true).unwrap();
        assert_eq!(forced["spec"]["replicas"], 2);
        let managers: Vec<_> = managed::entries(&forced)
            .iter()
            .map(|e| e.text("manager").to_owned())
            .collect();
        assert_eq!(managers, ["two"]);
    }

    #[test]
    fn agreeing_managers_share_a_field() {
        let config = deployment(json!({"replicas": 1}));
        let live = apply(&Value::Null, &config, schema(), &writer("one"), false).unwrap();
        let both = apply(&live, &config, schema(), &writer("two"), false).unwrap();
        let given_up = apply(&both, &deployment(json!({})), schema(), &writer("one"), false).unwrap();
        assert_eq!(given_up["spec"]["replicas"], 1);
        let gone = apply(&given_up, &deployment(json!({})), schema(), &writer("two"), false).unwrap();
        assert_eq!(gone["spec"].get("replicas"), None);
    }

    #[test]
    fn gives_up_list_elements_it_no_longer_names() {
        let containers = |list: Value| deployment(json!({"template": {"spec": {"containers": list}}}));
        let first = containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
        let live = apply(&Value::Null, &first, schema(), &writer("one"), false).unwrap();
        let second = containers(json!([{"name": "b", "image": "z"}]));
        let live = apply(&live, &second, schema(), &writer("one"), false).unwrap();
        assert_eq!(
            live["spec"]["template"]["spec"]["containers"],
            json!([{"name": "b", "image": "z"}])
        );
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let config = deployment(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}}));
        let live = apply(&Value::Null, &config, schema(), &writer("one"), false).unwrap();
        let mut later = writer("one");
        later.now = "2027-01-01T00:00:00Z";
        assert_eq!(apply(&live, &config, schema(), &later, false).unwrap(), live);
    }
}
