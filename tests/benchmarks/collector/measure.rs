//! One contender, one scenario: start it, warm it, measure it, end it.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::load::Load;
use super::options::Options;
use super::payload;
use super::process::Process;
use super::scenario::{Addresses, Scenario, Who};
use super::sink::Sink;
use super::targets;

/// For starting, and for the last item to arrive.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at the memory.
const WATCHED: Duration = Duration::from_millis(50);
/// Requests that are sent before it counts.
const WARM: usize = 300;

/// What a measurement gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Items that arrived while it counted.
    pub(crate) items: u64,
    /// CPU seconds of the program under test meanwhile.
    pub(crate) cpu: f64,
    /// Wall seconds.
    pub(crate) seconds: f64,
    /// The most memory that it ever had, MiB.
    pub(crate) memory: f64,
    /// The most that was its own, not pages of files.
    pub(crate) own: f64,
    /// Requests that it put off.
    pub(crate) refused: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} items in {:.1} s, {:.2} CPU s ({:.2} a million), {:.0} MiB, {:.0} without files', {} refused",
            self.items,
            self.seconds,
            self.cpu,
            self.cpu / self.items as f64 * 1e6,
            self.memory,
            self.own,
            self.refused
        )
    }
}

/// Measures.
pub(crate) async fn run(
    options: &Options,
    scenario: Scenario,
    who: Who,
    program: &Path,
) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir()?;
    let queue = folder.path().join("queue");
    std::fs::create_dir(&queue)?;
    let (sink, sink_address) = Sink::start().await?;
    let at = Addresses {
        receiver: free()?,
        sink: sink_address,
        targets: targets::start(options.series).await?,
    };
    let document = folder.path().join("collector.yaml");
    std::fs::write(&document, scenario.document(options, &at, &queue))?;
    let mut command = Command::new(program);
    if who == Who::Karez {
        command.arg("collector");
    }
    command.arg("--config").arg(&document);
    let log = folder.path().join("program.log");
    let process = Process::start(command, &log)?;
    let mut own = 0.0_f64;
    let measuring = async {
        match scenario {
            Scenario::Scrape => scraped(options, &process, &sink).await,
            _ => loaded(options, scenario, &process, &at, &sink).await,
        }
    };
    let watching = async {
        loop {
            own = own.max(process.own_memory_kib() / 1024.0);
            sleep(WATCHED).await;
        }
    };
    let measured = tokio::select! {
        measured = measuring => measured,
        () = watching => unreachable!("it is watched for ever"),
    };
    measured
        .map(|figures| Figures { own, ..figures })
        .map_err(|error| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let end = log.len().saturating_sub(3000);
            error.context(log.get(end..).unwrap_or(&log).to_owned())
        })
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn loaded(
    options: &Options,
    scenario: Scenario,
    process: &Process,
    at: &Addresses,
    sink: &Sink,
) -> anyhow::Result<Figures> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(at.receiver).await.is_err() {
        ensure!(Instant::now() < deadline, "it does not start");
        sleep(Duration::from_millis(20)).await;
    }
    let load = Arc::new(Load {
        messages: payload::messages(scenario.compressed()),
        compressed: scenario.compressed(),
    });
    load.send(at.receiver, options, WARM).await?;
    arrive(sink, (WARM * payload::SPANS) as u64).await?;
    let (items, cpu, began) = (sink.items(), process.cpu_seconds(), Instant::now());
    let sent = load.send(at.receiver, options, options.requests).await?;
    arrive(sink, items + (options.requests * payload::SPANS) as u64).await?;
    Ok(Figures {
        items: sink.items() - items,
        cpu: process.cpu_seconds() - cpu,
        seconds: began.elapsed().as_secs_f64(),
        memory: process.peak_memory_kib() / 1024.0,
        own: 0.0,
        refused: sent.refused,
    })
}

async fn scraped(options: &Options, process: &Process, sink: &Sink) -> anyhow::Result<Figures> {
    // Each target once: what it takes to know all the series is not measured.
    arrive(sink, (options.targets * options.series) as u64).await?;
    let (items, cpu, began) = (sink.items(), process.cpu_seconds(), Instant::now());
    sleep(Duration::from_secs(options.interval) * options.scrapes).await;
    Ok(Figures {
        items: sink.items() - items,
        cpu: process.cpu_seconds() - cpu,
        seconds: began.elapsed().as_secs_f64(),
        memory: process.peak_memory_kib() / 1024.0,
        own: 0.0,
        refused: 0,
    })
}

/// Waits until so many items have come.
async fn arrive(sink: &Sink, items: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while sink.items() < items {
        let come = sink.items();
        ensure!(Instant::now() < deadline, "{come} of {items} items have come");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
