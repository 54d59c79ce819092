//! The allocator's own figures, under the names that the original has.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use karez_allocation::{Allocation, Outcome, Standing, StrategyKind};

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
    pub(crate) fn text(
        &self,
        allocation: &Allocation,
        served: &Served,
        leads: bool,
        lacking: &str,
    ) -> String {
        let mut page = Page::default();
        page.head(
            "rights_missing",
            "gauge",
            "Rules that roles of this ServiceAccount lack.",
        );
        let rules = lacking.lines().filter(|line| line.starts_with('-')).count();
        page.value("rights_missing", rules as u64);
        page.head("leading", "gauge", "Whether this allocator decides, not another.");
        page.value("leading", u64::from(leads));
        page.collectors(allocation);
        page.targets(allocation, served);
        let figures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        page.figures(&figures, allocation.settings().strategy);
        page.0
    }
}

/// What every family's name begins with.
const PREFIX: &str = "opentelemetry_allocator_";

/// A page of metrics that is being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {PREFIX}{name} {help}");
        let _ = writeln!(self.0, "# TYPE {PREFIX}{name} {kind}");
    }

    fn value(&mut self, name: &str, value: u64) {
        let _ = writeln!(self.0, "{PREFIX}{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
            .collect();
        let _ = writeln!(self.0, "{PREFIX}{name}{{{}}} {value}", labels.join(","));
    }

    /// What each collector has.
    fn collectors(&mut self, allocation: &Allocation) {
        let strategy = allocation.settings().strategy.to_string();
        let name = "targets_per_collector";
        self.head(name, "gauge", "Targets of each collector.");
        let mut allocatable = 0;
        for (collector, _, standing, targets, _) in allocation.collectors() {
            allocatable += u64::from(standing == Standing::Serving);
            let labels = [("collector_name", collector), ("strategy", &strategy)];
            self.labelled(name, &labels, targets);
        }
        let name = "samples_per_collector";
        self.head(name, "gauge", "Samples that one scrape of all its targets gives.");
        for (collector, _, _, _, load) in allocation.collectors() {
            self.labelled(name, &[("collector_name", collector)], load);
        }
        let name = "collectors_allocatable";
        self.head(name, "gauge", "Collectors that get targets.");
        self.labelled(name, &[("strategy", &strategy)], allocatable);
    }

    /// How the targets stand.
    fn targets(&mut self, allocation: &Allocation, served: &Served) {
        self.head("targets", "gauge", "Targets of each job, after relabelling.");
        for (job, targets) in allocation.jobs_with_targets() {
            self.labelled("targets", &[("job_name", job)], targets);
        }
        let gauges = [
            (
                "targets_remaining",
                "Targets that relabelling keeps.",
                allocation.targets(),
            ),
            (
                "targets_unassigned",
                "Targets that nobody takes.",
                allocation.unassigned(),
            ),
            (
                "targets_in_transit",
                "Targets whose new owner does not have them yet.",
                allocation.in_transit(),
            ),
            (
                "jobs_withheld",
                "Jobs that plain HTTP does not give.",
                served.withheld.len(),
            ),
            (
                "resources_refused",
                "Resources that are wrong.",
                served.refused.len(),
            ),
        ];
        for (name, help, value) in gauges {
            self.head(name, "gauge", help);
            self.value(name, value as u64);
        }
    }

    /// What has been counted since the start.
    fn figures(&mut self, figures: &Figures, strategy: StrategyKind) {
        self.head("collectors_discovered", "gauge", "Collectors that are there.");
        self.value("collectors_discovered", figures.discovered as u64);
        self.head("targets_moved_total", "counter", "Targets that changed hands.");
        self.value("targets_moved_total", figures.moved);
        let name = "targets_relabelled_total";
        self.head(
            name,
            "counter",
            "Targets that were relabelled to see what they are.",
        );
        self.value(name, figures.relabelled);
        self.head("events_total", "counter", "Changes of what is configured.");
        for (event, count) in &figures.events {
            self.labelled("events_total", &[("source", event.name())], *count);
        }
        let name = "time_to_allocate";
        self.head(name, "histogram", "Seconds that a change takes.");
        for (what, histogram) in &figures.changed {
            let labels = format!("method=\"{what}\",strategy=\"{strategy}\"");
            histogram.write(&format!("{PREFIX}{name}"), &labels, &mut self.0);
        }
        let name = "http_duration_seconds";
        self.head(name, "histogram", "Seconds until an answer.");
        for (route, histogram) in &figures.answered {
            let labels = format!("path=\"{route}\"");
            histogram.write(&format!("{PREFIX}{name}"), &labels, &mut self.0);
        }
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
