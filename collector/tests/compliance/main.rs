//! Every component of the collector through the same tests: wrong configuration, start and stop, back-pressure, shutdown
//! without loss, metrics, bounded queues. A component that is registered without a case here fails the first of them;
//! `runs.rs` says which runs leave which out, and why.

#![allow(clippy::unwrap_used)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod runs;
mod world;

use std::collections::BTreeSet;

use cases::{CASES, DEBUG, document, items, of};
use common::{Backend, address, config, metric, request, start, until};
use karez_collector::metrics::Metrics;
use karez_collector_config::component::Kind;
use karez_collector_config::{
    ConnectorConfig, ExporterConfig, ExtensionConfig, ProcessorConfig, ReceiverConfig, check,
};
use karez_document::Origin;
use prost::Message;
use runs::Run;
use world::{Hub, Taker, post, send, until_sent, ways};

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
    for case in CASES.iter().filter(|case| Run::Life.leaves_out(case).is_none()) {
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
    for case in Run::Counts.of("processors") {
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
    let to = Taker::refusing().serve().await;
    let refusing = format!(
        "otlphttp/out: {{endpoint: 'http://{to}', sending_queue: {{enabled: false}}, retry_on_failure: {{enabled: false}}}}"
    );
    let run = Run::BackPressure;
    for case in run.of("processors").chain(run.of("connectors")) {
        let service = start(&document(case, case.block, &refusing)).await;
        let status = send(&service, case.signal, 3).await;
        assert!(status == 503 || status == 500, "{}: {status}", case.kind);
        service.stop().await;
    }
    for case in run.of("receivers") {
        let service = start(&document(case, case.block, &refusing)).await;
        for way in ways(case.kind) {
            let taken = way.send(&service, case, 4).await;
            assert_ne!(taken, Some(true), "{} over {}", case.kind, way.transport);
            until(case.kind, || way.counted(&service, case, "refused") == 4.0).await;
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn a_stop_delivers_what_was_taken() {
    let run = Run::Stop;
    for case in run.of("processors").chain(run.of("connectors")) {
        let taker = Taker::default();
        let out = Taker::exporter(taker.serve().await);
        let service = start(&document(case, case.block, &out)).await;
        for _ in 0..20 {
            assert_eq!(send(&service, case.signal, 5).await, 200, "{}", case.kind);
        }
        let metrics = service.metrics();
        service.stop().await;
        if case.section == "processors" || case.kind == "forward" {
            assert_eq!(taker.items(case.signal), 100, "{}", case.kind);
            continue;
        }
        // What they made of it left, too.
        assert!(taker.items("metrics") > 0, "{}", case.kind);
        for (what, signal, least) in [("consumed", "traces", 100.0), ("produced", "metrics", 1.0)] {
            let line = format!(
                "otelcol_connector_{what}_items_total{{connector=\"{}\",otel_signal=\"{signal}\"}}",
                case.kind
            );
            let value = counted(&metrics, &line);
            assert!(value >= least, "{line} is {value}");
        }
    }
}

/// What a collector that has stopped had counted.
fn counted(metrics: &Metrics, line: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
    let value = text.lines().find_map(|text| text.strip_prefix(line));
    value.unwrap_or("0").trim().parse().unwrap()
}

#[tokio::test]
async fn a_stop_of_a_receiver_loses_nothing_it_took() {
    for case in Run::Stop.of("receivers") {
        let taker = Taker::default();
        let out = Taker::exporter(taker.serve().await);
        let service = start(&document(case, case.block, &out)).await;
        let mut sent = 0;
        for way in ways(case.kind) {
            for _ in 0..5 {
                if way.send(&service, case, 4).await == Some(true) {
                    sent += 4;
                }
            }
            if matches!(way.language, world::Language::JaegerUdp) {
                // Nobody answers: what is counted is taken.
                until("datagrams", || way.counted(&service, case, "accepted") == 20.0).await;
                sent += 20;
            }
        }
        service.stop().await;
        assert!(sent >= 20, "{}", case.kind);
        assert_eq!(taker.items("traces"), sent, "{}", case.kind);
    }
}

#[tokio::test]
async fn exporters_count_what_they_sent_and_a_stop_sends_the_rest() {
    let hub = Hub::start().await;
    let mut before = [("traces", 0), ("metrics", 0), ("logs", 0)];
    for case in Run::Counts
        .of("exporters")
        .filter(|case| case.block.contains("DEAD"))
    {
        let service = start(&document(case, &hub.block(case), DEBUG)).await;
        for _ in 0..4 {
            assert_eq!(send(&service, case.signal, 3).await, 200, "{}", case.kind);
        }
        if !case.kind.starts_with("load") {
            // Those of backends are counted by backend.
            until_sent(&service, case, 12.0).await;
        }
        assert_eq!(send(&service, case.signal, 5).await, 200, "{}", case.kind);
        let metrics = service.metrics();
        service.stop().await;
        if case.kind.starts_with("prometheus") {
            // What it sends is no OTLP.
            let line = format!(
                "otelcol_exporter_sent_metric_points_total{{exporter=\"{}\"}}",
                case.kind
            );
            assert_eq!(counted(&metrics, &line), 17.0, "{}", case.kind);
            continue;
        }
        let (_, known) = before
            .iter_mut()
            .find(|(signal, _)| *signal == case.signal)
            .unwrap();
        *known += 17;
        // The hub has answered for all of it, and hands it on.
        until(case.kind, || hub.taker.items(case.signal) >= *known).await;
        assert_eq!(hub.taker.items(case.signal), *known, "{}", case.kind);
    }
    hub.service.stop().await;
}

#[tokio::test]
async fn exporters_that_cannot_deliver_fill_a_bounded_queue_and_then_refuse() {
    for case in Run::Bounds.of("exporters") {
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
    for case in Run::Counts
        .of("receivers")
        .filter(|case| case.kind != "prometheus")
    {
        let service = start(&document(case, case.block, DEBUG)).await;
        for way in ways(case.kind) {
            for _ in 0..3 {
                let taken = way.send(&service, case, 4).await;
                assert_ne!(taken, Some(false), "{} over {}", case.kind, way.transport);
            }
            until(case.kind, || way.counted(&service, case, "accepted") == 12.0).await;
            assert_eq!(way.counted(&service, case, "refused"), 0.0);
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn the_prometheus_receiver_counts_what_it_scrapes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let page = || async { "# TYPE a gauge\na{b=\"1\"} 1\na{b=\"2\"} 2\n" };
    let router = axum::Router::new().route("/metrics", axum::routing::get(page));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let case = of("receivers").find(|case| case.kind == "prometheus").unwrap();
    let block = format!(
        "{{config: {{scrape_configs: [{{job_name: a, scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: [{{targets: ['{at}']}}]}}]}}}}"
    );
    let service = start(&document(case, &block, DEBUG)).await;
    let accepted =
        "otelcol_receiver_accepted_metric_points_total{receiver=\"prometheus\",transport=\"http\"}";
    // Two samples, and what is said of the scrape itself.
    until("scrapes", || metric(&service, accepted) >= 7.0).await;
    service.stop().await;
}

#[tokio::test]
async fn receivers_refuse_bodies_beyond_their_limit() {
    for case in Run::Bounds.of("receivers") {
        let small = "max_request_body_size: 2000";
        let block = match case.kind {
            "zipkin" => format!("{{endpoint: '127.0.0.1:0', {small}}}"),
            "jaeger" => case.block.replace(
                "thrift_http: {endpoint: '127.0.0.1:0'",
                &format!("thrift_http: {{endpoint: '127.0.0.1:0', {small}"),
            ),
            _ => format!(
                "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 1}}, http: {{endpoint: '127.0.0.1:0', {small}}}}}}}"
            ),
        };
        assert_ne!(block, case.block);
        let service = start(&document(case, &block, DEBUG)).await;
        for way in ways(case.kind).iter().filter(|way| way.transport != "udp") {
            let many = if way.transport == "grpc" { 50_000 } else { 500 };
            assert_eq!(way.send(&service, case, 4).await, Some(true), "{}", case.kind);
            assert_eq!(way.send(&service, case, many).await, Some(false), "{}", case.kind);
            assert_eq!(way.send(&service, case, 4).await, Some(true), "{}", case.kind);
            assert_eq!(way.counted(&service, case, "accepted"), 8.0, "{}", case.kind);
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn zipkin_takes_both_versions_and_counts_them() {
    let case = of("receivers").find(|case| case.kind == "zipkin").unwrap();
    let service = start(&document(case, case.block, DEBUG)).await;
    let json = br#"[{"traceId": "1", "id": "2", "name": "n"}, {"traceId": "1", "id": "3"}]"#;
    let at = address(&service, "receivers.zipkin");
    assert_eq!(post(at, "/api/v2/spans", "application/json", json).await, 202);
    assert_eq!(post(at, "/api/v2/spans", "application/json", b"{").await, 400);
    let old = br#"[{"traceId": "1", "id": "2", "annotations": [{"timestamp": 1, "value": "cs"}, {"timestamp": 2, "value": "sr"}]}]"#;
    assert_eq!(post(at, "/api/v1/spans", "application/json", old).await, 202);
    assert_eq!(post(at, "/api/v1/spans", "application/json", b"{").await, 400);
    assert_eq!(post(at, "/api/v1/spans", "application/x-thrift", b"").await, 415);
    let accepted = "otelcol_receiver_accepted_spans_total{receiver=\"zipkin\",transport=\"http\"}";
    assert_eq!(metric(&service, accepted), 4.0);
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
