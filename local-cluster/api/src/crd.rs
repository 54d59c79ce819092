//! From a CustomResourceDefinition to the kinds it serves.

use crate::kinds::{Kind, PrinterColumn, Shape, version_rank};
use serde_json::{Value, json};

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The served versions, best first. Empty when the definition is unusable.
pub(crate) fn kinds(definition: &Value) -> Vec<Kind> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let mut kinds: Vec<Kind> = versions
        .into_iter()
        .flatten()
        .filter(|v| v.get("served").and_then(Value::as_bool).unwrap_or(false))
        .map(|version| kind(definition, version))
        .filter(|k| {
            !k.group.is_empty() && !k.plural.is_empty() && !k.kind.is_empty() && !k.version.is_empty()
        })
        .collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(version_rank(&kind.version)));
    kinds
}

fn kind(definition: &Value, version: &Value) -> Kind {
    let kind = text(definition, "/spec/names/kind").to_owned();
    let singular = match text(definition, "/spec/names/singular") {
        "" => kind.to_lowercase(),
        name => name.to_owned(),
    };
    let shape = match version.pointer("/schema/openAPIV3Schema") {
        Some(schema) => Shape::Custom(with_metadata(schema)),
        None => Shape::Open,
    };
    Kind {
        group: text(definition, "/spec/group").to_owned(),
        version: text(version, "/name").to_owned(),
        plural: text(definition, "/spec/names/plural").to_owned(),
        short: texts(definition, "/spec/names/shortNames"),
        categories: texts(definition, "/spec/names/categories"),
        namespaced: text(definition, "/spec/scope") != "Cluster",
        status: version
            .pointer("/subresources/status")
            .is_some_and(Value::is_object),
        scale: version
            .pointer("/subresources/scale")
            .is_some_and(Value::is_object),
        columns: columns(version),
        fields: version
            .get("selectableFields")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|f| text(f, "/jsonPath").trim_start_matches('.').to_owned())
            .collect(),
        shape,
        singular,
        kind,
    }
}

/// A definition says nothing about metadata, whatever it says; the server knows its shape.
fn with_metadata(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let metadata = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        properties.insert("metadata".into(), json!({"$ref": metadata}));
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
    }
    schema
}

fn columns(version: &Value) -> Vec<PrinterColumn> {
    let columns = version.get("additionalPrinterColumns").and_then(Value::as_array);
    let column = |c: &Value| PrinterColumn {
        name: text(c, "/name").to_owned(),
        kind: text(c, "/type").to_owned(),
        format: text(c, "/format").to_owned(),
        description: text(c, "/description").to_owned(),
        priority: c.get("priority").and_then(Value::as_i64).unwrap_or(0),
        path: text(c, "/jsonPath").to_owned(),
    };
    columns.into_iter().flatten().map(column).collect()
}

/// Puts in what the server adds to a definition: names, list kind, conditions, stored versions.
pub(crate) fn complete(definition: &mut Value, now: &str) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    if let Some(names) = definition
        .pointer_mut("/spec/names")
        .and_then(Value::as_object_mut)
    {
        names
            .entry("singular")
            .or_insert_with(|| json!(kind.to_lowercase()));
        names
            .entry("listKind")
            .or_insert_with(|| json!(format!("{kind}List")));
    }
    if let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) {
        spec.entry("conversion")
            .or_insert_with(|| json!({"strategy": "None"}));
    }
    let storage: Vec<Value> = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|v| v.get("storage").and_then(Value::as_bool).unwrap_or(false))
        .filter_map(|v| v.get("name").cloned())
        .collect();
    if definition
        .pointer("/status/conditions")
        .is_some_and(|c| c.as_array().is_some_and(|c| !c.is_empty()))
    {
        definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
        return;
    }
    let condition = |kind: &str, reason: &str, message: &str| json!({"lastTransitionTime": now, "message": message, "reason": reason, "status": "True", "type": kind});
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": storage,
    });
}
