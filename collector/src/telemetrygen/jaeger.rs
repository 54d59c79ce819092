//! Traces as Jaeger's agent takes them: compact Thrift in UDP datagrams.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use tokio::net::UdpSocket;

use super::shape::{self, Trace};
use crate::jaeger::model::{Batch, Duration, KeyValue, Process, Span, SpanRef, SpanRefType, Timestamp};
use crate::thrift::{self, Encoding};

/// The largest datagram that a Jaeger agent reads.
const MAX_DATAGRAM: usize = 65_000;
/// Traces to a datagram, so that a run of any size arrives as several packets, as from an application.
const TRACES_PER_DATAGRAM: usize = 4;

/// What to send where.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// The agent's address.
    pub target: SocketAddr,
    /// How many traces, of two spans each.
    pub traces: usize,
    /// The service's name.
    pub service: String,
}

/// Why traces could not be sent. UDP does not tell whether they arrived.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No socket.
    #[error("no UDP socket to send from")]
    Bind(#[source] io::Error),
    /// A datagram was not taken.
    #[error("{target} does not take datagrams: is a Jaeger compact receiver listening there?")]
    Send {
        /// The agent's address.
        target: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The service's name alone fills a datagram.
    #[error("a trace of this service takes {0} bytes, more than a datagram holds: give it a shorter name")]
    TooLarge(usize),
}

/// Sends traces to a Jaeger agent port and returns their ids, as 32 hexadecimal digits each.
pub async fn jaeger_compact(options: SendOptions) -> Result<Vec<String>, SendError> {
    let any: SocketAddr = match options.target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(SendError::Bind)?;
    let target = options.target;
    let failed = |source| SendError::Send { target, source };
    socket.connect(target).await.map_err(failed)?;
    let traces: Vec<Trace> = (0..options.traces)
        .map(|_| Trace::random(SystemTime::now()))
        .collect();
    for datagram in datagrams(&traces, &options.service)? {
        socket.send(&datagram).await.map_err(failed)?;
    }
    Ok(traces.iter().map(|trace| hex::encode(trace.trace_id)).collect())
}

fn datagrams(traces: &[Trace], service: &str) -> Result<Vec<Vec<u8>>, SendError> {
    let mut all = Vec::new();
    for group in traces.chunks(TRACES_PER_DATAGRAM) {
        let datagram = encode(group, service);
        if datagram.len() <= MAX_DATAGRAM {
            all.push(datagram);
            continue;
        }
        for trace in group {
            let datagram = encode(std::slice::from_ref(trace), service);
            if datagram.len() > MAX_DATAGRAM {
                return Err(SendError::TooLarge(datagram.len()));
            }
            all.push(datagram);
        }
    }
    Ok(all)
}

fn encode(traces: &[Trace], service: &str) -> Vec<u8> {
    let process = Process {
        service_name: service.to_owned(),
        tags: vec![
            KeyValue::string("telemetry.sdk.name", "karez"),
            KeyValue::string("host.name", host_name()),
        ],
    };
    let batch = Batch {
        spans: traces.iter().flat_map(spans).collect(),
        process: Some(process),
    };
    thrift::encode_message(Encoding::Compact, &batch)
}

fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned())
}

fn spans(trace: &Trace) -> [Span; 2] {
    let span = |id: [u8; 8], name: &str, kind: &str, peer: &str, start: u64, micros: u64| Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: id.to_vec(),
        operation_name: name.to_owned(),
        flags: 1,
        start_time: Some(Timestamp::from_micros(start as i64)),
        duration: Some(Duration::from_micros(micros as i64)),
        tags: vec![
            KeyValue::string("span.kind", kind),
            KeyValue::string("net.peer.ip", shape::PEER_ADDRESS),
            KeyValue::string("peer.service", peer),
        ],
        ..Span::default()
    };
    let parent = SpanRef {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.client.to_vec(),
        ref_type: SpanRefType::ChildOf as i32,
    };
    let client = span(
        trace.client,
        shape::CLIENT_NAME,
        "client",
        "telemetrygen-server",
        trace.start,
        shape::CLIENT_MICROS,
    );
    let mut server = span(
        trace.server,
        shape::SERVER_NAME,
        "server",
        "telemetrygen-client",
        trace.start + (shape::CLIENT_MICROS - shape::SERVER_MICROS) / 2,
        shape::SERVER_MICROS,
    );
    server.references.push(parent);
    [client, server]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn ten_traces_arrive_as_twenty_spans_in_several_datagrams() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = socket.local_addr().unwrap();
        let sent = jaeger_compact(SendOptions {
            target,
            traces: 10,
            service: "demo".into(),
        })
        .await
        .unwrap();
        let (mut spans, mut packets) = (Vec::new(), 0);
        let mut buffer = vec![0; 65_536];
        while spans.len() < 20 {
            let received = tokio::time::timeout(std::time::Duration::from_secs(10), socket.recv(&mut buffer));
            let length = received.await.expect("a datagram in time").unwrap();
            spans.extend(
                thrift::decode_message(Encoding::Compact, &buffer[..length])
                    .unwrap()
                    .spans,
            );
            packets += 1;
        }
        assert_eq!((spans.len(), packets), (20, 3));
        let arrived: BTreeSet<String> = spans.iter().map(|span| hex::encode(&span.trace_id)).collect();
        assert_eq!(arrived, sent.into_iter().collect());
    }

    #[test]
    fn long_names_are_spread_or_refused() {
        let traces: Vec<Trace> = (0..4).map(|_| Trace::random(SystemTime::now())).collect();
        let all = datagrams(&traces, &"n".repeat(64_500)).unwrap();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM));
        assert!(matches!(
            datagrams(&traces, &"n".repeat(65_000)),
            Err(SendError::TooLarge(_))
        ));
    }
}
