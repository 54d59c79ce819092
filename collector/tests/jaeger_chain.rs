//! Two collectors from documents, as in the two-sites example: spans that enter the edge over UDP come out of the public
//! collector's query API; callers without credentials are told so; a changed document keeps what is stored.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use karez_collector::Service;
use karez_collector::telemetrygen::{
    SendOptions, TlsOptions, TracesOptions, Transport, jaeger_compact, traces,
};
use karez_collector_config::{CollectorConfig, check};
use karez_document::Origin;
use karez_net::Net;
use tokio::time::Instant;

/// What a Jaeger resource becomes: receivers, a store in memory and the query API.
const JAEGER: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: '127.0.0.1:0'}}}
  jaeger: {protocols: {grpc: {endpoint: '127.0.0.1:0'}, thrift_http: {endpoint: '127.0.0.1:0'}}}
exporters:
  jaeger_storage_exporter: {trace_storage: main}
extensions:
  jaeger_query: {storage: {traces: main}, http: {endpoint: '127.0.0.1:0'}}
  jaeger_storage: {backends: {main: {memory: {max_traces: 1000}}}}
  health_check: {endpoint: '127.0.0.1:0'}
service:
  telemetry: {metrics: {level: none}}
  extensions: [jaeger_query, jaeger_storage, health_check]
  pipelines:
    traces: {receivers: [otlp, jaeger], processors: [], exporters: [jaeger_storage_exporter]}
";

fn config(text: &str) -> CollectorConfig {
    let (config, said) = check(text, &Origin::file("collector.yaml"), &|_| None);
    config.unwrap_or_else(|| panic!("{said:#?}"))
}

async fn start(text: &str) -> Service {
    let mut service = Service::new(Net::system());
    service.apply(&config(text)).await.unwrap();
    service
}

fn address(service: &Service, component: &str, nth: usize) -> SocketAddr {
    let all = service.addresses();
    all.iter()
        .filter(|(name, _)| name == component)
        .nth(nth)
        .unwrap_or_else(|| panic!("{component} in {all:?}"))
        .1
}

async fn get(address: SocketAddr, path: &str) -> serde_json::Value {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Empty<Bytes>>();
    let answer = client
        .get(format!("http://{address}{path}").parse().unwrap())
        .await
        .unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

async fn until_spans(api: SocketAddr, service: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = get(api, &format!("/api/traces?service={service}&limit=1000")).await;
        let traces = found["data"].as_array().unwrap();
        let spans: usize = traces
            .iter()
            .map(|trace| trace["spans"].as_array().unwrap().len())
            .sum();
        if spans == count {
            return traces
                .iter()
                .map(|trace| trace["traceID"].as_str().unwrap().to_owned())
                .collect();
        }
        assert!(
            Instant::now() < deadline,
            "{spans} of {count} spans of {service} in time"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn spans_go_from_udp_at_the_edge_to_the_public_store() {
    let jaeger = start(JAEGER).await;
    let public = start(&format!(
        "
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}
processors: {{batch: }}
exporters: {{logging: , jaeger: {{endpoint: '{}', tls: {{insecure: true}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], processors: [batch], exporters: [logging, jaeger]}}}}
",
        address(&jaeger, "receivers.jaeger", 0)
    ))
    .await;
    let edge = start(&format!(
        "
receivers: {{jaeger: {{protocols: {{thrift_compact: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{otlp: {{endpoint: 'http://{}', tls: {{insecure: true}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [jaeger], exporters: [otlp]}}}}
",
        address(&public, "receivers.otlp", 0)
    ))
    .await;
    let target = address(&edge, "receivers.jaeger", 0);
    let mut sent = jaeger_compact(SendOptions {
        target,
        traces: 10,
        service: "demo".into(),
    })
    .await
    .unwrap();
    let mut found = until_spans(address(&jaeger, "extensions.jaeger_query", 0), "demo", 20).await;
    sent.sort();
    found.sort();
    assert_eq!(sent, found);
    for service in [edge, public, jaeger] {
        service.stop().await;
    }
}

#[tokio::test]
async fn a_changed_document_keeps_what_is_stored_and_serves_it() {
    let mut jaeger = start(JAEGER).await;
    let options = TracesOptions {
        endpoint: address(&jaeger, "receivers.otlp", 0).to_string(),
        tls: TlsOptions {
            insecure: true,
            ..TlsOptions::default()
        },
        traces: 3,
        ..TracesOptions::default()
    };
    traces(options, &Net::system()).await.unwrap();
    until_spans(address(&jaeger, "extensions.jaeger_query", 0), "telemetrygen", 6).await;
    let health = address(&jaeger, "extensions.health_check", 0);
    assert_eq!(get(health, "/").await["status"], "Server available");
    let moved = JAEGER.replace(
        "storage: {traces: main}",
        "base_path: /jaeger, storage: {traces: main}",
    );
    jaeger.apply(&config(&moved)).await.unwrap();
    let api = address(&jaeger, "extensions.jaeger_query", 0);
    let found = get(api, "/jaeger/api/traces?service=telemetrygen").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 3);
    let emptied = moved.replace("max_traces: 1000", "max_traces: 999");
    jaeger.apply(&config(&emptied)).await.unwrap();
    let api = address(&jaeger, "extensions.jaeger_query", 0);
    assert_eq!(
        get(api, "/jaeger/api/services").await["data"],
        serde_json::json!([])
    );
    jaeger.stop().await;
}

#[tokio::test]
async fn otlp_callers_without_or_with_wrong_credentials_are_refused_in_the_collectors_words() {
    let guarded = start(
        "
extensions:
  basicauth/server: {htpasswd: {inline: 'user-1:$$apr1$$saltsalt$$xTHh70zTZEsccS/UX8/vw1'}}
  bearertokenauth: {token: secret}
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0', auth: {authenticator: basicauth/server}}, http: {endpoint: '127.0.0.1:0', auth: {authenticator: bearertokenauth}}}}
exporters: {debug: }
service:
  telemetry: {metrics: {level: none}}
  extensions: [basicauth/server, bearertokenauth]
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
",
    )
    .await;
    let send = async |transport: Transport, authorization: Option<&str>| {
        let nth = usize::from(transport == Transport::Http);
        let options = TracesOptions {
            endpoint: address(&guarded, "receivers.otlp", nth).to_string(),
            transport,
            tls: TlsOptions {
                insecure: true,
                ..TlsOptions::default()
            },
            headers: authorization
                .map(|value| ("authorization".into(), value.into()))
                .into_iter()
                .collect(),
            ..TracesOptions::default()
        };
        traces(options, &Net::system())
            .await
            .map(|sent| sent.spans)
            .map_err(|error| error.to_string())
    };
    let refused = |sent: Result<usize, String>, words: &str| {
        let error = sent.unwrap_err();
        assert!(error.contains(words), "{error} should say {words}");
    };
    refused(
        send(Transport::Grpc, None).await,
        "Unauthenticated: no basic auth provided",
    );
    refused(
        send(Transport::Grpc, Some("Bearer x")).await,
        "invalid authorization scheme prefix",
    );
    refused(
        send(Transport::Grpc, Some("Basic eHg=")).await,
        "invalid authorization format",
    );
    refused(
        send(Transport::Grpc, Some("Basic dXNlci0xOng=")).await,
        "invalid credentials",
    );
    assert_eq!(send(Transport::Grpc, Some("Basic dXNlci0xOjEyMzQ=")).await, Ok(2));
    let missing = "401 Unauthorized missing or empty authorization header: Authorization";
    refused(send(Transport::Http, None).await, missing);
    let wrong = "401 Unauthorized provided authorization does not match expected scheme or token";
    refused(send(Transport::Http, Some("Bearer x")).await, wrong);
    assert_eq!(send(Transport::Http, Some("Bearer secret")).await, Ok(2));
    guarded.stop().await;
}
