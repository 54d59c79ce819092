//! What a schema does to an object's shape: unknown fields are found or pruned, defaults put in.

use super::Schema;
use serde_json::{Map, Value};

/// What every object has whatever its schema says.
fn is_type_field(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// The paths of fields that the schema does not know, as `spec.template.spec.containers[0].imagee`.
pub(crate) fn unknown_fields(schema: Schema<'_>, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk_unknown(schema, object, "", true, &mut found);
    found
}

fn walk_unknown(schema: Schema<'_>, value: &Value, path: &str, root: bool, found: &mut Vec<String>) {
    const REPORTED: usize = 32;
    if found.len() >= REPORTED || schema.is_open() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let path = join(path, name);
                match schema.child(name) {
                    Some(child) => walk_unknown(child, inner, &path, false, found),
                    None if (root || schema.embeds_object()) && is_type_field(name) => {}
                    None if schema.preserves_unknown() => {}
                    None => found.push(path),
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            for (at, inner) in list.iter().enumerate() {
                walk_unknown(items, inner, &format!("{path}[{at}]"), false, found);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Removes what the schema does not know.
pub(crate) fn prune(schema: Schema<'_>, value: &mut Value, root: bool) {
    if schema.is_open() {
        return;
    }
    match value {
        Value::Object(map) => {
            let keeps_type = root || schema.embeds_object();
            if !schema.preserves_unknown() {
                map.retain(|name, _| schema.child(name).is_some() || (keeps_type && is_type_field(name)));
            }
            for (name, inner) in map.iter_mut() {
                if let Some(child) = schema.child(name) {
                    prune(child, inner, false);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                list.iter_mut().for_each(|inner| prune(items, inner, false));
            }
        }
        _ => {}
    }
}

/// Puts a custom resource's defaults in: at each object that is there, for each field that is not.
pub(crate) fn apply_defaults(schema: Schema<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            insert_defaults(schema, map);
            for (name, inner) in map.iter_mut() {
                if let Some(child) = schema.child(name) {
                    apply_defaults(child, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                list.iter_mut().for_each(|inner| apply_defaults(items, inner));
            }
        }
        _ => {}
    }
}

fn insert_defaults(schema: Schema<'_>, map: &mut Map<String, Value>) {
    for (name, property) in schema.properties().into_iter().flatten() {
        let property = Schema::new(property);
        let Some(default) = property.default() else {
            continue;
        };
        let nullable = property
            .raw()
            .get("nullable")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let missing = match map.get(name) {
            None => true,
            Some(Value::Null) => !nullable,
            Some(_) => false,
        };
        if missing {
            map.insert(name.clone(), default.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_an_unknown_field_by_its_path() {
        let schema = Schema::named("io.k8s.api.core.v1.Pod").expect("pods have a schema");
        let pod = json!({"kind": "Pod", "spec": {"containers": [{"name": "a", "imagee": "b"}]}});
        assert_eq!(unknown_fields(schema, &pod), ["spec.containers[0].imagee"]);
    }

    #[test]
    fn prunes_what_a_definition_does_not_name_and_keeps_what_it_preserves() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "config": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}, "mode": {"type": "string", "default": "deployment"}}}}});
        let mut object =
            json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"config": {"a": 1}, "other": 1}});
        prune(Schema::new(&schema), &mut object, true);
        apply_defaults(Schema::new(&schema), &mut object);
        assert_eq!(
            object,
            json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"config": {"a": 1}, "mode": "deployment"}})
        );
    }
}
