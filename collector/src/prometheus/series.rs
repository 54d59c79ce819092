//! Data points as series: with the labels that the specification gives them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric,
    NumberDataPoint, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::name::{Counted, Naming};

/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`
const NO_VALUE: u32 = 1;

/// Labels, sorted by name.
pub type Labels = BTreeMap<String, String>;

/// How series are made.
#[derive(Debug, Clone, Default)]
pub struct Making {
    /// Names.
    pub naming: Naming,
    /// Labels of each series.
    pub constant: Vec<(String, String)>,
    /// Attributes of the resource become labels.
    pub resource_labels: bool,
    /// The scope becomes labels.
    pub scope_labels: bool,
    /// Attributes of the resource become `target_info`.
    pub target_info: bool,
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets.
    Histogram,
    /// Quantiles.
    Summary,
}

/// The value of a data point.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum<'a> {
    /// A number.
    Number(f64),
    /// Buckets.
    Histogram(&'a HistogramDataPoint),
    /// Buckets of a scale.
    Exponential(&'a ExponentialHistogramDataPoint),
    /// Quantiles.
    Summary(&'a SummaryDataPoint),
    /// The series has ended.
    Ended,
}

/// A data point as a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series<'a> {
    /// The family's name.
    pub name: &'a str,
    /// What the family is.
    pub kind: Kind,
    /// What it means.
    pub help: &'a str,
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub datum: Datum<'a>,
    /// Whether the value only says what was added.
    pub delta: bool,
    /// When, in milliseconds since 1970.
    pub time: i64,
    /// When the counting began, in milliseconds since 1970; 0 if not known.
    pub start: i64,
    /// Examples.
    pub exemplars: &'a [Exemplar],
}

/// Gives every data point of a request, and `target_info` of every resource.
pub fn walk(request: &ExportMetricsServiceRequest, making: &Making, mut each: impl FnMut(Series<'_>)) {
    for resource_metrics in &request.resource_metrics {
        let resource = resource_metrics.resource.as_ref();
        let mut base = Labels::new();
        identity(resource, &mut base);
        if making.resource_labels {
            add(&mut base, attributes(resource), &making.naming);
        }
        let mut latest = 0;
        for scope_metrics in &resource_metrics.scope_metrics {
            let mut base = base.clone();
            if making.scope_labels {
                scope(scope_metrics.scope.as_ref(), &mut base, &making.naming);
            }
            for metric in &scope_metrics.metrics {
                points(metric, &base, making, &mut |series| {
                    latest = latest.max(series.time);
                    each(series);
                });
            }
        }
        if making.target_info && latest > 0 {
            target_info(resource, making, latest, &mut each);
        }
    }
}

fn attributes(resource: Option<&Resource>) -> &[KeyValue] {
    resource.map_or(&[], |resource| resource.attributes.as_slice())
}

fn find<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|a| a.key == name)?.value.as_ref()
}

/// `job` and `instance`.
fn identity(resource: Option<&Resource>, labels: &mut Labels) {
    let attributes = attributes(resource);
    if let Some(name) = find(attributes, "service.name").map(text) {
        let job = match find(attributes, "service.namespace").map(text) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        };
        labels.insert("job".to_owned(), job);
    }
    if let Some(instance) = find(attributes, "service.instance.id").map(text) {
        labels.insert("instance".to_owned(), instance);
    }
}

fn scope(scope: Option<&InstrumentationScope>, labels: &mut Labels, naming: &Naming) {
    let Some(scope) = scope else { return };
    for (name, value) in [("name", &scope.name), ("version", &scope.version)] {
        if !value.is_empty() {
            labels.insert(format!("otel_scope_{name}"), value.clone());
        }
    }
    for attribute in &scope.attributes {
        let value = attribute.value.as_ref().map(text).unwrap_or_default();
        labels.insert(naming.label(&format!("otel_scope_{}", attribute.key)), value);
    }
}

/// Adds attributes; values whose names become the same are joined.
fn add(labels: &mut Labels, attributes: &[KeyValue], naming: &Naming) {
    let mut own = Labels::new();
    let mut sorted: Vec<&KeyValue> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    for attribute in sorted {
        let value = attribute.value.as_ref().map(text).unwrap_or_default();
        let joined = own.entry(naming.label(&attribute.key)).or_default();
        if !joined.is_empty() {
            joined.push(';');
        }
        joined.push_str(&value);
    }
    labels.extend(own);
}

fn points(metric: &Metric, base: &Labels, making: &Making, each: &mut impl FnMut(Series<'_>)) {
    let Some(data) = &metric.data else { return };
    let (kind, delta, counted) = kind(data);
    let name = making.naming.metric(&metric.name, &metric.unit, counted);
    let of = |attributes: &[KeyValue]| {
        let mut labels = base.clone();
        add(&mut labels, attributes, &making.naming);
        for (name, value) in &making.constant {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        labels.retain(|_, value| !value.is_empty());
        labels
    };
    let mut give = |attributes: &[KeyValue], flags, time, start, exemplars: &[Exemplar], datum: Datum<'_>| {
        each(Series {
            name: &name,
            kind,
            help: &metric.description,
            labels: of(attributes),
            datum: if flags & NO_VALUE != 0 {
                Datum::Ended
            } else {
                datum
            },
            delta,
            time: milliseconds(time),
            start: milliseconds(start),
            exemplars,
        });
    };
    let numbers: &[NumberDataPoint] = match data {
        Data::Gauge(gauge) => &gauge.data_points,
        Data::Sum(sum) => &sum.data_points,
        _ => &[],
    };
    for p in numbers {
        give(
            &p.attributes,
            p.flags,
            p.time_unix_nano,
            p.start_time_unix_nano,
            &p.exemplars,
            number(p),
        );
    }
    match data {
        Data::Gauge(_) | Data::Sum(_) => {}
        Data::Histogram(histogram) => histogram.data_points.iter().for_each(|p| {
            let datum = Datum::Histogram(p);
            give(
                &p.attributes,
                p.flags,
                p.time_unix_nano,
                p.start_time_unix_nano,
                &p.exemplars,
                datum,
            );
        }),
        Data::ExponentialHistogram(histogram) => histogram.data_points.iter().for_each(|p| {
            let datum = Datum::Exponential(p);
            give(
                &p.attributes,
                p.flags,
                p.time_unix_nano,
                p.start_time_unix_nano,
                &p.exemplars,
                datum,
            );
        }),
        Data::Summary(summary) => summary.data_points.iter().for_each(|p| {
            give(
                &p.attributes,
                p.flags,
                p.time_unix_nano,
                p.start_time_unix_nano,
                &[],
                Datum::Summary(p),
            );
        }),
    }
}

/// How a metric is called in Prometheus' words, whether its points are differences, and how its name is made.
fn kind(data: &Data) -> (Kind, bool, Counted) {
    match data {
        Data::Sum(sum) if sum.is_monotonic => {
            let delta = is_delta(sum.aggregation_temporality);
            (Kind::Counter, delta, Counted::Counter)
        }
        Data::Sum(sum) => (Kind::Gauge, is_delta(sum.aggregation_temporality), Counted::Other),
        Data::Gauge(_) => (Kind::Gauge, false, Counted::Gauge),
        Data::Histogram(h) => (
            Kind::Histogram,
            is_delta(h.aggregation_temporality),
            Counted::Other,
        ),
        Data::ExponentialHistogram(h) => (
            Kind::Histogram,
            is_delta(h.aggregation_temporality),
            Counted::Other,
        ),
        Data::Summary(_) => (Kind::Summary, false, Counted::Other),
    }
}

fn is_delta(temporality: i32) -> bool {
    temporality == AggregationTemporality::Delta as i32
}

fn number(point: &NumberDataPoint) -> Datum<'_> {
    Datum::Number(match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => 0.0,
    })
}

/// Nanoseconds → milliseconds.
fn milliseconds(nanoseconds: u64) -> i64 {
    i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX)
}

fn target_info(resource: Option<&Resource>, making: &Making, time: i64, each: &mut impl FnMut(Series<'_>)) {
    let of_identity = ["service.name", "service.namespace", "service.instance.id"];
    let others: Vec<KeyValue> = attributes(resource)
        .iter()
        .filter(|a| !of_identity.contains(&a.key.as_str()))
        .cloned()
        .collect();
    let mut labels = Labels::new();
    identity(resource, &mut labels);
    // Without an identity nobody could tell what it is about.
    if others.is_empty() || labels.is_empty() {
        return;
    }
    add(&mut labels, &others, &making.naming);
    for (name, value) in &making.constant {
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    labels.retain(|_, value| !value.is_empty());
    let name = match making.naming.namespace.is_empty() {
        true => "target_info".to_owned(),
        false => format!("{}_target_info", making.naming.namespace),
    };
    each(Series {
        name: &name,
        kind: Kind::Gauge,
        help: "Target metadata",
        labels,
        datum: Datum::Number(1.0),
        delta: false,
        time,
        start: 0,
        exemplars: &[],
    });
}

/// A value as a label's.
pub fn text(value: &AnyValue) -> String {
    match &value.value {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(_) => match json(value) {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        },
    }
}

fn json(value: &AnyValue) -> serde_json::Value {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        Some(Value::BytesValue(bytes)) => hex::encode(bytes).into(),
        Some(Value::ArrayValue(array)) => array.values.iter().map(json).collect(),
        Some(Value::KvlistValue(list)) => list
            .values
            .iter()
            .map(|kv| {
                (
                    kv.key.clone(),
                    kv.value.as_ref().map_or(serde_json::Value::Null, json),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => serde_json::Value::Null,
    }
}

/// The cumulative buckets of a histogram: upper bounds (the last infinite) and counts.
pub fn cumulative(point: &HistogramDataPoint) -> Vec<(f64, u64)> {
    let mut total = 0u64;
    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
    let counts = point.bucket_counts.iter().copied().chain(std::iter::repeat(0));
    let mut buckets: Vec<(f64, u64)> = bounds
        .zip(counts)
        .map(|(bound, count)| {
            total = total.saturating_add(count);
            (bound, total)
        })
        .collect();
    // A histogram without buckets still has a count.
    if let Some(last) = buckets.last_mut() {
        last.1 = last.1.max(point.count);
    }
    buckets
}
