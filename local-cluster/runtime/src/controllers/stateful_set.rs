//! StatefulSets keep numbered Pods, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;

use super::action::{Action, Kind};
use super::object::{REVISION_HASH, count, hash_of, is_active, is_available, is_owned, is_ready, pod_from};

/// What to write for one StatefulSet, given the Pods of its namespace.
pub(crate) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], node: &str, now: Timestamp) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    if set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let revision = format!("{}-{}", set.name_any(), hash_of(&spec.template));
    let mine: BTreeMap<i32, &Pod> = pods
        .iter()
        .filter(|pod| is_owned(&pod.metadata, set))
        .filter_map(|pod| Some((ordinal(set, pod)?, pod.as_ref())))
        .collect();
    let mut actions = changes(set, spec, &revision, &mine, node);
    let status = status(set, spec, revision, &mine, now);
    actions.extend(Action::status(
        Kind::StatefulSet,
        set,
        set.status.as_ref(),
        &status,
    ));
    actions
}

fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    pod.name_any()
        .strip_prefix(&format!("{}-", set.name_any()))?
        .parse()
        .ok()
}

fn is_of(pod: &Pod, revision: &str) -> bool {
    pod.labels()
        .get(REVISION_HASH)
        .is_some_and(|label| label == revision)
}

fn changes(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    revision: &str,
    mine: &BTreeMap<i32, &Pod>,
    node: &str,
) -> Vec<Action> {
    let start = spec
        .ordinals
        .as_ref()
        .and_then(|ordinals| ordinals.start)
        .unwrap_or(0)
        .max(0);
    let end = start.saturating_add(spec.replicas.unwrap_or(1).clamp(0, 1000));
    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let mut actions = Vec::new();
    for number in start..end {
        match mine.get(&number) {
            None => actions.push(Action::create(
                Kind::Pod,
                &numbered(set, spec, revision, number, node),
            )),
            // A name is free only when the Pod that had it is gone.
            Some(pod) if !is_active(pod) && pod.metadata.deletion_timestamp.is_none() => {
                actions.push(Action::delete(Kind::Pod, *pod));
            }
            Some(pod) if is_ready(pod) || parallel => continue,
            // A replaced template may be what mends a Pod that is not ready: see below.
            Some(_) => {}
        }
        if !parallel {
            break;
        }
    }
    let surplus = mine
        .iter()
        .rev()
        .filter(|(number, _)| !(start..end).contains(*number));
    for (_, pod) in surplus {
        if pod.metadata.deletion_timestamp.is_none() {
            actions.push(Action::delete(Kind::Pod, *pod));
        }
        if !parallel {
            return actions;
        }
    }
    actions.extend(replacement(spec, revision, mine, start..end));
    actions
}

/// The one Pod of an old template to give up next: the highest number first, one at a time, and none while another one
/// that already has the new template is not ready.
fn replacement(
    spec: &StatefulSetSpec,
    revision: &str,
    mine: &BTreeMap<i32, &Pod>,
    numbers: std::ops::Range<i32>,
) -> Option<Action> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let partition = strategy
        .and_then(|strategy| strategy.rolling_update.as_ref()?.partition)
        .unwrap_or(0);
    for number in numbers.rev().take_while(|number| *number >= partition) {
        let pod = mine.get(&number)?;
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        if !is_of(pod, revision) {
            return Some(Action::delete(Kind::Pod, *pod));
        }
        if !is_ready(pod) {
            return None;
        }
    }
    None
}

fn numbered(set: &StatefulSet, spec: &StatefulSetSpec, revision: &str, number: i32, node: &str) -> Pod {
    let name = format!("{}-{number}", set.name_any());
    let labels = [
        (REVISION_HASH, revision.to_owned()),
        ("statefulset.kubernetes.io/pod-name", name.clone()),
        ("apps.kubernetes.io/pod-index", number.to_string()),
    ];
    let mut pod = pod_from(set, &spec.template, &labels, node);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let volume = claim.name_any();
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: format!("{volume}-{name}"),
            ..PersistentVolumeClaimVolumeSource::default()
        };
        let volumes = pod_spec.volumes.get_or_insert_default();
        volumes.retain(|known| known.name != volume);
        volumes.push(Volume {
            name: volume,
            persistent_volume_claim: Some(source),
            ..Volume::default()
        });
    }
    pod
}

fn status(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    revision: String,
    mine: &BTreeMap<i32, &Pod>,
    now: Timestamp,
) -> StatefulSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let active: Vec<&Pod> = mine.values().copied().filter(|pod| is_active(pod)).collect();
    let updated = count(active.iter().filter(|pod| is_of(pod, &revision)));
    let complete = updated == spec.replicas.unwrap_or(1) && updated == count(&active);
    let current = if complete {
        revision.clone()
    } else {
        before.current_revision.unwrap_or(revision.clone())
    };
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&active),
        ready_replicas: Some(count(active.iter().filter(|pod| is_ready(pod)))),
        available_replicas: Some(count(
            active
                .iter()
                .filter(|pod| is_available(pod, spec.min_ready_seconds, now)),
        )),
        updated_replicas: Some(updated),
        current_replicas: Some(count(active.iter().filter(|pod| is_of(pod, &current)))),
        current_revision: Some(current),
        update_revision: Some(revision),
        collision_count: before.collision_count,
        conditions: before.conditions,
    }
}
