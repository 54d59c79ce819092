//! Prints what happens in a site: what the loader did, Pods that became ready and where they are, and each warning
//! of the cluster's Events once.
//!
//! Controllers publish what they find wrong as Events, for objects from files and from `kubectl` alike; this is
//! where a person at the terminal reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use karez_lifecycle::Shutdown;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

use crate::console::Console;
use crate::loader::Notice;

/// Prints the loader's notices until it ends.
pub async fn notices(console: Console, mut notices: mpsc::UnboundedReceiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Applied { object, place } => console.line(&format!("  applied {object} ({place})")),
            Notice::Removed { object } => console.line(&format!("  removed {object}")),
            Notice::Stored { object, place } => {
                console.line(&format!(
                    "  stored {object} ({place}); nothing here runs this kind"
                ));
            }
            Notice::Wrong(diagnosis) => console.warning(&diagnosis.to_string()),
            Notice::Loaded { objects, files } => {
                console.good(&format!("{objects} objects of {files} files are applied"));
            }
        }
    }
}

/// Prints each warning of the cluster once, and each link that becomes active, until shutdown. What is wrong with a configuration is said again after a
/// restart of the site, since it still is; what happened before the start is history.
pub async fn events(console: Console, client: Client, shutdown: Shutdown) {
    let events: Api<Event> = Api::all(client);
    let started = Timestamp::now();
    let mut said: BTreeSet<String> = BTreeSet::new();
    let stream = watcher(events, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut stream = pin!(stream.take_until(shutdown.triggered()));
    while let Some(event) = stream.next().await {
        // A failed watch is taken up again by the back-off.
        let Ok(event) = event else { continue };
        let concerns = is_diagnosis(&event) || latest(&event).is_none_or(|time| time >= started);
        let good = event.reason.as_deref() == Some("LinkActive");
        if !(good || event.type_.as_deref() == Some("Warning")) || !concerns {
            continue;
        }
        let line = warning(&event);
        if !said.insert(identity(&event, &line)) {
            continue;
        }
        if good {
            console.good(&event.message.unwrap_or_default());
        } else {
            console.warning(&line);
        }
    }
}

fn is_diagnosis(event: &Event) -> bool {
    event
        .reason
        .as_deref()
        .is_some_and(|reason| reason.starts_with("Configuration"))
}

/// When it happened last, to the second.
fn latest(event: &Event) -> Option<Timestamp> {
    let times = [event.last_timestamp.as_ref(), event.first_timestamp.as_ref()];
    let seconds = times.into_iter().flatten().map(|time| time.0.as_second()).max()?;
    Timestamp::from_second(seconds.saturating_add(1)).ok()
}

/// What makes two warnings the same: a growing back-off is one warning, two lines of a file are two, and each change of
/// a link is one of its own.
fn identity(event: &Event, line: &str) -> String {
    let reason = event.reason.as_deref().unwrap_or_default();
    if reason.starts_with("Link") {
        return event.uid().unwrap_or_default();
    }
    if is_diagnosis(event) {
        return line.to_owned();
    }
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// A warning's line: a diagnosis names its place itself, anything else is named by its object.
fn warning(event: &Event) -> String {
    let message = event.message.clone().unwrap_or_default();
    let reason = event.reason.as_deref().unwrap_or_default();
    if is_diagnosis(event) && message.contains(':') {
        return message;
    }
    let object = &event.involved_object;
    let kind = object.kind.as_deref().unwrap_or("object").to_lowercase();
    format!(
        "{kind}/{}: {reason}: {message}",
        object.name.as_deref().unwrap_or_default()
    )
}

/// Prints Pods as they become ready, with their address and ports, until shutdown.
pub async fn pods(console: Console, client: Client, shutdown: Shutdown) {
    let pods: Api<Pod> = Api::all(client);
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let stream = watcher(pods, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut stream = pin!(stream.take_until(shutdown.triggered()).map_err(|_| ()));
    while let Some(pod) = stream.next().await {
        let Ok(pod) = pod else { continue };
        let Some(line) = ready_line(&pod) else { continue };
        let key = pod.uid().unwrap_or_default();
        if said.get(&key) != Some(&line) {
            console.good(&line);
            said.insert(key, line);
        }
    }
}

fn ready_line(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|it| it.type_ == "Ready" && it.status == "True");
    if !ready {
        return None;
    }
    let address = status.pod_ip.as_deref().unwrap_or("no address");
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let ports: Vec<String> = ports
        .map(|port| match (port.name.as_deref(), port.protocol.as_deref()) {
            (Some(name), _) => format!("{} {name}", port.container_port),
            (None, Some("UDP")) => format!("{}/udp", port.container_port),
            (None, _) => port.container_port.to_string(),
        })
        .collect();
    let ports = if ports.is_empty() {
        String::new()
    } else {
        format!(", ports {}", ports.join(", "))
    };
    Some(format!("{} runs at {address}{ports}", pod.name_any()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_diagnosis_speaks_for_itself() {
        let event = |reason: &str, message: &str| -> Event {
            serde_json::from_value(
                json!({"metadata": {}, "type": "Warning", "reason": reason, "message": message,
                "involvedObject": {"kind": "Pod", "name": "p"}}),
            )
            .unwrap()
        };
        assert_eq!(
            warning(&event("ConfigurationError", "a.yaml:1: error: x")),
            "a.yaml:1: error: x"
        );
        assert_eq!(
            warning(&event("BackOff", "restarting")),
            "pod/p: BackOff: restarting"
        );
    }

    #[test]
    fn a_ready_pod_says_where_it_is() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2, "protocol": "UDP"}]}]},
            "status": {"podIP": "127.1.1.1", "conditions": [{"type": "Ready", "status": "True"}]}}))
        .unwrap();
        assert_eq!(ready_line(&pod).unwrap(), "p runs at 127.1.1.1, ports 1 x, 2/udp");
    }
}
