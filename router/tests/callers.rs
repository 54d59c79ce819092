//! Who a client is, and what is told of it: to targets, in the access log of both sites, in metrics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use karez_router::proxy_protocol::{Ends, Parsed, encode, parse};
use karez_router_config::{AccessLogSection, AdminSection, ProxyProtocol};
use serde_json::Value;
use support::{LIMIT, Site, ask, echo, metric, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, timeout};

/// Reads a PROXY header and the text after it.
async fn read_header(listener: &TcpListener) -> (Option<Ends>, Vec<u8>) {
    let (mut stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    match parse(&bytes).unwrap() {
        Parsed::Whole { ends, length } => (ends, bytes.split_off(length)),
        Parsed::More => panic!("no whole header: {bytes:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_learns_the_real_client_over_a_link() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut public, edge) = pair(target.local_addr().unwrap()).await;
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        public.document.connectors[0].send_proxy_protocol = Some(version);
        public.write();
        let listener = edge.listener().await;
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut client = TcpStream::connect(listener).await.unwrap();
            let source = client.local_addr().unwrap();
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            // The document is taken over in a moment.
            let (mut stream, _) = timeout(LIMIT, target.accept()).await.unwrap().unwrap();
            let mut bytes = Vec::new();
            timeout(LIMIT, stream.read_to_end(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            let wanted = Ends {
                source,
                destination: listener,
            };
            let mut expected = encode(version, Some(wanted));
            expected.extend_from_slice(b"hello");
            if bytes == expected {
                break;
            }
            assert!(Instant::now() < deadline, "{}", bytes.escape_ascii());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_header_is_passed_on_and_a_bad_one_refused() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut site = Site::public();
    site.serve(target.local_addr().unwrap());
    site.document.connectors[0].send_proxy_protocol = Some(ProxyProtocol::V2);
    site.listen();
    site.document.listeners[0].accept_proxy_protocol = true;
    site.start().await;
    let listener = site.listener().await;
    let said = Ends {
        source: "203.0.113.9:4711".parse().unwrap(),
        destination: "198.51.100.1:80".parse().unwrap(),
    };
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let mut client = TcpStream::connect(listener).await.unwrap();
        // Byte by byte: the header is taken however it comes, and nothing that follows it.
        for byte in encode(version, Some(said)) {
            client.write_all(&[byte]).await.unwrap();
        }
        client.write_all(b"after").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_header(&target).await, (Some(said), b"after".to_vec()));
    }
    let mut client = TcpStream::connect(listener).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = timeout(LIMIT, client.read(&mut [0])).await.unwrap();
    assert!(refused.is_err(), "reset");
    assert!(metric(&site, "karez_router_errors_total", "ProxyHeader").await > 0.0);
}

/// What was logged at target `access`, as JSON lines.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(Arc::default);

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn records() -> Vec<Value> {
    let text = LOG.lock().unwrap().clone();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sites_log_one_record_a_connection_with_the_same_trace() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(|| Log)
        .with_env_filter("access=info")
        .init();
    let (mut public, mut edge) = pair(echo().await).await;
    for site in [&mut public, &mut edge] {
        site.document.access_log = Some(AccessLogSection { per_second: 100 });
        site.document.admin = Some(AdminSection {
            host: "127.0.0.1".into(),
            port: 0,
        });
        site.write();
    }
    let listener: SocketAddr = edge.listener().await;
    edge.until("its metrics", |_| edge.router().admin_address().is_some())
        .await;
    let deadline = Instant::now() + LIMIT;
    let mut client;
    let pair = loop {
        client = TcpStream::connect(listener).await.unwrap();
        let source = client.local_addr().unwrap().to_string();
        assert_eq!(ask(&mut client, b"hello").await, b"hello");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let all = records();
        let of_this: Vec<_> = all
            .into_iter()
            .filter(|record| record["client"] == source.as_str())
            .collect();
        if of_this.len() == 2 {
            break of_this;
        }
        // The documents are taken over in a moment.
        assert!(Instant::now() < deadline, "{of_this:?}");
    };
    for record in &pair {
        assert_eq!(record["target"], "access");
        assert_eq!(
            (record["sent"].as_u64(), record["received"].as_u64()),
            (Some(5), Some(5))
        );
        assert_eq!(record["address"], support::ADDRESS);
        assert_eq!(record["ending"], "Completed");
    }
    let trace = |record: &Value| record["traceparent"].as_str().unwrap()[..36].to_owned();
    assert_eq!(trace(&pair[0]), trace(&pair[1]));
    assert_ne!(
        pair[0]["traceparent"], pair[1]["traceparent"],
        "each has a span of its own"
    );
    assert_ne!(pair[0]["route"], pair[1]["route"]);

    assert!(metric(&edge, "karez_router_link_round_trip_seconds", "transport=").await > 0.0);
    assert!(metric(&edge, "karez_router_link_packets_sent_total", "outgoing").await > 0.0);
    assert!(metric(&edge, "karez_router_route_changes_total", "").await > 0.0);
    assert_eq!(metric(&edge, "qdr_connections_total", "").await, 1.0);
    assert!(metric(&public, "qdr_router_rss_bytes", "").await > 0.0);
    let link = edge.status().links.remove(0);
    assert!(link.transport.is_some());
    let link = link.carries.unwrap();
    assert!(link.round_trip_micros > 0 && link.certificate_expiry.is_some());
}
