//! The allocator's own figures, under the names that the original has.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use karez_allocation::{Allocation, Outcome, Standing};

use crate::shared::Served;

/// Bounds of histograms, in seconds.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Where a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    ConfigMap,
    PrometheusResources,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::ConfigMap => "EventSourceConfigMap",
            Event::PrometheusResources => "EventSourcePrometheusCR",
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {bucket}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", self.count);
    }
}

#[derive(Debug, Default)]
struct Figures {
    answered: BTreeMap<&'static str, Histogram>,
    changed: BTreeMap<&'static str, Histogram>,
    events: BTreeMap<Event, u64>,
    discovered: usize,
    moved: u64,
    relabelled: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Figures>);

impl Metrics {
    fn with(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn answered(&self, route: &'static str, took: Duration) {
        self.with(|figures| {
            figures
                .answered
                .entry(route)
                .or_default()
                .observe(took.as_secs_f64())
        });
    }

    pub(crate) fn changed(&self, what: &'static str, took: Duration, outcome: &Outcome) {
        self.with(|figures| {
            figures
                .changed
                .entry(what)
                .or_default()
                .observe(took.as_secs_f64());
            figures.moved += outcome.moved as u64;
            figures.relabelled += outcome.relabelled as u64;
        });
    }

    pub(crate) fn event(&self, event: Event) {
        self.with(|figures| *figures.events.entry(event).or_default() += 1);
    }

    pub(crate) fn discovered(&self, collectors: usize) {
        self.with(|figures| figures.discovered = collectors);
    }

    /// Everything, as Prometheus' text.
    pub(crate) fn text(&self, allocation: &Allocation, served: &Served) -> String {
        let mut out = String::new();
        let strategy = allocation.settings().strategy;
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP opentelemetry_allocator_{name} {help}");
            let _ = writeln!(out, "# TYPE opentelemetry_allocator_{name} {kind}");
        };
        head(
            &mut out,
            "targets_per_collector",
            "gauge",
            "Targets of each collector.",
        );
        let mut allocatable = 0;
        for (name, _, standing, targets, _) in allocation.collectors() {
            allocatable += u64::from(standing == Standing::Serving);
            let name = escaped(name);
            let series =
                format!("targets_per_collector{{collector_name=\"{name}\",strategy=\"{strategy}\"}}");
            let _ = writeln!(out, "opentelemetry_allocator_{series} {targets}");
        }
        head(
            &mut out,
            "samples_per_collector",
            "gauge",
            "Samples that one scrape of all its targets gives.",
        );
        for (name, _, _, _, load) in allocation.collectors() {
            let series = format!("samples_per_collector{{collector_name=\"{}\"}}", escaped(name));
            let _ = writeln!(out, "opentelemetry_allocator_{series} {load}");
        }
        head(
            &mut out,
            "targets",
            "gauge",
            "Targets of each job, after relabelling.",
        );
        for (job, targets) in allocation.jobs_with_targets() {
            let _ = writeln!(
                out,
                "opentelemetry_allocator_targets{{job_name=\"{}\"}} {targets}",
                escaped(job)
            );
        }
        let figures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gauges = [
            (
                "collectors_discovered",
                "Collectors that are there.",
                figures.discovered as u64,
            ),
            (
                "targets_remaining",
                "Targets that relabelling keeps.",
                allocation.targets() as u64,
            ),
            (
                "targets_unassigned",
                "Targets that nobody takes.",
                allocation.unassigned() as u64,
            ),
            (
                "targets_in_transit",
                "Targets whose new owner does not have them yet.",
                allocation.in_transit() as u64,
            ),
            (
                "jobs_withheld",
                "Jobs that plain HTTP does not give.",
                served.withheld.len() as u64,
            ),
            (
                "resources_refused",
                "Resources that are wrong.",
                served.refused.len() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "opentelemetry_allocator_{name} {value}");
        }
        head(
            &mut out,
            "collectors_allocatable",
            "gauge",
            "Collectors that get targets.",
        );
        let _ = writeln!(
            out,
            "opentelemetry_allocator_collectors_allocatable{{strategy=\"{strategy}\"}} {allocatable}"
        );
        for (name, help, value) in [
            (
                "targets_moved_total",
                "Targets that changed hands.",
                figures.moved,
            ),
            (
                "targets_relabelled_total",
                "Targets that were relabelled to see what they are.",
                figures.relabelled,
            ),
        ] {
            head(&mut out, name, "counter", help);
            let _ = writeln!(out, "opentelemetry_allocator_{name} {value}");
        }
        head(
            &mut out,
            "events_total",
            "counter",
            "Changes of what is configured.",
        );
        for (event, count) in &figures.events {
            let _ = writeln!(
                out,
                "opentelemetry_allocator_events_total{{source=\"{}\"}} {count}",
                event.name()
            );
        }
        head(
            &mut out,
            "time_to_allocate",
            "histogram",
            "Seconds that a change takes.",
        );
        for (what, histogram) in &figures.changed {
            let labels = format!("method=\"{what}\",strategy=\"{strategy}\"");
            histogram.write("opentelemetry_allocator_time_to_allocate", &labels, &mut out);
        }
        head(
            &mut out,
            "http_duration_seconds",
            "histogram",
            "Seconds until an answer.",
        );
        for (route, histogram) in &figures.answered {
            histogram.write(
                "opentelemetry_allocator_http_duration_seconds",
                &format!("path=\"{route}\""),
                &mut out,
            );
        }
        out
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
