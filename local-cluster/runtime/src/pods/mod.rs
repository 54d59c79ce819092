//! Pods as child processes: what kubelet does.
//!
//! ```text
//!  manage ── one `work` a Pod ── one `Runner` a container ── Process
//!                │  ▲                 │
//!                │  └──── Board ◀─────┘  what each container does
//!                └──▶ status, pure ──▶ API
//! ```

mod board;
mod container;
mod env;
pub(crate) mod fields;
pub(crate) mod files;
mod image;
mod launch;
mod logs;
mod probe;
mod process;
mod status;
mod volumes;
mod work;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use karez_lifecycle::Shutdown;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;

use crate::access::PodAccess;
use crate::addresses::AddressPool;
use crate::observe::Objects;

/// What all Pods share.
pub(crate) struct Host {
    pub(crate) client: Client,
    pub(crate) objects: Objects,
    pub(crate) state: PathBuf,
    pub(crate) names_file: PathBuf,
    pub(crate) node: String,
    pub(crate) addresses: AddressPool,
    pub(crate) external: IpAddr,
    pub(crate) binary: PathBuf,
    pub(crate) access: PodAccess,
}

/// A worker that has ended is noticed at least this often.
const TICK: Duration = Duration::from_secs(1);

/// Runs the Pods of our Node until the shutdown; returns when every child has ended.
pub(crate) async fn manage(host: Arc<Host>, shutdown: Shutdown) {
    let mut changes = host.objects.listen();
    let mut workers: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    remove_stale_folders(&host);
    while !shutdown.is_triggered() {
        workers.retain(|_, worker| !worker.is_finished());
        for pod in host.objects.pods.state() {
            let Some(uid) = pod.uid() else { continue };
            match wanted(&pod, &host.node) {
                Wanted::Nothing => {}
                Wanted::Place => bind(&host, &pod).await,
                Wanted::Run if workers.contains_key(&uid) => {}
                Wanted::Run => {
                    let work = work::work(Arc::clone(&host), pod, shutdown.clone());
                    workers.insert(uid, tokio::spawn(work));
                }
            }
        }
        tokio::select! {
            () = shutdown.triggered() => {}
            () = changes.next() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
    for (uid, worker) in workers {
        if let Err(error) = worker.await {
            tracing::error!(pod = uid, %error, "a Pod's task failed");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Place,
    Run,
}

/// What to do about a Pod, as far as it has no worker.
fn wanted(pod: &Pod, node: &str) -> Wanted {
    let spec = pod.spec.as_ref();
    let ending = pod.metadata.deletion_timestamp.is_some();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) && !ending {
        return Wanted::Nothing;
    }
    match spec
        .and_then(|spec| spec.node_name.as_deref())
        .filter(|name| !name.is_empty())
    {
        Some(name) if name == node && files::has_plain_names(pod) => Wanted::Run,
        Some(_) => Wanted::Nothing,
        None if ending => Wanted::Nothing,
        None => {
            let scheduler = spec
                .and_then(|spec| spec.scheduler_name.as_deref())
                .unwrap_or("default-scheduler");
            let gated =
                spec.is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|all| !all.is_empty()));
            if scheduler == "default-scheduler" && !gated {
                Wanted::Place
            } else {
                Wanted::Nothing
            }
        }
    }
}

/// Gives a Pod our Node, as a scheduler does.
async fn bind(host: &Host, pod: &Pod) {
    let namespace = pod.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(host.client.clone(), &namespace);
    let name = pod.name_any();
    let binding = serde_json::json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": host.node},
    });
    let bound: kube::Result<serde_json::Value> = pods
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await;
    let result = match bound {
        // An API without that subresource takes the field itself.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405 | 501) => {
            let patch = serde_json::json!({"spec": {"nodeName": host.node}});
            pods.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(drop)
        }
        other => other.map(drop),
    };
    match result {
        Ok(()) => tracing::debug!(namespace, pod = name, node = host.node, "placed"),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(namespace, pod = name, %error, "the Pod cannot be placed; trying again"),
    }
}

/// Removes the folders of Pods that are no more: an earlier run may have been killed.
fn remove_stale_folders(host: &Host) {
    let known: Vec<String> = host
        .objects
        .pods
        .state()
        .iter()
        .filter_map(|pod| pod.uid())
        .collect();
    for entry in std::fs::read_dir(host.state.join("pods"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !known.contains(&name)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "a Pod's folder cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: serde_json::Value, status: serde_json::Value) -> Wanted {
        let meta = json!({"name": "p", "namespace": "n", "uid": "u"});
        let pod = serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap();
        wanted(&pod, "here")
    }

    #[test]
    fn runs_its_own_and_places_those_without_a_node() {
        let containers = json!([{"name": "c"}]);
        assert_eq!(
            of(json!({"nodeName": "here", "containers": containers}), json!({})),
            Wanted::Run
        );
        assert_eq!(
            of(json!({"nodeName": "there", "containers": containers}), json!({})),
            Wanted::Nothing
        );
        assert_eq!(of(json!({"containers": containers}), json!({})), Wanted::Place);
        assert_eq!(
            of(json!({"containers": containers, "schedulerName": "x"}), json!({})),
            Wanted::Nothing
        );
        assert_eq!(
            of(
                json!({"nodeName": "here", "containers": containers}),
                json!({"phase": "Failed"})
            ),
            Wanted::Nothing
        );
        assert_eq!(
            of(
                json!({"nodeName": "here", "containers": [{"name": "../c"}]}),
                json!({})
            ),
            Wanted::Nothing
        );
    }
}
