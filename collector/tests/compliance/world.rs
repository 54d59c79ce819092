//! What stands before and behind the component of a test: senders in the language of each receiver, and a backend that
//! counts what comes in the language of each exporter.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use bytes::Bytes;
use http::StatusCode;
use karez_collector::Service;
use karez_collector::batch::{Batch, Signal};
use karez_collector::jaeger::from_otlp;
use karez_collector::telemetrygen::{SendOptions, jaeger_compact};
use karez_collector::thrift::{Encoding, encode_batch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cases::{Case, body, items};
use crate::common::{address, metric, request, send_bytes, start, until};

/// Posts a body, and gives the status.
pub(crate) async fn post(to: SocketAddr, path: &str, kind: &str, body: &[u8]) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // An answer may come before all of it is taken.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("{path}: {answer:?}"))
}

/// Posts OTLP to the receiver before everything.
pub(crate) async fn send(service: &Service, signal: &str, items: usize) -> u16 {
    let to = address(service, "receivers.otlp/in");
    let path = format!("/v1/{signal}");
    post(to, &path, "application/x-protobuf", &body(signal, items)).await
}

/// Takes whatever is posted, and counts what of it is OTLP.
#[derive(Clone, Default)]
pub(crate) struct Taker {
    came: Arc<Mutex<Vec<(String, Bytes)>>>,
    refuses: bool,
}

impl Taker {
    /// One that answers 503.
    pub(crate) fn refusing() -> Self {
        Taker {
            refuses: true,
            ..Taker::default()
        }
    }

    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let taker = self.clone();
        let take = move |request: Request| async move {
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            if taker.refuses {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            taker.came.lock().unwrap().push((path, body));
            StatusCode::OK
        };
        let router = axum::Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, router).await });
        at
    }

    /// How many items of a signal came as OTLP.
    pub(crate) fn items(&self, signal: &str) -> usize {
        let of = Signal::ALL.into_iter().find(|of| of.as_str() == signal).unwrap();
        let path = format!("/v1/{signal}");
        let came = self.came.lock().unwrap();
        let bodies = came.iter().filter(|(to, _)| *to == path);
        bodies
            .map(|(_, body)| Batch::scan(of, body.clone()).unwrap().items)
            .sum()
    }

    /// The exporter that leads here.
    pub(crate) fn exporter(at: SocketAddr) -> String {
        format!("otlphttp/out: {{endpoint: 'http://{at}', compression: none}}")
    }
}

/// A collector that takes every language that ours send, and hands all of it to a taker.
pub(crate) struct Hub {
    pub(crate) service: Service,
    pub(crate) taker: Taker,
    pub(crate) at: SocketAddr,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let taker = Taker::default();
        let at = taker.serve().await;
        let text = format!(
            "receivers:
  otlp/grpc: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}
  otlp/http: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
  jaeger: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}
  zipkin: {{endpoint: '127.0.0.1:0'}}
exporters: {{{}}}
service:
  pipelines:
    traces: {{receivers: [otlp/grpc, otlp/http, jaeger, zipkin], exporters: [otlphttp/out]}}
    metrics: {{receivers: [otlp/grpc, otlp/http], exporters: [otlphttp/out]}}
    logs: {{receivers: [otlp/grpc, otlp/http], exporters: [otlphttp/out]}}
",
            Taker::exporter(at)
        );
        Hub {
            service: start(&text).await,
            taker,
            at,
        }
    }

    /// The exporter's block, leading here, without the small queue of other runs.
    pub(crate) fn block(&self, case: &Case) -> String {
        let of = |receiver: &str| address(&self.service, &format!("receivers.{receiver}")).to_string();
        let to = match case.kind {
            "otlphttp" | "otlp_http" => of("otlp/http"),
            "jaeger" => of("jaeger"),
            "zipkin" => format!("{}/api/v2/spans", of("zipkin")),
            "prometheusremotewrite" | "prometheus_remote_write" => self.at.to_string(),
            _ => of("otlp/grpc"),
        };
        let block = case.block.replace("DEAD", &to);
        block.replace(", RWQUEUE", "").replace(", QUEUE", "")
    }
}

/// How a receiver is spoken to, and how many items a call brings.
pub(crate) struct Way {
    /// As its metrics name it.
    pub(crate) transport: &'static str,
    /// Which of its addresses.
    pub(crate) index: usize,
    pub(crate) language: Language,
}

pub(crate) enum Language {
    OtlpGrpc,
    OtlpHttp,
    JaegerHttp,
    JaegerUdp,
    Zipkin,
}

/// All ways to speak to a receiver.
pub(crate) fn ways(kind: &str) -> Vec<Way> {
    let way = |transport, index, language| Way {
        transport,
        index,
        language,
    };
    match kind {
        "otlp" => vec![
            way("grpc", 0, Language::OtlpGrpc),
            way("http", 1, Language::OtlpHttp),
        ],
        "jaeger" => vec![
            way("http", 1, Language::JaegerHttp),
            way("udp", 2, Language::JaegerUdp),
        ],
        "zipkin" => vec![way("http", 0, Language::Zipkin)],
        other => panic!("how is {other} spoken to?"),
    }
}

impl Way {
    fn to(&self, service: &Service, case: &Case) -> SocketAddr {
        let key = format!("receivers.{}", case.kind);
        let mut all = service.addresses().into_iter().filter(|(of, _)| *of == key);
        all.nth(self.index).expect("an address").1
    }

    /// Sends so many spans; whether they were taken, or nothing where nobody answers.
    pub(crate) async fn send(&self, service: &Service, case: &Case, spans: usize) -> Option<bool> {
        let to = self.to(service, case);
        let ok = |status: u16| Some((200..300).contains(&status));
        match self.language {
            Language::OtlpGrpc => {
                let body = body("traces", spans).into();
                Some(send_bytes(to, body, &[]).await.is_ok())
            }
            Language::OtlpHttp => {
                ok(post(to, "/v1/traces", "application/x-protobuf", &body("traces", spans)).await)
            }
            Language::JaegerHttp => {
                let batch = from_otlp::batch(request(spans).resource_spans.remove(0)).unwrap();
                let body = encode_batch(Encoding::Binary, &batch);
                ok(post(
                    to,
                    "/api/traces?format=jaeger.thrift",
                    "application/x-thrift",
                    &body,
                )
                .await)
            }
            Language::JaegerUdp => {
                let options = SendOptions {
                    target: to,
                    traces: spans / 2,
                    service: "compliance".to_owned(),
                };
                jaeger_compact(options).await.unwrap();
                None
            }
            Language::Zipkin => {
                let spans: Vec<String> = (1..=spans)
                    .map(|id| format!("{{\"traceId\": \"7\", \"id\": \"{id:x}\"}}"))
                    .collect();
                let body = format!("[{}]", spans.join(","));
                ok(post(to, "/api/v2/spans", "application/json", body.as_bytes()).await)
            }
        }
    }

    /// What its receiver has counted.
    pub(crate) fn counted(&self, service: &Service, case: &Case, what: &str) -> f64 {
        let labels = format!("{{receiver=\"{}\",transport=\"{}\"}}", case.kind, self.transport);
        metric(service, &format!("otelcol_receiver_{what}_spans_total{labels}"))
    }
}

/// Waits for what an exporter has sent.
pub(crate) async fn until_sent(service: &Service, case: &Case, count: f64) {
    let sent = format!(
        "otelcol_exporter_sent_{}_total{{exporter=\"{}\"}}",
        items(case.signal),
        case.kind
    );
    until(case.kind, || metric(service, &sent) == count).await;
}
