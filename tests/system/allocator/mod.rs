//! The allocator in a real cluster: what it finds, whom it gives it to while everything changes, and who scrapes it.

mod churn;
mod found;
mod holders;
mod scraped;
mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::Outcome;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::stage::{Need, Stage};

/// What runs a real API server with the controllers that make EndpointSlices.
const CLUSTER: &[Need] = &[
    Need::Peer("etcd"),
    Need::Peer("kube-apiserver"),
    Need::Peer("kube-controller-manager"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let trials = [churn::trials(), scraped::trials(), found::trials()];
    trials.into_iter().flatten().collect()
}

/// A running `karez allocator`.
struct Allocator(Daemon);

impl Allocator {
    /// Starts it with a document that names no address, for collectors in the namespace `fleet`.
    fn start(
        stage: &Stage,
        name: &str,
        at: SocketAddr,
        document: &str,
        kubeconfig: Option<&Path>,
    ) -> Outcome<Self> {
        write_document(stage, at, document)?;
        let file = stage.path("allocator.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
        command.args(["allocator", "--config-file"]).arg(file);
        command.env("OTELCOL_NAMESPACE", world::FLEET);
        if let Some(kubeconfig) = kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let daemon = Daemon::start(stage, name, &mut command)?.listens(&[at])?;
        Ok(Allocator(daemon))
    }

    fn stop(self) -> Outcome {
        self.0.stop()
    }
}

/// The allocator's document; one that runs follows it.
fn write_document(stage: &Stage, at: SocketAddr, document: &str) -> Outcome {
    let (file, beside) = (stage.path("allocator.yaml"), stage.path("allocator.yaml.new"));
    std::fs::write(&beside, format!("listen_addr: '{at}'\n{document}"))?;
    Ok(std::fs::rename(beside, file)?)
}

/// What the allocator answers.
fn ask(at: SocketAddr, path: &str) -> Outcome<Value> {
    let (status, body) = get(at, path)?;
    ensure!(status == 200, "{path}: {status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

/// A name as it stands in a path or query.
fn escaped(name: &str) -> String {
    name.bytes()
        .map(
            |byte| match byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            },
        )
        .collect()
}
