//! The loop around the planners: waits for a change, plans, writes, and waits until it sees what it wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use karez_lifecycle::Shutdown;

use super::action::{Action, Kind, Target};
use super::{Place, World, plan};
use crate::observe::{Changes, Objects};

/// Changes come in bursts; one plan answers them together.
const SETTLE: Duration = Duration::from_millis(10);
/// Conditions that depend on time are looked at this often without a change.
const TICK: Duration = Duration::from_secs(2);
/// How many writes are under way at once.
const AT_ONCE: usize = 16;
/// What was written and is not seen after this long is planned anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the controllers until the shutdown.
pub(crate) async fn run(
    client: Client,
    objects: Objects,
    mut changes: Changes,
    place: Place,
    shutdown: Shutdown,
) {
    let mut expected = Expectations::default();
    loop {
        if expected.are_met(&objects) {
            let world = objects.world();
            for together in in_order(plan(&world, &place, Timestamp::now())) {
                if shutdown.is_triggered() {
                    return;
                }
                for some in together.chunks(AT_ONCE) {
                    let written = join_all(some.iter().map(|action| carry_out(&client, action))).await;
                    expected.add(written.into_iter().flatten());
                }
            }
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = changes.next() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Pods that were made or deleted and are not yet seen so: planning on a stale list would make them twice.
#[derive(Debug, Default)]
struct Expectations {
    pods: BTreeMap<(String, String), (Expect, Instant)>,
}

#[derive(Debug)]
enum Expect {
    There,
    Gone { uid: String },
}

impl Expectations {
    fn are_met(&mut self, objects: &Objects) -> bool {
        let now = Instant::now();
        self.pods.retain(|(namespace, name), (expect, since)| {
            let pod = objects.pod(namespace, name);
            let met = match expect {
                Expect::There => pod.is_some(),
                Expect::Gone { uid } => is_going(pod.as_deref(), uid),
            };
            !met && now.duration_since(*since) < PATIENCE
        });
        self.pods.is_empty()
    }

    fn add(&mut self, written: impl Iterator<Item = Expected>) {
        let now = Instant::now();
        self.pods
            .extend(written.map(|one| ((one.namespace, one.name), (one.expect, now))));
    }
}

/// A Pod that was made or deleted.
#[derive(Debug)]
struct Expected {
    namespace: String,
    name: String,
    expect: Expect,
}

/// What starts something comes before what only tells of it: nothing waits for statuses to be written. What is in one
/// group is written together.
fn in_order(actions: Vec<Action>) -> [Vec<Action>; 2] {
    let tells = |action: &Action| matches!(action, Action::Status { .. });
    let (later, sooner) = actions.into_iter().partition(tells);
    [sooner, later]
}

fn is_going(pod: Option<&Pod>, uid: &str) -> bool {
    pod.is_none_or(|pod| pod.uid().as_deref() != Some(uid) || pod.metadata.deletion_timestamp.is_some())
}

/// Writes; tells of a Pod that should soon be seen, or be seen no more.
async fn carry_out(client: &Client, action: &Action) -> Option<Expected> {
    let (target, result) = match action {
        Action::Create { target, object } => (target, create(client, target, object).await),
        Action::Replace { target, object } => (target, replace(client, target, object).await.map(|()| None)),
        Action::Merge { target, patch } => {
            let patched = api(client, target)
                .patch(&target.name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            (target, patched.map(|_| None))
        }
        Action::Status { target, status } => {
            let patch = Patch::Merge(serde_json::json!({"status": status}));
            let patched = api(client, target)
                .patch_status(&target.name, &PatchParams::default(), &patch)
                .await;
            (target, patched.map(|_| None))
        }
        Action::Delete { target, uid } => (target, delete(client, target, uid).await),
    };
    match result {
        Ok(seen) => {
            tracing::debug!(kind = ?target.kind, namespace = target.namespace, name = target.name, "written");
            return seen;
        }
        // Somebody else was there first, or it is gone: the next plan sees it.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(
            kind = ?target.kind, namespace = target.namespace, name = target.name, %error,
            "cannot write; trying again"
        ),
    }
    None
}

fn api(client: &Client, target: &Target) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &target.namespace, &target.kind.resource())
}

async fn create(
    client: &Client,
    target: &Target,
    object: &serde_json::Value,
) -> kube::Result<Option<Expected>> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let made = api(client, target)
        .create(&PostParams::default(), &object)
        .await?;
    Ok(expected(target, made.name_any(), Expect::There))
}

async fn replace(client: &Client, target: &Target, object: &serde_json::Value) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    api(client, target)
        .replace(&target.name, &PostParams::default(), &object)
        .await
        .map(drop)
}

async fn delete(client: &Client, target: &Target, uid: &str) -> kube::Result<Option<Expected>> {
    let only = Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    };
    let params = DeleteParams {
        preconditions: Some(only),
        ..DeleteParams::background()
    };
    api(client, target).delete(&target.name, &params).await?;
    Ok(expected(
        target,
        target.name.clone(),
        Expect::Gone { uid: uid.to_owned() },
    ))
}

/// Only Pods are waited for: everything else has a name of its own and cannot be made twice.
fn expected(target: &Target, name: String, expect: Expect) -> Option<Expected> {
    (target.kind == Kind::Pod).then(|| Expected {
        namespace: target.namespace.clone(),
        name,
        expect,
    })
}

impl Objects {
    fn world(&self) -> World {
        World {
            deployments: self.deployments.state(),
            replica_sets: self.replica_sets.state(),
            stateful_sets: self.stateful_sets.state(),
            daemon_sets: self.daemon_sets.state(),
            pods: self.pods.state(),
            services: self.services.state(),
            slices: self.slices.state(),
            endpoints: self.endpoints.state(),
        }
    }
}
