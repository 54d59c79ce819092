//! What a server fills in when a client leaves it out, for the built-in kinds. Pure.

mod network;
mod quantity;
mod workload;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// Puts the defaults of a built-in kind into `object`.
pub(crate) fn apply(group: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("", "Pod") => {
            if let Some(spec) = child(object, "spec") {
                set(spec, "enableServiceLinks", json!(true));
                workload::pod_spec(spec);
            }
        }
        ("", "Service") => network::service(object),
        ("", "Secret") => secret(object),
        ("", "Namespace") => namespace(object),
        ("" | "events.k8s.io", "Event") => event(object, group.is_empty()),
        ("", "Endpoints") => network::endpoints(object),
        ("", "PersistentVolumeClaim") => {
            if let Some(spec) = child(object, "spec") {
                workload::claim(spec);
            }
        }
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "ReplicaSet") => workload::replica_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("batch", "Job") => workload::job(object),
        ("batch", "CronJob") => workload::cron_job(object),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(object),
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(object),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            if let Some(spec) = child(object, "spec") {
                set(spec, "minReplicas", json!(1));
                let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
                set(spec, "metrics", json!([{"type": "Resource", "resource": cpu}]));
            }
        }
        _ => {}
    }
}

type Object = Map<String, Value>;

/// Sets a field that is missing or null.
fn set(object: &mut Object, name: &str, value: Value) {
    if object.get(name).is_none_or(Value::is_null) {
        object.insert(name.to_owned(), value);
    }
}

/// Sets a field that is missing, null or the empty string.
fn set_text(object: &mut Object, name: &str, value: &str) {
    if object
        .get(name)
        .is_none_or(|v| v.is_null() || v.as_str() == Some(""))
    {
        object.insert(name.to_owned(), json!(value));
    }
}

fn child<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Object> {
    object.get_mut(name)?.as_object_mut()
}

fn child_of<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    object.get_mut(name)?.as_object_mut()
}

/// The object under `name`, made when it is missing.
fn made<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    set(object, name, json!({}));
    child_of(object, name)
}

fn elements<'a>(object: &'a mut Object, name: &str) -> impl Iterator<Item = &'a mut Object> {
    object
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn secret(object: &mut Value) {
    let Some(secret) = object.as_object_mut() else {
        return;
    };
    set_text(secret, "type", "Opaque");
    if let Some(Value::Object(plain)) = secret.shift_remove("stringData")
        && let Some(data) = made(secret, "data")
    {
        for (key, value) in plain {
            if let Some(text) = value.as_str() {
                data.insert(key, json!(STANDARD.encode(text)));
            }
        }
    }
}

fn namespace(object: &mut Value) {
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let Some(object) = object.as_object_mut() else {
        return;
    };
    if let Some(labels) = made(object, "metadata").and_then(|m| made(m, "labels"))
        && !name.is_empty()
    {
        set(labels, "kubernetes.io/metadata.name", json!(name));
    }
}

/// What a Pod of its own is given, and no template.
pub(crate) fn bare_pod(object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        workload::bare(spec);
    }
}

/// The original writes these fields always.
fn event(object: &mut Value, core: bool) {
    let Some(event) = object.as_object_mut() else {
        return;
    };
    let component = if core {
        "reportingComponent"
    } else {
        "reportingController"
    };
    for name in [component, "reportingInstance"] {
        set(event, name, json!(""));
    }
    if core {
        set(event, "source", json!({}));
        for name in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            set(event, name, Value::Null);
        }
    }
}

fn role_binding(object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    if let Some(reference) = child_of(object, "roleRef") {
        set_text(reference, "apiGroup", "rbac.authorization.k8s.io");
    }
    for subject in elements(object, "subjects") {
        if matches!(
            subject.get("kind").and_then(Value::as_str),
            Some("User" | "Group")
        ) {
            set_text(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_turn_plain_text_into_data() {
        let mut secret = json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}});
        apply("", "Secret", &mut secret);
        assert_eq!(
            secret,
            json!({"data": {"c": "ZA==", "a": "Yg=="}, "type": "Opaque"})
        );
    }

    #[test]
    fn deployments_get_what_the_server_gives() {
        let mut deployment = json!({"spec": {"template": {"metadata": {}, "spec": {"containers": [
            {"name": "c", "image": "x:1", "ports": [{"containerPort": 80}]}]}}}});
        apply("apps", "Deployment", &mut deployment);
        let spec = &deployment["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Always");
        assert_eq!(pod["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["containers"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn services_get_ports_completed() {
        let mut service = json!({"spec": {"ports": [{"port": 80}]}});
        apply("", "Service", &mut service);
        assert_eq!(
            service["spec"]["ports"],
            json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
        );
        assert_eq!(service["spec"]["type"], "ClusterIP");
        assert_eq!(service["spec"]["sessionAffinity"], "None");
    }
}
