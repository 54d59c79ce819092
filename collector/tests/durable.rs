//! The queue on disk, the ledger, batches of queues, and batches that come twice.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Backend, address, metric, send, start, until};
use karez_collector::ledger::Line;
use karez_collector::{Service, Status, status};
use karez_net::Net;
use tonic::Code;

fn document(folder: &std::path::Path, to: std::net::SocketAddr, queue: &str, processors: &str) -> String {
    format!(
        "extensions: {{file_storage: {{directory: '{}'}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}
processors: {{batch: {{timeout: 20ms}}}}
exporters:
  otlp:
    endpoint: '{to}'
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 20ms, max_interval: 50ms}}
    sending_queue: {{{queue}}}
service:
  extensions: [file_storage]
  pipelines: {{traces: {{receivers: [otlp], processors: [{processors}], exporters: [otlp]}}}}",
        folder.display()
    )
}

fn line(service: &Service) -> Line {
    let line = service.metrics().ledger().lines().remove(0);
    assert!(line.balanced, "{line:?}");
    line
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_collector_with_its_accounts() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::default();
    backend.answer(Some(Code::Unavailable));
    let to = backend.serve().await;
    let text = document(folder.path(), to, "storage: file_storage", "batch");
    let service = start(&text).await;
    for _ in 0..5 {
        send(address(&service, "receivers.otlp"), 3, &[]).await.unwrap();
    }
    let before = line(&service);
    assert_eq!((before.accepted, before.queued), (15, 15));
    service.stop().await;
    assert!(backend.spans().is_empty());
    backend.answer(None);
    let service = start(&text).await;
    until("all spans", || backend.spans().len() == 15).await;
    until("all settled", || line(&service).delivered == 15).await;
    assert_eq!(line(&service).accepted, 15);
    assert_eq!(
        metric(&service, "otelcol_exporter_sent_spans_total{exporter=\"otlp\"}"),
        15.0
    );
    let delivered = "karez_ledger_items{pipeline=\"traces\",signal=\"traces\",exporter=\"otlp\",state=\"delivered\",reason=\"\"}";
    assert_eq!(metric(&service, delivered), 15.0);
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_that_the_batch_processor_only_holds() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::default();
    backend.answer(Some(Code::Unavailable));
    let to = backend.serve().await;
    let text = document(folder.path(), to, "storage: file_storage, queue_size: 1", "batch");
    let service = start(&text).await;
    let at = address(&service, "receivers.otlp");
    send(at, 1, &[]).await.unwrap();
    let refused = send(at, 1, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(line(&service).accepted, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_change_of_the_document_keeps_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Backend::default(), Backend::default());
    first.answer(Some(Code::Unavailable));
    let (to, other) = (first.serve().await, second.serve().await);
    let text = document(folder.path(), to, "storage: file_storage", "");
    let mut service = start(&text).await;
    send(address(&service, "receivers.otlp"), 4, &[]).await.unwrap();
    common::apply(
        &mut service,
        &document(folder.path(), other, "storage: file_storage", ""),
    )
    .await
    .unwrap();
    until("the spans at the other backend", || second.spans().len() == 4).await;
    until("all settled", || line(&service).delivered == 4).await;
    service.stop().await;
}

async fn joins(storage: &str) {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::default();
    let to = backend.serve().await;
    let queue = format!("{storage}batch: {{min_size: 8, max_size: 8, flush_timeout: 20s}}");
    let service = start(&document(folder.path(), to, &queue, "")).await;
    let at = address(&service, "receivers.otlp");
    for _ in 0..4 {
        send(at, 2, &[]).await.unwrap();
    }
    until("one request of eight spans", || backend.spans().len() == 8).await;
    assert_eq!(backend.payloads.lock().unwrap().len(), 1);
    // What is larger than the most is sent in parts.
    send(at, 20, &[]).await.unwrap();
    until("the parts", || backend.spans().len() == 28).await;
    assert_eq!(backend.payloads.lock().unwrap().len(), 4);
    until("all settled", || line(&service).delivered == 28).await;
    service.stop().await;
}

#[tokio::test]
async fn a_queue_in_memory_joins_batches() {
    joins("").await;
}

#[tokio::test]
async fn a_queue_on_disk_joins_batches() {
    joins("storage: file_storage, ").await;
}

#[tokio::test]
async fn what_comes_twice_under_one_name_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&document(folder.path(), to, "enabled: true", "")).await;
    let at = address(&service, "receivers.otlp");
    let named = [("karez-batch-id", "000102030405060708090a0b0c0d0e0f")];
    for _ in 0..3 {
        send(at, 2, &named).await.unwrap();
    }
    send(at, 1, &[("karez-batch-id", "0f0e0d0c0b0a09080706050403020100")])
        .await
        .unwrap();
    send(at, 1, &[]).await.unwrap();
    until("four spans", || backend.spans().len() == 4).await;
    assert_eq!(line(&service).accepted, 4);
    // What it sends on has a name of its own.
    let headers = backend.headers.lock().unwrap().clone();
    assert!(
        headers
            .iter()
            .all(|headers| headers.contains_key("karez-batch-id"))
    );
    service.stop().await;
}

#[tokio::test]
async fn a_refusal_for_good_is_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::default();
    backend.answer(Some(Code::InvalidArgument));
    let to = backend.serve().await;
    let service = start(&document(folder.path(), to, "storage: file_storage", "")).await;
    send(address(&service, "receivers.otlp"), 5, &[]).await.unwrap();
    until("the refusal", || line(&service).refused == 5).await;
    service.stop().await;
}

#[tokio::test]
async fn the_status_is_served_beside_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::default();
    let to = backend.serve().await;
    let mut service = Service::new(Net::system());
    let mut config = common::config(&document(folder.path(), to, "storage: file_storage", ""));
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    config.telemetry.metrics = vec![format!("127.0.0.1:{port}")];
    service.apply(&config).await.unwrap();
    send(address(&service, "receivers.otlp"), 2, &[]).await.unwrap();
    until("all settled", || line(&service).delivered == 2).await;
    let told: Status = status(&Net::system(), &format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    assert_eq!(told.ledger, [line(&service)]);
    assert!(told.render().contains("traces"), "{}", told.render());
    let process = metric(&service, "otelcol_process_memory_rss");
    assert!(process > 1e6, "{process}");
    assert!(status(&Net::system(), &to.to_string()).await.is_err());
    service.stop().await;
}
