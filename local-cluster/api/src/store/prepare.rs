//! What the server decides about an object beside its defaults: the first status, allocations, what Pods are given.
//!
//! Nobody owns these fields: ownership is recorded before.

use super::{Store, addresses, meta, text};
use crate::{crd, defaults, kinds::Kind, kinds::Shape, schema};
use serde_json::{Map, Value, json};

/// What a new object's status is, where the server decides it.
pub(super) fn initial_status(kind: &Kind, new: &mut Value) {
    if !kind.status || kind.kind == "Node" {
        return;
    }
    let status = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => Some(json!({"phase": "Pending", "qosClass": quality(new)})),
        ("", "Service") | ("networking.k8s.io", "Ingress") => Some(json!({"loadBalancer": {}})),
        ("", "PersistentVolumeClaim") => Some(json!({"phase": "Pending"})),
        ("apps", "ReplicaSet") => Some(json!({"replicas": 0})),
        ("apps", "StatefulSet") => Some(json!({"availableReplicas": 0, "replicas": 0})),
        ("apps", "DaemonSet") => Some(json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0})),
        ("policy", "PodDisruptionBudget") => Some(
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
        ),
        ("autoscaling", "HorizontalPodAutoscaler") => Some(json!({"desiredReplicas": 0})),
        ("", "Namespace") => Some(json!({"phase": "Active"})),
        _ if kind.is_builtin() && kind.kind != "CustomResourceDefinition" => Some(json!({})),
        _ => None,
    };
    let Some(map) = new.as_object_mut() else { return };
    match status {
        Some(status) => {
            map.insert("status".into(), status);
        }
        None => {
            map.shift_remove("status");
        }
    }
}

fn quality(pod: &Value) -> &'static str {
    let list = pod.pointer("/spec/containers").and_then(Value::as_array);
    let containers = || list.into_iter().flatten();
    let amount = |c: &Value, what: &str, name: &str| c.pointer(&format!("/resources/{what}/{name}")).cloned();
    let limited = |c: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(c, "limits", name);
            limit.is_some() && amount(c, "requests", name).is_none_or(|request| Some(request) == limit)
        })
    };
    let empty = |resources: Option<&Value>| resources.and_then(Value::as_object).is_none_or(Map::is_empty);
    let bare = |c: &Value| empty(c.pointer("/resources/limits")) && empty(c.pointer("/resources/requests"));
    match (containers().all(bare), containers().all(limited)) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

/// What a client finds filled in and owns from then on.
pub(super) fn put_defaults(kind: &Kind, new: &mut Value) {
    match &kind.shape {
        Shape::Builtin(_) => defaults::apply(&kind.group, &kind.kind, new),
        Shape::Custom(schema) => {
            let properties = schema::Schema::new(schema).properties();
            for (name, property) in properties
                .into_iter()
                .flatten()
                .filter(|(name, _)| *name != "metadata")
            {
                if let Some(inner) = new.get_mut(name) {
                    schema::apply_defaults(schema::Schema::new(property), inner);
                } else if let Some(default) = property.get("default") {
                    new[name] = default.clone();
                }
            }
        }
        Shape::Open => {}
    }
}

/// Allocations and what else the server puts in.
pub(super) fn prepare(store: &Store, kind: &Kind, old: Option<&Value>, new: &mut Value, time: &str) {
    if !kind.is_builtin() {
        return;
    }
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Service") => addresses::allocate(store, old, new),
        ("", "Pod") if old.is_none() => defaults::bare_pod(new),
        ("", "Namespace") if old.is_none() => new["spec"] = json!({"finalizers": ["kubernetes"]}),
        ("batch", "Job") if old.is_none() => job(new),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd::complete(new, time),
        _ => {}
    }
}

/// A Job selects its Pods by its own identity.
fn job(new: &mut Value) {
    if new.pointer("/spec/manualSelector").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let (uid, name) = (
        text(new, "/metadata/uid").to_owned(),
        text(new, "/metadata/name").to_owned(),
    );
    let labels = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    let Some(spec) = new.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    if let Some(template) = spec.get_mut("template").filter(|t| t.is_object()) {
        let mine = meta::metadata(template)
            .entry("labels")
            .or_insert_with(|| json!({}));
        if let Some(mine) = mine.as_object_mut() {
            mine.extend(
                labels
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), json!(value))),
            );
        }
    }
    let all = meta::metadata(new).entry("labels").or_insert_with(|| json!({}));
    if let Some(all) = all.as_object_mut() {
        for (key, value) in labels {
            all.entry(key).or_insert_with(|| json!(value));
        }
    }
}
