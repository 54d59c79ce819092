//! Every component with a block that makes it work, and documents in which it is used.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point::Value,
};
use prost::Message;

use crate::common::request;

/// A component with a block that makes it work, on loopback.
pub(crate) struct Case {
    pub(crate) section: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) block: &'static str,
    pub(crate) signal: &'static str,
}

const fn case(section: &'static str, kind: &'static str, block: &'static str, signal: &'static str) -> Case {
    Case {
        section,
        kind,
        block,
        signal,
    }
}

/// `DIR` is a folder of the test, `DEAD` an address where nothing listens.
pub(crate) const CASES: &[Case] = &[
    case(
        "receivers",
        "otlp",
        "{protocols: {grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: '127.0.0.1:0'}}}",
        "traces",
    ),
    case(
        "receivers",
        "jaeger",
        "{protocols: {grpc: {endpoint: '127.0.0.1:0'}, thrift_http: {endpoint: '127.0.0.1:0'}, thrift_compact: {endpoint: '127.0.0.1:0'}}}",
        "traces",
    ),
    case("receivers", "zipkin", "{endpoint: '127.0.0.1:0'}", "traces"),
    case(
        "receivers",
        "prometheus",
        "{config: {scrape_configs: [{job_name: a, static_configs: [{targets: ['DEAD']}]}]}}",
        "metrics",
    ),
    case("processors", "batch", "{timeout: 10ms}", "traces"),
    case(
        "processors",
        "memory_limiter",
        "{check_interval: 1s, limit_percentage: 100}",
        "traces",
    ),
    case(
        "processors",
        "resource",
        "{attributes: [{key: a, value: b, action: upsert}]}",
        "traces",
    ),
    case(
        "processors",
        "attributes",
        "{actions: [{key: a, value: b, action: upsert}]}",
        "logs",
    ),
    case("processors", "k8sattributes", "{passthrough: true}", "traces"),
    case("processors", "k8s_attributes", "{passthrough: true}", "metrics"),
    case(
        "processors",
        "probabilistic_sampler",
        "{sampling_percentage: 100}",
        "traces",
    ),
    case(
        "processors",
        "filter",
        "{spans: {exclude: {match_type: strict, services: [none]}}}",
        "traces",
    ),
    case(
        "processors",
        "metricstransform",
        "{transforms: [{include: m, action: update, new_name: n}]}",
        "metrics",
    ),
    case(
        "processors",
        "metrics_transform",
        "{transforms: [{include: m, action: update, new_name: n}]}",
        "metrics",
    ),
    case(
        "exporters",
        "otlp",
        "{endpoint: 'DEAD', tls: {insecure: true}, QUEUE}",
        "traces",
    ),
    case(
        "exporters",
        "otlp_grpc",
        "{endpoint: 'DEAD', tls: {insecure: true}, QUEUE}",
        "logs",
    ),
    case(
        "exporters",
        "otlphttp",
        "{endpoint: 'http://DEAD', QUEUE}",
        "traces",
    ),
    case(
        "exporters",
        "otlp_http",
        "{endpoint: 'http://DEAD', QUEUE}",
        "metrics",
    ),
    case("exporters", "debug", "{}", "traces"),
    case("exporters", "logging", "{}", "logs"),
    case(
        "exporters",
        "jaeger",
        "{endpoint: 'DEAD', tls: {insecure: true}, QUEUE}",
        "traces",
    ),
    case(
        "exporters",
        "jaeger_storage_exporter",
        "{trace_storage: s}",
        "traces",
    ),
    case("exporters", "prometheus", "{endpoint: '127.0.0.1:0'}", "metrics"),
    case(
        "exporters",
        "prometheusremotewrite",
        "{endpoint: 'http://DEAD', RWQUEUE}",
        "metrics",
    ),
    case(
        "exporters",
        "prometheus_remote_write",
        "{endpoint: 'http://DEAD', RWQUEUE}",
        "metrics",
    ),
    case("exporters", "file", "{path: DIR/out.json}", "logs"),
    case(
        "exporters",
        "zipkin",
        "{endpoint: 'http://DEAD', QUEUE}",
        "traces",
    ),
    case(
        "exporters",
        "loadbalancing",
        "{protocol: {otlp: {tls: {insecure: true}}}, resolver: {static: {hostnames: ['DEAD']}}, QUEUE}",
        "traces",
    ),
    case(
        "exporters",
        "load_balancing",
        "{protocol: {otlp: {tls: {insecure: true}}}, resolver: {static: {hostnames: ['DEAD']}}, QUEUE}",
        "logs",
    ),
    case("connectors", "forward", "", "traces"),
    case("connectors", "count", "{}", "traces"),
    case(
        "connectors",
        "spanmetrics",
        "{metrics_flush_interval: 1h}",
        "traces",
    ),
    case(
        "connectors",
        "span_metrics",
        "{metrics_flush_interval: 1h}",
        "traces",
    ),
    case("extensions", "basicauth", "{htpasswd: {inline: 'a:b'}}", "traces"),
    case("extensions", "bearertokenauth", "{token: a}", "traces"),
    case(
        "extensions",
        "oidc",
        "{issuer_url: 'http://DEAD', audience: a}",
        "traces",
    ),
    case(
        "extensions",
        "oauth2client",
        "{client_id: a, client_secret: b, token_url: 'http://DEAD'}",
        "traces",
    ),
    case(
        "extensions",
        "oauth2_client",
        "{client_id: a, client_secret: b, token_url: 'http://DEAD'}",
        "traces",
    ),
    case(
        "extensions",
        "headers_setter",
        "{headers: [{key: a, value: b}]}",
        "traces",
    ),
    case(
        "extensions",
        "file_storage",
        "{directory: DIR, fsync: false}",
        "traces",
    ),
    case(
        "extensions",
        "health_check",
        "{endpoint: '127.0.0.1:0'}",
        "traces",
    ),
    case(
        "extensions",
        "zpages",
        "{endpoint: '127.0.0.1:0', expvar: {enabled: true}}",
        "traces",
    ),
    case(
        "extensions",
        "jaeger_storage",
        "{backends: {t: {memory: }}}",
        "traces",
    ),
    case(
        "extensions",
        "jaeger_query",
        "{storage: {traces: s}, http: {endpoint: '127.0.0.1:0'}}",
        "traces",
    ),
];

pub(crate) const QUEUE: &str = "sending_queue: {queue_size: 2, num_consumers: 1}, retry_on_failure: {initial_interval: 100ms, max_interval: 100ms}";

/// The same in the words of remote write.
pub(crate) const RWQUEUE: &str = "remote_write_queue: {queue_size: 2, num_consumers: 1}, retry_on_failure: {initial_interval: 100ms, max_interval: 100ms}";

/// A port that was free a moment ago.
pub(crate) fn dead() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A document in which the component is used, between `otlp/in` and what `out` is.
pub(crate) fn document(case: &Case, block: &str, out: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("compliance");
    std::fs::create_dir_all(&folder).unwrap();
    let block = block
        .replace("DIR", &folder.display().to_string())
        .replace("DEAD", &dead().to_string())
        .replace("RWQUEUE", RWQUEUE)
        .replace("QUEUE", QUEUE);
    let of = |section: &str| match section == case.section {
        true => format!("  {}: {block}\n", case.kind),
        false => String::new(),
    };
    let (mut receivers, mut processors, mut exporters) = ("otlp/in", "", "test/out");
    let mut more = String::new();
    let mut extensions = "jaeger_storage/s".to_owned();
    match case.section {
        "receivers" => receivers = case.kind,
        "processors" => processors = case.kind,
        "exporters" => exporters = case.kind,
        "connectors" => {
            exporters = case.kind;
            let to = if case.kind == "forward" {
                case.signal
            } else {
                "metrics"
            };
            more = format!(
                ", {to}/behind: {{receivers: [{}], exporters: [test/out]}}",
                case.kind
            );
        }
        _ => extensions = format!("{extensions}, {}", case.kind),
    }
    let out = out.replace("QUEUE", QUEUE);
    let out = match exporters == "test/out" || !more.is_empty() {
        true => format!("  {out}\n"),
        false => "  debug/unused: {}\n".to_owned(),
    };
    let out_id = out.trim().split(':').next().unwrap().to_owned();
    let text = format!(
        "receivers:\n  otlp/in: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}\n{}processors:\n  batch/unused: {{}}\n{}exporters:\n{out}{}\
         connectors:\n  forward/unused: {{}}\n{}extensions:\n  jaeger_storage/s: {{backends: {{s: {{memory: {{}}}}}}}}\n{}\
         service:\n  extensions: [{extensions}]\n  pipelines: {{{}: {{receivers: [{receivers}], processors: [{processors}], exporters: [{exporters}]}}{more}}}\n",
        of("receivers"),
        of("processors"),
        of("exporters"),
        of("connectors"),
        of("extensions"),
        case.signal,
    );
    text.replace("test/out", &out_id)
}

pub(crate) const DEBUG: &str = "debug/out: {}";

/// An export request of a signal with so many items.
pub(crate) fn body(signal: &str, items: usize) -> Vec<u8> {
    match signal {
        "traces" => request(items).encode_to_vec(),
        "logs" => ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: vec![LogRecord::default(); items],
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
        .encode_to_vec(),
        _ => {
            let point = NumberDataPoint {
                time_unix_nano: 1_750_000_000_000_000_000,
                value: Some(Value::AsInt(1)),
                ..NumberDataPoint::default()
            };
            let data_points = vec![point; items];
            let metric = Metric {
                name: "m".into(),
                data: Some(Data::Gauge(Gauge { data_points })),
                ..Metric::default()
            };
            ExportMetricsServiceRequest {
                resource_metrics: vec![ResourceMetrics {
                    scope_metrics: vec![ScopeMetrics {
                        metrics: vec![metric],
                        ..ScopeMetrics::default()
                    }],
                    ..ResourceMetrics::default()
                }],
            }
            .encode_to_vec()
        }
    }
}

pub(crate) fn of(section: &'static str) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |case| case.section == section)
}

pub(crate) fn items(signal: &str) -> &'static str {
    match signal {
        "traces" => "spans",
        "logs" => "log_records",
        _ => "metric_points",
    }
}
