//! Mistakes in Pods and in what makes Pods.

use super::{
    list,
    names::{LABEL, is_label},
    number,
};
use crate::error::Cause;
use serde_json::{Map, Value};

pub(super) fn workload(old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    let selector = &object["spec"]["selector"];
    let empty = Map::new();
    let labels = object
        .pointer("/spec/template/metadata/labels")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let wanted = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let expressions = list(object, "/spec/selector/matchExpressions");
    if wanted.is_empty() && expressions.is_empty() && selector.is_object() {
        causes.push(Cause::invalid(
            "spec.selector",
            selector,
            "empty selector is invalid for deployment",
        ));
    }
    if wanted.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let labels = Value::Object(labels.clone());
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &labels,
            "`selector` does not match template `labels`",
        ));
    }
    if let Some(replicas) = object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .filter(|r| *r < 0)
    {
        causes.push(Cause::invalid(
            "spec.replicas",
            &Value::from(replicas),
            "must be greater than or equal to 0",
        ));
    }
    if let Some(old) = old
        && old.pointer("/spec/selector") != object.pointer("/spec/selector")
    {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    pod_spec(object, "/spec/template/spec", "spec.template.spec", causes);
}

pub(super) fn pod_spec(object: &Value, pointer: &str, field: &str, causes: &mut Vec<Cause>) {
    let Some(spec) = object.pointer(pointer) else {
        return;
    };
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(&format!("{field}.containers"), ""));
    }
    let volumes: Vec<&Value> = list(spec, "/volumes").iter().map(|v| &v["name"]).collect();
    let mut names: Vec<&Value> = Vec::new();
    for (list_name, containers) in [
        ("containers", containers),
        ("initContainers", list(spec, "/initContainers")),
    ] {
        for (at, container) in containers.iter().enumerate() {
            let field = format!("{field}.{list_name}[{at}]");
            let name = &container["name"];
            if !name.as_str().is_some_and(is_label) && !name.is_null() {
                causes.push(Cause::invalid(&format!("{field}.name"), name, LABEL));
            } else if names.contains(&name) {
                causes.push(Cause::duplicate(&format!("{field}.name"), name));
            }
            names.push(name);
            if container["image"].as_str().unwrap_or("").is_empty() && pointer == "/spec" {
                causes.push(Cause::required(&format!("{field}.image"), ""));
            }
            for (at, port) in list(container, "/ports").iter().enumerate() {
                number(
                    &port["containerPort"],
                    &format!("{field}.ports[{at}].containerPort"),
                    causes,
                );
                if port["name"].as_str().is_some_and(|name| name.len() > 15) {
                    causes.push(Cause::invalid(
                        &format!("{field}.ports[{at}].name"),
                        &port["name"],
                        "must be no more than 15 characters",
                    ));
                }
            }
            for (at, mount) in list(container, "/volumeMounts").iter().enumerate() {
                if !volumes.contains(&&mount["name"]) {
                    let message = format!("Not found: {}", mount["name"]);
                    causes.push(Cause {
                        reason: "FieldValueNotFound",
                        message,
                        field: format!("{field}.volumeMounts[{at}].name"),
                    });
                }
            }
        }
    }
}

/// Of a running Pod only images, a deadline and tolerations may change.
pub(super) fn pod_update(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        if let Some(spec) = spec.as_object_mut() {
            for free in [
                "activeDeadlineSeconds",
                "tolerations",
                "terminationGracePeriodSeconds",
                "schedulingGates",
                "ephemeralContainers",
            ] {
                spec.shift_remove(free);
            }
            // A scheduler binds by setting the node's name once.
            spec.shift_remove("nodeName");
            for list in ["containers", "initContainers"] {
                for container in spec
                    .get_mut(list)
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    if let Some(container) = container.as_object_mut() {
                        container.shift_remove("image");
                    }
                }
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        causes.push(Cause::forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
    }
    let node = |pod: &Value| {
        pod.pointer("/spec/nodeName")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    if !node(old).is_empty() && node(old) != node(new) {
        causes.push(Cause::forbidden(
            "spec.nodeName",
            "field is immutable once a Pod is bound",
        ));
    }
}
