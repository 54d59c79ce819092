use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use karez_lifecycle::Shutdown;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

use super::udp::{UdpLosses, UdpOptions};
use super::{grpc, http, udp};
use crate::batch::Batch as Otlp;
use crate::component::{Consume, Consumer, Refusal};
use crate::extensions::jaeger_query;
use crate::extensions::jaeger_storage::{Limits, TraceStore};
use crate::jaeger::model::{self, Batch, PostSpansRequest, PostSpansResponse, Process, Span};
use crate::telemetrygen::{SendOptions, jaeger_compact};
use crate::thrift::{self, Encoding};

const OPTIONS: UdpOptions = UdpOptions {
    encoding: Encoding::Compact,
    queue_size: 1_000,
    max_packet_size: 65_000,
    workers: 2,
    socket_buffer_size: 0,
};

/// A pipeline's end that is a function.
struct End<F>(F);

impl<F: Fn(Otlp) -> Result<(), Refusal> + Send + Sync> Consume for End<F> {
    fn consume(&self, batch: Otlp) -> futures::future::BoxFuture<'_, Result<(), Refusal>> {
        let answer = (self.0)(batch);
        Box::pin(async move { answer })
    }
}

fn into_store() -> (Arc<TraceStore>, Consumer) {
    let store = Arc::new(TraceStore::new(Limits {
        max_bytes: 1 << 20,
        max_traces: 0,
    }));
    let end = store.clone();
    let take = move |batch: Otlp| match end.add(&batch.payload) {
        Ok(added) if added.stored == batch.items => Ok(()),
        other => Err(Refusal::never(format!("{other:?}"))),
    };
    (store, Consumer::new(End(take)))
}

fn batch(spans: i64) -> Batch {
    let span = |id: i64| Span {
        trace_id: model::trace_id(1, id),
        span_id: id.to_be_bytes().to_vec(),
        operation_name: "op".into(),
        ..Span::default()
    };
    let process = Process {
        service_name: "s".into(),
        tags: vec![],
    };
    Batch {
        spans: (1..=spans).map(span).collect(),
        process: Some(process),
    }
}

/// Waits for a condition, with a deadline.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn spans_sent_over_udp_come_out_of_the_query_api() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = socket.local_addr().unwrap();
    let (store, sink) = into_store();
    let shutdown = Shutdown::new();
    let receiver = tokio::spawn(udp::serve(
        vec![socket],
        OPTIONS,
        sink,
        Arc::default(),
        shutdown.clone(),
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let app = jaeger_query::router(store.clone(), "");
    tokio::spawn(async move { axum::serve(listener, app).await });

    let sent = jaeger_compact(SendOptions {
        target,
        traces: 10,
        service: "demo".into(),
    })
    .await
    .unwrap();
    until("ten traces stored", || store.traces() == 10).await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<Bytes>>();
    let uri = format!("http://{api}/api/traces?service=demo&limit=100")
        .parse()
        .unwrap();
    let body = http_body_util::BodyExt::collect(client.get(uri).await.unwrap().into_body())
        .await
        .unwrap()
        .to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let traces = answer["data"].as_array().unwrap();
    let spans: usize = traces
        .iter()
        .map(|trace| trace["spans"].as_array().unwrap().len())
        .sum();
    assert_eq!((traces.len(), spans), (10, 20));
    let mut found: Vec<_> = traces
        .iter()
        .map(|trace| trace["traceID"].as_str().unwrap().to_owned())
        .collect();
    let mut sent = sent;
    found.sort();
    sent.sort();
    assert_eq!(found, sent);
    shutdown.trigger();
    timeout(Duration::from_secs(10), receiver)
        .await
        .expect("the receiver stops")
        .unwrap();
}

#[tokio::test]
async fn what_arrived_before_the_shutdown_is_finished() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = socket.local_addr().unwrap();
    jaeger_compact(SendOptions {
        target,
        traces: 8,
        service: "demo".into(),
    })
    .await
    .unwrap();
    let (store, sink) = into_store();
    let shutdown = Shutdown::new();
    shutdown.trigger();
    socket.readable().await.unwrap();
    udp::serve(vec![socket], OPTIONS, sink, Arc::default(), shutdown).await;
    assert_eq!(store.traces(), 8);
}

#[tokio::test]
async fn bad_packets_are_counted_and_good_ones_still_taken() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = socket.local_addr().unwrap();
    let (store, sink) = into_store();
    let losses: Arc<UdpLosses> = Arc::default();
    let options = UdpOptions {
        max_packet_size: 1_000,
        encoding: Encoding::Binary,
        ..OPTIONS
    };
    let shutdown = Shutdown::new();
    tokio::spawn(udp::serve(
        vec![socket],
        options,
        sink,
        losses.clone(),
        shutdown.clone(),
    ));
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"nonsense", target).await.unwrap();
    sender.send_to(&[0; 1_001], target).await.unwrap();
    sender.send_to(&[], target).await.unwrap();
    sender
        .send_to(&thrift::encode_message(Encoding::Binary, &batch(2)), target)
        .await
        .unwrap();
    until("the good packet stored", || store.traces() == 2).await;
    until("the bad ones counted", || {
        losses.malformed.load(Ordering::Relaxed) == 2
    })
    .await;
    assert_eq!(losses.too_large.load(Ordering::Relaxed), 1);
    shutdown.trigger();
}

#[tokio::test]
async fn a_pipeline_that_is_busy_for_a_moment_loses_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let sink = Consumer::new(End(move |_| match counter.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(Refusal::later("data refused due to high memory usage")),
        _ => Ok(()),
    }));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = socket.local_addr().unwrap();
    let losses: Arc<UdpLosses> = Arc::default();
    let shutdown = Shutdown::new();
    tokio::spawn(udp::serve(
        vec![socket],
        OPTIONS,
        sink,
        losses.clone(),
        shutdown.clone(),
    ));
    jaeger_compact(SendOptions {
        target,
        traces: 1,
        service: "demo".into(),
    })
    .await
    .unwrap();
    until("the third offer", || asked.load(Ordering::SeqCst) == 3).await;
    assert_eq!(losses.refused_spans.load(Ordering::Relaxed), 0);
    shutdown.trigger();
}

async fn post_spans(sink: Consumer, request: PostSpansRequest) -> Result<PostSpansResponse, tonic::Status> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = grpc::CollectorService::new(sink, 4 << 20);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client =
        tonic::client::Grpc::new(channel).send_compressed(tonic::codec::CompressionEncoding::Gzip);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PostSpansRequest, PostSpansResponse>::default();
    let path = ::http::uri::PathAndQuery::from_static(grpc::POST_SPANS);
    client
        .unary(tonic::Request::new(request), path, codec)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn post_spans_stores_and_tells_refusals() {
    let (store, sink) = into_store();
    post_spans(
        sink.clone(),
        PostSpansRequest {
            batch: Some(batch(3)),
        },
    )
    .await
    .unwrap();
    assert_eq!(store.traces(), 3);
    post_spans(sink, PostSpansRequest { batch: None }).await.unwrap();
    let busy = Consumer::new(End(|_| Err(Refusal::later("later"))));
    let status = post_spans(
        busy,
        PostSpansRequest {
            batch: Some(batch(1)),
        },
    )
    .await
    .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::Unavailable, "later")
    );
}

#[tokio::test]
async fn thrift_over_http_is_taken_with_202() {
    let (store, sink) = into_store();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, http::router(sink, 1 << 20)).await });
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Full<Bytes>>();
    let post = async |kind: &str, body: Vec<u8>| {
        let request = ::http::Request::post(format!("http://{address}/api/traces?format=jaeger.thrift"))
            .header("content-type", kind)
            .body(http_body_util::Full::new(Bytes::from(body)))
            .unwrap();
        client.request(request).await.unwrap().status().as_u16()
    };
    let good = thrift::encode_batch(Encoding::Binary, &batch(2));
    assert_eq!(post("application/x-thrift", good.clone()).await, 202);
    assert_eq!(
        post(
            "application/vnd.apache.thrift.binary; charset=utf-8",
            good.clone()
        )
        .await,
        400
    ); // known already
    assert_eq!(post("application/json", good).await, 400);
    assert_eq!(post("application/x-thrift", b"junk".to_vec()).await, 400);
    assert_eq!(post("application/x-thrift", vec![0; 2 << 20]).await, 413);
    assert_eq!(store.traces(), 2);
}
