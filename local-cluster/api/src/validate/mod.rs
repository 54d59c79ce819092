//! What is wrong with an object beyond its schema: names, labels, selectors, fields that cannot change. Pure.

mod names;
mod pods;

use crate::{error::Cause, kinds::Kind};
use base64::{Engine, engine::general_purpose::STANDARD};
use names::{LABEL, SERVICE, SUBDOMAIN, is_label, is_label_value, is_qualified_name, is_subdomain};
use pods::{pod_spec, pod_update, workload};
use serde_json::Value;

/// Mistakes in the metadata, for any kind.
pub(crate) fn metadata(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    name(kind, object, &mut causes);
    for (key, value) in map(object, "/metadata/labels") {
        if !is_qualified_name(key) {
            causes.push(Cause::invalid("metadata.labels", &Value::from(key.as_str()), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"));
        }
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid("metadata.labels", value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"));
        }
    }
    let mut size = 0;
    for (key, value) in map(object, "/metadata/annotations") {
        size += key.len() + value.as_str().map_or(0, str::len);
        if !is_qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &Value::from(key.as_str()), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
        if !value.is_string() {
            causes.push(Cause::invalid("metadata.annotations", value, "must be a string"));
        }
    }
    if size > 256 << 10 {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: "Too long: may not be more than 262144 bytes".into(),
            field: "metadata.annotations".into(),
        });
    }
    for (at, owner) in list(object, "/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).unwrap_or("").is_empty() {
                causes.push(Cause::invalid(
                    &format!("metadata.ownerReferences[{at}].{field}"),
                    &Value::from(""),
                    "must not be empty",
                ));
            }
        }
    }
    for finalizer in list(object, "/metadata/finalizers") {
        if !finalizer.as_str().is_some_and(is_qualified_name) {
            causes.push(Cause::invalid("metadata.finalizers", finalizer, "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
    }
    causes
}

fn name(kind: &Kind, object: &Value, causes: &mut Vec<Cause>) {
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("");
    let value = Value::from(name);
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
        return;
    }
    let roles = kind.group == "rbac.authorization.k8s.io";
    let (fits, words) = match kind.kind.as_str() {
        _ if roles => (
            !name.contains(['/', '%']) && name != "." && name != ".." && name.len() <= 253,
            "may not contain '/' or '%'",
        ),
        "Service" if kind.group.is_empty() => (
            is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
            SERVICE,
        ),
        "Namespace" if kind.group.is_empty() => (is_label(name), LABEL),
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if !fits {
        causes.push(Cause::invalid("metadata.name", &value, words));
    }
}

fn map<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Mistakes in the object itself, for the kinds whose mistakes are common.
pub(crate) fn object(kind: &Kind, old: Option<&Value>, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !kind.is_builtin() {
        return causes;
    }
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            pod_spec(object, "/spec", "spec", &mut causes);
            if let Some(old) = old {
                pod_update(old, object, &mut causes);
            }
        }
        ("", "Service") => service(old, object, &mut causes),
        ("", "ConfigMap") => data_keys(object, &["/data", "/binaryData"], &mut causes),
        ("", "Secret") => {
            data_keys(object, &["/data"], &mut causes);
            secret(old, object, &mut causes);
        }
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => {
            workload(old, object, &mut causes)
        }
        ("batch", "Job") => pod_spec(object, "/spec/template/spec", "spec.template.spec", &mut causes),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(old, object, &mut causes),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
            if old.is_some_and(|old| old.get("roleRef") != object.get("roleRef")) =>
        {
            causes.push(Cause::invalid(
                "roleRef",
                &object["roleRef"],
                "cannot change roleRef",
            ));
        }
        _ => {}
    }
    if matches!(kind.kind.as_str(), "ConfigMap" | "Secret")
        && let Some(old) = old.filter(|old| old.get("immutable").and_then(Value::as_bool) == Some(true))
    {
        for field in ["immutable", "data", "binaryData"] {
            if old.get(field) != object.get(field) {
                causes.push(Cause::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
    causes
}

fn data_keys(object: &Value, places: &[&str], causes: &mut Vec<Cause>) {
    for place in places {
        for (key, _) in map(object, place) {
            let fits = !key.is_empty()
                && key.len() <= 253
                && key != "."
                && !key.starts_with("..")
                && key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !fits {
                let field = format!("{}[{key}]", place.trim_start_matches('/'));
                causes.push(Cause::invalid(&field, &Value::from(key.as_str()), "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"));
            }
        }
    }
}

fn secret(old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    if old.is_some_and(|old| old.get("type") != object.get("type")) {
        causes.push(Cause::invalid("type", &object["type"], "field is immutable"));
    }
    let required: &[&str] = match object.get("type").and_then(Value::as_str) {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        _ => &[],
    };
    for (key, value) in map(object, "/data") {
        // Whoever reads Secrets by their type could read none any more. The value is not shown: it is a secret.
        if value.as_str().is_none_or(|text| STANDARD.decode(text).is_err()) {
            causes.push(Cause {
                reason: "FieldValueInvalid",
                message: "Invalid value: it is not base64; encode it, or write it under stringData".into(),
                field: format!("data[{key}]"),
            });
        }
    }
    for key in required {
        if object.get("data").and_then(|d| d.get(key)).is_none() {
            causes.push(Cause::required(&format!("data[{key}]"), ""));
        }
    }
}

fn service(old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let ports = list(object, "/spec/ports");
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    let allowed = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !allowed.contains(&kind) {
        causes.push(Cause::unsupported(
            "spec.type",
            &spec["type"],
            "\"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ));
    }
    if ports.is_empty() && kind != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut names = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        let name = port["name"].as_str().unwrap_or("");
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(&format!("{field}.name"), ""));
        } else if !name.is_empty() && !is_label(name) {
            causes.push(Cause::invalid(&format!("{field}.name"), &port["name"], LABEL));
        } else if !name.is_empty() && names.contains(&name) {
            causes.push(Cause::duplicate(&format!("{field}.name"), &port["name"]));
        }
        names.push(name);
        number(&port["port"], &format!("{field}.port"), causes);
        let same = |other: &Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        if ports[..at].iter().any(same) {
            causes.push(Cause::duplicate(&field, port));
        }
    }
    if let Some(old) = old {
        let before = old
            .pointer("/spec/clusterIP")
            .and_then(Value::as_str)
            .unwrap_or("");
        let was_external = old.pointer("/spec/type").and_then(Value::as_str) == Some("ExternalName");
        if !before.is_empty() && !was_external && kind != "ExternalName" && spec["clusterIP"] != before {
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &spec["clusterIP"],
                "may not change once set",
            ));
        }
    }
}

fn number(port: &Value, field: &str, causes: &mut Vec<Cause>) {
    if let Some(value) = port.as_i64()
        && !(1..=65535).contains(&value)
    {
        causes.push(Cause::invalid(
            field,
            port,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

fn definition(old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let (plural, group) = (text("/spec/names/plural"), text("/spec/group"));
    if text("/metadata/name") != format!("{plural}.{group}") {
        causes.push(Cause::invalid(
            "metadata.name",
            &object["metadata"]["name"],
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let versions = list(object, "/spec/versions");
    let storage = versions
        .iter()
        .filter(|v| v["storage"] == Value::Bool(true))
        .count();
    if storage != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &Value::from(storage),
            "must have exactly one version marked as storage version",
        ));
    }
    for (at, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            causes.push(Cause::required(
                &format!("spec.versions[{at}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
        }
    }
    if let Some(old) = old {
        for field in [
            "/spec/group",
            "/spec/names/plural",
            "/spec/names/kind",
            "/spec/scope",
        ] {
            if old.pointer(field) != object.pointer(field) {
                let name = field.trim_start_matches('/').replace('/', ".");
                causes.push(Cause::invalid(
                    &name,
                    object.pointer(field).unwrap_or(&Value::Null),
                    "field is immutable",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Registry;
    use serde_json::json;

    fn fields(group: &str, kind: &str, value: &Value) -> Vec<String> {
        let kind = Registry::builtin()
            .in_group(group, kind)
            .expect("a built-in kind");
        let causes = metadata(&kind, value)
            .into_iter()
            .chain(object(&kind, None, value));
        causes.map(|c| c.field).collect()
    }

    #[test]
    fn names_are_dns_names() {
        for good in ["a", "a.b-c.d1", "0"] {
            assert_eq!(
                fields("", "ConfigMap", &json!({"metadata": {"name": good}})),
                Vec::<String>::new()
            );
        }
        for bad in ["", "A", "a_b", "-a", "a..b", "a/b", "../b"] {
            assert_eq!(
                fields("", "ConfigMap", &json!({"metadata": {"name": bad}})),
                ["metadata.name"],
                "{bad}"
            );
        }
    }

    #[test]
    fn a_selector_must_match_its_template() {
        let deployment = json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}}});
        assert_eq!(
            fields("apps", "Deployment", &deployment),
            ["spec.template.metadata.labels"]
        );
    }

    #[test]
    fn ports_of_a_service_are_named_and_distinct() {
        let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"name": "a", "port": 1}, {"port": 70000}]}});
        assert_eq!(
            fields("", "Service", &service),
            ["spec.ports[1].name", "spec.ports[1].port"]
        );
    }
}
