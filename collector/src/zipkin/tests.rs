use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::batch::{Batch, Signal};

const JSON: &str = r#"[{
    "traceId": "5982fe77008310cc80f1da5e10147517", "parentId": "90394f6bcffb5d13", "id": "67fae42571535f60",
    "kind": "SERVER", "name": "/m/n/2.6.1", "timestamp": 1516781775726000, "duration": 26000, "debug": true,
    "localEndpoint": {"serviceName": "api", "ipv4": "10.0.0.1", "port": 80},
    "remoteEndpoint": {"serviceName": "client", "ipv6": "::1"},
    "annotations": [{"timestamp": 1516781775726001, "value": "sr"}, {"timestamp": 1516781775726002, "value": "ev|{\"n\":1}|2"}],
    "tags": {"http.path": "/api", "status_code": "500", "error": "boom", "otel.library.name": "lib"}
}, {"traceId": "80f1da5e10147517", "id": "80f1da5e10147517"}]"#;

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let found = span.attributes.iter().find(|it: &&KeyValue| it.key == key)?;
    found
        .value
        .as_ref()
        .and_then(|value: &AnyValue| value.value.as_ref())
}

#[test]
fn json_becomes_spans() {
    let spans: Vec<model::Span> = serde_json::from_str(JSON).unwrap();
    let resources = to_otlp::resources(spans, true).unwrap();
    assert_eq!(resources.len(), 2);
    let (bare, full) = (&resources[0], &resources[1]);
    assert_eq!(
        bare.scope_spans[0].spans[0].trace_id[..8],
        [0; 8],
        "a short identifier is filled up"
    );
    assert_eq!(full.resource.as_ref().unwrap().attributes[0].key, "service.name");
    assert_eq!(full.scope_spans[0].scope.as_ref().unwrap().name, "lib");
    let span = &full.scope_spans[0].spans[0];
    assert_eq!((span.kind, span.name.as_str()), (2, "/m/n/2.6.1"));
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 26_000_000);
    assert_eq!(span.status.as_ref().unwrap().message, "boom");
    assert_eq!(attribute(span, "status_code"), Some(&Value::IntValue(500)));
    assert_eq!(attribute(span, "net.host.port"), Some(&Value::IntValue(80)));
    assert_eq!(
        attribute(span, "peer.service"),
        Some(&Value::StringValue("client".into()))
    );
    assert_eq!(span.events[0].name, "sr");
    assert_eq!(
        (
            span.events[1].name.as_str(),
            span.events[1].dropped_attributes_count
        ),
        ("ev", 2)
    );
    assert_eq!(span.events[1].attributes[0].key, "n");
}

#[test]
fn there_and_back_it_is_the_same() {
    let spans: Vec<model::Span> = serde_json::from_str(JSON).unwrap();
    let first = to_otlp::resources(spans, false).unwrap();
    let back = from_otlp::spans(first.clone(), "none");
    let by_protobuf: Vec<model::Span> = {
        let list = proto::ListOfSpans {
            spans: back.iter().cloned().map(Into::into).collect(),
        };
        let again = proto::ListOfSpans::decode(list.encode_to_vec().as_slice()).unwrap();
        again.spans.into_iter().map(Into::into).collect()
    };
    let mut second = to_otlp::resources(by_protobuf, false).unwrap();
    second.retain(|resource| {
        resource.resource.as_ref().unwrap().attributes[0].value
            != first[0]
                .resource
                .as_ref()
                .unwrap()
                .attributes
                .first()
                .and_then(|a| a.value.clone())
    });
    let api = second
        .iter()
        .find(|r| r.scope_spans[0].scope.as_ref().unwrap().name == "lib")
        .unwrap();
    let (mut expected, mut found) = (
        first[1].scope_spans[0].spans[0].clone(),
        api.scope_spans[0].spans[0].clone(),
    );
    for span in [&mut expected, &mut found] {
        span.attributes.retain(|it| it.key != "zipkin.debug");
        span.attributes.sort_by(|a, b| a.key.cmp(&b.key));
    }
    assert_eq!(found, expected);
}

#[test]
fn identifiers_that_are_none_are_refused() {
    for (trace, id) in [
        ("", "1"),
        ("1", ""),
        ("x", "1"),
        ("0", "1"),
        ("1", "12345678901234567"),
    ] {
        let span = model::Span {
            trace_id: trace.into(),
            id: id.into(),
            ..model::Span::default()
        };
        assert!(to_otlp::resources(vec![span], false).is_err(), "{trace} {id}");
    }
}

/// Whatever is read gives as many spans, in an encoding that the scan takes, and goes out as Zipkin's again.
fn holds(encoding: Encoding, body: &[u8]) {
    let Ok(spans) = read(encoding, body) else { return };
    let count = spans.len();
    for typed in [false, true] {
        let Ok(resource_spans) = to_otlp::resources(spans.clone(), typed) else {
            return;
        };
        let request = TracesData {
            resource_spans: resource_spans.clone(),
        };
        let batch = Batch::scan(Signal::Traces, request.encode_to_vec().into()).unwrap();
        assert_eq!(batch.items, count);
        let back = from_otlp::spans(resource_spans, "s");
        assert_eq!(back.len(), count);
        to_otlp::resources(back, typed).unwrap();
    }
}

fn identifier() -> impl Strategy<Value = String> {
    "[0-9a-f]{1,16}|[0-9a-fA-F]{32}|.{0,4}"
}

fn endpoint() -> impl Strategy<Value = serde_json::Value> {
    ("[a-z]{0,3}", ".{0,12}|10\\.0\\.0\\.1", any::<u16>()).prop_map(
        |(name, ip, port)| serde_json::json!({"serviceName": name, "ipv4": ip, "ipv6": "::1", "port": port}),
    )
}

fn span() -> impl Strategy<Value = serde_json::Value> {
    let tag = "[a-z.|]{0,12}|error|otlp\\.link\\.0|otel\\.status_code|sa|ca|lc";
    let tags = proptest::collection::btree_map(tag, ".{0,20}", 0..5);
    let event = "cs|cr|sr|ss|ms|mr|.{0,8}|[a-z]\\|\\{\\}\\|[0-9]{1,3}";
    let events = proptest::collection::vec((any::<u64>(), event, endpoint()), 0..5);
    (
        (identifier(), identifier(), identifier(), any::<u64>(), any::<u64>()),
        (tags, events, endpoint(), "CLIENT|SERVER|PRODUCER|CONSUMER|[a-z]{0,3}"),
    )
        .prop_map(|((trace, id, parent, timestamp, duration), (tags, events, place, kind))| {
            let annotations: Vec<_> = events
                .into_iter()
                .map(|(at, value, of)| serde_json::json!({"timestamp": at, "value": value, "endpoint": of}))
                .collect();
            let known: Vec<_> = tags
                .iter()
                .map(|(key, value)| serde_json::json!({"key": key, "value": value, "endpoint": place}))
                .collect();
            serde_json::json!({
                "traceId": trace, "id": id, "parentId": parent, "timestamp": timestamp, "duration": duration, "kind": kind,
                "tags": tags, "annotations": annotations, "binaryAnnotations": known, "localEndpoint": place,
                "remoteEndpoint": place, "debug": true, "shared": true,
            })
        })
}

proptest! {
    #[test]
    fn nothing_hostile_panics(json in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for encoding in [Encoding::Json, Encoding::JsonV1, Encoding::Proto] {
            holds(encoding, json.as_bytes());
            holds(encoding, &bytes);
        }
    }

    #[test]
    fn what_looks_like_spans_is_spans_or_refused(spans in proptest::collection::vec(span(), 0..4)) {
        let json = serde_json::to_vec(&spans).unwrap();
        holds(Encoding::Json, &json);
        holds(Encoding::JsonV1, &json);
        if let Ok(spans) = read(Encoding::Json, &json) {
            let list = proto::ListOfSpans { spans: spans.into_iter().map(Into::into).collect() };
            holds(Encoding::Proto, &list.encode_to_vec());
        }
    }
}
