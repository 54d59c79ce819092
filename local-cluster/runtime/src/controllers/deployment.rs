//! Deployments make ReplicaSets, one for each template, and move the replicas from the old to the new.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use super::action::{Action, Kind, Target};
use super::object::{POD_TEMPLATE_HASH, hash_of, is_owned, owned_by, share};
use super::rollout::{Budget, Counts, Step, step};

const REVISION: &str = "deployment.kubernetes.io/revision";
/// How long a Deployment may stand still before its condition says so, where it does not say itself.
const PROGRESS_DEADLINE: i32 = 600;
const HISTORY: i32 = 10;

/// What to write for one Deployment, given every ReplicaSet of its namespace and the number of Pods, running or
/// ending, that each ReplicaSet still has.
pub(crate) fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    pods_left: &dyn Fn(&ReplicaSet) -> i32,
    now: Timestamp,
) -> Vec<Action> {
    let Some(spec) = &deployment.spec else {
        return Vec::new();
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let hash = hash_of(&spec.template);
    let mine = sets.iter().filter(|set| is_owned(&set.metadata, deployment));
    let (new, old): (Vec<_>, Vec<_>) =
        mine.partition(|set| set.labels().get(POD_TEMPLATE_HASH) == Some(&hash));
    let new = new.into_iter().next();
    let mut actions = Vec::new();
    if !spec.paused.unwrap_or(false) {
        let old_left = old.iter().map(|set| pods_left(set)).sum();
        let planned = step(
            budget(spec),
            new.map_or_else(Counts::default, |set| counts(set)),
            &old.iter().map(|set| counts(set)).collect::<Vec<_>>(),
            old_left,
        );
        let revision = revision_of(new, &old);
        actions.extend(scale(deployment, spec, &hash, new, &old, &planned, revision));
        actions.extend(mark_revision(deployment, revision));
        actions.extend(forget(spec, &old, pods_left));
    }
    let status = status(deployment, spec, new, &old, now);
    actions.extend(Action::status(
        Kind::Deployment,
        deployment,
        deployment.status.as_ref(),
        &status,
    ));
    actions
}

fn budget(spec: &DeploymentSpec) -> Budget {
    let desired = spec.replicas.unwrap_or(1).max(0);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Budget::Recreate { desired };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = share(
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        "25%",
        desired,
        true,
    );
    let unavailable = share(
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        "25%",
        desired,
        false,
    );
    // Neither may be zero with the other: nothing would ever move.
    let unavailable = if surge == 0 {
        unavailable.max(1)
    } else {
        unavailable
    };
    Budget::Rolling {
        desired,
        surge,
        unavailable,
    }
}

fn counts(set: &ReplicaSet) -> Counts {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let status = set.status.as_ref();
    Counts {
        wanted,
        running: status.map_or(0, |status| status.replicas),
        available: status.and_then(|status| status.available_replicas).unwrap_or(0),
    }
}

fn number(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn revision_of(new: Option<&Arc<ReplicaSet>>, old: &[&Arc<ReplicaSet>]) -> i64 {
    let latest = old.iter().map(|set| number(set)).max().unwrap_or(0);
    let own = new.map_or(0, |set| number(set));
    if own > latest { own } else { latest + 1 }
}

fn scale(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    hash: &str,
    new: Option<&Arc<ReplicaSet>>,
    old: &[&Arc<ReplicaSet>],
    planned: &Step,
    revision: i64,
) -> Vec<Action> {
    let mut actions = Vec::new();
    match new {
        None => actions.push(Action::create(
            Kind::ReplicaSet,
            &replica_set(deployment, spec, hash, planned.new, revision),
        )),
        Some(set) if counts(set).wanted != planned.new => {
            actions.push(Action::scale(Kind::ReplicaSet, set.as_ref(), planned.new));
        }
        Some(_) => {}
    }
    if let Some(set) = new.filter(|set| number(set) != revision) {
        actions.push(annotate(Target::of(Kind::ReplicaSet, set.as_ref()), revision));
    }
    for (set, wanted) in old.iter().zip(&planned.old) {
        if counts(set).wanted != *wanted {
            actions.push(Action::scale(Kind::ReplicaSet, set.as_ref(), *wanted));
        }
    }
    actions
}

fn annotate(target: Target, revision: i64) -> Action {
    Action::Merge {
        target,
        patch: serde_json::json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}),
    }
}

fn mark_revision(deployment: &Deployment, revision: i64) -> Option<Action> {
    let marked = deployment
        .annotations()
        .get(REVISION)
        .is_some_and(|text| *text == revision.to_string());
    (!marked).then(|| annotate(Target::of(Kind::Deployment, deployment), revision))
}

/// Deletes the oldest ReplicaSets that hold nothing, beyond the history that the Deployment keeps.
fn forget(
    spec: &DeploymentSpec,
    old: &[&Arc<ReplicaSet>],
    pods_left: &dyn Fn(&ReplicaSet) -> i32,
) -> Vec<Action> {
    let keep = usize::try_from(spec.revision_history_limit.unwrap_or(HISTORY)).unwrap_or(0);
    let mut idle: Vec<_> = old
        .iter()
        .filter(|set| counts(set).wanted == 0 && pods_left(set) == 0)
        .collect();
    idle.sort_by_key(|set| number(set));
    let surplus = idle.len().saturating_sub(keep);
    idle.into_iter()
        .take(surplus)
        .map(|set| Action::delete(Kind::ReplicaSet, set.as_ref()))
        .collect()
}

fn replica_set(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    hash: &str,
    replicas: i32,
    revision: i64,
) -> ReplicaSet {
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.into(), hash.to_owned());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(POD_TEMPLATE_HASH.into(), hash.to_owned());
    ReplicaSet {
        metadata: ObjectMeta {
            namespace: deployment.namespace(),
            name: Some(format!("{}-{hash}", deployment.name_any())),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(REVISION.to_owned(), revision.to_string())])),
            owner_references: Some(vec![owned_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn status(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    new: Option<&Arc<ReplicaSet>>,
    old: &[&Arc<ReplicaSet>],
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let desired = spec.replicas.unwrap_or(1).max(0);
    let all = || new.iter().copied().chain(old.iter().copied());
    let ready: i32 = all().filter_map(|set| set.status.as_ref()?.ready_replicas).sum();
    let replicas: i32 = all().map(|set| counts(set).running).sum();
    let available: i32 = all().map(|set| counts(set).available).sum();
    let updated = new.map_or(0, |set| counts(set).running);
    let made = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(replicas),
        updated_replicas: Some(updated),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        unavailable_replicas: Some((desired.max(replicas) - available).max(0)),
        collision_count: before.collision_count,
        terminating_replicas: None,
        conditions: None,
    };
    let conditions = conditions(spec, new, &before, &made, now);
    DeploymentStatus {
        conditions: Some(conditions),
        ..made
    }
}

fn conditions(
    spec: &DeploymentSpec,
    new: Option<&Arc<ReplicaSet>>,
    before: &DeploymentStatus,
    made: &DeploymentStatus,
    now: Timestamp,
) -> Vec<DeploymentCondition> {
    let Budget::Rolling {
        desired, unavailable, ..
    } = budget(spec).as_rolling()
    else {
        return Vec::new();
    };
    let available = made.available_replicas.unwrap_or(0);
    let enough = available >= desired - unavailable;
    let availability = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".to_owned(),
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".to_owned(),
        )
    };
    let name = new.map_or_else(String::new, |set| format!("ReplicaSet {:?} ", set.name_any()));
    let complete = made.updated_replicas == Some(desired)
        && made.replicas == Some(desired)
        && made.available_replicas == Some(desired);
    let moved = before.updated_replicas != made.updated_replicas
        || before.available_replicas != made.available_replicas
        || before.observed_generation != made.observed_generation;
    let known = before
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "Progressing");
    let last = known
        .and_then(|one| one.last_update_time.as_ref())
        .map_or(now, |time| time.0);
    let allowed = i64::from(spec.progress_deadline_seconds.unwrap_or(PROGRESS_DEADLINE));
    let late = !moved && now.as_second() - last.as_second() > allowed;
    let progress = if complete {
        (
            "True",
            "NewReplicaSetAvailable",
            format!("{name}has successfully progressed."),
        )
    } else if late {
        (
            "False",
            "ProgressDeadlineExceeded",
            format!("{name}has timed out progressing."),
        )
    } else {
        ("True", "ReplicaSetUpdated", format!("{name}is progressing."))
    };
    vec![
        condition(before, "Available", availability, false, now),
        condition(before, "Progressing", progress, moved && !late, now),
    ]
}

fn condition(
    before: &DeploymentStatus,
    kind: &str,
    (status, reason, message): (&str, &str, String),
    touched: bool,
    now: Timestamp,
) -> DeploymentCondition {
    let now = Some(Time(now));
    let known = before.conditions.iter().flatten().find(|one| one.type_ == kind);
    let same_status = known.filter(|one| one.status == status);
    let same = same_status.filter(|one| one.reason.as_deref() == Some(reason) && !touched);
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: same_status.map_or(now.clone(), |one| one.last_transition_time.clone()),
        last_update_time: same.map_or(now, |one| one.last_update_time.clone()),
        reason: Some(reason.to_owned()),
        message: Some(message),
    }
}
