use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use karez_net::Net;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::net::TcpListener;

use super::{TlsOptions, TracesOptions, Transport, traces};

fn options(endpoint: String) -> TracesOptions {
    TracesOptions {
        endpoint,
        transport: Transport::Http,
        tls: TlsOptions {
            insecure: true,
            ..TlsOptions::default()
        },
        ..TracesOptions::default()
    }
}

#[tokio::test]
async fn traces_over_http_arrive_with_headers_and_in_bounded_requests() {
    let got: Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sink = got.clone();
    let app = Router::new().route(
        "/v1/traces",
        post(async move |headers: HeaderMap, body: Bytes| {
            sink.lock()
                .unwrap()
                .push((headers, ExportTraceServiceRequest::decode(body).unwrap()));
        }),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut options = options(address.to_string());
    options.traces = 150;
    options.headers.insert("x-tenant".into(), "a".into());
    let report = traces(options, &Net::system()).await.unwrap();
    assert_eq!(
        (report.traces, report.spans, report.trace_ids.len()),
        (150, 300, 150)
    );
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].0["x-tenant"], "a");
    assert_eq!(got[0].0["content-type"], "application/x-protobuf");
    let spans = &got[1].1.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 100);
    assert_eq!(spans[1].parent_span_id, spans[0].span_id);
    assert_eq!(hex::encode(&spans[0].trace_id), report.trace_ids[100]);
}

#[tokio::test]
async fn failures_say_where_and_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route(
        "/v1/traces",
        post(async || (StatusCode::UNAUTHORIZED, "no basic auth provided")),
    );
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let error = traces(options(address.to_string()), &Net::system())
        .await
        .unwrap_err()
        .to_string();
    let expected =
        format!("after 0 traces, {address} refused the spans: 401 Unauthorized no basic auth provided");
    assert_eq!(error, expected);
    server.abort();
    let _ = server.await;
    for transport in [Transport::Http, Transport::Grpc] {
        let closed = TracesOptions {
            transport,
            ..options(address.to_string())
        };
        let error = traces(closed, &Net::system()).await.unwrap_err().to_string();
        assert!(
            error.contains("is not available") && error.contains("refused"),
            "{error}"
        );
    }
    let error = traces(options("nonsense".into()), &Net::system())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be used"), "{error}");
}
