//! Every component of the collector through the same tests: wrong configuration, start and stop, back-pressure, shutdown
//! without loss, metrics, bounded queues. A component that is registered without a case here fails the first of them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use common::{Backend, address, config, metric, request, start, until};
use karez_collector::Service;
use karez_collector_config::component::Kind;
use karez_collector_config::{
    ConnectorConfig, ExporterConfig, ExtensionConfig, ProcessorConfig, ReceiverConfig, check,
};
use karez_document::Origin;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

/// A component with a block that makes it work, on loopback.
struct Case {
    section: &'static str,
    kind: &'static str,
    block: &'static str,
    signal: &'static str,
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
const CASES: &[Case] = &[
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
        "{endpoint: 'http://DEAD'}",
        "metrics",
    ),
    case(
        "exporters",
        "prometheus_remote_write",
        "{endpoint: 'http://DEAD'}",
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

const QUEUE: &str = "sending_queue: {queue_size: 2, num_consumers: 1}, retry_on_failure: {initial_interval: 100ms, max_interval: 100ms}";

/// A port that was free a moment ago.
fn dead() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A document in which the component is used, between `otlp/in` and what `out` is.
fn document(case: &Case, block: &str, out: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("compliance");
    std::fs::create_dir_all(&folder).unwrap();
    let block = block
        .replace("DIR", &folder.display().to_string())
        .replace("DEAD", &dead().to_string())
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

const DEBUG: &str = "debug/out: {}";

/// An export request of a signal with so many items.
fn body(signal: &str, items: usize) -> Vec<u8> {
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
            let data_points = vec![NumberDataPoint::default(); items];
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

/// Posts a body, and gives the status.
async fn post(to: SocketAddr, path: &str, kind: &str, body: &[u8]) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

async fn send(service: &Service, signal: &str, items: usize) -> u16 {
    let to = address(service, "receivers.otlp/in");
    post(
        to,
        &format!("/v1/{signal}"),
        "application/x-protobuf",
        &body(signal, items),
    )
    .await
}

fn of(section: &'static str) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |case| case.section == section)
}

fn items(signal: &str) -> &'static str {
    match signal {
        "traces" => "spans",
        "logs" => "log_records",
        _ => "metric_points",
    }
}

#[test]
fn every_component_has_a_case() {
    let cases = |section| of(section).map(|case| case.kind).collect::<BTreeSet<_>>();
    let known = |known: &[&'static str]| known.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(cases("receivers"), known(ReceiverConfig::KNOWN));
    assert_eq!(cases("processors"), known(ProcessorConfig::KNOWN));
    assert_eq!(cases("exporters"), known(ExporterConfig::KNOWN));
    assert_eq!(cases("connectors"), known(ConnectorConfig::KNOWN));
    assert_eq!(cases("extensions"), known(ExtensionConfig::KNOWN));
}

#[test]
fn a_wrong_key_is_an_error_with_its_line_and_a_wrong_kind_of_block_too() {
    for case in CASES {
        let about = format!("{}.{}", case.section, case.kind);
        let with = match case.block.trim_end_matches('}') {
            "" | "{" => "{surely_no_key: 1}".to_owned(),
            _ => format!("{{surely_no_key: 1, {}", &case.block[1..]),
        };
        for (block, key) in [
            (with.as_str(), format!("{about}.surely_no_key")),
            ("[1, 2]", about.clone()),
        ] {
            let text = document(case, block, DEBUG);
            let (_, said) = check(&text, &Origin::file("c.yaml"), &|_| None);
            let error = said.iter().find(|d| d.is_error() && d.key.starts_with(&key));
            let error = error.unwrap_or_else(|| panic!("{key}: {said:?}"));
            let line = 1 + text
                .lines()
                .position(|line| line.trim_start().starts_with(&format!("{}: ", case.kind)))
                .unwrap();
            assert_eq!(error.place.line, u32::try_from(line).ok(), "{error}");
            assert!(!error.mend.is_empty(), "{error}");
        }
    }
}

#[tokio::test]
async fn every_component_starts_stops_and_starts_again() {
    // An OpenID provider is asked at the start: `oidc` has tests of its own, with one.
    for case in CASES.iter().filter(|case| case.kind != "oidc") {
        let text = document(case, case.block, DEBUG);
        config(&text);
        for _ in 0..2 {
            let service = start(&text).await;
            tokio::time::timeout(std::time::Duration::from_secs(20), service.stop())
                .await
                .unwrap_or_else(|_| panic!("{} stops", case.kind));
        }
    }
}

#[tokio::test]
async fn processors_hand_on_what_they_take_and_count_it() {
    for case in of("processors") {
        let service = start(&document(case, case.block, DEBUG)).await;
        for _ in 0..5 {
            assert_eq!(send(&service, case.signal, 3).await, 200, "{}", case.kind);
        }
        let labels = format!("{{processor=\"{}\",otel_signal=\"{}\"}}", case.kind, case.signal);
        let count = |name: &str| metric(&service, &format!("otelcol_processor_{name}_items_total{labels}"));
        until(case.kind, || {
            (count("incoming"), count("outgoing")) == (15.0, 15.0)
        })
        .await;
        let sent = format!(
            "otelcol_exporter_sent_{}_total{{exporter=\"debug/out\"}}",
            items(case.signal)
        );
        until(case.kind, || metric(&service, &sent) == 15.0).await;
        service.stop().await;
    }
}

#[tokio::test]
async fn what_is_refused_behind_a_processor_or_connector_is_told_to_the_sender() {
    let backend = Backend::default();
    let to = backend.serve().await;
    backend.answer(Some(Code::Unavailable));
    let refusing = format!(
        "otlp/out: {{endpoint: '{to}', tls: {{insecure: true}}, sending_queue: {{enabled: false}}, retry_on_failure: {{enabled: false}}}}"
    );
    // A batch processor has answered before, and what counts spans over time takes them in any case.
    let waits = ["batch", "spanmetrics", "span_metrics"];
    for case in of("processors")
        .chain(of("connectors"))
        .filter(|case| !waits.contains(&case.kind))
    {
        let service = start(&document(case, case.block, &refusing)).await;
        let status = send(&service, case.signal, 3).await;
        assert!(status == 503 || status == 500, "{}: {status}", case.kind);
        service.stop().await;
    }
}

#[tokio::test]
async fn a_stop_delivers_what_was_taken() {
    for case in of("processors")
        .chain(of("connectors"))
        .filter(|case| case.signal == "traces")
    {
        let backend = Backend::default();
        let to = backend.serve().await;
        let out = format!("otlp/out: {{endpoint: '{to}', tls: {{insecure: true}}}}");
        let service = start(&document(case, case.block, &out)).await;
        for _ in 0..20 {
            assert_eq!(send(&service, case.signal, 5).await, 200, "{}", case.kind);
        }
        let counted = metric(
            &service,
            &format!(
                "otelcol_connector_consumed_items_total{{connector=\"{}\",otel_signal=\"traces\"}}",
                case.kind
            ),
        );
        let metrics = service.metrics();
        service.stop().await;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
        match (case.section, case.kind) {
            ("processors", _) => assert_eq!(backend.spans().len(), 100, "{}", case.kind),
            (_, "forward") => assert_eq!((backend.spans().len(), counted), (100, 100.0)),
            // Their metrics go where no path is served: what matters is that the stop sent them.
            (_, kind) => {
                assert_eq!(counted, 100.0, "{kind}");
                let produced = format!(
                    "otelcol_connector_produced_items_total{{connector=\"{kind}\",otel_signal=\"metrics\"}}"
                );
                let line = text.lines().find_map(|line| line.strip_prefix(&produced));
                assert!(
                    line.is_some_and(|value| value.trim().parse::<f64>().unwrap() > 0.0),
                    "{kind}\n{text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn exporters_that_cannot_deliver_fill_a_bounded_queue_and_then_refuse() {
    for case in of("exporters").filter(|case| case.block.contains("QUEUE")) {
        let service = start(&document(case, case.block, DEBUG)).await;
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(send(&service, case.signal, 3).await);
        }
        assert!(statuses.contains(&503), "{}: {statuses:?}", case.kind);
        assert!(
            statuses.iter().filter(|status| **status == 200).count() <= 4,
            "{}: {statuses:?}",
            case.kind
        );
        let refused = format!(
            "otelcol_receiver_refused_{}_total{{receiver=\"otlp/in\",transport=\"http\"}}",
            items(case.signal)
        );
        assert!(metric(&service, &refused) > 0.0, "{}", case.kind);
        drop(service);
    }
}

#[tokio::test]
async fn exporters_that_deliver_count_what_they_sent() {
    for case in of("exporters").filter(|case| !case.block.contains("DEAD")) {
        let service = start(&document(case, case.block, DEBUG)).await;
        for _ in 0..4 {
            assert_eq!(send(&service, case.signal, 3).await, 200, "{}", case.kind);
        }
        let sent = format!(
            "otelcol_exporter_sent_{}_total{{exporter=\"{}\"}}",
            items(case.signal),
            case.kind
        );
        until(case.kind, || metric(&service, &sent) == 12.0).await;
        service.stop().await;
    }
}

#[tokio::test]
async fn receivers_count_what_they_take() {
    let case = of("receivers").find(|case| case.kind == "zipkin").unwrap();
    let service = start(&document(case, case.block, DEBUG)).await;
    let json = br#"[{"traceId": "1", "id": "2", "name": "n"}, {"traceId": "1", "id": "3"}]"#;
    let at = address(&service, "receivers.zipkin");
    assert_eq!(post(at, "/api/v2/spans", "application/json", json).await, 202);
    assert_eq!(post(at, "/api/v2/spans", "application/json", b"{").await, 400);
    assert_eq!(post(at, "/api/v1/spans", "application/json", json).await, 501);
    let accepted = "otelcol_receiver_accepted_spans_total{receiver=\"zipkin\",transport=\"http\"}";
    assert_eq!(metric(&service, accepted), 2.0);
    service.stop().await;
}

#[tokio::test]
async fn spans_go_through_zipkin_there_and_back() {
    let second = start(&document(
        of("receivers").find(|case| case.kind == "zipkin").unwrap(),
        "{endpoint: '127.0.0.1:0'}",
        DEBUG,
    ))
    .await;
    let at = address(&second, "receivers.zipkin");
    let case = of("exporters").find(|case| case.kind == "zipkin").unwrap();
    for format in ["json", "proto"] {
        let block = format!("{{endpoint: 'http://{at}/api/v2/spans', format: {format}, compression: gzip}}");
        let first = start(&document(case, &block, DEBUG)).await;
        assert_eq!(send(&first, "traces", 7).await, 200);
        let sent = "otelcol_exporter_sent_spans_total{exporter=\"zipkin\"}";
        until("delivery", || metric(&first, sent) == 7.0).await;
        first.stop().await;
    }
    let accepted = "otelcol_receiver_accepted_spans_total{receiver=\"zipkin\",transport=\"http\"}";
    assert_eq!(metric(&second, accepted), 14.0);
    second.stop().await;
}

#[tokio::test]
async fn traces_are_balanced_over_backends_and_none_is_lost() {
    let (a, b) = (Backend::default(), Backend::default());
    let (to_a, to_b) = (a.serve().await, b.serve().await);
    let case = of("exporters").find(|case| case.kind == "loadbalancing").unwrap();
    let block = format!(
        "{{protocol: {{otlp: {{tls: {{insecure: true}}}}}}, resolver: {{static: {{hostnames: ['{to_a}', '{to_b}']}}}}}}"
    );
    let service = start(&document(case, &block, DEBUG)).await;
    let mut many = request(200);
    for (index, span) in many.resource_spans[0].scope_spans[0].spans.iter_mut().enumerate() {
        span.trace_id = (index as u128 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_be_bytes()
            .to_vec();
    }
    let to = address(&service, "receivers.otlp/in");
    let status = post(to, "/v1/traces", "application/x-protobuf", &many.encode_to_vec()).await;
    assert_eq!(status, 200);
    service.stop().await;
    let (of_a, of_b) = (a.spans().len(), b.spans().len());
    assert_eq!(of_a + of_b, 200);
    assert!(of_a > 20 && of_b > 20, "{of_a} and {of_b}");
}

#[test]
fn connectors_that_lead_nowhere_or_in_a_circle_are_errors() {
    let said = |pipelines: &str| {
        let text = format!(
            "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\nconnectors:\n  forward/a:\n  forward/b:\n  spanmetrics:\nservice: {{pipelines: {{{pipelines}}}}}"
        );
        let (_, said) = check(&text, &Origin::file("c.yaml"), &|_| None);
        let errors = said.iter().filter(|d| d.is_error());
        errors
            .map(|d| format!("{}:{}", d.place.line.unwrap_or(0), d.message))
            .collect::<Vec<_>>()
    };
    let good = "traces: {receivers: [otlp], exporters: [spanmetrics, forward/a]}, traces/2: {receivers: [forward/a], exporters: [debug]}, metrics: {receivers: [spanmetrics], exporters: [debug]}";
    assert_eq!(said(good), Vec::<String>::new());
    let nowhere = said("traces: {receivers: [otlp], exporters: [forward/a]}");
    assert!(
        nowhere[0].starts_with("4:is an exporter of the pipeline `traces`"),
        "{nowhere:?}"
    );
    let wrong = said(
        "traces: {receivers: [otlp], exporters: [spanmetrics]}, logs: {receivers: [spanmetrics], exporters: [debug]}",
    );
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    let circle = said(
        "traces: {receivers: [otlp, forward/b], exporters: [forward/a]}, traces/2: {receivers: [forward/a], exporters: [forward/b, debug]}",
    );
    assert!(
        circle
            .iter()
            .any(|text| text.contains("leads in a circle: traces")),
        "{circle:?}"
    );
}

#[test]
fn oidc_inside_of_a_receiver_is_an_old_spelling_of_the_extension() {
    let text = "receivers:\n  otlp:\n    protocols:\n      grpc:\n        auth:\n          attribute: authorization\n          oidc: {issuer_url: http://a, audience: b}\nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}";
    let (config, said) = check(text, &Origin::file("c.yaml"), &|_| None);
    assert!(
        said.iter()
            .any(|d| d.place.line == Some(7) && d.message == "is an old spelling"),
        "{said:?}"
    );
    let config = config.unwrap_or_else(|| panic!("{said:?}"));
    let ExtensionConfig::Oidc(oidc) = &config.extensions[0].config else {
        panic!("an oidc extension")
    };
    assert_eq!(
        (oidc.issuer_url.as_str(), oidc.audience.as_str()),
        ("http://a", "b")
    );
}
