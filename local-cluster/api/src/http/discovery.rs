//! Which kinds there are, in the aggregated and the plain form; version and health.

use super::respond::{self, ApiBody};
use crate::{
    cluster::LocalCluster,
    error::ApiError,
    kinds::{Kind, Registry},
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

/// What `kubectl version` shows: the API that is spoken.
pub(crate) const VERSION: (&str, &str) = ("1", "34");

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

pub(crate) fn answer(
    cluster: &LocalCluster,
    path: &[&str],
    accept: &str,
) -> Result<Response<ApiBody>, ApiError> {
    let store = cluster.read();
    let registry = &store.registry;
    let aggregated = accept.contains("as=APIGroupDiscoveryList");
    let version = if accept.contains("v=v2;") || accept.contains("v=v2,") || accept.ends_with("v=v2") {
        "v2"
    } else {
        "v2beta1"
    };
    let value = match path {
        ["version"] => version_info(),
        ["healthz" | "livez" | "readyz", ..] => return Ok(respond::text("ok")),
        [api @ ("api" | "apis")] if aggregated => {
            let value = aggregate(registry, *api == "api", version);
            let content_type = if version == "v2" {
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            } else {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            };
            let body = respond::full(value.to_string());
            return Ok(respond::with_type(StatusCode::OK, content_type, body));
        }
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let groups: Vec<Value> = registry
                .groups()
                .iter()
                .filter(|(g, _)| !g.is_empty())
                .map(|(g, versions)| group(g, versions))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => {
            let groups = registry.groups();
            let versions = groups
                .get(name)
                .filter(|_| !name.is_empty())
                .ok_or_else(ApiError::no_such_path)?;
            let mut value = group(name, versions);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            value
        }
        ["api", version] => resources(registry, "", version)?,
        ["apis", name, version] => resources(registry, name, version)?,
        [] => {
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]})
        }
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(respond::json(StatusCode::OK, &value))
}

fn version_info() -> Value {
    json!({
        "major": VERSION.0, "minor": VERSION.1,
        "gitVersion": format!("v{}.{}.0+karez-{}", VERSION.0, VERSION.1, env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn group(name: &str, versions: &[&str]) -> Value {
    let each: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "versions": each, "preferredVersion": each.first()})
}

fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut resources = Vec::new();
    for kind in registry
        .all()
        .filter(|k| k.group == group && k.version == version)
    {
        let mut entry = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": VERBS, "storageVersionHash": "",
        });
        if !kind.short.is_empty() {
            entry["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        resources.push(entry);
        for part in parts(kind) {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, part.name), "singularName": "", "namespaced": kind.namespaced,
                "kind": part.kind, "verbs": part.verbs,
            });
            if part.group != kind.group {
                entry["group"] = json!(part.group);
                entry["version"] = json!(part.version);
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

/// A subresource.
struct Part {
    name: &'static str,
    group: String,
    version: String,
    kind: String,
    verbs: &'static [&'static str],
}

fn parts(kind: &Kind) -> Vec<Part> {
    let own = |name, verbs| Part {
        name,
        group: kind.group.clone(),
        version: kind.version.clone(),
        kind: kind.kind.clone(),
        verbs,
    };
    let other = |name, group: &str, version: &str, other: &str, verbs| Part {
        name,
        group: group.to_owned(),
        version: version.to_owned(),
        kind: other.to_owned(),
        verbs,
    };
    let mut parts = Vec::new();
    if kind.status {
        parts.push(own("status", &PART_VERBS));
    }
    if kind.scale {
        parts.push(other("scale", "autoscaling", "v1", "Scale", &PART_VERBS));
    }
    if kind.group.is_empty() && kind.kind == "Pod" {
        parts.push(own("log", &["get"]));
        parts.push(other("eviction", "policy", "v1", "Eviction", &["create"]));
    }
    if kind.group.is_empty() && kind.kind == "ServiceAccount" {
        parts.push(other(
            "token",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            &["create"],
        ));
    }
    parts
}

fn aggregate(registry: &Registry, core: bool, version: &str) -> Value {
    let groups = registry.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| aggregate_version(registry, name, v))
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregate_version(registry: &Registry, group: &str, version: &str) -> Value {
    let kinds = registry
        .all()
        .filter(|k| k.group == group && k.version == version);
    let response_kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let resources: Vec<Value> = kinds
        .map(|kind| {
            let parts: Vec<Value> = parts(kind)
                .iter()
                .map(|p| json!({"subresource": p.name, "responseKind": response_kind(&p.group, &p.version, &p.kind), "verbs": p.verbs}))
                .collect();
            json!({
                "resource": kind.plural, "responseKind": response_kind(&kind.group, &kind.version, &kind.kind),
                "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": kind.singular,
                "verbs": VERBS, "shortNames": kind.short, "categories": kind.categories, "subresources": parts,
            })
        })
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}
