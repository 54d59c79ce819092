//! Metrics that are read when they are asked for: the ledger, and what the process takes.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::ledger::{Ledger, Line};

/// `karez_ledger_items{pipeline,signal,exporter,state,reason}`.
#[derive(Debug)]
pub(crate) struct LedgerCollector(pub(crate) Arc<Ledger>);

impl Collector for LedgerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lines = self.0.lines();
        if lines.is_empty() {
            return Ok(());
        }
        let help = "What became of the items that pipelines handed to exporters: \
                    accepted = delivered + queued + refused + dropped";
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let mut family = encoder.encode_descriptor("karez_ledger_items", help, None, kind)?;
        for line in &lines {
            let states = [
                ("accepted", line.accepted),
                ("delivered", line.delivered),
                ("queued", line.queued),
                ("refused", line.refused),
            ];
            let dropped = line
                .dropped
                .iter()
                .map(|(reason, items)| ("dropped", reason.as_str(), *items));
            for (state, reason, items) in states.into_iter().map(|(state, n)| (state, "", n)).chain(dropped) {
                let labels = labels(line, state, reason);
                let items = i64::try_from(items).unwrap_or(i64::MAX);
                ConstGauge::new(items).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn labels<'a>(line: &'a Line, state: &'a str, reason: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("pipeline", &line.pipeline),
        ("signal", &line.signal),
        ("exporter", &line.exporter),
        ("state", state),
        ("reason", reason),
    ]
}

/// `process_uptime`, `process_cpu_seconds`, `process_memory_rss` and the like.
#[derive(Debug)]
pub(crate) struct ProcessCollector(Instant);

impl Default for ProcessCollector {
    fn default() -> Self {
        ProcessCollector(Instant::now())
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let uptime = ConstCounter::new(self.0.elapsed().as_secs_f64());
        one(
            &mut encoder,
            "process_uptime",
            "Seconds since the collector started",
            &uptime,
        )?;
        if let Some(seconds) = cpu_seconds() {
            let cpu = ConstCounter::new(seconds);
            one(
                &mut encoder,
                "process_cpu_seconds",
                "Seconds of CPU that the process took",
                &cpu,
            )?;
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            (
                "process_memory_rss",
                "Bytes of memory that the process has",
                "VmRSS:",
            ),
            (
                "process_runtime_heap_alloc_bytes",
                "Bytes of memory that are no file's",
                "RssAnon:",
            ),
            (
                "process_runtime_total_sys_memory_bytes",
                "Bytes of address space for data",
                "VmData:",
            ),
        ];
        for (name, help, line) in gauges {
            let found = status.lines().find_map(|l| {
                l.strip_prefix(line)?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse::<i64>()
                    .ok()
            });
            if let Some(kib) = found {
                one(&mut encoder, name, help, &ConstGauge::new(kib * 1024))?;
            }
        }
        Ok(())
    }
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let unit: Option<&Unit> = None;
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// User and system time from `/proc/self/stat`; a tick is a hundredth of a second on Linux.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold spaces and parentheses: the fields begin after the last one.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
