//! ReplicaSets keep a number of Pods.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::action::{Action, Kind};
use super::object::{count, is_active, is_available, is_owned, is_ready, pod_from};

/// More Pods than this are not made in one step, whatever a manifest asks for.
const MOST_AT_ONCE: i32 = 50;

/// What to write for one ReplicaSet, given the Pods of its namespace.
pub(crate) fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], node: &str, now: Timestamp) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    if set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mine: Vec<&Pod> = pods
        .iter()
        .map(Arc::as_ref)
        .filter(|pod| is_owned(&pod.metadata, set) && is_active(pod))
        .collect();
    let missing = spec.replicas.unwrap_or(1).max(0) - count(&mine);
    let mut actions = Vec::new();
    if missing > 0 {
        let template = spec.template.clone().unwrap_or_default();
        let pod = pod_from(set, &template, &[], node);
        actions.extend((0..missing.min(MOST_AT_ONCE)).map(|_| Action::create(Kind::Pod, &pod)));
    } else {
        let surplus = usize::try_from(-missing).unwrap_or(0);
        actions.extend(
            surplus_of(&mine, surplus)
                .into_iter()
                .map(|pod| Action::delete(Kind::Pod, pod)),
        );
    }
    let before = set.status.as_ref();
    let status = ReplicaSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&mine),
        fully_labeled_replicas: Some(count(&mine)),
        ready_replicas: Some(count(mine.iter().filter(|pod| is_ready(pod)))),
        available_replicas: Some(count(
            mine.iter()
                .filter(|pod| is_available(pod, spec.min_ready_seconds, now)),
        )),
        conditions: before.and_then(|before| before.conditions.clone()),
        terminating_replicas: None,
    };
    actions.extend(Action::status(Kind::ReplicaSet, set, before, &status));
    actions
}

/// The Pods to give up: those not ready first, then the youngest.
fn surplus_of<'a>(pods: &[&'a Pod], number: usize) -> Vec<&'a Pod> {
    let mut sorted = pods.to_vec();
    sorted.sort_by_key(|pod| {
        let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (is_ready(pod), Reverse(made))
    });
    sorted.truncate(number);
    sorted
}
