//! The Jaeger components together over real sockets: exporter → receiver → store exporter → store → query API, with
//! authentication between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use karez_collector_config::common::Auth;
use karez_collector_config::values::Secret;
use karez_collector_config::{ComponentId, exporters, extensions, receivers};
use karez_net::Net;
use tokio::time::Instant;

use super::JaegerReceiver;
use crate::batch::{Batch, Signal};
use crate::component::{
    ComponentContext, Consume, Consumer, Consumers, Exporter, Extension, Extensions, Outcome, Receiver as _,
    Refusal, Running, StartError,
};
use crate::exporters::jaeger::JaegerExporter;
use crate::exporters::jaeger_storage::JaegerStorageExporter;
use crate::extensions::auth::{BasicAuthExtension, BearerTokenAuthExtension};
use crate::extensions::health_check::HealthCheckExtension;
use crate::extensions::jaeger_query::JaegerQueryExtension;
use crate::extensions::jaeger_storage::JaegerStorageExtension;
use crate::metrics::Metrics;
use crate::telemetrygen::{SendOptions, TlsOptions, TracesOptions, jaeger_compact, traces};

const LOCAL: &str = "127.0.0.1:0";

struct Stored(JaegerStorageExporter);

impl Consume for Stored {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async {
            match self.0.export(batch).await {
                Outcome::Delivered => Ok(()),
                Outcome::Retry { reason, .. } => Err(Refusal::later(reason)),
                Outcome::Refused { reason } => Err(Refusal::never(reason)),
            }
        })
    }
}

fn id(text: &str) -> ComponentId {
    text.parse().unwrap()
}

fn context(extensions: Vec<(ComponentId, Arc<dyn Extension>)>) -> ComponentContext {
    ComponentContext {
        id: id("jaeger"),
        key: "receivers.jaeger".into(),
        net: Net::system(),
        extensions: Extensions(Arc::new(extensions)),
        metrics: Metrics::new(),
    }
}

fn storage() -> Arc<dyn Extension> {
    let memory = extensions::Backend {
        memory: Some(extensions::MemoryBackend::default()),
        ..extensions::Backend::default()
    };
    let config = extensions::JaegerStorage {
        backends: [("main".to_owned(), memory)].into(),
        metric_backends: None,
    };
    Arc::new(JaegerStorageExtension::new(&config))
}

async fn server_auth(inline: &str) -> Arc<dyn Extension> {
    let htpasswd = extensions::Htpasswd {
        file: String::new(),
        inline: Secret::new(inline),
    };
    let extension = BasicAuthExtension::new(extensions::BasicAuth {
        htpasswd: Some(htpasswd),
        client_auth: None,
    });
    extension.start(&context(vec![])).await.unwrap();
    Arc::new(extension)
}

fn consumers(cx: &ComponentContext) -> Consumers {
    let config = exporters::JaegerStorageExporter {
        trace_storage: "main".into(),
        ..Default::default()
    };
    let store = JaegerStorageExporter::new(&config, cx).unwrap();
    let mut by_signal = [None, None, None];
    by_signal[Signal::Traces as usize] = Some(Consumer::new(Stored(store)));
    Consumers {
        receiver: cx.id.clone(),
        metrics: cx.metrics.clone(),
        by_signal,
    }
}

fn receiver(auth: Option<&str>) -> JaegerReceiver {
    let udp = || receivers::JaegerUdp {
        endpoint: LOCAL.into(),
        ..Default::default()
    };
    let auth = auth.map(|name| Auth {
        authenticator: name.into(),
        ..Default::default()
    });
    let grpc = karez_collector_config::common::GrpcServer {
        endpoint: LOCAL.into(),
        auth,
        ..Default::default()
    };
    let protocols = receivers::JaegerProtocols {
        grpc: Some(grpc),
        thrift_http: Some(karez_collector_config::common::HttpServer {
            endpoint: LOCAL.into(),
            ..Default::default()
        }),
        thrift_compact: Some(udp()),
        thrift_binary: Some(udp()),
    };
    JaegerReceiver::new(receivers::JaegerReceiver {
        protocols,
        remote_sampling: None,
    })
}

fn exporter(endpoint: String, cx: &ComponentContext) -> Result<JaegerExporter, StartError> {
    let mut config = exporters::GrpcExporter::default();
    config.client.endpoint = endpoint;
    config.client.tls.insecure = true;
    JaegerExporter::new(&config, cx)
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, serde_json::Value) {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<Bytes>>();
    let answer = client
        .get(format!("http://{address}{path}").parse().unwrap())
        .await
        .unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn query(cx: &ComponentContext) -> Running {
    let config = extensions::JaegerQuery {
        storage: extensions::QueryStorage {
            traces: "main".into(),
            ..Default::default()
        },
        http: Some(karez_collector_config::common::HttpServer {
            endpoint: LOCAL.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    JaegerQueryExtension::new(config).start(cx).await.unwrap()
}

/// An OTLP batch of two services, made by the generator.
fn two_services() -> Batch {
    use opentelemetry_proto::tonic::trace::v1::TracesData;
    let mut data = TracesData::default();
    for service in ["front", "back"] {
        let span = crate::jaeger::model::Span {
            trace_id: crate::jaeger::model::trace_id(7, 7),
            span_id: (service.len() as i64).to_be_bytes().to_vec(),
            operation_name: "op".into(),
            ..Default::default()
        };
        let process = crate::jaeger::model::Process {
            service_name: service.into(),
            tags: vec![],
        };
        let batch = crate::jaeger::model::Batch {
            spans: vec![span],
            process: Some(process),
        };
        data.resource_spans.extend(crate::jaeger::to_otlp::batch(batch));
    }
    Batch::encode(Signal::Traces, &data, 2)
}

async fn until_traces(api: std::net::SocketAddr, service: &str, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, found) = get(api, &format!("/api/traces?service={service}&start=0&limit=1000")).await;
        if found["data"].as_array().unwrap().len() == count {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not in time: {count} traces of {service}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn spans_of_every_protocol_reach_the_query_api() {
    let cx = context(vec![(id("jaeger_storage"), storage())]);
    let api = query(&cx).await;
    let running = receiver(None).start(consumers(&cx), &cx).await.unwrap();
    let [grpc, _http, compact, _binary] = running.addresses() else {
        panic!("four addresses")
    };
    jaeger_compact(SendOptions {
        target: *compact,
        traces: 10,
        service: "udp".into(),
    })
    .await
    .unwrap();
    let exporter = exporter(format!("http://{grpc}"), &cx).unwrap();
    assert_eq!(exporter.export(two_services()).await, Outcome::Delivered);
    assert_eq!(
        exporter.export(two_services()).await,
        Outcome::Delivered,
        "a retried batch is known"
    );
    let api = api.addresses()[0];
    until_traces(api, "udp", 10).await;
    until_traces(api, "front", 1).await;
    assert_eq!(
        get(api, "/api/services").await.1["data"],
        serde_json::json!(["back", "front", "udp"])
    );
    running.stop(Instant::now() + Duration::from_secs(10)).await;
    let down = exporter.export(two_services()).await;
    assert!(
        matches!(&down, Outcome::Retry { reason, .. } if reason.contains("refused")),
        "{down:?}"
    );
}

#[tokio::test]
async fn callers_without_or_with_wrong_credentials_get_the_collectors_words() {
    let cx = context(vec![
        (id("jaeger_storage"), storage()),
        (id("basicauth/server"), server_auth("user-1:1234").await),
    ]);
    let running = receiver(Some("basicauth/server"))
        .start(consumers(&cx), &cx)
        .await
        .unwrap();
    let address = running.addresses()[0];
    // No method but the authenticator's refusal comes first, so an OTLP caller sees it too.
    let call = async |credentials: Option<&str>| {
        use base64::Engine as _;
        let encode = |pair| base64::engine::general_purpose::STANDARD.encode(pair);
        let headers = credentials.map(|pair| ("authorization".to_owned(), format!("Basic {}", encode(pair))));
        let options = TracesOptions {
            endpoint: address.to_string(),
            tls: TlsOptions {
                insecure: true,
                ..Default::default()
            },
            headers: headers.into_iter().collect(),
            ..Default::default()
        };
        traces(options, &Net::system()).await.unwrap_err().to_string()
    };
    assert!(
        call(None)
            .await
            .ends_with("Unauthenticated: no basic auth provided"),
        "{}",
        call(None).await
    );
    assert!(
        call(Some("user-1:wrong"))
            .await
            .ends_with("Unauthenticated: invalid credentials")
    );
    assert!(
        call(Some("nobody:1234"))
            .await
            .ends_with("Unauthenticated: invalid credentials")
    );
    assert!(call(Some("user-1:1234")).await.contains("Unimplemented"));
    let refused = exporter(address.to_string(), &cx)
        .unwrap()
        .export(two_services())
        .await;
    assert!(
        matches!(&refused, Outcome::Refused { reason } if reason.contains("no basic auth provided")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_is_configured_wrong_is_named() {
    let cx = context(vec![]);
    let config = exporters::JaegerStorageExporter {
        trace_storage: "main".into(),
        ..Default::default()
    };
    let error = JaegerStorageExporter::new(&config, &cx).err().unwrap();
    assert_eq!(
        (error.key(), error.to_string().as_str()),
        ("trace_storage", "there is no trace store `main`")
    );
    let error = JaegerQueryExtension::new(Default::default())
        .start(&cx)
        .await
        .unwrap_err();
    assert_eq!(error.key(), "storage.traces");
    let tokens = extensions::BearerTokenAuth {
        filename: "/nowhere/token".into(),
        ..Default::default()
    };
    let error = BearerTokenAuthExtension::new(tokens)
        .start(&cx)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/token"), "{error}");
    let holder = receiver(None).start(consumers(&stored()), &cx).await.unwrap();
    let taken = holder.addresses()[2];
    let mut second = receivers::JaegerReceiver::default();
    second.protocols.thrift_compact = Some(receivers::JaegerUdp {
        endpoint: taken.to_string(),
        ..Default::default()
    });
    let error = JaegerReceiver::new(second)
        .start(consumers(&stored()), &cx)
        .await
        .unwrap_err();
    assert_eq!(error.key(), "protocols.thrift_compact.endpoint");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

fn stored() -> ComponentContext {
    context(vec![(id("jaeger_storage"), storage())])
}

#[tokio::test]
async fn the_health_check_follows_the_pipelines() {
    let mut config = extensions::HealthCheck::default();
    config.server.endpoint = LOCAL.into();
    let extension = HealthCheckExtension::new(config);
    let running = extension.start(&context(vec![])).await.unwrap();
    let address = running.addresses()[0];
    assert_eq!(get(address, "/").await.0, 503);
    extension.pipelines_ready(true);
    let (status, body) = get(address, "/").await;
    assert_eq!(
        (status, &body["status"]),
        (200, &serde_json::json!("Server available"))
    );
}
