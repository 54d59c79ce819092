//! Events: what happened to a Pod, for `kubectl describe` and for those who wait for an answer.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

/// A longer message is cut, as the API refuses it.
const MAX_MESSAGE: usize = 1024;

/// Whether an Event tells of the ordinary or of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// Writes an Event about a Pod, in the background: nothing waits for it, and nothing depends on it.
pub(crate) fn record(
    client: &Client,
    pod: &Pod,
    node: &str,
    severity: Severity,
    reason: &str,
    message: String,
) {
    let namespace = pod.namespace().unwrap_or_else(|| "default".into());
    let event = event(pod, node, severity, reason, message, Timestamp::now());
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    tokio::spawn(async move {
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, "an Event cannot be written");
        }
    });
}

fn event(
    pod: &Pod,
    node: &str,
    severity: Severity,
    reason: &str,
    mut message: String,
    now: Timestamp,
) -> Event {
    let namespace = pod.namespace();
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    Event {
        metadata: ObjectMeta {
            namespace: namespace.clone(),
            generate_name: Some(format!("{}.", pod.name_any())),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace,
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        },
        type_: Some(format!("{severity:?}")),
        reason: Some(reason.into()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some("karez".into()),
            host: Some(node.into()),
        }),
        reporting_component: Some("karez".into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    }
}
