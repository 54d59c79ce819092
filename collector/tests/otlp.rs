//! OTLP in, OTLP out, over real sockets.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Backend, address, metric, request, send, send_bytes, start, until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

const RECEIVER: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}
";

#[tokio::test]
async fn spans_go_through_batch_and_resource_to_a_grpc_backend() {
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&format!(
        "{RECEIVER}
processors:
  batch: {{timeout: 50ms}}
  resource: {{attributes: [{{key: zone, value: a, action: upsert}}]}}
exporters:
  otlp: {{endpoint: 'http://{to}', headers: {{x-tenant: t}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], processors: [batch, resource], exporters: [otlp]}}}}}}"
    ))
    .await;
    let at = address(&service, "receivers.otlp");
    for _ in 0..3 {
        send(at, 4, &[]).await.unwrap();
    }
    until("12 spans", || backend.spans().len() == 12).await;
    let payload = backend.payloads.lock().unwrap()[0].clone();
    let decoded = ExportTraceServiceRequest::decode(payload).unwrap();
    assert_eq!(
        decoded.resource_spans[0].resource.as_ref().unwrap().attributes[0].key,
        "zone"
    );
    assert_eq!(backend.headers.lock().unwrap()[0]["x-tenant"], "t");
    assert_eq!(backend.headers.lock().unwrap()[0]["grpc-encoding"], "gzip");
    until("the ledger", || {
        metric(&service, "otelcol_exporter_sent_spans_total{exporter=\"otlp\"}") == 12.0
            && metric(
                &service,
                "otelcol_exporter_queue_items{exporter=\"otlp\",data_type=\"traces\"}",
            ) == 0.0
    })
    .await;
    assert_eq!(
        metric(
            &service,
            "otelcol_receiver_accepted_spans_total{receiver=\"otlp\",transport=\"grpc\"}"
        ),
        12.0
    );
    service.stop().await;
}

#[tokio::test]
async fn what_is_known_of_the_request_can_become_an_attribute() {
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&format!(
        "receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0', include_metadata: true, auth: {{authenticator: basicauth}}}}}}}}
extensions: {{basicauth: {{htpasswd: {{inline: 'edge:secret'}}}}}}
processors:
  resource:
    attributes:
      - {{key: tenant, from_context: metadata.x-tenant, action: upsert}}
      - {{key: user, from_context: auth.username, action: upsert}}
      - {{key: peer, from_context: client.address, action: upsert}}
      - {{key: none, from_context: metadata.absent, action: upsert}}
exporters: {{otlp: {{endpoint: 'http://{to}'}}}}
service:
  extensions: [basicauth]
  pipelines: {{traces: {{receivers: [otlp], processors: [resource], exporters: [otlp]}}}}"
    ))
    .await;
    let headers = [("x-tenant", "blue"), ("authorization", "Basic ZWRnZTpzZWNyZXQ=")];
    send(address(&service, "receivers.otlp"), 1, &headers)
        .await
        .unwrap();
    until("a span", || backend.spans().len() == 1).await;
    let payload = backend.payloads.lock().unwrap()[0].clone();
    let decoded = ExportTraceServiceRequest::decode(payload).unwrap();
    let attributes = &decoded.resource_spans[0].resource.as_ref().unwrap().attributes;
    let said: Vec<String> = attributes
        .iter()
        .filter(|pair| ["tenant", "user", "peer", "none"].contains(&pair.key.as_str()))
        .map(|pair| {
            format!(
                "{}={:?}",
                pair.key,
                pair.value.as_ref().unwrap().value.as_ref().unwrap()
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "tenant=StringValue(\"blue\")",
            "user=StringValue(\"edge\")",
            "peer=StringValue(\"127.0.0.1\")"
        ]
    );
    service.stop().await;
}

#[tokio::test]
async fn protobuf_and_json_over_http() {
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{otlphttp: {{endpoint: 'http://{to}', compression: none}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlphttp]}}}}}}"
    ))
    .await;
    let at = address(&service, "receivers.otlp");
    let (status, body) = post(at, "application/x-protobuf", None, request(2).encode_to_vec()).await;
    assert_eq!((status, body.len()), (200, 0));
    let json = serde_json::to_vec(&request(3)).unwrap();
    let (status, body) = post(at, "application/json", None, json).await;
    assert_eq!(
        (status, body.as_slice()),
        (200, br#"{"partialSuccess":{}}"#.as_slice())
    );
    let zipped = zstd::bulk::compress(&request(1).encode_to_vec(), 0).unwrap();
    assert_eq!(
        post(at, "application/x-protobuf", Some("zstd"), zipped).await.0,
        200
    );
    until("6 spans", || backend.spans().len() == 6).await;

    assert_eq!(post(at, "text/plain", None, vec![]).await.0, 415);
    let (status, body) = post(at, "application/json", None, b"{".to_vec()).await;
    assert_eq!(status, 400);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()["code"],
        3
    );
    let (status, body) = post(at, "application/x-protobuf", None, vec![0xff]).await;
    assert_eq!(status, 400);
    let said = karez_collector::rpc::RpcStatus::decode(body.as_slice()).unwrap();
    assert!(said.message.starts_with("not OTLP: "), "{said:?}");
    service.stop().await;
}

async fn post(
    at: std::net::SocketAddr,
    content_type: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
) -> (u16, Vec<u8>) {
    use http_body_util::{BodyExt, Full};
    let client =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let mut request =
        http::Request::post(format!("http://{at}/v1/traces")).header("content-type", content_type);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    let answer = client
        .request(request.body(Full::new(bytes::Bytes::from(body))).unwrap())
        .await
        .unwrap();
    let status = answer.status().as_u16();
    (
        status,
        answer.into_body().collect().await.unwrap().to_bytes().to_vec(),
    )
}

#[tokio::test]
async fn what_a_backend_refuses_for_now_is_tried_again() {
    let backend = Backend::default();
    backend.answer(Some(Code::Unavailable));
    let to = backend.serve().await;
    let service = start(&format!(
        "{RECEIVER}
exporters:
  otlp:
    endpoint: '{to}'
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 20ms, max_interval: 50ms}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}}}"
    ))
    .await;
    send(address(&service, "receivers.otlp"), 5, &[]).await.unwrap();
    until("an attempt", || !backend.headers.lock().unwrap().is_empty()).await;
    assert!(backend.spans().is_empty());
    backend.answer(None);
    until("5 spans", || backend.spans().len() == 5).await;
    service.stop().await;
}

#[tokio::test]
async fn without_a_queue_the_sender_hears_the_backends_word() {
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&format!(
        "{RECEIVER}
exporters:
  otlp:
    endpoint: '{to}'
    tls: {{insecure: true}}
    retry_on_failure: {{enabled: false}}
    sending_queue: {{enabled: false}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}}}"
    ))
    .await;
    let at = address(&service, "receivers.otlp");
    send(at, 1, &[]).await.unwrap();
    backend.answer(Some(Code::Unavailable));
    assert_eq!(send(at, 1, &[]).await.unwrap_err().code(), Code::Unavailable);
    backend.answer(Some(Code::InvalidArgument));
    assert_eq!(send(at, 1, &[]).await.unwrap_err().code(), Code::Internal);
    assert_eq!(
        send_bytes(at, vec![0x0a, 0x05].into(), &[])
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    assert_eq!(
        metric(
            &service,
            "otelcol_receiver_refused_spans_total{receiver=\"otlp\",transport=\"grpc\"}"
        ),
        1.0
    );
    service.stop().await;
}

#[tokio::test]
async fn a_full_queue_refuses_retryably() {
    let backend = Backend::default();
    backend.answer(Some(Code::Unavailable));
    let to = backend.serve().await;
    let service = start(&format!(
        "{RECEIVER}
exporters:
  otlp:
    endpoint: '{to}'
    tls: {{insecure: true}}
    sending_queue: {{num_consumers: 1, queue_size: 2}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}}}"
    ))
    .await;
    let at = address(&service, "receivers.otlp");
    let mut refused = None;
    for _ in 0..10 {
        if let Err(status) = send(at, 1, &[]).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("a full queue");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("exporters.otlp is full"), "{refused}");
    backend.answer(None);
    service.stop().await;
    assert!(
        backend.spans().len() >= 3,
        "what was taken was delivered while stopping"
    );
}

#[tokio::test]
async fn a_stop_delivers_what_is_held() {
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&format!(
        "{RECEIVER}
processors: {{batch: {{timeout: 1h, send_batch_max_size: 10, send_batch_size: 0}}}}
exporters: {{otlp: {{endpoint: '{to}', tls: {{insecure: true}}, compression: zstd}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], processors: [batch], exporters: [otlp]}}}}}}"
    ))
    .await;
    send(address(&service, "receivers.otlp"), 25, &[]).await.unwrap();
    assert!(backend.spans().is_empty());
    service.stop().await;
    assert_eq!(backend.spans().len(), 25);
    assert_eq!(backend.payloads.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn sockets_of_the_file_system_take_grpc_and_http_and_go_with_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (grpc, http) = (path("grpc.sock"), path("http.sock"));
    // What a killed collector left behind.
    drop(std::os::unix::net::UnixListener::bind(&grpc).unwrap());
    let backend = Backend::default();
    let to = backend.serve().await;
    let text = format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{transport: unix, endpoint: '{}'}}
      http: {{transport: unix, endpoint: '{}'}}
exporters: {{otlp: {{endpoint: 'http://{to}', sending_queue: {{enabled: false}}}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}}}",
        grpc.display(),
        http.display()
    );
    let service = start(&text).await;
    let dialled = grpc.clone();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = dialled.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            std::io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let body = bytes::Bytes::from(request(3).encode_to_vec());
    let path = common::TRACES.parse().unwrap();
    client
        .unary(tonic::Request::new(body.clone()), path, common::BytesCodec)
        .await
        .unwrap();
    let mut stream = tokio::net::UnixStream::connect(&http).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(backend.spans().len(), 6);
    let refused = common::try_start(&text)
        .await
        .err()
        .expect("the sockets are held");
    assert!(refused.to_string().contains("grpc.sock"), "{refused}");
    service.stop().await;
    assert!(!grpc.exists() && !http.exists());
}
