//! What the tests share: a collector from a text, a sender, and a backend that keeps what it gets.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use karez_collector::Service;
use karez_collector_config::check;
use karez_document::{Diagnosis, Origin};
use karez_net::Net;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub fn config(text: &str) -> karez_collector_config::CollectorConfig {
    let (config, said) = check(text, &Origin::file("c.yaml"), &|_| None);
    config.unwrap_or_else(|| panic!("{}", said.iter().map(|d| format!("{d}\n")).collect::<String>()))
}

/// A collector that listens on loopback. Its metrics are not served.
pub async fn start(text: &str) -> Service {
    try_start(text)
        .await
        .unwrap_or_else(|diagnosis| panic!("{diagnosis}"))
}

pub async fn try_start(text: &str) -> Result<Service, Diagnosis> {
    let mut service = Service::new(Net::system());
    let mut config = config(text);
    config.telemetry.metrics.clear();
    service.apply(&config).await.map(|()| service)
}

pub async fn apply(service: &mut Service, text: &str) -> Result<(), Diagnosis> {
    let mut config = config(text);
    config.telemetry.metrics.clear();
    service.apply(&config).await
}

pub fn address(service: &Service, key: &str) -> SocketAddr {
    let addresses = service.addresses();
    addresses
        .iter()
        .find(|(of, _)| of == key)
        .unwrap_or_else(|| panic!("{key} in {addresses:?}"))
        .1
}

/// The value of a counter or gauge, 0 if it is not there.
pub fn metric(service: &Service, line: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &service.metrics().registry()).expect("metrics");
    let found = text
        .lines()
        .find_map(|l| l.strip_prefix(line))
        .map(|value| value.trim().parse().expect("a number"));
    found.unwrap_or(0.0)
}

/// Waits for a condition.
pub async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !met() {
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn request(spans: usize) -> ExportTraceServiceRequest {
    let span = |index: usize| Span {
        trace_id: vec![7; 16],
        span_id: (index as u64 + 1).to_be_bytes().to_vec(),
        name: format!("span-{index}"),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: (0..spans).map(span).collect(),
        ..ScopeSpans::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
}

pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect_lazy()
}

/// Sends spans over OTLP/gRPC, compressed.
pub async fn send(address: SocketAddr, spans: usize, headers: &[(&'static str, &str)]) -> Result<(), Status> {
    send_bytes(address, request(spans).encode_to_vec().into(), headers).await
}

pub async fn send_bytes(
    address: SocketAddr,
    body: Bytes,
    headers: &[(&'static str, &str)],
) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel(address))
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let mut request = tonic::Request::new(body);
    for (name, value) in headers {
        request
            .metadata_mut()
            .insert(*name, value.parse().expect("a header"));
    }
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    grpc.unary(request, TRACES.parse().expect("a path"), BytesCodec)
        .await
        .map(|_| ())
}

/// Keeps what it gets and answers as it is told.
#[derive(Clone, Default)]
pub struct Backend {
    pub payloads: Arc<Mutex<Vec<Bytes>>>,
    pub headers: Arc<Mutex<Vec<http::HeaderMap>>>,
    pub answer: Arc<Mutex<Option<Status>>>,
}

impl Backend {
    /// Serves OTLP/gRPC and OTLP/HTTP on one port.
    pub async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        self.serve_on(listener);
        address
    }

    pub fn serve_on(&self, listener: tokio::net::TcpListener) {
        let (grpc, http) = (self.clone(), self.clone());
        let router = axum::Router::new()
            .route(TRACES, post(move |request: Request| grpc.clone().grpc(request)))
            .route(
                "/v1/traces",
                post(move |request: Request| http.clone().http(request)),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    async fn grpc(self, request: Request) -> impl IntoResponse {
        self.headers
            .lock()
            .expect("a lock")
            .push(request.headers().clone());
        let mut grpc = tonic::server::Grpc::new(BytesCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        grpc.unary(self, request).await.map(Body::new)
    }

    async fn http(self, request: Request) -> impl IntoResponse {
        self.headers
            .lock()
            .expect("a lock")
            .push(request.headers().clone());
        let body = axum::body::to_bytes(request.into_body(), 1 << 20)
            .await
            .expect("a body");
        if self.answer.lock().expect("a lock").is_some() {
            return http::StatusCode::SERVICE_UNAVAILABLE;
        }
        self.payloads.lock().expect("a lock").push(body);
        http::StatusCode::OK
    }

    pub fn answer(&self, code: Option<Code>) {
        *self.answer.lock().expect("a lock") = code.map(|code| Status::new(code, "as told"));
    }

    /// All spans' names.
    pub fn spans(&self) -> Vec<String> {
        let payloads = self.payloads.lock().expect("a lock").clone();
        let requests = payloads
            .into_iter()
            .map(|p| ExportTraceServiceRequest::decode(p).expect("OTLP"));
        let resources = requests.flat_map(|request| request.resource_spans);
        resources
            .flat_map(|r| r.scope_spans)
            .flat_map(|s| s.spans)
            .map(|span| span.name)
            .collect()
    }
}

impl tonic::server::UnaryService<Bytes> for Backend {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let answer = self.answer.lock().expect("a lock").clone();
        let payloads = self.payloads.clone();
        Box::pin(async move {
            match answer {
                Some(status) => Err(status),
                None => {
                    payloads.lock().expect("a lock").push(request.into_inner());
                    Ok(tonic::Response::new(Bytes::new()))
                }
            }
        })
    }
}

/// Hands messages on as they are encoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        BytesCodec
    }

    fn decoder(&mut self) -> Self {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
