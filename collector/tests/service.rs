//! Authentication, TLS, start failures, reload.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Backend, address, apply, send, start, try_start, until};
use tonic::Code;

const DEBUG: &str = "exporters: {debug: }\n";

#[tokio::test]
async fn callers_without_credentials_are_refused() {
    let service = start(&format!(
        "{DEBUG}
extensions: {{basicauth/server: {{htpasswd: {{inline: 'user-1:1234'}}}}}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0', auth: {{authenticator: basicauth/server}}}}}}}}
service: {{extensions: [basicauth/server], pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}"
    ))
    .await;
    let at = address(&service, "receivers.otlp");
    let refused = send(at, 1, &[]).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "no basic auth provided")
    );
    let wrong = [("authorization", "Basic dXNlci0xOjEyMzU=")];
    assert_eq!(
        send(at, 1, &wrong).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    send(at, 1, &[("authorization", "Basic dXNlci0xOjEyMzQ=")])
        .await
        .unwrap();
    service.stop().await;
}

/// A CA and a certificate for localhost, as files.
fn certificates(folder: &std::path::Path) {
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    std::fs::write(folder.join("ca.pem"), ca_cert.pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// A collector that sends to another over mutual TLS with credentials; gives what the second got.
async fn chain(exporter: &str, scheme: &str, receiver: &str) {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let dir = folder.path().display();
    let backend = Backend::default();
    let to = backend.serve().await;
    let second = start(&format!(
        "extensions: {{bearertokenauth: {{token: abc}}}}
receivers:
  otlp:
    protocols:
      {receiver}:
        endpoint: 127.0.0.1:0
        auth: {{authenticator: bearertokenauth}}
        tls: {{cert_file: {dir}/cert.pem, key_file: {dir}/key.pem, client_ca_file: {dir}/ca.pem}}
exporters: {{otlp: {{endpoint: '{to}', tls: {{insecure: true}}}}}}
service: {{extensions: [bearertokenauth], pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}}}"
    ))
    .await;
    let port = address(&second, "receivers.otlp").port();
    let first = start(&format!(
        "extensions: {{bearertokenauth: {{token: abc}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters:
  {exporter}:
    endpoint: {scheme}127.0.0.1:{port}
    auth: {{authenticator: bearertokenauth}}
    tls: {{ca_file: {dir}/ca.pem, cert_file: {dir}/cert.pem, key_file: {dir}/key.pem}}
service: {{extensions: [bearertokenauth], pipelines: {{traces: {{receivers: [otlp], exporters: [{exporter}]}}}}}}"
    ))
    .await;
    send(address(&first, "receivers.otlp"), 2, &[]).await.unwrap();
    until("2 spans", || backend.spans().len() == 2).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn mutual_tls_and_a_token_over_grpc() {
    chain("otlp", "", "grpc").await;
}

#[tokio::test]
async fn mutual_tls_and_a_token_over_http() {
    chain("otlphttp", "https://", "http").await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key_and_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let text = format!(
        "{DEBUG}receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: '{at}'}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}"
    );
    let Err(diagnosis) = try_start(&text).await else {
        panic!("a port in use")
    };
    assert_eq!(diagnosis.key, "receivers.otlp.protocols.grpc.endpoint");
    assert_eq!(diagnosis.place.line, Some(3));
    assert!(diagnosis.message.contains(&at.port().to_string()), "{diagnosis}");
}

#[tokio::test]
async fn an_exporter_that_cannot_be_dialled_rejects_and_the_others_run() {
    let backend = Backend::default();
    let to = backend.serve().await;
    let service = start(&format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters:
  otlp: {{endpoint: '{to}', tls: {{insecure: true}}}}
  otlp/wrong: {{endpoint: 'x:14250\"'}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp, otlp/wrong]}}}}}}"
    ))
    .await;
    let refused = send(address(&service, "receivers.otlp"), 1, &[])
        .await
        .unwrap_err();
    assert!(refused.message().contains("is no port"), "{refused}");
    until("the span at the other", || backend.spans().len() == 1).await;
    service.stop().await;
}

#[tokio::test]
async fn a_reload_changes_only_what_differs_and_goes_back_when_it_fails() {
    let held = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = held.local_addr().unwrap();
    let text = |b: &str| {
        format!(
            "{DEBUG}
receivers:
  otlp/a: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}
  otlp/b: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}
  otlp/c: {{protocols: {{grpc: {{endpoint: '{taken}'}}}}}}
exporters: {{debug/a: , debug/b: {b}}}
service:
  pipelines:
    traces/a: {{receivers: [otlp/a], exporters: [debug/a]}}"
        )
        .replace(DEBUG, "")
    };
    let two = "\n    traces/b: {receivers: [otlp/b], exporters: [debug/b]}";
    let mut service = start(&format!("{}{two}", text("{}"))).await;
    let (a, b) = (
        address(&service, "receivers.otlp/a"),
        address(&service, "receivers.otlp/b"),
    );
    apply(&mut service, &format!("{}{two}", text("{verbosity: detailed}")))
        .await
        .unwrap();
    assert_eq!(address(&service, "receivers.otlp/a"), a);
    assert_ne!(address(&service, "receivers.otlp/b"), b);
    let three = "\n    traces/c: {receivers: [otlp/c], exporters: [debug/b]}";
    apply(&mut service, &format!("{}{three}", text("{}")))
        .await
        .unwrap_err();
    drop(held);
    assert_eq!(address(&service, "receivers.otlp/a"), a);
    send(address(&service, "receivers.otlp/b"), 1, &[]).await.unwrap();
    apply(&mut service, &text("{}")).await.unwrap();
    assert_eq!(service.addresses().len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn a_run_follows_its_file_and_stops_when_asked() {
    use karez_collector::{CollectorOptions, run, validate};
    let backend = Backend::default();
    let to = backend.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let port = {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap()
    };
    let text = |exporter: &str| {
        format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{port}'}}}}}}}}
exporters: {{otlp: {{endpoint: '{to}', tls: {{insecure: true}}}}, debug: }}
service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp], exporters: [{exporter}]}}}}}}"
        )
    };
    std::fs::write(&path, text("debug")).unwrap();
    let options = CollectorOptions {
        configs: vec![path.display().to_string()],
        sets: vec![],
        feature_gates: vec![],
        metrics_addr: None,
        net: karez_net::Net::system(),
        client: None,
    };
    assert!(!karez_document::has_errors(&validate(&options).await.unwrap()));
    let shutdown = karez_lifecycle::Shutdown::new();
    let running = tokio::spawn(run(options, shutdown.clone()));
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sender = {
        let sent = sent.clone();
        tokio::spawn(async move {
            loop {
                if send(port, 1, &[]).await.is_ok() {
                    sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
    };
    until("a span taken", || {
        sent.load(std::sync::atomic::Ordering::Relaxed) > 0
    })
    .await;
    std::fs::write(&path, "receivers: {").unwrap();
    std::fs::write(&path, text("otlp")).unwrap();
    until("a span at the backend", || !backend.spans().is_empty()).await;
    sender.abort();
    shutdown.trigger();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), running).await;
    ended.expect("in time").expect("no panic").expect("no error");
}
