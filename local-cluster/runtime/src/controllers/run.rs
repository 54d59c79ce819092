//! The loop around the planners: waits for a change, plans, writes, and waits until it sees what it wrote.

use std::collections::BTreeMap;
use std::time::Duration;

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
            for action in plan(&world, &place, Timestamp::now()) {
                if shutdown.is_triggered() {
                    return;
                }
                carry_out(&client, &action, &mut expected).await;
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

    fn add(&mut self, namespace: &str, name: String, expect: Expect) {
        self.pods
            .insert((namespace.to_owned(), name), (expect, Instant::now()));
    }
}

fn is_going(pod: Option<&Pod>, uid: &str) -> bool {
    pod.is_none_or(|pod| pod.uid().as_deref() != Some(uid) || pod.metadata.deletion_timestamp.is_some())
}

async fn carry_out(client: &Client, action: &Action, expected: &mut Expectations) {
    let (target, result) = match action {
        Action::Create { target, object } => (target, create(client, target, object, expected).await),
        Action::Replace { target, object } => (target, replace(client, target, object).await),
        Action::Merge { target, patch } => {
            let patched = api(client, target)
                .patch(&target.name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            (target, patched.map(drop))
        }
        Action::Status { target, status } => {
            let patch = Patch::Merge(serde_json::json!({"status": status}));
            let patched = api(client, target)
                .patch_status(&target.name, &PatchParams::default(), &patch)
                .await;
            (target, patched.map(drop))
        }
        Action::Delete { target, uid } => (target, delete(client, target, uid, expected).await),
    };
    match result {
        Ok(()) => {
            tracing::debug!(kind = ?target.kind, namespace = target.namespace, name = target.name, "written")
        }
        // Somebody else was there first, or it is gone: the next plan sees it.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(
            kind = ?target.kind, namespace = target.namespace, name = target.name, %error,
            "cannot write; trying again"
        ),
    }
}

fn api(client: &Client, target: &Target) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &target.namespace, &target.kind.resource())
}

async fn create(
    client: &Client,
    target: &Target,
    object: &serde_json::Value,
    expected: &mut Expectations,
) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let made = api(client, target)
        .create(&PostParams::default(), &object)
        .await?;
    if target.kind == Kind::Pod {
        expected.add(&target.namespace, made.name_any(), Expect::There);
    }
    Ok(())
}

async fn replace(client: &Client, target: &Target, object: &serde_json::Value) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    api(client, target)
        .replace(&target.name, &PostParams::default(), &object)
        .await
        .map(drop)
}

async fn delete(
    client: &Client,
    target: &Target,
    uid: &str,
    expected: &mut Expectations,
) -> kube::Result<()> {
    let only = Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    };
    let params = DeleteParams {
        preconditions: Some(only),
        ..DeleteParams::background()
    };
    api(client, target).delete(&target.name, &params).await?;
    if target.kind == Kind::Pod {
        expected.add(
            &target.namespace,
            target.name.clone(),
            Expect::Gone { uid: uid.to_owned() },
        );
    }
    Ok(())
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
