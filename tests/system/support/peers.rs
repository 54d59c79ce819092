//! The programs and the input that tests need from outside, and whether they are there.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::Context;

use super::stage::Need;
use super::{Outcome, namespace};

/// Whether a missing peer is a failure.
pub(crate) fn required() -> bool {
    env::var("KAREZ_REQUIRE_PEERS").is_ok_and(|value| value == "1")
}

/// Why a need is not met; nothing if it is.
pub(crate) fn missing(need: Need) -> Option<String> {
    match need {
        Need::Acceptance => {
            let folder = acceptance("");
            (!folder.join("skupper-example").is_dir()).then(|| {
                format!(
                    "no acceptance input at {}; set KAREZ_ACCEPTANCE to its folder",
                    folder.display()
                )
            })
        }
        Need::Peer(name) => locate(name)
            .is_none()
            .then(|| format!("the peer {name} is not built; run tests/peers/build {name}")),
        Need::Program(name) => (!is_installed(name))
            .then(|| format!("the program {name} is not installed; .ci/packages installs it")),
        Need::Namespaces => namespace::missing(),
    }
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in a folder of the workspace")
}

/// A folder of the acceptance input.
pub(crate) fn acceptance(relative: &str) -> PathBuf {
    env::var_os("KAREZ_ACCEPTANCE")
        .map_or_else(
            || workspace().join("../shared/acceptance"),
            |folder| workspace().join(folder),
        )
        .join(relative)
}

/// The folder of a built peer.
pub(crate) fn locate(name: &str) -> Option<PathBuf> {
    static KNOWN: Mutex<Vec<(String, Option<PathBuf>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().ok()?;
    if let Some((_, folder)) = known.iter().find(|(known, _)| known == name) {
        return folder.clone();
    }
    let output = Command::new(workspace().join("tests/peers/build"))
        .args(["--locate", name])
        .output()
        .ok()?;
    let folder = output
        .status
        .success()
        .then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    known.push((name.to_owned(), folder.clone()));
    folder
}

/// A real sender: `jaeger-compact`, `otlp-grpc` or `otlp-http`. Gives the ids of the traces sent, of two spans each.
pub(crate) fn send(protocol: &str, to: SocketAddr, service: &str, traces: usize) -> Outcome<Vec<String>> {
    let python = locate("python")
        .context("the peer python is not built")?
        .join("bin/python");
    let output = Command::new(python)
        .arg(workspace().join("tests/peers/python/send.py"))
        .args([
            protocol,
            &to.ip().to_string(),
            &to.port().to_string(),
            service,
            &traces.to_string(),
        ])
        .output()?;
    let ids: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    anyhow::ensure!(
        output.status.success() && ids.len() == traces,
        "send.py {protocol} to {to}: {}, {} of {traces} traces sent: {}",
        output.status,
        ids.len(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(ids)
}
