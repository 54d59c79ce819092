//! Pods and what makes Pods.

use super::{Object, child, child_of, elements, made, quantity, set, set_text};
use serde_json::{Value, json};

pub(super) fn pod_spec(spec: &mut Object) {
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "securityContext", json!({}));
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(spec, "serviceAccount", account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        set(spec, "serviceAccountName", account);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for one in elements(spec, list) {
            container(one);
        }
    }
    for one in elements(spec, "volumes") {
        volume(one);
    }
}

/// What a Pod of its own is given.
pub(super) fn bare(spec: &mut Object) {
    set_text(spec, "serviceAccountName", "default");
    let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
    set(spec, "serviceAccount", account);
    set(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    set(spec, "priority", json!(0));
    bare_tolerations(spec);
}

fn bare_tolerations(spec: &mut Object) {
    let Some(tolerations) = ({
        set(spec, "tolerations", json!([]));
        spec.get_mut("tolerations").and_then(Value::as_array_mut)
    }) else {
        return;
    };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations
            .iter()
            .any(|t| t.get("key").is_none() || t["key"] == key)
        {
            tolerations.push(
                json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}),
            );
        }
    }
}

fn container(container: &mut Object) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or("");
    let latest = !image.contains('@')
        && image
            .rsplit('/')
            .next()
            .is_none_or(|last| !last.contains(':') || last.ends_with(":latest"));
    set_text(
        container,
        "imagePullPolicy",
        if latest { "Always" } else { "IfNotPresent" },
    );
    set(container, "resources", json!({}));
    resources(container);
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    for port in elements(container, "ports") {
        port.retain(|name, value| name != "hostPort" || value.as_i64() != Some(0));
        set_text(port, "protocol", "TCP");
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(one) = child_of(container, name) {
            probe(one);
        }
    }
    for variable in elements(container, "env") {
        if let Some(field) = child_of(variable, "valueFrom").and_then(|from| child_of(from, "fieldRef")) {
            set_text(field, "apiVersion", "v1");
        }
    }
}

/// Amounts in the one way each is written.
fn resources(holder: &mut Object) {
    for what in ["limits", "requests"] {
        let amounts = child_of(holder, "resources").and_then(|r| child_of(r, what));
        for (_, amount) in amounts.into_iter().flatten() {
            quantity::canonical(amount);
        }
    }
}

pub(super) fn claim(spec: &mut Object) {
    set(spec, "volumeMode", json!("Filesystem"));
    resources(spec);
}

fn probe(probe: &mut Object) {
    for (name, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if probe
            .get(name)
            .is_none_or(|v| v.is_null() || v.as_i64() == Some(0))
        {
            probe.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(get) = child_of(probe, "httpGet") {
        set_text(get, "path", "/");
        set_text(get, "scheme", "HTTP");
    }
    if let Some(grpc) = child_of(probe, "grpc") {
        set(grpc, "service", json!(""));
    }
}

fn volume(volume: &mut Object) {
    const SOURCES: [&str; 4] = ["configMap", "secret", "projected", "downwardAPI"];
    for source in SOURCES {
        if let Some(one) = child_of(volume, source) {
            set(one, "defaultMode", json!(420));
        }
    }
    if let Some(projected) = child_of(volume, "projected") {
        for source in elements(projected, "sources") {
            if let Some(token) = child_of(source, "serviceAccountToken") {
                set(token, "expirationSeconds", json!(3600));
            }
        }
    }
    if let Some(host) = child_of(volume, "hostPath") {
        set(host, "type", json!(""));
    }
    if volume.len() == 1 {
        volume.insert("emptyDir".into(), json!({}));
    }
}

fn template(spec: &mut Object) {
    if let Some(template) = child_of(spec, "template") {
        set(template, "metadata", json!({}));
        if let Some(metadata) = child_of(template, "metadata") {
            // The real server prints `creationTimestamp: null` here up to 1.33 and nothing after.
            metadata.retain(|name, value| name != "creationTimestamp" || !value.is_null());
        }
        if let Some(pod) = child_of(template, "spec") {
            pod_spec(pod);
        }
    }
}

fn rolling(strategy: &mut Object, fields: &[(&str, Value)]) {
    set_text(strategy, "type", "RollingUpdate");
    if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate")
        && let Some(rolling) = made(strategy, "rollingUpdate")
    {
        for (name, value) in fields {
            set(rolling, name, value.clone());
        }
    }
}

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    set(spec, "replicas", json!(1));
    set(spec, "progressDeadlineSeconds", json!(600));
    set(spec, "revisionHistoryLimit", json!(10));
    if let Some(strategy) = made(spec, "strategy") {
        rolling(
            strategy,
            &[("maxSurge", json!("25%")), ("maxUnavailable", json!("25%"))],
        );
    }
    template(spec);
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    set(spec, "replicas", json!(1));
    template(spec);
}

pub(super) fn daemon_set(object: &mut Value) {
    if let Some(annotations) = object
        .as_object_mut()
        .and_then(|o| made(o, "metadata"))
        .and_then(|m| made(m, "annotations"))
    {
        set(
            annotations,
            "deprecated.daemonset.template.generation",
            json!("1"),
        );
    }
    let Some(spec) = child(object, "spec") else { return };
    set(spec, "revisionHistoryLimit", json!(10));
    if let Some(strategy) = made(spec, "updateStrategy") {
        rolling(strategy, &[("maxSurge", json!(0)), ("maxUnavailable", json!(1))]);
    }
    template(spec);
}

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set_text(spec, "podManagementPolicy", "OrderedReady");
    set(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    if let Some(strategy) = made(spec, "updateStrategy") {
        rolling(strategy, &[("partition", json!(0))]);
    }
    template(spec);
    for claim in elements(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", json!("v1"));
        set(claim, "kind", json!("PersistentVolumeClaim"));
        set(claim, "status", json!({"phase": "Pending"}));
        if let Some(spec) = child_of(claim, "spec") {
            self::claim(spec);
        }
    }
}

pub(super) fn job(object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        job_spec(spec);
    }
}

fn job_spec(spec: &mut Object) {
    set(spec, "parallelism", json!(1));
    set(spec, "completions", json!(1));
    set(spec, "backoffLimit", json!(6));
    set_text(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", json!(false));
    set_text(spec, "podReplacementPolicy", "TerminatingOrFailed");
    set(spec, "manualSelector", json!(false));
    template(spec);
}

pub(super) fn cron_job(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", json!(false));
    set(spec, "successfulJobsHistoryLimit", json!(3));
    set(spec, "failedJobsHistoryLimit", json!(1));
    if let Some(template) = child_of(spec, "jobTemplate") {
        set(template, "metadata", json!({}));
    }
}
