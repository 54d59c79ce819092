//! Collectors as Pods.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::{Known, Seen};
use crate::config::LabelSelector;

/// Follows the Pods until nobody listens. While the API cannot be asked, what it told last holds.
pub(super) async fn follow(
    client: Client,
    namespace: String,
    selector: LabelSelector,
    sender: watch::Sender<Known>,
) {
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let labels: Vec<String> = selector
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let config = watcher::Config::default().labels(&labels.join(","));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut known: BTreeMap<String, Seen> = BTreeMap::new();
    let mut listed: Option<BTreeMap<String, Seen>> = None;
    let mut said = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sender.closed() => return,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                if !std::mem::replace(&mut said, true) {
                    let reason = crate::kubernetes::reason(&error, "", "pods");
                    tracing::warn!(
                        namespace,
                        reason,
                        "collectors cannot be watched; those known are kept"
                    );
                }
                continue;
            }
            Some(Ok(event)) => {
                said = false;
                take(event, &selector, &mut known, &mut listed);
            }
        }
        if listed.is_none() {
            let list: Known = Some(known.values().cloned().collect());
            sender.send_if_modified(|before| std::mem::replace(before, list.clone()) != list);
        }
    }
}

fn take(
    event: Event<Pod>,
    selector: &LabelSelector,
    known: &mut BTreeMap<String, Seen>,
    listed: &mut Option<BTreeMap<String, Seen>>,
) {
    match event {
        Event::Init => *listed = Some(BTreeMap::new()),
        Event::InitDone => {
            if let Some(listed) = listed.take() {
                *known = listed;
            }
        }
        Event::Apply(pod) | Event::InitApply(pod) => {
            let into = listed.as_mut().unwrap_or(known);
            match selector.matches(pod.labels()) {
                true => drop(into.insert(pod.name_any(), seen(&pod))),
                false => drop(into.remove(&pod.name_any())),
            }
        }
        Event::Delete(pod) => drop(known.remove(&pod.name_any())),
    }
}

/// A Pod as it matters here. One that failed or ended is not ready since it started, as the original counts it.
fn seen(pod: &Pod) -> Seen {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    let conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready");
    let started = status
        .and_then(|status| status.start_time.as_ref())
        .map(|time| time.0);
    let unready = match (phase, ready) {
        ("Running", Some(ready)) if ready.status == "True" => None,
        ("Running", None) => None,
        ("Running", Some(ready)) => Some(ready.last_transition_time.as_ref().map(|time| time.0).or(started)),
        _ => Some(started),
    };
    Seen {
        name: pod.name_any(),
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        unready: unready.map(|since| since.map_or_else(crate::shared::now, since_epoch)),
        runs: phase == "Running",
        ending: pod.metadata.deletion_timestamp.is_some(),
    }
}

fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "collector-0", "labels": {"a": "b"}}, "spec": {"nodeName": "n", "containers": []}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn pods_are_unready_since_their_condition_says_so() {
        let ready = |status| {
            json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions":
            [{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:01:00Z"}]})
        };
        assert_eq!(seen(&pod(ready("True"))).unready, None);
        assert_eq!(
            seen(&pod(ready("False"))).unready,
            Some(Duration::from_secs(1_767_225_660))
        );
        let failed = json!({"phase": "Failed", "startTime": "2026-01-01T00:00:00Z"});
        assert_eq!(
            seen(&pod(failed)).unready,
            Some(Duration::from_secs(1_767_225_600))
        );
    }
}
