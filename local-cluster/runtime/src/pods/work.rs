//! One Pod, from the moment it is ours until it is gone.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use karez_lifecycle::Shutdown;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Host;
use super::board::Board;
use super::container::{Policy, Runner, Stop};
use super::files::Folder;
use super::image::{Program, program};
use super::launch::Unit;
use super::status::{self, Given, Observed, State};

/// Tokens are renewed and volumes looked at this often without a change.
const TICK: Duration = Duration::from_secs(30);
/// When the whole site stops, nobody has longer than this.
const LONGEST_STOP: Duration = Duration::from_secs(10);
/// The last status of a site that stops is not waited for longer than this.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Why a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The site stops; the Pod stays in the API.
    Shutdown,
    /// The API was asked to delete the Pod.
    Deleted,
    /// The Pod is gone from the API.
    Gone,
}

/// Runs one Pod.
pub(crate) async fn work(host: Arc<Host>, pod: Arc<Pod>, shutdown: Shutdown) {
    let worker = Worker {
        key: Key::of(&pod),
        host,
    };
    if pod.metadata.deletion_timestamp.is_some() {
        worker.confirm().await;
        return;
    }
    let mut publisher = Publisher::default();
    let started = started(&pod);
    let Some(address) = worker.address(&pod, started, &mut publisher, &shutdown).await else {
        return;
    };
    let path = worker.host.state.join("pods").join(&worker.key.uid);
    let folder = match Folder::new(path, worker.host.state.join("claims").join(&worker.key.namespace)) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::error!(pod = worker.key.name, %error, "the Pod has no folder; trying again");
            sleep(Duration::from_secs(1)).await;
            return;
        }
    };
    let board = Board::new(first_state(&pod));
    let unit = Arc::new(Unit::new(
        Arc::clone(&worker.host),
        pod,
        address.ip(),
        board,
        folder,
    ));
    let end = worker.supervise(&unit, started, &mut publisher, &shutdown).await;
    if end == End::Shutdown {
        return;
    }
    if let Ok(unit) = Arc::try_unwrap(unit) {
        unit.remove();
    }
    worker.remove_logs(end);
    if end == End::Deleted {
        worker.confirm().await;
    }
}

/// Which Pod.
#[derive(Clone, Debug)]
struct Key {
    namespace: String,
    name: String,
    uid: String,
}

impl Key {
    fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        }
    }
}

struct Worker {
    key: Key,
    host: Arc<Host>,
}

fn started(pod: &Pod) -> Timestamp {
    let known = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    known.map_or_else(Timestamp::now, |time| time.0)
}

fn containers(pod: &Pod) -> (Vec<Container>, Vec<Container>) {
    let spec = pod.spec.clone().unwrap_or_default();
    (spec.init_containers.unwrap_or_default(), spec.containers)
}

/// What the containers do before anything was started: restarts go on counting where an earlier run left off.
fn first_state(pod: &Pod) -> BTreeMap<String, Observed> {
    let status = pod.status.as_ref();
    let known = |name: &str| {
        let statuses = status.and_then(|status| status.container_statuses.as_ref());
        statuses
            .and_then(|all| all.iter().find(|one| one.name == name))
            .map_or(0, |one| {
                let ran = one.state.as_ref().is_some_and(|state| state.running.is_some());
                one.restart_count.saturating_add(i32::from(ran))
            })
    };
    let (init, main) = containers(pod);
    let first = init.iter().chain(&main).map(|container| {
        let mut observed = Observed::waiting("ContainerCreating", "");
        observed.restarts = known(&container.name);
        if let Program::Other(message) = program(container) {
            observed.state = State::NotRun(message);
        }
        (container.name.clone(), observed)
    });
    first.collect()
}

/// What the containers do while the site is stopped: those that ran wait for the next start. That they ended is the
/// site's doing, not theirs.
fn paused(mut containers: BTreeMap<String, Observed>) -> BTreeMap<String, Observed> {
    for observed in containers.values_mut() {
        if matches!(observed.state, State::Ended(_) | State::NotRun(_)) {
            continue;
        }
        let ran = matches!(observed.state, State::Running { .. });
        let waiting = Observed::waiting("ContainerCreating", "the site is stopped");
        let restarts = observed.restarts.saturating_add(i32::from(ran));
        *observed = Observed {
            restarts,
            last: observed.last.clone(),
            ..waiting
        };
    }
    containers
}

fn is_ours(container: &Container) -> bool {
    !matches!(program(container), Program::Other(_))
}

impl Worker {
    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.host.client.clone(), &self.key.namespace)
    }

    /// The Pod as the API has it; none when it is gone or another has its name.
    fn current(&self) -> Option<Arc<Pod>> {
        let pod = self.host.objects.pod(&self.key.namespace, &self.key.name)?;
        (pod.uid().as_deref() == Some(self.key.uid.as_str())).then_some(pod)
    }

    /// An address, waited for when all are taken; none when the Pod goes before.
    async fn address(
        &self,
        pod: &Arc<Pod>,
        started: Timestamp,
        publisher: &mut Publisher,
        shutdown: &Shutdown,
    ) -> Option<crate::addresses::PodAddress> {
        let wanted = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        loop {
            if let Some(address) = self.host.addresses.take(wanted) {
                return Some(address);
            }
            let network = self.host.addresses.network();
            let given = Given {
                address: None,
                host: self.host.external,
                started,
                initialized: false,
                message: Some(format!(
                    "every address of {network} is taken; delete Pods that are not needed"
                )),
            };
            publisher.publish(self, pod, &given, &first_state(pod)).await;
            tokio::select! {
                () = shutdown.triggered() => return None,
                () = sleep(Duration::from_secs(1)) => {}
            }
            if self
                .current()
                .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
            {
                return None;
            }
        }
    }

    /// Runs the containers and tells the API about them until the Pod or the site ends; all have stopped then.
    async fn supervise(
        &self,
        unit: &Arc<Unit>,
        started: Timestamp,
        publisher: &mut Publisher,
        shutdown: &Shutdown,
    ) -> End {
        let initialized = Arc::new(AtomicBool::new(false));
        let (stop, stopping) = watch::channel(None);
        let mut all = pin!(run_containers(
            Arc::clone(unit),
            Arc::clone(&initialized),
            stopping
        ));
        let mut done = false;
        let (mut changes, mut board) = (self.host.objects.listen(), unit.board.listen());
        let given = |initialized: &AtomicBool, message: Option<String>| Given {
            address: Some(unit.address),
            host: self.host.external,
            started,
            initialized: initialized.load(Ordering::Acquire),
            message,
        };
        let mut message = None;
        let end = loop {
            publisher
                .publish(
                    self,
                    &unit.pod(),
                    &given(&initialized, message.clone()),
                    &unit.board.containers(),
                )
                .await;
            let looked = tokio::select! {
                () = shutdown.triggered() => break End::Shutdown,
                () = &mut all, if !done => { done = true; false }
                () = board.next() => false,
                () = changes.next() => true,
                () = sleep(TICK) => true,
            };
            if !looked {
                continue;
            }
            let Some(pod) = self.current() else {
                break End::Gone;
            };
            let deleted = pod.metadata.deletion_timestamp.is_some();
            unit.update(pod);
            if deleted {
                break End::Deleted;
            }
            // The containers go on meanwhile: one of them may hold what the refresh waits for.
            let mut refresh = pin!(unit.refresh());
            message = loop {
                tokio::select! {
                    refreshed = &mut refresh => break refreshed.err().map(|error| error.to_string()),
                    () = &mut all, if !done => done = true,
                }
            };
        };
        let before = unit.board.containers();
        let grace = grace(&unit.pod(), end);
        // Nobody listens any more only when everything has ended already.
        let _ = stop.send(Some(grace));
        if !done {
            all.await;
        }
        if end != End::Gone {
            let last = given(&initialized, None);
            let pod = unit.pod();
            let containers = if end == End::Shutdown {
                paused(before)
            } else {
                unit.board.containers()
            };
            let _ = timeout(LAST_WORD, publisher.publish(self, &pod, &last, &containers)).await;
        }
        end
    }

    /// Tells the API that the Pod has ended, so that it lets go of the object.
    async fn confirm(&self) {
        let only = Preconditions {
            uid: Some(self.key.uid.clone()),
            resource_version: None,
        };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only),
            ..DeleteParams::default()
        };
        match self.api().delete(&self.key.name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(pod = self.key.name, %error, "the Pod cannot be deleted; trying again")
            }
        }
    }

    /// Removes the Pod's logs, unless another Pod has its name by now.
    fn remove_logs(&self, end: End) {
        let other = end == End::Gone
            && self
                .host
                .objects
                .pod(&self.key.namespace, &self.key.name)
                .is_some();
        if !other {
            let path = self
                .host
                .state
                .join("logs")
                .join(&self.key.namespace)
                .join(&self.key.name);
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn grace(pod: &Pod, end: End) -> Duration {
    let own = pod.metadata.deletion_grace_period_seconds;
    let own = own.or_else(|| pod.spec.as_ref()?.termination_grace_period_seconds);
    let own = Duration::from_secs(own.and_then(|number| u64::try_from(number).ok()).unwrap_or(30));
    if end == End::Shutdown {
        own.min(LONGEST_STOP)
    } else {
        own
    }
}

/// The init containers one after the other, then the others together. Those that are not ours are passed over.
async fn run_containers(unit: Arc<Unit>, initialized: Arc<AtomicBool>, stop: Stop) {
    let pod = unit.pod();
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone());
    let (init, mut main) = containers(&pod);
    for container in init.into_iter().filter(is_ours) {
        if container.restart_policy.as_deref() == Some("Always") {
            // A sidecar in Kubernetes' own words: it runs beside the others.
            main.push(container);
            continue;
        }
        let policy = Policy::of(policy.as_deref(), true);
        let code = Runner {
            unit: Arc::clone(&unit),
            container,
            policy,
        }
        .run(stop.clone())
        .await;
        if code != Some(0) || stop.borrow().is_some() {
            return;
        }
    }
    initialized.store(true, Ordering::Release);
    unit.board.ring();
    let policy = Policy::of(policy.as_deref(), false);
    let runners = main.into_iter().filter(is_ours).map(|container| {
        let always = container.restart_policy.as_deref() == Some("Always");
        let policy = if always { Policy::Always } else { policy };
        Runner {
            unit: Arc::clone(&unit),
            container,
            policy,
        }
        .run(stop.clone())
    });
    join_all(runners).await;
}

/// Writes a Pod's status when it differs from what was written last.
#[derive(Default)]
struct Publisher {
    written: Option<PodStatus>,
}

impl Publisher {
    async fn publish(
        &mut self,
        worker: &Worker,
        pod: &Pod,
        given: &Given,
        containers: &BTreeMap<String, Observed>,
    ) {
        // Transition times go on from what was written last: the API's copy may be older.
        let mut known = pod.clone();
        if self.written.is_some() {
            known.status = self.written.clone();
        }
        let wanted = status::status(&known, given, containers, Timestamp::now());
        if self.written.as_ref() == Some(&wanted) {
            return;
        }
        let patch =
            serde_json::json!({"metadata": {"uid": worker.key.uid}, "status": with_removals(&wanted)});
        let api = worker.api();
        let patched = api
            .patch_status(&worker.key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Ok(_) => self.written = Some(wanted),
            // Gone, or another one by that name: the worker is about to see it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => self.written = Some(wanted),
            Err(error) => {
                tracing::warn!(pod = worker.key.name, %error, "the Pod's status cannot be written; trying again");
            }
        }
    }
}

/// The status with `null` for what it does not have, so that merging removes what was there before.
fn with_removals(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        for key in ["message", "reason", "podIP", "podIPs", "initContainerStatuses"] {
            fields.entry(key).or_insert(Value::Null);
        }
    }
    value
}
