//! One request of each signal with every kind of thing in it, and the items of requests in a form to compare.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use crate::support::Outcome;

/// Where each signal is posted.
pub(crate) const PATHS: [&str; 3] = ["/v1/traces", "/v1/metrics", "/v1/logs"];
/// The resource attribute by which the chains tell their links apart.
pub(crate) const MARK: &str = "test.link";
/// Nanoseconds of 2025.
const NOW: u64 = 1_750_000_000_000_000_000;

/// Items by the mark of their resource; each item with its resource and scope, encoded.
pub(crate) type Items = BTreeMap<String, Vec<Vec<u8>>>;

/// An encoded request for each of [`PATHS`].
pub(crate) fn requests() -> [Vec<u8>; 3] {
    let traces = ExportTraceServiceRequest {
        resource_spans: (0..3)
            .map(|index| ResourceSpans {
                resource: Some(resource(index)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans: (0..20).map(span).collect(),
                    schema_url: "https://example.com/scope".to_owned(),
                }],
                schema_url: "https://example.com/resource".to_owned(),
            })
            .collect(),
    };
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: (0..3)
            .map(|index| ResourceMetrics {
                resource: Some(resource(index)),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope()),
                    metrics: metrics(),
                    ..Default::default()
                }],
                ..Default::default()
            })
            .collect(),
    };
    let logs = ExportLogsServiceRequest {
        resource_logs: (0..3)
            .map(|index| ResourceLogs {
                resource: Some(resource(index)),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope()),
                    log_records: (0..20).map(record).collect(),
                    ..Default::default()
                }],
                ..Default::default()
            })
            .collect(),
    };
    [
        traces.encode_to_vec(),
        metrics.encode_to_vec(),
        logs.encode_to_vec(),
    ]
}

/// The items of encoded requests of the signal of a path.
pub(crate) fn items<'a>(path: &str, requests: impl IntoIterator<Item = &'a [u8]>) -> Outcome<Items> {
    let mut items = Items::new();
    for request in requests {
        match path {
            "/v1/traces" => {
                for mut one in ExportTraceServiceRequest::decode(request)?.resource_spans {
                    let mark = take_mark(&mut one.resource);
                    for mut scoped in std::mem::take(&mut one.scope_spans) {
                        for span in std::mem::take(&mut scoped.spans) {
                            let scope_spans = vec![ScopeSpans {
                                spans: vec![span],
                                ..scoped.clone()
                            }];
                            let item = ResourceSpans {
                                scope_spans,
                                ..one.clone()
                            };
                            items.entry(mark.clone()).or_default().push(item.encode_to_vec());
                        }
                    }
                }
            }
            "/v1/metrics" => {
                for mut one in ExportMetricsServiceRequest::decode(request)?.resource_metrics {
                    let mark = take_mark(&mut one.resource);
                    for mut scoped in std::mem::take(&mut one.scope_metrics) {
                        for metric in std::mem::take(&mut scoped.metrics) {
                            let scope_metrics = vec![ScopeMetrics {
                                metrics: vec![metric],
                                ..scoped.clone()
                            }];
                            let item = ResourceMetrics {
                                scope_metrics,
                                ..one.clone()
                            };
                            items.entry(mark.clone()).or_default().push(item.encode_to_vec());
                        }
                    }
                }
            }
            _ => {
                for mut one in ExportLogsServiceRequest::decode(request)?.resource_logs {
                    let mark = take_mark(&mut one.resource);
                    for mut scoped in std::mem::take(&mut one.scope_logs) {
                        for record in std::mem::take(&mut scoped.log_records) {
                            let scope_logs = vec![ScopeLogs {
                                log_records: vec![record],
                                ..scoped.clone()
                            }];
                            let item = ResourceLogs {
                                scope_logs,
                                ..one.clone()
                            };
                            items.entry(mark.clone()).or_default().push(item.encode_to_vec());
                        }
                    }
                }
            }
        }
    }
    items.values_mut().for_each(|items| items.sort());
    Ok(items)
}

fn take_mark(resource: &mut Option<Resource>) -> String {
    let Some(resource) = resource else {
        return String::new();
    };
    let position = resource
        .attributes
        .iter()
        .position(|attribute| attribute.key == MARK);
    match position.map(|index| resource.attributes.remove(index).value) {
        Some(Some(AnyValue {
            value: Some(Value::StringValue(mark)),
        })) => mark,
        _ => String::new(),
    }
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..Default::default()
    }
}

/// One of every type.
fn attributes(index: u64) -> Vec<KeyValue> {
    let values = vec![
        any(Value::IntValue(-1)),
        any(Value::StringValue("zwölf".to_owned())),
    ];
    vec![
        pair("text", Value::StringValue(format!("value {index}, grün"))),
        pair("flag", Value::BoolValue(index.is_multiple_of(2))),
        pair("number", Value::IntValue(-(index as i64))),
        pair("real", Value::DoubleValue(index as f64 / 3.0)),
        pair("bytes", Value::BytesValue(vec![0, 255, index as u8])),
        pair("list", Value::ArrayValue(ArrayValue { values })),
        pair(
            "map",
            Value::KvlistValue(KeyValueList {
                values: vec![pair("inner", Value::IntValue(i64::MAX))],
            }),
        ),
    ]
}

fn resource(index: u64) -> Resource {
    Resource {
        attributes: vec![
            pair("service.name", Value::StringValue(format!("service-{index}"))),
            pair("replicas", Value::IntValue(3)),
        ],
        dropped_attributes_count: 2,
        ..Default::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "karez.tests".to_owned(),
        version: "1.2.3".to_owned(),
        attributes: vec![pair("scoped", Value::BoolValue(true))],
        dropped_attributes_count: 1,
    }
}

fn span(index: u64) -> Span {
    Span {
        trace_id: vec![index as u8 + 1; 16],
        span_id: vec![index as u8 + 1; 8],
        trace_state: "vendor=1".to_owned(),
        parent_span_id: vec![7; 8],
        flags: 0x301,
        name: format!("span {index}"),
        kind: (index % 6) as i32,
        start_time_unix_nano: NOW + index,
        end_time_unix_nano: NOW + index + 1000,
        attributes: attributes(index),
        dropped_attributes_count: 4,
        events: vec![Event {
            time_unix_nano: NOW + 5,
            name: "event".to_owned(),
            attributes: attributes(index),
            dropped_attributes_count: 1,
        }],
        dropped_events_count: 3,
        links: vec![Link {
            trace_id: vec![9; 16],
            span_id: vec![9; 8],
            trace_state: "other=2".to_owned(),
            attributes: attributes(index),
            dropped_attributes_count: 1,
            flags: 0x100,
        }],
        dropped_links_count: 2,
        status: Some(Status {
            message: "why".to_owned(),
            code: (index % 3) as i32,
        }),
    }
}

fn record(index: u64) -> LogRecord {
    LogRecord {
        time_unix_nano: NOW + index,
        observed_time_unix_nano: NOW + index + 1,
        severity_number: 1 + (index % 24) as i32,
        severity_text: "INFO".to_owned(),
        body: attributes(index).swap_remove(index as usize % 7).value,
        attributes: attributes(index),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![3; 16],
        span_id: vec![4; 8],
        event_name: "event.name".to_owned(),
    }
}

fn point(index: u64, value: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![pair("shard", Value::StringValue(index.to_string()))],
        start_time_unix_nano: NOW - 1000,
        time_unix_nano: NOW,
        exemplars: vec![exemplar()],
        flags: 0,
        value: Some(value),
    }
}

fn exemplar() -> Exemplar {
    Exemplar {
        filtered_attributes: vec![pair("filtered", Value::IntValue(1))],
        time_unix_nano: NOW,
        span_id: vec![5; 8],
        trace_id: vec![6; 16],
        value: Some(exemplar::Value::AsDouble(1.5)),
    }
}

/// One of every kind.
pub(crate) fn metrics() -> Vec<Metric> {
    use number_data_point::Value::{AsDouble, AsInt};
    let named = |name: &str, data: metric::Data| Metric {
        name: name.to_owned(),
        description: format!("What {name} is."),
        unit: "By".to_owned(),
        data: Some(data),
        ..Default::default()
    };
    let cumulative = 2;
    vec![
        named(
            "level",
            metric::Data::Gauge(Gauge {
                data_points: vec![point(0, AsDouble(-2.5)), point(1, AsInt(i64::MIN))],
            }),
        ),
        named(
            "requests",
            metric::Data::Sum(Sum {
                data_points: vec![point(0, AsInt(42)), point(1, AsDouble(0.5))],
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
        ),
        named(
            "latency",
            metric::Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint {
                    attributes: attributes(1),
                    start_time_unix_nano: NOW - 1000,
                    time_unix_nano: NOW,
                    count: 6,
                    sum: Some(12.5),
                    bucket_counts: vec![1, 2, 3],
                    explicit_bounds: vec![0.5, 2.5],
                    exemplars: vec![exemplar()],
                    flags: 0,
                    min: Some(0.1),
                    max: Some(9.0),
                }],
                aggregation_temporality: cumulative,
            }),
        ),
        named(
            "size",
            metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential()],
                aggregation_temporality: cumulative,
            }),
        ),
        named(
            "quantiles",
            metric::Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    attributes: attributes(2),
                    start_time_unix_nano: NOW - 1000,
                    time_unix_nano: NOW,
                    count: 10,
                    sum: 55.0,
                    quantile_values: vec![ValueAtQuantile {
                        quantile: 0.99,
                        value: 9.9,
                    }],
                    flags: 0,
                }],
            }),
        ),
    ]
}

fn exponential() -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: attributes(3),
        start_time_unix_nano: NOW - 1000,
        time_unix_nano: NOW,
        count: 1 + 305 + 4,
        sum: Some(20.0),
        scale: 2,
        zero_count: 1,
        positive: Some(Buckets {
            offset: -3,
            bucket_counts: vec![1, 0, 300, 4],
        }),
        negative: Some(Buckets {
            offset: 2,
            bucket_counts: vec![2, 2],
        }),
        flags: 0,
        exemplars: vec![exemplar()],
        min: Some(-5.0),
        max: Some(5.0),
        zero_threshold: 0.01,
    }
}
