//! A program in the background with its log, ended with its value.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

use super::Outcome;
use super::peers::locate;
use super::process::signal;
use super::stage::Stage;
use super::wait::wait_for;

/// A running program.
pub(crate) struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Starts it; what it prints goes to `NAME.log`.
    pub(crate) fn start(stage: &Stage, name: &str, command: &mut Command) -> Outcome<Self> {
        let file = File::create(stage.path(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{}", command.get_program().display()))?;
        Ok(Daemon {
            child,
            name: name.to_owned(),
        })
    }

    /// `karez collector` with this document.
    pub(crate) fn karez(stage: &Stage, name: &str, document: &str) -> Outcome<Self> {
        let file = stage.path(format!("{name}.yaml"));
        std::fs::write(&file, document)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
        Self::start(stage, name, command.args(["collector", "--config"]).arg(file))
    }

    /// The OpenTelemetry Collector with this document.
    pub(crate) fn otelcol(stage: &Stage, name: &str, document: &str) -> Outcome<Self> {
        let file = stage.path(format!("{name}.yaml"));
        std::fs::write(&file, document)?;
        let mut command = peer("otelcol")?;
        Self::start(stage, name, command.arg("--config").arg(file))
    }

    /// Waits until all these are listened on.
    pub(crate) fn listens(mut self, at: &[SocketAddr]) -> Outcome<Self> {
        let name = self.name.clone();
        wait_for(format_args!("{name} to listen"), 30, || {
            if let Some(status) = self.child.try_wait()? {
                // Says so at once and not in half a minute.
                return Ok(Ok(Err(anyhow::anyhow!("{name} ended: {status}"))));
            }
            let closed = at.iter().find(|at| TcpStream::connect(at).is_err());
            Ok(match closed {
                Some(closed) => Err(format!("{closed} is closed")),
                None => Ok(Ok(())),
            })
        })??;
        Ok(self)
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(mut self) -> Outcome {
        signal(self.child.id(), "TERM")?;
        let status = wait_for(format_args!("the end of {}", self.name), 30, || {
            Ok(self.child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
        })?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command of a peer that has one program of its own name.
pub(crate) fn peer(name: &str) -> Outcome<Command> {
    let folder = locate(name).with_context(|| format!("the peer {name} is not built"))?;
    Ok(Command::new(folder.join(name)))
}

/// Below the ports that the system gives to whoever asks for any, and those of NodePorts.
const PORTS: std::ops::Range<u16> = 22_000..30_000;

/// An address of loopback that is free, and stays so for whoever asked: each is given once, and the system gives none of them to
/// others by itself.
pub(crate) fn free() -> Outcome<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in PORTS {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    anyhow::bail!("no port of {PORTS:?} is free")
}

/// Runs a command to its end, which must be a good one; gives what it printed.
pub(crate) fn run(command: &mut Command) -> Outcome<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
