//! Services and what belongs to them. A Service's address is the store's to give, see `store::addresses`.

use super::{Object, child, child_of, elements, set, set_text};
use serde_json::{Value, json};

pub(super) fn service(object: &mut Value) {
    let Some(root) = object.as_object_mut() else {
        return;
    };
    set(root, "status", json!({"loadBalancer": {}}));
    let Some(spec) = child_of(root, "spec") else {
        return;
    };
    set_text(spec, "type", "ClusterIP");
    set_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        set(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10800}}),
        );
    }
    let external_name = spec["type"] == "ExternalName";
    let load_balancer = spec["type"] == "LoadBalancer";
    if !external_name {
        set_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if load_balancer {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if load_balancer || spec["type"] == "NodePort" {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    for port in elements(spec, "ports") {
        service_port(port);
    }
}

fn service_port(port: &mut Object) {
    port.retain(|name, value| name != "nodePort" || value.as_i64() != Some(0));
    set_text(port, "protocol", "TCP");
    let number = port.get("port").cloned().unwrap_or(Value::Null);
    let unset = port
        .get("targetPort")
        .is_none_or(|t| t.is_null() || t.as_i64() == Some(0) || t.as_str() == Some(""));
    if unset && !number.is_null() {
        port.insert("targetPort".into(), number);
    }
}

pub(super) fn endpoints(object: &mut Value) {
    let Some(root) = object.as_object_mut() else {
        return;
    };
    for subset in elements(root, "subsets") {
        for port in elements(subset, "ports") {
            set_text(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    let Some(root) = object.as_object_mut() else {
        return;
    };
    for endpoint in elements(root, "endpoints") {
        set(endpoint, "conditions", json!({}));
    }
    for port in elements(root, "ports") {
        set(port, "name", json!(""));
        set_text(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    let egress = spec.contains_key("egress");
    set(
        spec,
        "policyTypes",
        if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        },
    );
}
