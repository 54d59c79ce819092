//! ServiceMonitor: a job for each endpoint.

use serde_json::{Value, json};

use super::auth::Auth;
use super::job::JobWriter;
use super::{Context, Refusal, Resource, classes, flag, list, rules, text};

pub(super) fn jobs(resource: Resource<'_>, cx: &Context<'_>) -> Result<Vec<Value>, Refusal> {
    let endpoints = list(resource.spec, "endpoints").iter().enumerate();
    endpoints
        .map(|(index, endpoint)| job(resource, index, endpoint, cx))
        .collect()
}

/// Names of the meta labels of a role.
struct Names {
    role: &'static str,
    port: &'static str,
    kind: &'static str,
    name: &'static str,
}

const SLICES: Names = Names {
    role: "endpointslice",
    port: "__meta_kubernetes_endpointslice_port_name",
    kind: "__meta_kubernetes_endpointslice_address_target_kind",
    name: "__meta_kubernetes_endpointslice_address_target_name",
};

const ENDPOINTS: Names = Names {
    role: "endpoints",
    port: "__meta_kubernetes_endpoint_port_name",
    kind: "__meta_kubernetes_endpoint_address_target_kind",
    name: "__meta_kubernetes_endpoint_address_target_name",
};

fn job(resource: Resource<'_>, index: usize, endpoint: &Value, cx: &Context<'_>) -> Result<Value, Refusal> {
    let Resource {
        namespace,
        name,
        spec,
    } = resource;
    let names = match text(spec, "serviceDiscoveryRole") {
        "Endpoints" => ENDPOINTS,
        _ => SLICES,
    };
    let class = classes::class(cx, spec)?;
    let auth = Auth {
        secrets: cx.secrets,
        namespace,
    };
    let mut job = JobWriter::new(format!("serviceMonitor/{namespace}/{name}/{index}"));
    job.endpoint(endpoint);
    let attach = spec.get("attachMetadata").and_then(|attach| flag(attach, "node"));
    let attach = attach.unwrap_or_else(|| classes::attaches_node(class));
    rules::discovery(
        &mut job,
        names.role,
        namespace,
        spec.get("namespaceSelector"),
        attach,
    );
    auth.put_all(endpoint, &mut job)?;
    job.limits(spec);
    rules::selector(&mut job, spec.get("selector").unwrap_or(&Value::Null), "service")?;
    let port = port(&mut job, endpoint, names.port);
    for (kind, target) in [("Node", "node"), ("Pod", "pod")] {
        job.rules.push(json!({
            "source_labels": [names.kind, names.name], "separator": ";", "regex": format!("{kind};(.*)"),
            "replacement": "${1}", "target_label": target,
        }));
    }
    job.replace(&["__meta_kubernetes_namespace"], "namespace");
    job.replace(&["__meta_kubernetes_service_name"], "service");
    job.replace(&["__meta_kubernetes_pod_name"], "pod");
    job.replace(&["__meta_kubernetes_pod_container_name"], "container");
    if flag(endpoint, "filterRunning") != Some(false) {
        job.drop_if(&["__meta_kubernetes_pod_phase"], "(Failed|Succeeded)");
    }
    rules::copied_labels(&mut job, list(spec, "targetLabels"), "service");
    rules::copied_labels(&mut job, list(spec, "podTargetLabels"), "pod");
    job.rules.push(json!({
        "source_labels": ["__meta_kubernetes_service_name"], "target_label": "job", "replacement": "${1}",
    }));
    rules::job_label(&mut job, text(spec, "jobLabel"), "service");
    if !port.is_empty() {
        job.constant("endpoint", &port);
    }
    classes::apply(class, &mut job, &auth)?;
    job.relabelings(list(endpoint, "relabelings"))?;
    classes::metric_relabelings(class, &mut job)?;
    job.metric_relabelings(list(endpoint, "metricRelabelings"))?;
    Ok(job.finish())
}

/// Keeps what has the port that is named; its name for the label `endpoint`.
fn port(job: &mut JobWriter, endpoint: &Value, port_name: &str) -> String {
    let port = text(endpoint, "port");
    if !port.is_empty() {
        job.keep(&[port_name], port);
        return port.to_owned();
    }
    match endpoint.get("targetPort") {
        Some(Value::String(name)) if !name.is_empty() => {
            job.keep(&["__meta_kubernetes_pod_container_port_name"], name);
            name.clone()
        }
        Some(Value::Number(number)) if number.as_u64() != Some(0) => {
            job.keep(
                &["__meta_kubernetes_pod_container_port_number"],
                &number.to_string(),
            );
            number.to_string()
        }
        _ => String::new(),
    }
}
