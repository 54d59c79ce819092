//! A real API server with its controller manager, and what a cloud adds to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use karez_lifecycle::Shutdown;
use karez_local_runtime::{AddressPool, PodAccess, RuntimeOptions};
use serde_json::{Value, json};

use super::Outcome;
use super::cluster::{Cluster, runtime, text};
use super::peers::workspace;
use super::site::wait_exit;
use super::stage::Stage;

/// A real cluster in processes of its own; ended with the value.
pub(crate) struct Kubernetes {
    child: Child,
    folder: PathBuf,
    /// The cluster as its administrator sees it.
    pub(crate) admin: Cluster,
}

impl Kubernetes {
    /// Starts it with an empty store.
    pub(crate) fn start(stage: &Stage) -> Outcome<Self> {
        let folder = stage.folder("kubernetes")?;
        let mut child = Command::new(workspace().join("tests/peers/kubernetes/start"))
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(stage.path("kubernetes-start.log"))?)
            .spawn()?;
        let mut first = String::new();
        let stdout = child.stdout.take().context("its output is a pipe")?;
        BufReader::new(stdout).read_line(&mut first)?;
        if first.trim() != "ready" {
            // The reason stands in its log, which the failure shows.
            let _ = child.kill();
            child.wait()?;
            anyhow::bail!("the real cluster did not start: {first:?}");
        }
        let admin = Cluster::open(&folder.join("kubeconfig"))?;
        Ok(Self { child, folder, admin })
    }

    /// A kubeconfig that holds nothing but a token of this service account.
    pub(crate) fn as_service_account(&self, namespace: &str, name: &str) -> Outcome<PathBuf> {
        let token = self
            .admin
            .kubectl(&["create", "token", name, "-n", namespace, "--duration=1h"], "")?;
        let own = self
            .admin
            .kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], "")?;
        let mut config: Value = serde_json::from_str(&own)?;
        config["users"][0]["user"] = json!({ "token": token.trim() });
        config["contexts"][0]["context"]["namespace"] = json!(namespace);
        let file = self.folder.join(format!("{namespace}-{name}.kubeconfig"));
        fs::write(&file, serde_json::to_vec(&config)?)?;
        Ok(file)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // it stops when its input ends
        if wait_exit(&mut self.child, 20).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs the cluster's Pods as child processes: the runtime of local sites, beside the real controllers.
pub(crate) struct PodRuntime {
    shutdown: Shutdown,
    task: Option<tokio::task::JoinHandle<Result<(), karez_local_runtime::RunError>>>,
}

impl PodRuntime {
    /// Starts it with `external` as the address that the router binds for links.
    pub(crate) fn start(stage: &Stage, kubernetes: &Kubernetes, external: &str) -> Outcome<Self> {
        let state = stage.folder("runtime")?;
        let own = kubernetes
            .admin
            .kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], "")?;
        let config: Value = serde_json::from_str(&own)?;
        let authority = text(&config, "/clusters/0/cluster/certificate-authority-data");
        let access = PodAccess::TokenRequest {
            server: text(&config, "/clusters/0/cluster/server").to_owned(),
            ca_pem: Some(String::from_utf8(BASE64.decode(authority)?)?),
        };
        let options = RuntimeOptions {
            client: kubernetes.admin.client(),
            addresses: AddressPool::choose(&state)?,
            state,
            node_name: "test-node".to_owned(),
            external: external.parse()?,
            binary: env!("CARGO_BIN_EXE_karez").into(),
            kubeconfig_for_pods: access,
            controllers: false,
        };
        let shutdown = Shutdown::new();
        let task = runtime().spawn(karez_local_runtime::run(options, shutdown.clone()));
        Ok(Self {
            shutdown,
            task: Some(task),
        })
    }
}

impl Drop for PodRuntime {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(task) = self.task.take() {
            let ended =
                runtime().block_on(async { tokio::time::timeout(Duration::from_secs(30), task).await });
            if !matches!(ended, Ok(Ok(Ok(())))) {
                eprintln!("the runtime did not end well: {ended:?}");
            }
        }
    }
}

/// Plays the cloud's load balancer: each Service that wants one gets the address.
pub(crate) struct LoadBalancer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LoadBalancer {
    /// Starts to play.
    pub(crate) fn play(cluster: Cluster, address: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // The next round tries again; a test that waits for the address says what is missing.
                let _ = assign(&cluster, address);
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

fn assign(cluster: &Cluster, address: &str) -> Outcome {
    for service in cluster.list("/api/v1/services")? {
        let waits = text(&service, "/spec/type") == "LoadBalancer"
            && service.pointer("/status/loadBalancer/ingress/0").is_none();
        if waits {
            let (namespace, name) = (
                text(&service, "/metadata/namespace"),
                text(&service, "/metadata/name"),
            );
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
            cluster.merge(
                &format!("/api/v1/namespaces/{namespace}/services/{name}/status"),
                &status,
            )?;
        }
    }
    Ok(())
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
