//! A cluster's API, local or real, as JSON objects over blocking calls.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use anyhow::Context;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Outcome;
use super::peers;
use super::wait::wait_for;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // Ignored when another crate of this process was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be had")
});

/// The runtime under the blocking calls.
pub(crate) fn runtime() -> &'static Runtime {
    &RUNTIME
}

/// A cluster through one kubeconfig.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: kube::Client,
    pub(crate) kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster of a kubeconfig's current context.
    pub(crate) fn open(kubeconfig: &Path) -> Outcome<Self> {
        let client = RUNTIME.block_on(async {
            let read = Kubeconfig::read_from(kubeconfig)?;
            let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
            anyhow::Ok(kube::Client::try_from(config)?)
        });
        Ok(Self {
            client: client.with_context(|| format!("{}", kubeconfig.display()))?,
            kubeconfig: kubeconfig.to_owned(),
        })
    }

    /// The client, for parts of Karez that run inside a test.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    fn request(&self, method: &str, path: &str, content: &str, body: Vec<u8>) -> Outcome<Result<Value, u16>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .body(body)?;
        let answer = RUNTIME.block_on(async {
            tokio::time::timeout(
                std::time::Duration::from_secs(20),
                self.client.request::<Value>(request),
            )
            .await
        });
        match answer.with_context(|| format!("{method} {path}: no answer in 20 s"))? {
            Ok(value) => Ok(Ok(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Err(404)),
            Err(error) => Err(error).with_context(|| format!("{method} {path}")),
        }
    }

    /// An object by its API path; nothing if there is none.
    pub(crate) fn get(&self, path: &str) -> Outcome<Option<Value>> {
        Ok(self.request("GET", path, "application/json", Vec::new())?.ok())
    }

    /// The objects of a collection.
    pub(crate) fn list(&self, path: &str) -> Outcome<Vec<Value>> {
        let list = self.get(path)?.with_context(|| format!("{path} is not served"))?;
        Ok(list
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default())
    }

    /// Creates an object in a collection.
    pub(crate) fn create(&self, path: &str, object: &Value) -> Outcome<Value> {
        let answer = self.request("POST", path, "application/json", serde_json::to_vec(object)?)?;
        answer.map_err(|status| anyhow::anyhow!("POST {path}: {status}"))
    }

    /// Changes an object by a merge patch.
    pub(crate) fn merge(&self, path: &str, patch: &Value) -> Outcome<Value> {
        let answer = self.request(
            "PATCH",
            path,
            "application/merge-patch+json",
            serde_json::to_vec(patch)?,
        )?;
        answer.map_err(|status| anyhow::anyhow!("PATCH {path}: {status}"))
    }

    /// Deletes an object; it is no error if there is none.
    pub(crate) fn delete(&self, path: &str) -> Outcome {
        self.request("DELETE", path, "application/json", Vec::new())
            .map(|_| ())
    }

    /// Waits for an object.
    pub(crate) fn wait(&self, path: &str, seconds: u64) -> Outcome<Value> {
        wait_for(path, seconds, || {
            Ok(self
                .get(path)?
                .ok_or_else(|| "there is no such object".to_owned()))
        })
    }

    /// Waits for the end of an object.
    pub(crate) fn wait_gone(&self, path: &str, seconds: u64) -> Outcome {
        wait_for(format_args!("the end of {path}"), seconds, || {
            Ok(self
                .get(path)?
                .map_or(Ok(()), |object| Err(format!("it is there: {object}"))))
        })
    }

    /// Where a ready Pod of a Service serves a port (by number or name), as EndpointSlices tell.
    pub(crate) fn endpoint(
        &self,
        namespace: &str,
        service: &str,
        port: &str,
    ) -> Outcome<Result<SocketAddr, String>> {
        let object = self.get(&format!("/api/v1/namespaces/{namespace}/services/{service}"))?;
        let Some(object) = object else {
            return Ok(Err(format!("there is no Service {service}")));
        };
        let ports = object
            .pointer("/spec/ports")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let Some(wanted) = ports
            .iter()
            .find(|each| text(each, "/name") == port || each["port"].as_u64() == port.parse().ok())
        else {
            return Ok(Err(format!("Service {service} has no port {port}: {ports:?}")));
        };
        let slices = self.list(&format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name={service}"
        ))?;
        for slice in &slices {
            let of_slice = slice["ports"].as_array().cloned().unwrap_or_default();
            let number = of_slice
                .iter()
                .find(|each| text(each, "/name") == text(wanted, "/name"))
                .and_then(|each| each["port"].as_u64());
            let ready = slice["endpoints"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|each| each.pointer("/conditions/ready") == Some(&json!(true)));
            if let (Some(number), Some(address)) = (
                number,
                ready.and_then(|each| each.pointer("/addresses/0")?.as_str()),
            ) {
                return Ok(Ok(format!("{address}:{number}").parse()?));
            }
        }
        Ok(Err(format!(
            "Service {service} has no ready endpoint for port {port}: {slices:?}"
        )))
    }

    /// Waits for a ready Pod behind a Service's port.
    pub(crate) fn wait_endpoint(
        &self,
        namespace: &str,
        service: &str,
        port: &str,
        seconds: u64,
    ) -> Outcome<SocketAddr> {
        wait_for(format_args!("{service}:{port} in {namespace}"), seconds, || {
            self.endpoint(namespace, service, port)
        })
    }

    /// Waits for a ready Pod with a label and gives it.
    pub(crate) fn wait_pod(&self, namespace: &str, selector: &str, seconds: u64) -> Outcome<Value> {
        wait_for(
            format_args!("a ready Pod {selector} in {namespace}"),
            seconds,
            || {
                let pods = self.list(&format!(
                    "/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
                ))?;
                let ready = pods.iter().find(|pod| {
                    condition(pod, "Ready") && pod.pointer("/metadata/deletionTimestamp").is_none()
                });
                Ok(ready.cloned().ok_or_else(|| {
                    let states: Vec<_> = pods.iter().map(|pod| &pod["status"]).collect();
                    format!("{} Pods: {states:?}", pods.len())
                }))
            },
        )
    }

    /// What all containers of all Pods with a label wrote.
    pub(crate) fn logs(&self, namespace: &str, selector: &str) -> Outcome<String> {
        let mut all = String::new();
        for pod in self.list(&format!(
            "/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
        ))? {
            for container in pod
                .pointer("/spec/containers")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let path = format!(
                    "/api/v1/namespaces/{namespace}/pods/{}/log?container={}",
                    text(&pod, "/metadata/name"),
                    text(container, "/name")
                );
                let request = Request::get(path).body(Vec::new())?;
                if let Ok(log) = RUNTIME.block_on(self.client.request_text(request)) {
                    all.push_str(&log);
                }
            }
        }
        Ok(all)
    }

    /// Runs kubectl on this cluster with only its kubeconfig; output whatever its status.
    pub(crate) fn kubectl_output(&self, arguments: &[&str], input: &str) -> Outcome<Output> {
        let program = peers::locate("kubectl")
            .context("the peer kubectl is not built")?
            .join("kubectl");
        let home = self
            .kubeconfig
            .parent()
            .context("a kubeconfig lies in a folder")?
            .join("kubectl-home");
        let mut child = Command::new("timeout")
            .args(["--kill-after=5", "60"])
            .arg(program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that ends without reading closes the pipe: no error of ours.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child.wait_with_output()?)
    }

    /// Runs kubectl, which must succeed; what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Outcome<String> {
        let output = self.kubectl_output(arguments, input)?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        anyhow::ensure!(
            output.status.success(),
            "kubectl {}: {}\n{out}{err}",
            arguments.join(" "),
            output.status
        );
        Ok(out.into_owned())
    }
}

/// A text in an object, empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether a condition of an object is true.
pub(crate) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|each| text(each, "/type") == kind && text(each, "/status") == "True")
}
