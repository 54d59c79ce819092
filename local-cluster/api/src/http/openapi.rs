//! OpenAPI v3, as far as kubectl asks: which kinds there are, which parameters their verbs take, their schemas.

use super::respond::{self, ApiBody};
use crate::{
    cluster::LocalCluster,
    error::ApiError,
    kinds::{Kind, Registry, Shape},
    schema,
};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const SCHEMAS: &str = "#/components/schemas/";

/// `/openapi/v3` and the documents below it.
pub(super) fn answer(cluster: &LocalCluster, path: &[&str]) -> Result<Response<ApiBody>, ApiError> {
    let store = cluster.read();
    let registry = &store.registry;
    let value = match path {
        [] => index(registry),
        ["api", version] => document(registry, "", version)?,
        ["apis", group, version] => document(registry, group, version)?,
        ["version"] => json!({"openapi": "3.0.0", "info": info(), "paths": {}}),
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(respond::json(StatusCode::OK, &value))
}

/// `/openapi/v2`: a document without schemas, which are in version 3. Clients that only know this version, and
/// kubectl when it meets a kind that version 3 does not have, read from it that nothing is known here.
pub(super) fn answer_v2(accept: &str) -> Response<ApiBody> {
    if !accept.contains(PROTOBUF) {
        return respond::json(
            StatusCode::OK,
            &json!({"swagger": "2.0", "info": info(), "paths": {}, "definitions": {}}),
        );
    }
    // The message `Document`: `swagger` is field 1, `info` field 2 with `title` 1 and `version` 2, `paths` field 8.
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    let document = [field(1, b"2.0"), field(2, &info), field(8, b"")].concat();
    respond::with_type(StatusCode::OK, PROTOBUF_TYPE, respond::full(document))
}

/// A length-delimited field of a protobuf message; numbers and lengths here fit one byte each.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short constants");
    debug_assert!(length < 128, "a length of one byte");
    let mut field = vec![number << 3 | 2, length];
    field.extend_from_slice(content);
    field
}

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2";
const PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.34.0";

fn info() -> Value {
    json!({"title": TITLE, "version": VERSION})
}

fn place(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let place = place(group, version);
            // The hash lets clients keep a document; it changes when a definition does.
            let shapes = registry
                .all()
                .filter(|k| k.group == group && k.version == version);
            let mut hash = Sha256::new();
            hash.update(env!("CARGO_PKG_VERSION"));
            for kind in shapes {
                hash.update(&kind.kind);
                if let Shape::Custom(schema) = &kind.shape {
                    hash.update(schema.to_string());
                }
            }
            let hash = hex::encode(hash.finalize());
            let url = format!("/openapi/v3/{place}?hash={hash}");
            paths.insert(place, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn document(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let kinds: Vec<&Arc<Kind>> = registry
        .all()
        .filter(|k| k.group == group && k.version == version)
        .collect();
    if kinds.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in kinds {
        add_paths(kind, &mut paths);
        add_schema(kind, &mut schemas);
    }
    Ok(json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}}))
}

fn identity(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn schema_name(kind: &Kind) -> String {
    match &kind.shape {
        Shape::Builtin(name) => (*name).to_owned(),
        _ => {
            let reversed: Vec<&str> = kind.group.split('.').rev().collect();
            format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
        }
    }
}

fn add_paths(kind: &Kind, paths: &mut Map<String, Value>) {
    let parameter = |name: &str, kind: &str| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}});
    let write = json!([
        parameter("dryRun", "string"),
        parameter("fieldManager", "string"),
        parameter("fieldValidation", "string"),
    ]);
    let mut patch_parameters = write.clone();
    if let Some(list) = patch_parameters.as_array_mut() {
        list.push(parameter("force", "boolean"));
    }
    let reference = json!({"$ref": format!("{SCHEMAS}{}", schema_name(kind))});
    let body = |media: &[&str]| -> Value {
        let content: Map<String, Value> = media
            .iter()
            .map(|m| ((*m).to_owned(), json!({"schema": reference})))
            .collect();
        json!({"content": content})
    };
    let operation = |action: &str, parameters: &Value, media: &[&str]| {
        let mut operation = json!({
            "operationId": format!("{action}{}{}{}", kind.group.replace('.', ""), kind.version, kind.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": identity(kind),
        });
        if !media.is_empty() {
            operation["requestBody"] = body(media);
        }
        operation
    };
    let read = json!([
        parameter("fieldSelector", "string"),
        parameter("labelSelector", "string"),
        parameter("limit", "integer")
    ]);
    // kubectl reads here which patches a kind takes; custom ones know no strategic merge.
    let mut patches = vec![
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    ];
    if kind.is_builtin() {
        patches.push("application/strategic-merge-patch+json");
    }
    let base = format!("/{}", place(&kind.group, &kind.version));
    let scope = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{base}{scope}/{}", kind.plural);
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "get": operation("get", &json!([]), &[]),
            "put": operation("put", &write, &["application/json"]),
            "patch": operation("patch", &patch_parameters, &patches),
            "delete": operation("delete", &json!([parameter("dryRun", "string")]), &[]),
        }),
    );
    paths.insert(collection, json!({"get": operation("list", &read, &[]), "post": operation("post", &write, &["application/json"])}));
}

fn add_schema(kind: &Kind, schemas: &mut Map<String, Value>) {
    let mut schema = match &kind.shape {
        Shape::Builtin(name) => schema::builtin().get(*name).cloned().unwrap_or_default(),
        Shape::Custom(schema) => schema.clone(),
        Shape::Open => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    add_references(&schema, schemas);
    schema["x-kubernetes-group-version-kind"] = json!([identity(kind)]);
    schemas.insert(schema_name(kind), schema);
}

/// Puts everything that a schema refers to beside it.
fn add_references(schema: &Value, schemas: &mut Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.strip_prefix(SCHEMAS))
                && !schemas.contains_key(name)
                && let Some(definition) = schema::builtin().get(name)
            {
                schemas.insert(name.to_owned(), definition.clone());
                add_references(definition, schemas);
            }
            map.values().for_each(|inner| add_references(inner, schemas));
        }
        Value::Array(list) => list.iter().for_each(|inner| add_references(inner, schemas)),
        _ => {}
    }
}
