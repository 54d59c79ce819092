//! Values against a schema: types, required fields, enumerations, bounds.

use super::Schema;
use crate::error::Cause;
use serde_json::{Value, json};

/// How deep an object may nest; deeper ones are refused before anything recurses over them.
const DEPTH: usize = 96;
const REPORTED: usize = 32;

/// Everything in `object` that the schema forbids, with its path.
pub(crate) fn validate(schema: Schema<'_>, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, object, "", 0, &mut causes);
    causes
}

fn walk(schema: Schema<'_>, value: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    if causes.len() >= REPORTED || depth > DEPTH {
        return;
    }
    if value.is_null() {
        return; // null means absent
    }
    if let Some(wrong) = type_mismatch(schema, value) {
        causes.push(wrong_type(path, value, wrong));
        scalar(schema, value, path, causes);
        return;
    }
    scalar(schema, value, path, causes);
    match value {
        Value::Object(map) => {
            for required in schema
                .raw()
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let Some(name) = required.as_str() else { continue };
                if map.get(name).is_none_or(Value::is_null) {
                    causes.push(Cause::required(&join(path, name), ""));
                }
            }
            for (name, inner) in map {
                if let Some(child) = schema.child(name) {
                    walk(child, inner, &join(path, name), depth + 1, causes);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            for (at, inner) in list.iter().enumerate() {
                walk(items, inner, &format!("{path}[{at}]"), depth + 1, causes);
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

fn wrong_type(path: &str, value: &Value, wanted: &str) -> Cause {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Cause {
        reason: "FieldValueTypeInvalid",
        message: format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\""),
        field: if path.is_empty() {
            "<nil>".to_owned()
        } else {
            path.to_owned()
        },
    }
}

fn type_mismatch<'a>(schema: Schema<'a>, value: &Value) -> Option<&'a str> {
    let raw = schema.raw();
    if raw.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        // Quantities count as these too, and clients write `cpu: 0.5`.
        return (!value.is_string() && !value.is_number()).then_some("integer or string");
    }
    let wanted = schema.kind()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then_some(wanted)
}

fn scalar(schema: Schema<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let raw = schema.raw();
    if let Some(allowed) = raw.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        causes.push(Cause::unsupported(path, value, &allowed.join(", ")));
    }
    let bound = |key: &str| raw.get(key).and_then(Value::as_f64);
    if let Some(number) = value.as_f64() {
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            let words = format!("{path} in body should be greater than or equal to {least}");
            causes.push(Cause::invalid(path, value, &words));
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            let words = format!("{path} in body should be less than or equal to {most}");
            causes.push(Cause::invalid(path, value, &words));
        }
    }
    let length = match value {
        Value::String(text) => Some(("Length", text.chars().count())),
        Value::Array(list) => Some(("Items", list.len())),
        Value::Object(map) => Some(("Properties", map.len())),
        _ => None,
    };
    let Some((what, length)) = length else { return };
    let length = json!(length).as_f64().unwrap_or(0.0);
    if bound(&format!("min{what}")).is_some_and(|least| length < least) {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body is too short"),
        ));
    }
    if bound(&format!("max{what}")).is_some_and(|most| length > most) {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body is too long"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_mistake_at_once() {
        let schema = Schema::named("io.k8s.api.core.v1.Service").expect("services have a schema");
        let service = json!({"metadata": {}, "spec": {"ports": [{"name": "a"}, {"port": "x"}]}});
        let fields: Vec<String> = validate(schema, &service).into_iter().map(|c| c.field).collect();
        assert_eq!(fields, ["spec.ports[0].port", "spec.ports[1].port"]);
    }
}
