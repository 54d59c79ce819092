//! What dividing many targets costs: from a change of the files to the new assignment, at rest, and by endpoint.
//!
//! ```text
//!  files of targets, or a Kubernetes API ─┐
//!  a file of collectors ──────────────────┴▶ karez allocator (a process) ◀─ HTTP ─ this process
//! ```
//!
//! `cargo bench -p karez --bench allocator`; `docs/benchmarks.md` says more.

mod kubernetes;
#[path = "../process.rs"]
#[expect(dead_code, reason = "shared with the benchmark of routers")]
mod process;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use process::Process;

/// Divides many targets.
#[derive(Debug, Parser)]
#[command(name = "allocator")]
struct Options {
    /// How many targets, one run each.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    targets: Vec<usize>,
    /// Among how many collectors.
    #[arg(long, default_value_t = 50)]
    collectors: usize,
    /// By which strategies.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "consistent-hashing,least-weighted,per-node,weighted"
    )]
    strategies: Vec<String>,
    /// Found in what: `file`, `pod` or `endpointslice` (the last two from a Kubernetes API of this process).
    #[arg(long, value_delimiter = ',', default_value = "file")]
    from: Vec<FoundIn>,
    /// Seconds at rest.
    #[arg(long, default_value_t = 5)]
    rest: u64,
    /// The karez binary.
    #[arg(long, env = "KAREZ_BIN", default_value = env!("CARGO_BIN_EXE_karez"))]
    karez: String,
    /// What `cargo bench` hands to every target.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What targets are found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FoundIn {
    /// Files.
    File,
    /// A cluster's Pods.
    Pod,
    /// A cluster's EndpointSlices, with their Pods and Services.
    #[value(name = "endpointslice")]
    EndpointSlice,
}

/// Where the targets are, and how there come to be more.
enum Found {
    Files,
    Cluster(kubernetes::Api, &'static str),
}

impl Found {
    fn start(from: FoundIn, folder: &Path, targets: usize) -> anyhow::Result<Self> {
        let role = match from {
            FoundIn::File => {
                let each = targets / FILES;
                for file in 0..FILES {
                    write_targets(folder, file, file * each, each)?;
                }
                return Ok(Found::Files);
            }
            FoundIn::Pod => "pod",
            FoundIn::EndpointSlice => "endpointslice",
        };
        let api = kubernetes::Api::start(targets)?;
        fs::write(folder.join("kubeconfig"), api.kubeconfig())?;
        Ok(Found::Cluster(api, role))
    }

    /// As the document has it.
    fn document(&self, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            Found::Files => format!("file_sd_configs: [{{files: ['{folder}/*.json']}}]"),
            Found::Cluster(_, role) => {
                format!("kubernetes_sd_configs: [{{role: {role}, kubeconfig_file: '{folder}/kubeconfig'}}]")
            }
        }
    }

    fn add(&self, folder: &Path, all: usize, more: usize) -> anyhow::Result<()> {
        match self {
            Found::Files => append_targets(folder, 0, all / FILES, all, more),
            Found::Cluster(api, _) => {
                api.add(more);
                Ok(())
            }
        }
    }
}

/// Files that the targets are in.
const FILES: usize = 20;
/// Targets of a group.
const GROUP: usize = 50;
/// For anything to happen.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    println!(
        "| found in | strategy | targets | first s | CPU s | CPU s of the API's stand-in | MiB | +1 % s | +1 % CPU s | at rest % | list | list ms | /jobs ms | /scrape_configs ms | spread | one leaves s | moved % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for from in &options.from {
        for targets in &options.targets {
            for strategy in &options.strategies {
                measure(&options, *from, strategy, *targets)?;
            }
        }
    }
    Ok(())
}

fn measure(options: &Options, from: FoundIn, strategy: &str, targets: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let found = Found::start(from, folder.path(), targets)?;
    write_collectors(folder.path(), options.collectors)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = document(folder.path(), strategy, port, &found);
    fs::write(folder.path().join("allocator.yaml"), config)?;
    let mut command = Command::new(&options.karez);
    command
        .arg("allocator")
        .arg("--config-file")
        .arg(folder.path().join("allocator.yaml"));
    let own = || process::cpu_seconds(std::process::id());
    let (begun, own_before) = (Instant::now(), own());
    let process = Process::start(command, &folder.path().join("log"))?;
    let all = targets / FILES * FILES;
    until(&process, port, |figures| {
        figures.targets == all && figures.unassigned == 0 && figures.collectors == options.collectors
    })?;
    let (first, cpu, memory) = (
        begun.elapsed(),
        process.cpu_seconds(),
        process.memory_kib() / 1024.0,
    );
    let own = own() - own_before;

    let (before, more) = (process.cpu_seconds(), all.div_ceil(100));
    // What is seen is seen within a second of the writing: the looking itself is not what is measured, and is told.
    let begun = Instant::now();
    found.add(folder.path(), all, more)?;
    until(&process, port, |figures| figures.targets == all + more)?;
    let (changed, changed_cpu) = (begun.elapsed(), process.cpu_seconds() - before);

    let before = process.cpu_seconds();
    std::thread::sleep(Duration::from_secs(options.rest));
    let rest = (process.cpu_seconds() - before) / options.rest as f64 * 100.0;

    let (list, length) = median(port, "/jobs/bench/targets?collector_id=collector-7")?;
    let (jobs, _) = median(port, "/jobs")?;
    let (configs, _) = median(port, "/scrape_configs")?;
    let figures = figures(port)?;
    let counted = length
        .windows(11)
        .filter(|window| *window == b"{\"targets\":")
        .count();

    let moved = figures.moved;
    let begun = Instant::now();
    write_collectors(folder.path(), options.collectors - 1)?;
    until(&process, port, |figures| {
        figures.collectors == options.collectors - 1 && figures.moved > moved
    })?;
    let left = begun.elapsed();
    let moved = self::figures(port)?.moved - moved;
    println!(
        "| {from:?} | {strategy} | {targets} | {:.2} | {cpu:.2} | {own:.2} | {memory:.0} | {:.2} | {changed_cpu:.2} | {rest:.1} | {counted} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} |",
        first.as_secs_f64(),
        changed.as_secs_f64(),
        milliseconds(list),
        milliseconds(jobs),
        milliseconds(configs),
        figures.spread,
        left.as_secs_f64(),
        moved as f64 / figures.targets as f64 * 100.0,
    );
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn document(folder: &Path, strategy: &str, port: u16, found: &Found) -> String {
    let found = found.document(folder);
    let folder = folder.display();
    format!(
        "listen_addr: 127.0.0.1:{port}
allocation_strategy: {strategy}
allocation_fallback_strategy: least-weighted
karez: {{collectors_file: {folder}/collectors.yaml}}
config:
  scrape_configs:
  - job_name: bench
    {found}
    relabel_configs:
    - {{source_labels: [__meta_kubernetes_pod_phase], regex: (Failed|Succeeded), action: drop}}
    - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
    - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
    - {{regex: __meta_kubernetes_pod_label_(.+), action: labelmap}}
"
    )
}

fn write_collectors(folder: &Path, count: usize) -> anyhow::Result<()> {
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "- {{name: collector-{number}, node: node-{number}}}")?;
    }
    replace(&folder.join("collectors.yaml"), text.as_bytes())
}

/// A file is another at once: it is written beside and put in its place.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    Ok(fs::rename(&beside, path)?)
}

fn targets_text(from: usize, count: usize) -> String {
    let mut text = String::from("[");
    for start in (from..from + count).step_by(GROUP) {
        let comma = if start == from { "" } else { "," };
        let group = start / GROUP;
        let node = group % 50;
        let _ = write!(text, "{comma}{{\"targets\":[");
        for number in start..(start + GROUP).min(from + count) {
            let comma = if number == start { "" } else { "," };
            let _ = write!(
                text,
                "{comma}\"10.{}.{}.{}:9100\"",
                number >> 16,
                number >> 8 & 255,
                number & 255
            );
        }
        let _ = write!(
            text,
            "],\"labels\":{{\"__meta_kubernetes_namespace\":\"shop-{}\",\"__meta_kubernetes_pod_name\":\"web-{group}\",\
             \"__meta_kubernetes_pod_node_name\":\"node-{node}\",\"__meta_kubernetes_pod_phase\":\"Running\",\
             \"__meta_kubernetes_pod_label_app\":\"web\",\"__meta_kubernetes_pod_label_team\":\"team-{}\",\
             \"__meta_kubernetes_pod_uid\":\"9f3c1f36-7f6a-4c1e-8f7b-{group:012}\",\"env\":\"prod\"}}}}",
            group % 97,
            group % 13,
        );
    }
    text.push(']');
    text
}

fn write_targets(folder: &Path, file: usize, from: usize, count: usize) -> anyhow::Result<()> {
    replace(
        &folder.join(format!("targets-{file}.json")),
        targets_text(from, count).as_bytes(),
    )
}

/// The file has the targets that it had, and others behind them.
fn append_targets(folder: &Path, file: usize, had: usize, from: usize, more: usize) -> anyhow::Result<()> {
    let (first, second) = (targets_text(file * had, had), targets_text(from, more));
    let text = format!(
        "{},{}",
        first.trim_end_matches(']'),
        second.trim_start_matches('[')
    );
    replace(&folder.join(format!("targets-{file}.json")), text.as_bytes())
}

/// What the allocator tells of itself.
#[derive(Debug, Default)]
struct Figures {
    targets: usize,
    unassigned: usize,
    collectors: usize,
    moved: u64,
    spread: f64,
}

fn figures(port: u16) -> anyhow::Result<Figures> {
    let (_, body) = get(port, "/metrics")?;
    let text = String::from_utf8(body)?;
    let mut figures = Figures::default();
    let mut each: Vec<f64> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let value: f64 = value.parse()?;
        let name = name.trim_start_matches("opentelemetry_allocator_");
        match name.split('{').next().unwrap_or_default() {
            "targets_remaining" => figures.targets = value as usize,
            "targets_unassigned" => figures.unassigned = value as usize,
            "targets_moved_total" => figures.moved = value as u64,
            "targets_per_collector" => each.push(value),
            _ => {}
        }
    }
    figures.collectors = each.len();
    let mean = each.iter().sum::<f64>() / each.len().max(1) as f64;
    figures.spread = each.iter().copied().fold(0.0, f64::max) / mean.max(1.0);
    Ok(figures)
}

fn until(process: &Process, port: u16, holds: impl Fn(&Figures) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut last = None;
    while Instant::now() < deadline {
        if let Ok(figures) = figures(port) {
            if holds(&figures) {
                return Ok(());
            }
            last = Some(figures);
        }
        process.runs()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("not within {DEADLINE:?}: {last:?}")
}

/// The median of some answers, and one of them.
fn median(port: u16, path: &str) -> anyhow::Result<(Duration, Vec<u8>)> {
    let mut times = Vec::new();
    let mut last = Vec::new();
    for _ in 0..11 {
        let (took, body) = get(port, path)?;
        times.push(took);
        last = body;
    }
    times.sort_unstable();
    Ok((times[times.len() / 2], last))
}

fn get(port: u16, path: &str) -> anyhow::Result<(Duration, Vec<u8>)> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let took = begun.elapsed();
    let head = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no head")?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{path}: {}",
        String::from_utf8_lossy(&answer[..head])
    );
    Ok((took, answer.split_off(head + 4)))
}
