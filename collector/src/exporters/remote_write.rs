//! `prometheusremotewrite`: series to Prometheus, or to what speaks its remote write 1.0.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use karez_collector_config::common::{HttpClient as ClientConfig, Queue, Sending};
use karez_collector_config::endpoint::http_url;
use karez_collector_config::prometheus::RemoteWriteExporter;
use karez_collector_config::values::{Compression, Secret};
use karez_exposition::write;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Exemplar;
use opentelemetry_proto::tonic::metrics::v1::exemplar;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use prost::Message;

use crate::batch::Batch;
use crate::client::{Answer, HttpClient};
use crate::component::{ComponentContext, Exporter, Outcome, StartError};
use crate::prometheus::name::Naming;
use crate::prometheus::series::{self, Datum, Kind, Labels, Making, Series};
use crate::registry::BuiltExporter;
use crate::wire::field::put_delimited;

/// Prometheus' mark of a series that has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The exporter.
pub struct RemoteWrite {
    client: HttpClient,
    making: Making,
    most: usize,
}

/// Makes the exporter.
pub fn build(config: &RemoteWriteExporter, cx: &ComponentContext) -> Result<BuiltExporter, StartError> {
    let url = http_url(&config.client.endpoint).map_err(|wrong| {
        let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
        StartError::config("endpoint", message, mend)
    })?;
    let settings = &config.settings;
    let mut client: ClientConfig = config.client.clone();
    // The body is packed already.
    client.compression = Compression::None;
    let fixed = [
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    for (name, value) in fixed {
        client.headers.insert(name.to_owned(), Secret::new(value));
    }
    let strategy = settings.translation_strategy;
    let constant = settings.external_labels.iter();
    let making = Making {
        naming: Naming {
            namespace: settings.namespace.clone(),
            suffixes: strategy.suffixes(settings.add_metric_suffixes),
            escapes: strategy.escapes(),
        },
        constant: constant
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        resource_labels: settings.resource_to_telemetry_conversion.enabled,
        scope_labels: false,
        target_info: settings.target_info.enabled,
    };
    let queue = &settings.remote_write_queue;
    let sending = Sending {
        timeout: config.client.timeout,
        retry_on_failure: settings.retry_on_failure.clone(),
        sending_queue: Queue {
            enabled: queue.enabled,
            queue_size: queue.queue_size,
            num_consumers: queue.num_consumers,
            ..Queue::default()
        },
    };
    Ok(BuiltExporter {
        exporter: Arc::new(RemoteWrite {
            client: HttpClient::new(&client, url, cx)?,
            making,
            most: usize::try_from(settings.max_batch_size_bytes).unwrap_or(usize::MAX),
        }),
        sending: Some(sending),
    })
}

impl Exporter for RemoteWrite {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let request: ExportMetricsServiceRequest = match batch.decode() {
                Ok(request) => request,
                Err(error) => {
                    return Outcome::Refused {
                        reason: error.to_string(),
                    };
                }
            };
            let (bodies, deltas) = self.encode(&request);
            if deltas > 0 {
                tracing::warn!(
                    url = %self.client.url(),
                    deltas,
                    "lost data points: remote write takes totals, not differences; have senders use cumulative temporality"
                );
            }
            for body in bodies {
                match self.send(&body).await {
                    Outcome::Delivered => {}
                    // What was sent before is sent again: Prometheus takes a sample twice without harm.
                    other => return other,
                }
            }
            Outcome::Delivered
        })
    }
}

impl RemoteWrite {
    async fn send(&self, body: &[u8]) -> Outcome {
        let packed = match snap::raw::Encoder::new().compress_vec(body) {
            Ok(packed) => packed,
            Err(error) => {
                return Outcome::Refused {
                    reason: error.to_string(),
                };
            }
        };
        match self
            .client
            .post("application/x-protobuf", Bytes::from(packed))
            .await
        {
            Ok(answer) => self.outcome(&answer),
            Err(error) => Outcome::Retry {
                after: None,
                reason: format!("{}: {error}", self.client.url()),
            },
        }
    }

    /// Prometheus asks to try again with 5xx, and with 429 when it says so.
    fn outcome(&self, answer: &Answer) -> Outcome {
        if answer.status.is_success() {
            return Outcome::Delivered;
        }
        let said = String::from_utf8_lossy(&answer.body);
        let said: String = said
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(300)
            .collect();
        let reason = format!("{}: HTTP {}: {said}", self.client.url(), answer.status);
        match answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            true => Outcome::Retry {
                after: retry_after(&answer.headers),
                reason,
            },
            false => Outcome::Refused { reason },
        }
    }

    /// The request's series in bodies of bounded size, and how many points could not be sent.
    fn encode(&self, request: &ExportMetricsServiceRequest) -> (Vec<Vec<u8>>, usize) {
        let (mut bodies, mut deltas) = (vec![Vec::new()], 0);
        series::walk(request, &self.making, |series| {
            if series.delta {
                deltas += 1;
                return;
            }
            put(&series, &mut |encoded| {
                let full = bodies
                    .last()
                    .is_some_and(|body| !body.is_empty() && body.len() + encoded.len() > self.most);
                if full {
                    bodies.push(Vec::new());
                }
                if let Some(body) = bodies.last_mut() {
                    put_delimited(body, 1, &encoded);
                }
            });
        });
        bodies.retain(|body| !body.is_empty());
        (bodies, deltas)
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

/// The messages, as `prometheus/prompb` has them.
mod model {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
        #[prost(int64, tag = "3")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, tag = "1")]
        pub(super) count: u64,
        #[prost(double, tag = "3")]
        pub(super) sum: f64,
        #[prost(sint32, tag = "4")]
        pub(super) schema: i32,
        #[prost(double, tag = "5")]
        pub(super) zero_threshold: f64,
        #[prost(uint64, tag = "6")]
        pub(super) zero_count: u64,
        #[prost(message, repeated, tag = "8")]
        pub(super) negative_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "9")]
        pub(super) negative_deltas: Vec<i64>,
        #[prost(message, repeated, tag = "11")]
        pub(super) positive_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "12")]
        pub(super) positive_deltas: Vec<i64>,
        #[prost(int64, tag = "15")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub(super) histograms: Vec<Histogram>,
    }
}

/// Encodes the time series that a data point is.
fn put(series: &Series<'_>, each: &mut impl FnMut(Vec<u8>)) {
    let mut number =
        |suffix: &str, more: Option<(&str, f64)>, value: f64, exemplars: Vec<model::Exemplar>| {
            let sample = model::Sample {
                value,
                timestamp: series.time,
            };
            let encoded = model::TimeSeries {
                labels: labels(series.name, suffix, &series.labels, more),
                samples: vec![sample],
                exemplars,
                histograms: Vec::new(),
            };
            each(encoded.encode_to_vec());
        };
    match &series.datum {
        Datum::Number(value) => {
            let counted = series.kind == Kind::Counter;
            let exemplars = series.exemplars.iter().filter(|_| counted).map(example).collect();
            number("", None, *value, exemplars);
        }
        Datum::Ended => match series.kind {
            Kind::Counter | Kind::Gauge => number("", None, f64::from_bits(STALE), Vec::new()),
            Kind::Histogram | Kind::Summary => {
                for suffix in ["_sum", "_count"] {
                    number(suffix, None, f64::from_bits(STALE), Vec::new());
                }
            }
        },
        Datum::Histogram(point) => {
            let mut before = f64::NEG_INFINITY;
            for (bound, count) in series::cumulative(point) {
                let within = |e: &&Exemplar| value_of(e) > before && value_of(e) <= bound;
                let exemplars = series.exemplars.iter().filter(within).map(example).collect();
                number("_bucket", Some(("le", bound)), count as f64, exemplars);
                before = bound;
            }
            if let Some(sum) = point.sum {
                number("_sum", None, sum, Vec::new());
            }
            number("_count", None, point.count as f64, Vec::new());
        }
        Datum::Summary(point) => {
            for q in &point.quantile_values {
                number("", Some(("quantile", q.quantile)), q.value, Vec::new());
            }
            number("_sum", None, point.sum, Vec::new());
            number("_count", None, point.count as f64, Vec::new());
        }
        Datum::Exponential(point) => {
            let (scale, merged) = native_scale(point.scale);
            let (positive_spans, positive_deltas) = spans(point.positive.as_ref(), merged);
            let (negative_spans, negative_deltas) = spans(point.negative.as_ref(), merged);
            let histogram = model::Histogram {
                count: point.count,
                sum: point.sum.unwrap_or(0.0),
                schema: scale,
                zero_threshold: point.zero_threshold,
                zero_count: point.zero_count,
                negative_spans,
                negative_deltas,
                positive_spans,
                positive_deltas,
                timestamp: series.time,
            };
            let encoded = model::TimeSeries {
                labels: labels(series.name, "", &series.labels, None),
                exemplars: series.exemplars.iter().map(example).collect(),
                histograms: vec![histogram],
                ..model::TimeSeries::default()
            };
            each(encoded.encode_to_vec());
        }
    }
}

/// All labels with the name among them, sorted as remote write asks for.
fn labels(name: &str, suffix: &str, labels: &Labels, more: Option<(&str, f64)>) -> Vec<model::Label> {
    let label = |name: &str, value: &str| model::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut all: Vec<model::Label> = labels.iter().map(|(name, value)| label(name, value)).collect();
    all.push(label("__name__", &format!("{name}{suffix}")));
    if let Some((name, bound)) = more {
        let mut text = String::new();
        write::value(&mut text, bound);
        all.retain(|label| label.name != name);
        all.push(label(name, &text));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn value_of(exemplar: &Exemplar) -> f64 {
    match exemplar.value {
        Some(exemplar::Value::AsDouble(value)) => value,
        Some(exemplar::Value::AsInt(value)) => value as f64,
        None => 0.0,
    }
}

fn example(exemplar: &Exemplar) -> model::Exemplar {
    let mut labels = Labels::new();
    for attribute in &exemplar.filtered_attributes {
        let value = attribute.value.as_ref().map(series::text).unwrap_or_default();
        labels.insert(attribute.key.clone(), value);
    }
    for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
        if !id.is_empty() {
            labels.insert(name.to_owned(), hex::encode(id));
        }
    }
    model::Exemplar {
        labels: labels
            .into_iter()
            .map(|(name, value)| model::Label { name, value })
            .collect(),
        value: value_of(exemplar),
        timestamp: i64::try_from(exemplar.time_unix_nano / 1_000_000).unwrap_or(i64::MAX),
    }
}

/// Prometheus knows scales up to 8; finer ones are merged by two until they fit.
fn native_scale(scale: i32) -> (i32, u32) {
    match scale > 8 {
        true => (8, (scale - 8).unsigned_abs().min(31)),
        false => (scale, 0),
    }
}

/// Dense buckets → spans and differences. Prometheus names a bucket by its upper end, OTLP by its lower one.
fn spans(buckets: Option<&Buckets>, merged: u32) -> (Vec<model::Span>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<model::Span>, Vec<i64>) = (Vec::new(), Vec::new());
    let Some(buckets) = buckets else {
        return (spans, deltas);
    };
    let mut counts: Vec<(i64, u64)> = Vec::new();
    for (index, count) in buckets.bucket_counts.iter().enumerate() {
        let at = (i64::from(buckets.offset) + index as i64) >> merged;
        match counts.last_mut() {
            Some((last, sum)) if *last == at => *sum = sum.saturating_add(*count),
            _ => counts.push((at, *count)),
        }
    }
    let (mut next, mut before) = (0i64, 0i64);
    for (at, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        let index = at + 1;
        let gap = i32::try_from(index - next).unwrap_or(0);
        match spans.last_mut() {
            Some(span) if gap == 0 => span.length += 1,
            _ => spans.push(model::Span {
                offset: gap,
                length: 1,
            }),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        before = count;
        next = index + 1;
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests;
