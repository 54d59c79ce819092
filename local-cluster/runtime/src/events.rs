//! Events: what happened to a Pod, for `kubectl describe` and for those who wait for an answer.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::controllers::hash_of;

/// A longer message is cut, as the API refuses it.
const MAX_MESSAGE: usize = 1024;

/// Whether an Event tells of the ordinary or of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) struct What<'a> {
    pub(crate) severity: Severity,
    pub(crate) reason: &'a str,
    /// What it is about: the same reason about the same is the same Event again.
    pub(crate) about: &'a str,
    pub(crate) message: String,
}

/// Writes an Event about a Pod, in the background: nothing waits for it, and nothing depends on it.
pub(crate) fn record(client: &Client, pod: &Pod, node: &str, what: What<'_>) {
    let namespace = pod.namespace().unwrap_or_else(|| "default".into());
    let event = event(pod, node, what, Timestamp::now());
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    tokio::spawn(async move {
        if let Err(error) = write(&events, &event).await {
            tracing::debug!(%error, "an Event cannot be written");
        }
    });
}

/// The same again is counted, not written again: a container that fails for days has a handful of Events.
async fn write(events: &Api<Event>, event: &Event) -> kube::Result<()> {
    let name = event.name_any();
    let Some(known) = events.get_opt(&name).await? else {
        return events.create(&PostParams::default(), event).await.map(drop);
    };
    let count = known.count.unwrap_or(1).saturating_add(1);
    let again =
        serde_json::json!({"count": count, "lastTimestamp": event.last_timestamp, "message": event.message});
    events
        .patch(&name, &PatchParams::default(), &Patch::Merge(again))
        .await
        .map(drop)
}

fn event(pod: &Pod, node: &str, what: What<'_>, now: Timestamp) -> Event {
    let What {
        severity,
        reason,
        about,
        mut message,
    } = what;
    let namespace = pod.namespace();
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    let hash = hash_of(&(pod.uid(), format!("{severity:?}"), reason, about));
    Event {
        metadata: ObjectMeta {
            namespace: namespace.clone(),
            name: Some(format!("{}.{hash}", pod.name_any())),
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
