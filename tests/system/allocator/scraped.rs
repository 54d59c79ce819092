//! Real collectors, ours and others', scrape a real exporter through the allocator: each target's series come from one of
//! them alone, and go on when a target changes hands.
//!
//! ```text
//! node exporter (on several ports) ◀─ scrapes ─ karez collector ×2, OpenTelemetry Collector ×2 ─ OTLP ─▶ backend
//!                                                   └──── lists ──── karez allocator ◀─ files: targets, collectors
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use libtest_mimic::Trial;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

use super::{Allocator, ask};
use crate::support::Outcome;
use crate::support::backend::Backend;
use crate::support::daemon::{Daemon, free};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Peer("otelcol"), Need::Program("prometheus-node-exporter")];
    vec![trial(
        "allocator::real_collectors_scrape_each_target_once_and_hand_over_without_a_gap",
        NEEDS,
        scrape_once,
    )]
}

const TARGETS: usize = 24;
const JOB: &str = "nodes";
/// Nanoseconds in which nobody but one collector may have scraped a target: two scrapes and a half.
const WINDOW: u64 = 5_000_000_000;
/// Longer than this (nanoseconds) nobody's view of a series bridges; the measured time is printed.
const GAP: u64 = 60_000_000_000;

/// The collectors, and whether each is ours.
const COLLECTORS: [(&str, bool); 4] = [
    ("ours-0", true),
    ("theirs-0", false),
    ("ours-1", true),
    ("theirs-1", false),
];

fn document(collector: &str, allocator: SocketAddr, backend: &Backend) -> String {
    format!(
        "receivers:
  prometheus:
    target_allocator:
      endpoint: 'http://{allocator}'
      interval: 2s
      collector_id: {collector}
      http_sd_config: {{refresh_interval: 2s, url: 'http://{allocator}'}}
exporters:
  otlphttp: {{endpoint: 'http://{}/{collector}', compression: none}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{metrics: {{receivers: [prometheus], exporters: [otlphttp]}}}}
",
        backend.address()
    )
}

/// A value of a series of a target.
struct Point {
    /// Nanoseconds since 1970.
    at: u64,
    series: String,
    /// It says that there is no value any more.
    stale: bool,
}

/// What came from each collector, by target.
struct Come(BTreeMap<&'static str, BTreeMap<String, Vec<Point>>>);

impl Come {
    fn read(backend: &Backend) -> Outcome<Self> {
        let mut all = BTreeMap::new();
        for (collector, _) in COLLECTORS {
            let mut targets: BTreeMap<String, Vec<Point>> = BTreeMap::new();
            for body in backend.came(&format!("/{collector}/v1/metrics")) {
                for one in ExportMetricsServiceRequest::decode(body)?.resource_metrics {
                    targets.entry(instance(&one)).or_default().extend(points(&one));
                }
            }
            all.insert(collector, targets);
        }
        Ok(Come(all))
    }

    /// Who scraped each target in a time.
    fn scraped(&self, from: u64) -> BTreeMap<&str, BTreeSet<&'static str>> {
        let mut all: BTreeMap<&str, BTreeSet<&'static str>> = BTreeMap::new();
        for (collector, targets) in &self.0 {
            for (target, points) in targets {
                if points.iter().any(|point| point.at >= from && !point.stale) {
                    all.entry(target).or_default().insert(collector);
                }
            }
        }
        all
    }

    /// Markers of staleness that our collectors sent.
    fn stale(&self) -> usize {
        let ours = COLLECTORS.into_iter().filter(|(_, ours)| *ours);
        let targets = ours.flat_map(|(collector, _)| self.0[collector].values().flatten());
        targets.filter(|point| point.stale).count()
    }

    /// The longest time between two scrapes of a target, whoever scraped.
    fn longest_gap(&self) -> u64 {
        let mut times: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (target, points) in self.0.values().flatten() {
            let ups = points.iter().filter(|point| point.series == "up" && !point.stale);
            times.entry(target).or_default().extend(ups.map(|point| point.at));
        }
        let gaps = times.values_mut().flat_map(|times| {
            times.sort_unstable();
            times.windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>()
        });
        gaps.max().unwrap_or(0)
    }

    /// The series of a target that a collector sent in a time.
    fn series(&self, collector: &str, target: &str, from: u64) -> BTreeSet<&str> {
        let points = self.0[collector].get(target).into_iter().flatten();
        let of_then = points.filter(|point| point.at >= from && !point.stale);
        of_then.map(|point| point.series.as_str()).collect()
    }
}

fn instance(one: &ResourceMetrics) -> String {
    let attributes = one.resource.iter().flat_map(|resource| &resource.attributes);
    let mut named = attributes.filter(|attribute| attribute.key == "service.instance.id");
    match named.next().and_then(|named| named.value.clone()?.value) {
        Some(Any::StringValue(text)) => text,
        _ => String::new(),
    }
}

fn points(one: &ResourceMetrics) -> Vec<Point> {
    let mut points = Vec::new();
    for metric in one.scope_metrics.iter().flat_map(|scoped| &scoped.metrics) {
        let data = match &metric.data {
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            Some(Data::Sum(sum)) => &sum.data_points,
            _ => continue,
        };
        points.extend(data.iter().map(|point| Point {
            at: point.time_unix_nano,
            series: metric.name.clone(),
            stale: point.flags & 1 == 1,
        }));
    }
    points
}

fn now() -> Outcome<u64> {
    Ok(u64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
    )?)
}

fn write(stage: &Stage, file: &str, text: &str) -> Outcome {
    std::fs::write(stage.path("new"), text)?;
    Ok(std::fs::rename(stage.path("new"), stage.path(file))?)
}

/// Who should scrape what, by the allocator; none has two.
fn assigned(at: SocketAddr) -> Outcome<BTreeMap<String, BTreeSet<String>>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let answer = ask(at, &format!("/jobs/{JOB}/targets"))?;
    for (collector, has) in answer.as_object().into_iter().flatten() {
        for target in has["targets"].as_array().into_iter().flatten() {
            let address = target["targets"][0].as_str().unwrap_or_default().to_owned();
            all.entry(address).or_default().insert(collector.clone());
        }
    }
    Ok(all)
}

/// Waits until each target is scraped by the one that should, and by nobody else for a while; who that is.
fn each_once(backend: &Backend, at: SocketAddr) -> Outcome<BTreeMap<String, &'static str>> {
    wait_for("one collector to scrape each target", 90, || {
        let come = Come::read(backend)?;
        let scraped = come.scraped(now()?.saturating_sub(WINDOW));
        let assigned = assigned(at)?;
        let wanted = |(target, by): (&&str, &BTreeSet<&'static str>)| {
            let by: BTreeSet<String> = by.iter().map(|by| (*by).to_owned()).collect();
            by.len() == 1 && assigned.get(*target) == Some(&by)
        };
        if scraped.len() != TARGETS || !scraped.iter().all(wanted) {
            return Ok(Err(format!("scraped: {scraped:?}; assigned: {assigned:?}")));
        }
        let one = |(target, by): (&str, BTreeSet<&'static str>)| {
            by.first().map(|collector| (target.to_owned(), *collector))
        };
        Ok(Ok(scraped.into_iter().filter_map(one).collect()))
    })
}

/// A node exporter on many ports, and a file with all of them.
fn exporter(stage: &Stage) -> Outcome<Daemon> {
    let targets = (0..TARGETS).map(|_| free()).collect::<Outcome<Vec<_>>>()?;
    let mut command = Command::new("prometheus-node-exporter");
    command.args([
        "--collector.disable-defaults",
        "--collector.loadavg",
        "--collector.cpu",
    ]);
    command.args(
        targets
            .iter()
            .map(|target| format!("--web.listen-address={target}")),
    );
    let list: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    write(
        stage,
        "targets.json",
        &format!("[{{\"targets\": [{}]}}]", list.join(",")),
    )?;
    Daemon::start(stage, "node-exporter", &mut command)?.listens(&targets)
}

fn scrape_once(stage: &Stage) -> Outcome {
    let backend = Backend::start()?;
    let _exporter = exporter(stage)?;
    write(stage, "collectors.yaml", "[ours-0, theirs-0]")?;
    let at = free()?;
    let document = format!(
        "karez: {{collectors_file: '{}'}}
config:
  scrape_configs:
  - job_name: {JOB}
    scrape_interval: 2s
    scrape_timeout: 2s
    file_sd_configs: [{{files: ['{}']}}]
    metric_relabel_configs: [{{source_labels: [__name__], regex: 'node_load.*|node_cpu_seconds_total', action: keep}}]
",
        stage.path("collectors.yaml").display(),
        stage.path("targets.json").display()
    );
    let allocator = Allocator::start(stage, "allocator", at, &document, None)?;
    let mut running = Vec::new();
    for (name, ours) in COLLECTORS {
        let start = if ours { Daemon::karez } else { Daemon::otelcol };
        running.push(start(stage, name, &self::document(name, at, &backend))?);
    }
    let before = each_once(&backend, at)?;
    let kinds: BTreeSet<&str> = before.values().copied().collect();
    ensure!(kinds.len() == 2, "not everybody has something: {before:?}");

    write(stage, "collectors.yaml", "[ours-0, theirs-0, ours-1, theirs-1]")?;
    wait_for("some targets to change hands", 60, || {
        let now: BTreeSet<String> = assigned(at)?.into_values().flatten().collect();
        Ok(if now.len() > 2 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        })
    })?;
    let after = each_once(&backend, at)?;
    let moved = before
        .iter()
        .filter(|(target, by)| after.get(*target) != Some(*by));
    let moved: Vec<_> = moved.collect();
    let from_ours = moved.iter().filter(|(_, by)| **by == "ours-0").count();
    ensure!(!moved.is_empty(), "nothing moved: {after:?}");
    let come = Come::read(&backend)?;
    let gap = come.longest_gap();
    eprintln!(
        "{} of {TARGETS} targets moved, {from_ours} of them from ours; the longest time between two scrapes {:.1} s",
        moved.len(),
        gap as f64 / 1e9
    );
    ensure!(
        come.stale() == 0,
        "ours sent {} markers of staleness",
        come.stale()
    );
    ensure!(gap < GAP, "nobody scraped a target for {gap} ns");
    let since = now()?.saturating_sub(WINDOW);
    for (target, by) in &after {
        let series = come.series(by, target, since);
        ensure!(
            ["up", "node_load1", "node_cpu_seconds_total"]
                .iter()
                .all(|name| series.contains(name)),
            "{by} sent of {target} only {series:?}"
        );
    }
    running.into_iter().try_for_each(Daemon::stop)?;
    allocator.stop()
}
