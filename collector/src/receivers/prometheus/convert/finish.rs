//! The end of a scrape: what has ended is said, points become metrics, metrics one batch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use karez_exposition::Kind;
use karez_scrape::config::labels::{INSTANCE, JOB};

use super::encode::{self, Point, attribute, delimited_length};
use super::{Part, Run, Scrape, Shape};
use crate::batch::{Batch, Signal};
use crate::wire::field::{put_delimited, put_varint};

/// What is said of a scrape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Whether it succeeded.
    pub up: bool,
    /// How long it took.
    pub duration: Duration,
    /// The size of the answer.
    pub body: usize,
    /// Whether its size and limits are said as well.
    pub extra: bool,
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: u64 = 2;

impl Scrape<'_> {
    /// Forgets what was heard: the scrape has failed.
    pub fn fail(&mut self) {
        self.out.clear();
        self.runs.clear();
        self.positions.clear();
        self.points = 0;
        let before = self.of.scrape.wrapping_sub(1);
        let scrape = self.of.scrape;
        // What was new was never told; what was known counts as seen before, and so as ended.
        self.of.series.retain(|known| known.born != scrape);
        for known in self.of.series.iter_mut().filter(|known| known.seen == scrape) {
            known.seen = before;
        }
        for group in self.of.groups.iter_mut().filter(|group| group.scrape == scrape) {
            group.scrape = before;
            group.tracked &= group.born != scrape;
        }
    }

    /// How many samples it has so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The batch, with what is said of the scrape.
    pub fn finish(mut self, report: &Report) -> Batch {
        self.groups();
        self.ended();
        let reported = self.report(report);
        self.batch(Some(reported))
    }

    /// The end of the target: all that there was has ended, and so has what was said of it.
    pub fn end(mut self) -> Batch {
        self.groups();
        self.ended();
        let reported = self.synthetic(&NAMES.map(|(name, ..)| (name, f64::from_bits(encode::STALE))));
        self.batch(Some(reported))
    }

    /// Points of histograms and summaries.
    fn groups(&mut self) {
        for index in 0..self.of.groups.len() {
            let group = &mut self.of.groups[index];
            if group.scrape != self.of.scrape || (group.identity == 0 && group.attributes.is_empty()) {
                continue;
            }
            let (metric, start) = (group.metric, self.out.len());
            match self.of.metrics[metric as usize].shape {
                Shape::Histogram | Shape::GaugeHistogram => encode::histogram(&mut self.out, group),
                Shape::Summary => encode::summary(&mut self.out, group),
                // Encoded when it was heard.
                Shape::Exponential | Shape::Gauge | Shape::Sum => continue,
            }
            self.ran(metric, start);
        }
    }

    /// Says which series have ended, and forgets them.
    fn ended(&mut self) {
        let scrape = self.of.scrape;
        let mut gone: Vec<(u32, Arc<[u8]>)> = Vec::new();
        self.of.series.retain(|known| {
            if known.seen == scrape {
                return true;
            }
            if let Part::Number { attributes, .. } = &known.part
                && known.tracked
            {
                gone.push((known.metric, attributes.clone()));
            }
            false
        });
        self.of.series.order();
        // One run a metric.
        gone.sort_by_key(|(metric, _)| *metric);
        for (metric, attributes) in gone {
            let start = self.out.len();
            encode::ended(&mut self.out, self.now, &attributes, 8);
            self.ran(metric, start);
        }
        for index in 0..self.of.groups.len() {
            let group = &mut self.of.groups[index];
            if group.scrape == scrape || (group.identity == 0 && group.attributes.is_empty()) {
                continue;
            }
            let group = std::mem::take(group);
            self.of.group_index.remove(&(group.metric, group.identity));
            self.of.free_groups.push(index as u32);
            let flags = match self.of.metrics[group.metric as usize].shape {
                Shape::Summary => 8,
                _ => 10,
            };
            if group.tracked {
                let start = self.out.len();
                encode::ended(&mut self.out, self.now, &group.attributes, flags);
                self.ran(group.metric, start);
            }
        }
    }

    /// `up` and its like, as metrics.
    fn report(&mut self, report: &Report) -> Vec<u8> {
        let mut values = vec![
            ("up", f64::from(u8::from(report.up))),
            ("scrape_duration_seconds", report.duration.as_secs_f64()),
            ("scrape_samples_scraped", self.samples as f64),
            ("scrape_samples_post_metric_relabeling", self.kept as f64),
            (
                "scrape_series_added",
                if report.up { self.added as f64 } else { 0.0 },
            ),
        ];
        if report.extra {
            values.push(("scrape_timeout_seconds", self.of.target.timeout().as_secs_f64()));
            values.push(("scrape_sample_limit", self.of.config.limits.samples as f64));
            values.push(("scrape_body_size_bytes", report.body as f64));
        }
        self.synthetic(&values)
    }

    fn synthetic(&mut self, values: &[(&str, f64)]) -> Vec<u8> {
        let mut attributes = Vec::new();
        for (name, value) in self
            .of
            .target
            .series_labels()
            .filter(|(n, _)| !matches!(*n, JOB | INSTANCE))
        {
            attribute(&mut attributes, 7, name, value);
        }
        let mut out = Vec::new();
        for (name, value) in values {
            let mut points = Vec::new();
            let point = Point {
                created: None,
                time: self.now,
                value: *value,
                attributes: &attributes,
                exemplars: &[],
            };
            encode::number(&mut points, &point, false);
            let said = NAMES.iter().find(|(known, ..)| known == name);
            let (help, unit) = said.map_or(("", ""), |(_, help, unit)| (*help, *unit));
            put_metric(&mut out, name, help, unit, Kind::Gauge, Shape::Gauge, &[&points]);
            self.points += 1;
        }
        out
    }

    fn batch(mut self, reported: Option<Vec<u8>>) -> Batch {
        let metrics = &self.of.metrics;
        self.runs
            .sort_by_key(|run| (metrics[run.metric as usize].place, run.metric));
        let mut by_place: Vec<Vec<u8>> = vec![Vec::new(); self.of.places.len()];
        // Most belongs to the target's own place: the points, and for each metric what it is called.
        by_place[0].reserve(self.out.len() + self.out.len() / 8 + 4096);
        self.of.size = self.out.len();
        for runs in self.runs.chunk_by(|a, b| a.metric == b.metric) {
            let metric = &metrics[runs[0].metric as usize];
            let points: Vec<&[u8]> = runs
                .iter()
                .map(|Run { start, end, .. }| &self.out[*start..*end])
                .collect();
            let family = self.of.families.get(&metric.family);
            let (help, unit) = family.map_or(("", ""), |family| (family.help.as_str(), family.unit.as_str()));
            let kind = family.map_or(Kind::Unknown, |family| family.kind);
            let out = &mut by_place[metric.place as usize];
            put_metric(out, &metric.name, help, unit, kind, metric.shape, &points);
        }
        if let Some(reported) = reported {
            by_place[0].extend_from_slice(&reported);
        }
        let mut payload = Vec::with_capacity(by_place.iter().map(Vec::len).sum::<usize>() + 512);
        for (place, metrics) in self.of.places.iter().zip(&by_place) {
            if metrics.is_empty() {
                continue;
            }
            let same = |other: &&super::Place| {
                other.key.job == place.key.job
                    && other.key.instance == place.key.instance
                    && !other.information().is_empty()
            };
            let info = self
                .of
                .places
                .iter()
                .find(same)
                .map_or(&[][..], super::Place::information);
            place.put(&mut payload, info, metrics);
        }
        Batch {
            signal: Signal::Metrics,
            payload: Bytes::from(payload),
            items: self.points,
            context: None,
        }
    }
}

/// What is said of a scrape, as the Collector describes it.
const NAMES: [(&str, &str, &str); 8] = [
    ("up", "The scraping was successful", ""),
    ("scrape_duration_seconds", "Duration of the scrape", "s"),
    (
        "scrape_samples_scraped",
        "The number of samples the target exposed",
        "",
    ),
    (
        "scrape_samples_post_metric_relabeling",
        "The number of samples remaining after metric relabeling was applied",
        "",
    ),
    (
        "scrape_series_added",
        "The approximate number of new series in this scrape",
        "",
    ),
    ("scrape_timeout_seconds", "The configured scrape timeout", "s"),
    ("scrape_sample_limit", "The configured sample limit", ""),
    ("scrape_body_size_bytes", "The size of the answer, unpacked", "By"),
];

/// A `Metric` as field 2 of a `ScopeMetrics`.
fn put_metric(
    out: &mut Vec<u8>,
    name: &str,
    help: &str,
    unit: &str,
    kind: Kind,
    shape: Shape,
    points: &[&[u8]],
) {
    let length: usize = points.iter().map(|points| points.len()).sum();
    let (number, tail): (u32, &[u8]) = match shape {
        Shape::Gauge => (5, &[]),
        Shape::Sum => (7, &[2 << 3, CUMULATIVE as u8, 3 << 3, 1]),
        Shape::Histogram | Shape::GaugeHistogram => (9, &[2 << 3, CUMULATIVE as u8]),
        Shape::Exponential => (10, &[2 << 3, CUMULATIVE as u8]),
        Shape::Summary => (11, &[]),
    };
    let mut kind_of = Vec::with_capacity(48);
    attribute(&mut kind_of, 12, "prometheus.type", kind.as_str());
    let told = |text: &str| {
        if text.is_empty() {
            0
        } else {
            delimited_length(text.len())
        }
    };
    let data = length + tail.len();
    let body =
        delimited_length(name.len()) + told(help) + told(unit) + delimited_length(data) + kind_of.len();
    out.reserve(delimited_length(body));
    put_varint(out, 2 << 3 | 2);
    put_varint(out, body as u64);
    put_delimited(out, 1, name.as_bytes());
    if !help.is_empty() {
        put_delimited(out, 2, help.as_bytes());
    }
    if !unit.is_empty() {
        put_delimited(out, 3, unit.as_bytes());
    }
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, data as u64);
    points.iter().for_each(|points| out.extend_from_slice(points));
    out.extend_from_slice(tail);
    out.extend_from_slice(&kind_of);
}
