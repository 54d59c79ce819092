//! Pairs of proxies: configured, started and waited for, each between the client's side and the server's.

mod haproxy;
mod karez;
mod nginx;
mod rathole;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use karez_identity::CertificateFacts;
use tokio::time::{Instant, sleep};

use crate::arena::Arena;
use crate::load;
use crate::options::{Options, Who};
use crate::pair;
use crate::process::Process;

/// The cipher suite of everybody whose suite can be chosen.
const SUITE: &str = "TLS_AES_128_GCM_SHA256";
/// A pair that carries nothing by then is not measured.
const START: Duration = Duration::from_secs(20);

/// A pair that carries; ended when dropped.
pub(crate) struct Contender {
    /// Where the client connects.
    pub(crate) entrance: SocketAddr,
    processes: Vec<Process>,
}

/// Why somebody is not measured.
pub(crate) enum Start {
    /// It runs.
    Running(Contender),
    /// It is not to be had here, and how it could be.
    Missing(String),
}

impl Contender {
    /// CPU seconds that all its proxies have used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    /// Memory of all its proxies.
    pub(crate) fn memory_kib(&self) -> f64 {
        self.processes.iter().map(Process::memory_kib).sum()
    }
}

/// Starts a pair and waits until it carries.
pub(crate) async fn start(who: Who, arena: &Arena, options: &Options) -> anyhow::Result<Start> {
    if who == Who::Bare {
        return Ok(Start::Running(Contender {
            entrance: arena.server,
            processes: Vec::new(),
        }));
    }
    let folder = tempfile::tempdir()?;
    let setting = Setting::new(folder.path(), arena)?;
    let processes = match who {
        Who::KarezQuic => karez::start(&setting, options, "quic").await?,
        Who::KarezTls => karez::start(&setting, options, "tls").await?,
        Who::Nginx => nginx::start(&setting)?,
        Who::Haproxy => haproxy::start(&setting)?,
        Who::Rathole => rathole::start(&setting)?,
        Who::Bare => Ok(Vec::new()),
    };
    let processes = match processes {
        Ok(processes) => processes,
        Err(missing) => return Ok(Start::Missing(missing)),
    };
    carries(setting.entrance)
        .await
        .with_context(|| format!("{} does not carry\n{}", who.name(), setting.logs()))?;
    Ok(Start::Running(Contender {
        entrance: setting.entrance,
        processes,
    }))
}

/// What is started, or why it is not to be had.
type Started = Result<Vec<Process>, String>;

/// Where a pair is to be, and what its ends prove themselves with.
struct Setting<'a> {
    folder: &'a Path,
    arena: &'a Arena,
    /// Where the client connects.
    entrance: SocketAddr,
    /// Where the near proxy reaches the far one.
    between: SocketAddr,
    /// Serial and fingerprint of the near proxy's certificate.
    token: CertificateFacts,
}

impl<'a> Setting<'a> {
    fn new(folder: &'a Path, arena: &'a Arena) -> anyhow::Result<Self> {
        Ok(Self {
            folder,
            arena,
            entrance: ([127, 0, 0, 1], arena.port()?).into(),
            between: (arena.far, arena.port()?).into(),
            token: pair::write_credentials(folder)?,
        })
    }

    /// A file of a side's TLS profile.
    fn pem(&self, side: &str, file: &str) -> String {
        self.folder.join(side).join(file).display().to_string()
    }

    /// Writes a configuration file.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, text)?;
        Ok(file)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// The ends of all logs, for a failure.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["near", "far"] {
            let log = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            if lines.is_empty() {
                continue;
            }
            text += &format!(
                "--- {name}\n{}\n",
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
        text
    }
}

/// Waits until a request is answered through the pair.
async fn carries(entrance: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        match load::open(entrance).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
