//! A collector process with its queue on a disk of its own, where one can be had.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use serde::Deserialize;

use super::clock::Clock;
use crate::support::Outcome;
use crate::support::daemon::free;
use crate::support::http::get;
use crate::support::process::signal;
use crate::support::stage::Stage;
use crate::support::wait::wait_for;

/// A line of the ledger, as `/ledger` has it.
#[derive(Debug, Deserialize)]
#[allow(dead_code)]
pub(super) struct Line {
    pub(super) pipeline: String,
    pub(super) exporter: String,
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) queued: u64,
    pub(super) refused: u64,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) balanced: bool,
}

#[derive(Deserialize)]
struct Status {
    ledger: Vec<Line>,
}

pub(super) struct Collector {
    config: PathBuf,
    log: PathBuf,
    disk: Disk,
    receiver: SocketAddr,
    metrics: SocketAddr,
    clock: Option<Clock>,
    child: Option<Child>,
}

/// The folder of the queue: a small file system of its own, or one like any other.
struct Disk {
    path: PathBuf,
    mounted: bool,
}

impl Disk {
    fn new(path: PathBuf, mib: &str) -> Outcome<Self> {
        fs::create_dir_all(&path)?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "karez-test"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let mounted = mount.is_ok_and(|status| status.success());
        if !mounted {
            println!("no file system may be mounted here: the disk does not become full in this run");
        }
        Ok(Disk { path, mounted })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
    }
}

impl Collector {
    /// Writes its configuration; nothing runs yet. `mib` is the size of its disk.
    pub(super) fn new(stage: &Stage, backend: SocketAddr, mib: &str) -> Outcome<Self> {
        let disk = Disk::new(stage.path("queue"), mib)?;
        let (receiver, metrics) = (free()?, free()?);
        let config = stage.path("collector.yaml");
        let max_bytes = mib.parse::<u64>()? * (1 << 20) * 3 / 4;
        let text = format!(
            "extensions: {{file_storage: {{directory: '{}', max_bytes: {max_bytes}}}}}
receivers: {{otlp: {{protocols: {{http: {{endpoint: '{receiver}'}}}}}}}}
processors: {{batch: {{timeout: 20ms}}}}
exporters:
  otlphttp:
    endpoint: http://{}
    compression: none
    timeout: 2s
    retry_on_failure: {{initial_interval: 50ms, max_interval: 300ms}}
    sending_queue: {{storage: file_storage, queue_size: 100000}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {}}}}}}}}}]}}}}
  pipelines: {{traces: {{receivers: [otlp], processors: [batch], exporters: [otlphttp]}}}}
",
            disk.path.display(),
            backend,
            metrics.port(),
        );
        fs::write(&config, text)?;
        Ok(Collector {
            config,
            log: stage.path("collector.log"),
            disk,
            receiver,
            metrics,
            clock: None,
            child: None,
        })
    }

    /// Has it run by a clock that can be moved; it is an hour ahead at the first start, which its log must show.
    pub(super) fn run_by(&mut self, clock: Clock) -> Outcome {
        clock.set(3600)?;
        self.clock = Some(clock);
        self.start()?;
        let log = fs::read_to_string(&self.log)?;
        let first = log.split_whitespace().next().unwrap_or_default();
        let said: jiff::Timestamp = first.parse().with_context(|| first.to_owned())?;
        let ahead = said.as_second() - jiff::Timestamp::now().as_second();
        anyhow::ensure!(ahead > 3000, "its clock is {ahead} s ahead, not an hour");
        self.move_clock(0)?;
        Ok(())
    }

    /// Moves its clock so far from the right time, if it has one of its own.
    pub(super) fn move_clock(&self, seconds: i64) -> Outcome<bool> {
        match &self.clock {
            Some(clock) => clock.set(seconds).map(|()| true),
            None => Ok(false),
        }
    }

    pub(super) fn receiver(&self) -> SocketAddr {
        self.receiver
    }

    /// Starts it and waits until it takes data.
    pub(super) fn start(&mut self) -> Outcome {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
        command
            .args(["collector", "--config"])
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(clock) = &self.clock {
            clock.of(&mut command);
        }
        let child = command.spawn().context("karez collector")?;
        let child = self.child.insert(child);
        wait_for("the collector", 30, || {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("it ended: {status}");
            }
            let open = [self.receiver, self.metrics].map(|at| TcpStream::connect(at).is_ok());
            Ok(if open == [true, true] {
                Ok(())
            } else {
                Err("its ports are closed".to_owned())
            })
        })
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Outcome {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and a clean end.
    pub(super) fn stop(mut self) -> Outcome {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        signal(child.id(), "TERM")?;
        let status = wait_for("the collector's end", 30, || {
            Ok(child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
        })?;
        anyhow::ensure!(status.success(), "the collector ended with {status}");
        Ok(())
    }

    /// What it has in memory, in MiB.
    pub(super) fn memory(&self) -> Outcome<u64> {
        let Some(child) = &self.child else { return Ok(0) };
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.unwrap_or(0) >> 10)
    }

    /// What its status endpoint says.
    pub(super) fn ledger(&self) -> Outcome<Vec<Line>> {
        let (status, body) = get(self.metrics, "/status")?;
        anyhow::ensure!(status == 200, "/status: {status}: {body}");
        let status: Status = serde_json::from_str(&body).with_context(|| body.clone())?;
        Ok(status.ledger)
    }

    fn queue(&self) -> PathBuf {
        self.disk.path.join("exporter_otlphttp")
    }

    /// Its segments, the oldest first.
    pub(super) fn segments(&self) -> Outcome<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> = files(&self.queue())?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
        paths.sort();
        Ok(paths)
    }

    /// How many segments are set aside.
    pub(super) fn quarantined(&self) -> Outcome<usize> {
        Ok(files(&self.queue().join("quarantine"))?.len())
    }

    /// Fills the disk to the last byte, if it is one of our own.
    pub(super) fn fill_disk(&self) -> Outcome<bool> {
        if !self.disk.mounted {
            return Ok(false);
        }
        let mut file = File::create(self.disk.path.join("filler"))?;
        let block = vec![0x46; 64 << 10];
        for size in [block.len(), 4096, 1] {
            while file.write_all(&block[..size]).is_ok() {}
        }
        Ok(true)
    }

    pub(super) fn empty_disk(&self) -> Outcome {
        match fs::remove_file(self.disk.path.join("filler")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
