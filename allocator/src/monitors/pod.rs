//! PodMonitor: a job for each endpoint of Pods.

use serde_json::Value;

use super::auth::Auth;
use super::job::JobWriter;
use super::{Context, Refusal, Resource, classes, flag, list, rules, text};

pub(super) fn jobs(resource: Resource<'_>, cx: &Context<'_>) -> Result<Vec<Value>, Refusal> {
    let endpoints = list(resource.spec, "podMetricsEndpoints").iter().enumerate();
    endpoints
        .map(|(index, endpoint)| job(resource, index, endpoint, cx))
        .collect()
}

fn job(resource: Resource<'_>, index: usize, endpoint: &Value, cx: &Context<'_>) -> Result<Value, Refusal> {
    let Resource {
        namespace,
        name,
        spec,
    } = resource;
    let class = classes::class(cx, spec)?;
    let auth = Auth {
        secrets: cx.secrets,
        namespace,
    };
    let mut job = JobWriter::new(format!("podMonitor/{namespace}/{name}/{index}"));
    job.endpoint(endpoint);
    let attach = spec.get("attachMetadata").and_then(|attach| flag(attach, "node"));
    let attach = attach.unwrap_or_else(|| classes::attaches_node(class));
    rules::discovery(&mut job, "pod", namespace, spec.get("namespaceSelector"), attach);
    auth.put_all(endpoint, &mut job)?;
    job.limits(spec);
    if flag(endpoint, "filterRunning") != Some(false) {
        job.drop_if(&["__meta_kubernetes_pod_phase"], "(Failed|Succeeded)");
    }
    rules::selector(&mut job, spec.get("selector").unwrap_or(&Value::Null), "pod")?;
    let port = port(&mut job, endpoint);
    job.replace(&["__meta_kubernetes_namespace"], "namespace");
    job.replace(&["__meta_kubernetes_pod_container_name"], "container");
    job.replace(&["__meta_kubernetes_pod_name"], "pod");
    rules::copied_labels(&mut job, list(spec, "podTargetLabels"), "pod");
    job.constant("job", &format!("{namespace}/{name}"));
    rules::job_label(&mut job, text(spec, "jobLabel"), "pod");
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
fn port(job: &mut JobWriter, endpoint: &Value) -> String {
    let (by_name, by_number) = (
        "__meta_kubernetes_pod_container_port_name",
        "__meta_kubernetes_pod_container_port_number",
    );
    let name = text(endpoint, "port");
    if !name.is_empty() {
        job.keep(&[by_name], name);
        return name.to_owned();
    }
    let number = ["portNumber", "targetPort"]
        .into_iter()
        .find_map(|key| endpoint.get(key));
    match number {
        Some(Value::String(name)) if !name.is_empty() => {
            job.keep(&[by_name], name);
            name.clone()
        }
        Some(Value::Number(number)) if number.as_u64() != Some(0) => {
            job.keep(&[by_number], &number.to_string());
            number.to_string()
        }
        _ => String::new(),
    }
}
