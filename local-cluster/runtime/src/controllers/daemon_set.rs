//! DaemonSets keep one Pod a Node; there is one Node.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::action::{Action, Kind};
use super::object::{REVISION_HASH, count, hash_of, is_active, is_available, is_owned, is_ready, pod_from};

/// What to write for one DaemonSet, given the Pods of its namespace.
pub(crate) fn plan(set: &DaemonSet, pods: &[Arc<Pod>], node: &str, now: Timestamp) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    if set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let hash = hash_of(&spec.template);
    let mine: Vec<&Pod> = pods
        .iter()
        .map(Arc::as_ref)
        .filter(|pod| is_owned(&pod.metadata, set))
        .collect();
    let active: Vec<&Pod> = mine.iter().copied().filter(|pod| is_active(pod)).collect();
    let is_updated = |pod: &Pod| pod.labels().get(REVISION_HASH) == Some(&hash);
    let on_delete = spec
        .update_strategy
        .as_ref()
        .and_then(|strategy| strategy.type_.as_deref())
        == Some("OnDelete");
    let mut actions = Vec::new();
    // One that is still ending holds its place: two would fight for the host's ports.
    if mine.is_empty() {
        let labels = [(REVISION_HASH, hash.clone())];
        actions.push(Action::create(
            Kind::Pod,
            &pod_from(set, &spec.template, &labels, node),
        ));
    }
    let ended = mine
        .iter()
        .filter(|pod| !is_active(pod) && pod.metadata.deletion_timestamp.is_none());
    actions.extend(ended.map(|pod| Action::delete(Kind::Pod, *pod)));
    for (index, pod) in active.iter().enumerate() {
        if index > 0 || (!is_updated(pod) && !on_delete) {
            actions.push(Action::delete(Kind::Pod, *pod));
        }
    }
    let available = count(
        active
            .iter()
            .filter(|pod| is_available(pod, spec.min_ready_seconds, now)),
    );
    let before = set.status.as_ref();
    let status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        desired_number_scheduled: 1,
        current_number_scheduled: count(&active).min(1),
        updated_number_scheduled: Some(count(active.iter().filter(|pod| is_updated(pod)))),
        number_ready: count(active.iter().filter(|pod| is_ready(pod))),
        number_available: Some(available),
        number_unavailable: Some((1 - available).max(0)),
        number_misscheduled: 0,
        collision_count: before.and_then(|before| before.collision_count),
        conditions: before.and_then(|before| before.conditions.clone()),
    };
    actions.extend(Action::status(Kind::DaemonSet, set, before, &status));
    actions
}
