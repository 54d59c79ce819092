//! Requests as applications make them: 100 spans, about 29 kB, every identifier random.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// Spans of one request.
pub(crate) const SPANS: usize = 100;
/// How many different requests there are.
const DIFFERENT: usize = 50;

/// Messages as gRPC carries them: a flag, a length, the encoding.
pub(crate) fn messages(compressed: bool) -> Vec<Bytes> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..DIFFERENT)
        .map(|_| framed(&request(&mut random).encode_to_vec(), compressed))
        .collect()
}

fn framed(encoding: &[u8], compressed: bool) -> Bytes {
    let packed = match compressed {
        false => encoding.to_vec(),
        true => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder
                .write_all(encoding)
                .and_then(|()| encoder.finish())
                .expect("writing into memory does not fail")
        }
    };
    let mut message = BytesMut::with_capacity(packed.len() + 5);
    message.put_u8(u8::from(compressed));
    message.put_u32(u32::try_from(packed.len()).expect("a request is small"));
    message.put_slice(&packed);
    message.freeze()
}

fn request(random: &mut Random) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "checkout"),
            text("service.version", "1.42.0"),
            text("host.id", &random.hex(16)),
            text("k8s.pod.name", &format!("checkout-6d5f9c-{}", random.hex(3))),
        ],
        ..Default::default()
    };
    let scope = InstrumentationScope {
        name: "io.opentelemetry.http".to_owned(),
        version: "2.9.0".to_owned(),
        ..Default::default()
    };
    let spans = (0..SPANS).map(|_| span(random)).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn span(random: &mut Random) -> Span {
    let start = 1_760_000_000_000_000_000 + (random.next() >> 20);
    Span {
        trace_id: random.bytes(16),
        span_id: random.bytes(8),
        parent_span_id: random.bytes(8),
        name: "GET /api/v1/orders/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + (random.next() >> 36),
        attributes: vec![
            text("http.request.method", "GET"),
            text(
                "url.path",
                &format!("/api/v1/orders/{}", random.next() % 1_000_000),
            ),
            text("user.email", "someone@example.com"),
            text(
                "client.address",
                &format!("10.0.{}.{}", random.next() % 256, random.next() % 256),
            ),
            number("http.response.status_code", 200),
            number("http.response.size", (random.next() % 100_000) as i64),
        ],
        ..Default::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

/// The same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 24) as u8).collect()
    }

    fn hex(&mut self, bytes: usize) -> String {
        self.bytes(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
