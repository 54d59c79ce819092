//! Objects of a cluster, written many at a time, as a test's users and kubelets would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};

use crate::support::Outcome;
use crate::support::cluster::{Cluster, runtime};
use crate::support::wait::wait_for;

/// The namespace of the collectors.
pub(super) const FLEET: &str = "fleet";
/// The Nodes.
pub(super) const NODES: usize = 5;
/// Requests at once.
const AT_ONCE: usize = 24;

/// A request to the API.
pub(super) struct Call {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

pub(super) fn create(collection: impl Into<String>, object: Value) -> Call {
    Call {
        method: "POST",
        path: collection.into(),
        body: Some(object),
    }
}

pub(super) fn merge(path: impl Into<String>, patch: Value) -> Call {
    Call {
        method: "PATCH",
        path: path.into(),
        body: Some(patch),
    }
}

/// At once, or with a time to end in, as a kubelet would give.
pub(super) fn delete(path: impl Into<String>, seconds: u64) -> Call {
    Call {
        method: "DELETE",
        path: path.into(),
        body: Some(json!({"gracePeriodSeconds": seconds})),
    }
}

/// Carries all of them out, in any order.
pub(super) fn all(cluster: &Cluster, calls: Vec<Call>) -> Outcome {
    let client = cluster.client();
    let calls = futures::stream::iter(calls).map(|call| {
        let client = client.clone();
        async move {
            let content = match call.method {
                "PATCH" => "application/merge-patch+json",
                _ => "application/json",
            };
            let body = call.body.map(|body| body.to_string()).unwrap_or_default();
            let request = Request::builder()
                .method(call.method)
                .uri(&call.path)
                .header("content-type", content)
                .body(body.into_bytes())?;
            let answer = client.request_text(request).await;
            answer.with_context(|| format!("{} {}", call.method, call.path))?;
            anyhow::Ok(())
        }
    });
    runtime().block_on(calls.buffer_unordered(AT_ONCE).try_collect())
}

pub(super) fn core(namespace: &str, kind: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{kind}")
}

pub(super) fn monitors(namespace: &str, kind: &str) -> String {
    format!("/apis/monitoring.coreos.com/v1/namespaces/{namespace}/{kind}")
}

/// Namespaces, Nodes and the kinds of monitors.
pub(super) fn furnish(cluster: &Cluster, namespaces: &[String]) -> Outcome {
    let mut calls = Vec::new();
    for (plural, kind) in [
        ("servicemonitors", "ServiceMonitor"),
        ("podmonitors", "PodMonitor"),
    ] {
        let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        calls.push(create(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
                "spec": {
                    "group": "monitoring.coreos.com", "scope": "Namespaced",
                    "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}],
                },
            }),
        ));
    }
    for name in namespaces {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        calls.push(create("/api/v1/namespaces", object));
    }
    for number in 0..NODES {
        let object = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{number}"), "labels": {"zone": format!("zone-{}", number % 2)}}});
        calls.push(create("/api/v1/nodes", object));
    }
    all(cluster, calls)?;
    beat(cluster)?;
    // A Pod needs its namespace's account, which a controller makes.
    for name in namespaces {
        cluster.wait(&core(name, "serviceaccounts/default"), 60)?;
    }
    for plural in ["servicemonitors", "podmonitors"] {
        wait_for(format_args!("{plural} to be served"), 30, || {
            let path = format!("/apis/monitoring.coreos.com/v1/{plural}");
            Ok(cluster
                .get(&path)?
                .map(drop)
                .ok_or_else(|| "it is not".to_owned()))
        })?;
    }
    Ok(())
}

/// The Nodes' kubelets say that they live; without it their Pods are taken for lost after a while.
fn beat(cluster: &Cluster) -> Outcome {
    let now = jiff::Timestamp::now().to_string();
    let calls = (0..NODES).map(|number| {
        let ready = json!({"type": "Ready", "status": "True", "reason": "Test", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now});
        let status = json!({"status": {
            "conditions": [ready], "addresses": [{"type": "InternalIP", "address": format!("10.255.0.{}", number + 1)}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }});
        merge(format!("/api/v1/nodes/node-{number}/status"), status)
    });
    all(cluster, calls.collect())
}

/// A Pod and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) app: String,
    pub(super) ip: String,
    pub(super) node: usize,
}

impl Pod {
    pub(super) fn path(&self) -> String {
        format!("{}/{}", core(&self.namespace, "pods"), self.name)
    }

    pub(super) fn create(&self) -> Call {
        create(
            core(&self.namespace, "pods"),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.name, "labels": {"app": self.app}},
                "spec": {
                    "nodeName": format!("node-{}", self.node), "automountServiceAccountToken": false,
                    "containers": [{"name": "web", "image": "example.com/web:1", "ports": [{"name": "web", "containerPort": 8080}]}],
                },
            }),
        )
    }

    /// As its kubelet says: it runs, and is ready or not.
    pub(super) fn status(&self, ready: bool) -> Call {
        let now = jiff::Timestamp::now().to_string();
        let ready = if ready { "True" } else { "False" };
        let condition = |kind: &str| json!({"type": kind, "status": ready, "lastTransitionTime": now});
        let status = json!({"status": {
            "phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}], "hostIP": format!("10.255.0.{}", self.node + 1),
            "startTime": now, "conditions": [condition("Ready"), condition("ContainersReady")],
        }});
        merge(format!("{}/status", self.path()), status)
    }
}

/// Makes Pods and lets them run.
pub(super) fn run(cluster: &Cluster, pods: &[Pod]) -> Outcome {
    all(cluster, pods.iter().map(Pod::create).collect())?;
    all(cluster, pods.iter().map(|pod| pod.status(true)).collect())
}

/// A Service in front of the Pods of an application.
pub(super) fn service(namespace: &str, app: &str) -> Call {
    create(
        core(namespace, "services"),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": app, "labels": {"app": app}},
            "spec": {"selector": {"app": app}, "ports": [{"name": "web", "port": 80, "targetPort": "web"}]},
        }),
    )
}

/// A monitor of that Service.
pub(super) fn service_monitor(namespace: &str, app: &str) -> Call {
    create(
        monitors(namespace, "servicemonitors"),
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
            "metadata": {"name": app},
            "spec": {"selector": {"matchLabels": {"app": app}}, "endpoints": [{"port": "web", "interval": "30s"}]},
        }),
    )
}

/// A monitor of the Pods of an application.
pub(super) fn pod_monitor(namespace: &str, app: &str) -> Call {
    create(
        monitors(namespace, "podmonitors"),
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
            "metadata": {"name": app},
            "spec": {"selector": {"matchLabels": {"app": app}}, "podMetricsEndpoints": [{"port": "web"}]},
        }),
    )
}

/// A Pod of a collector.
pub(super) fn collector(number: usize) -> Pod {
    Pod {
        namespace: FLEET.to_owned(),
        name: format!("collector-{number}"),
        app: "collector".to_owned(),
        ip: format!("10.254.{}.{}", number / 200, number % 200 + 1),
        node: number % NODES,
    }
}

/// The Nodes' kubelets, which say again and again that they live. They end with the value.
pub(super) struct Kubelets {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelets {
    pub(super) fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, cluster) = (stop.clone(), cluster.clone());
        let thread = thread::spawn(move || {
            let mut rounds = 0u32;
            while !told.load(Ordering::Relaxed) {
                if rounds.is_multiple_of(50) {
                    // The next one is in time as well.
                    let _ = beat(&cluster);
                }
                rounds += 1;
                thread::sleep(Duration::from_millis(200));
            }
        });
        Kubelets {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
