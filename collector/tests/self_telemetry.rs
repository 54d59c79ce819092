//! The collector's own metrics, pushed by OTLP to an `otlp` receiver of ours, which hands them to a backend.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use bytes::Bytes;
use common::{address, apply, send, start, until};
use http::HeaderMap;
use karez_collector::Service;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use prost::Message;

/// What came, and with which headers.
#[derive(Clone, Default)]
struct Backend {
    came: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Backend {
    async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let came = self.came.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            came.lock().unwrap().push((headers, body));
        };
        let router = axum::Router::new().route("/v1/metrics", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        at
    }

    /// The last value of a metric of a service, with its kind and the points' attributes.
    fn last(&self, service: &str, metric: &str) -> Option<(Number, String)> {
        let came = self.came.lock().unwrap().clone();
        let requests = came
            .into_iter()
            .map(|(_, body)| ExportMetricsServiceRequest::decode(body).unwrap());
        let resources = requests.flat_map(|request| request.resource_metrics);
        let of_service = resources.filter(|one| {
            let resource = one.resource.as_ref().unwrap();
            assert_eq!(text(&resource.attributes, "service.instance.id").len(), 36);
            assert!(!text(&resource.attributes, "service.version").is_empty());
            text(&resource.attributes, "service.name") == service
        });
        let metrics = of_service
            .flat_map(|one| one.scope_metrics)
            .flat_map(|one| one.metrics);
        let points = metrics
            .filter(|found| found.name == metric)
            .flat_map(|found| match found.data {
                Some(Data::Sum(sum)) => sum.data_points,
                Some(Data::Gauge(gauge)) => gauge.data_points,
                _ => Vec::new(),
            });
        let last = points.last()?;
        Some((last.value?, text(&last.attributes, "receiver")))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// A collector of ours that takes metrics over both protocols.
async fn taker(backend: SocketAddr) -> (Service, SocketAddr, SocketAddr) {
    let service = start(&format!(
        "receivers:
  otlp/grpc: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}
  otlp/http: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
exporters: {{otlphttp: {{endpoint: 'http://{backend}', compression: none}}}}
service: {{pipelines: {{metrics: {{receivers: [otlp/grpc, otlp/http], exporters: [otlphttp]}}}}}}"
    ))
    .await;
    let (grpc, http) = (
        address(&service, "receivers.otlp/grpc"),
        address(&service, "receivers.otlp/http"),
    );
    (service, grpc, http)
}

fn pushing(name: &str, exporter: &str, interval: u32) -> String {
    format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{debug: }}
service:
  telemetry:
    resource: {{service.name: {name}}}
    metrics: {{readers: [{{periodic: {{interval: {interval}, exporter: {{{exporter}}}}}}}]}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}"
    )
}

const ACCEPTED: &str = "otelcol_receiver_accepted_spans";

#[tokio::test]
async fn figures_are_pushed_by_grpc_and_http_as_the_page_has_them() {
    let backend = Backend::default();
    let (taker, grpc, http) = taker(backend.serve().await).await;
    for (name, exporter) in [
        (
            "by-grpc",
            format!("otlp: {{protocol: grpc, endpoint: 'http://{grpc}', compression: gzip}}"),
        ),
        (
            "by-http",
            format!("otlp: {{protocol: http/protobuf, endpoint: 'http://{http}'}}"),
        ),
        (
            "by-old",
            format!("otlp_grpc: {{endpoint: '{grpc}', tls: {{insecure: true}}}}"),
        ),
        (
            "by-new",
            format!("otlp_http: {{endpoint: 'http://{http}/v1/metrics'}}"),
        ),
    ] {
        let service = start(&pushing(name, &exporter, 100)).await;
        send(address(&service, "receivers.otlp"), 3, &[]).await.unwrap();
        let wanted = Some((Number::AsInt(3), "otlp".to_owned()));
        until(name, || backend.last(name, ACCEPTED) == wanted).await;
        assert!(matches!(
            backend.last(name, "otelcol_process_uptime"),
            Some((Number::AsDouble(_), _))
        ));
        assert!(backend.last(name, "otelcol_process_memory_rss").is_some());
        service.stop().await;
    }
    taker.stop().await;
}

#[tokio::test]
async fn the_last_figures_leave_at_the_stop_and_at_a_change() {
    let backend = Backend::default();
    let (taker, grpc, _) = taker(backend.serve().await).await;
    let exporter = format!("otlp: {{protocol: grpc, endpoint: 'http://{grpc}'}}");
    let hour = 3_600_000;
    let mut service = start(&pushing("before", &exporter, hour)).await;
    send(address(&service, "receivers.otlp"), 5, &[]).await.unwrap();
    apply(&mut service, &pushing("after", &exporter, hour))
        .await
        .unwrap();
    let wanted = |count| Some((Number::AsInt(count), "otlp".to_owned()));
    until("the change", || backend.last("before", ACCEPTED) == wanted(5)).await;
    // What pushes is no part of a pipeline: the receiver was not touched, and counts on.
    send(address(&service, "receivers.otlp"), 2, &[]).await.unwrap();
    service.stop().await;
    until("the stop", || backend.last("after", ACCEPTED) == wanted(7)).await;
    taker.stop().await;
}

#[tokio::test]
async fn a_place_that_is_not_there_holds_nothing_up() {
    let at = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let exporter = format!("otlp: {{protocol: grpc, endpoint: 'http://{at}'}}");
    let service = start(&pushing("alone", &exporter, 100)).await;
    send(address(&service, "receivers.otlp"), 1, &[]).await.unwrap();
    // It is there later, and is told all that was counted meanwhile.
    let backend = Backend::default();
    let to = backend.serve().await;
    let taker = start(&format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{at}'}}}}}}}}
exporters: {{otlphttp: {{endpoint: 'http://{to}', compression: none}}}}
service: {{pipelines: {{metrics: {{receivers: [otlp], exporters: [otlphttp]}}}}}}"
    ))
    .await;
    let wanted = Some((Number::AsInt(1), "otlp".to_owned()));
    until("the figures", || backend.last("alone", ACCEPTED) == wanted).await;
    taker.stop().await;
    tokio::time::timeout(std::time::Duration::from_secs(25), service.stop())
        .await
        .expect("the stop does not wait for what is gone");
}
