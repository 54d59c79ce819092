//! One series: what it has counted, and how that is written.

use karez_collector_config::connectors::Unit;
use opentelemetry_proto::tonic::common::v1::{KeyValue, KeyValueList};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, exemplar,
    number_data_point::Value,
};
use prost::Message;

use super::exponential::Exponential;

/// How durations are counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Buckets {
    /// With these upper ends, in the unit.
    Explicit(Vec<f64>),
    /// With so many that adapt.
    Exponential(u32),
}

/// Counts of durations.
#[derive(Debug, Clone, PartialEq)]
enum Counts {
    Explicit(Vec<u64>),
    Exponential(Exponential),
}

/// A series of durations.
#[derive(Debug, Clone)]
pub(super) struct Durations {
    counts: Counts,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    exemplars: Vec<Exemplar>,
}

/// A span as an example.
#[derive(Debug, Clone, Copy)]
pub(super) struct Example<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) time: u64,
    /// The most of a series.
    pub(super) most: usize,
}

impl Durations {
    pub(super) fn new(buckets: &Buckets) -> Self {
        Durations {
            counts: match buckets {
                Buckets::Explicit(bounds) => Counts::Explicit(vec![0; bounds.len() + 1]),
                Buckets::Exponential(most) => Counts::Exponential(Exponential::new(*most)),
            },
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: 0.0,
            exemplars: Vec::new(),
        }
    }

    pub(super) fn record(&mut self, value: f64, buckets: &Buckets, example: Option<Example<'_>>) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        match (&mut self.counts, buckets) {
            (Counts::Explicit(counts), Buckets::Explicit(bounds)) => {
                let index = bounds.partition_point(|bound| *bound < value);
                if let Some(count) = counts.get_mut(index) {
                    *count += 1;
                }
            }
            (Counts::Exponential(exponential), _) => exponential.record(value),
            // A series is made with its buckets, which do not change.
            (Counts::Explicit(_), Buckets::Exponential(_)) => {}
        }
        if let Some(example) = example.filter(|example| self.exemplars.len() < example.most) {
            self.exemplars.push(Exemplar {
                time_unix_nano: example.time,
                trace_id: example.trace_id.to_vec(),
                span_id: example.span_id.to_vec(),
                value: Some(exemplar::Value::AsDouble(value)),
                ..Exemplar::default()
            });
        }
    }

    /// Examples are of the time since the last point.
    pub(super) fn forget_examples(&mut self) {
        self.exemplars.clear();
    }

    pub(super) fn explicit(
        &self,
        key: &[u8],
        buckets: &Buckets,
        times: (u64, u64),
    ) -> Option<HistogramDataPoint> {
        let (Counts::Explicit(counts), Buckets::Explicit(bounds)) = (&self.counts, buckets) else {
            return None;
        };
        Some(HistogramDataPoint {
            attributes: attributes(key),
            start_time_unix_nano: times.0,
            time_unix_nano: times.1,
            count: self.count,
            sum: Some(self.sum),
            min: Some(self.min),
            max: Some(self.max),
            bucket_counts: counts.clone(),
            explicit_bounds: bounds.clone(),
            exemplars: self.exemplars.clone(),
            ..HistogramDataPoint::default()
        })
    }

    pub(super) fn exponential(&self, key: &[u8], times: (u64, u64)) -> Option<ExponentialHistogramDataPoint> {
        let Counts::Exponential(exponential) = &self.counts else {
            return None;
        };
        Some(ExponentialHistogramDataPoint {
            attributes: attributes(key),
            start_time_unix_nano: times.0,
            time_unix_nano: times.1,
            count: self.count,
            sum: Some(self.sum),
            min: Some(self.min),
            max: Some(self.max),
            scale: exponential.scale(),
            zero_count: exponential.zeros,
            positive: Some(exponential.buckets()),
            exemplars: self.exemplars.clone(),
            ..ExponentialHistogramDataPoint::default()
        })
    }
}

/// A point of a series of calls or events.
pub(super) fn point(key: &[u8], count: u64, times: (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(key),
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        value: Some(Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX))),
        ..NumberDataPoint::default()
    }
}

/// A series' attributes: its key is their encoding, made of what was scanned.
fn attributes(key: &[u8]) -> Vec<KeyValue> {
    KeyValueList::decode(key).unwrap_or_default().values
}

/// Nanoseconds in a unit.
pub(super) fn in_unit(nanoseconds: u64, unit: Unit) -> f64 {
    match unit {
        Unit::Ms => nanoseconds as f64 / 1e6,
        Unit::S => nanoseconds as f64 / 1e9,
    }
}
