use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;

use super::*;

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

proptest! {
    #[test]
    fn nothing_hostile_panics(json in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200), tags in proptest::collection::btree_map("[a-z.|]{0,12}|error|otlp\\.link\\.0|otel\\.status_code", ".{0,20}", 0..6)) {
        let _ = serde_json::from_str::<Vec<model::Span>>(&json);
        if let Ok(list) = proto::ListOfSpans::decode(bytes.as_slice()) {
            let _ = to_otlp::resources(list.spans.into_iter().map(Into::into).collect(), true);
        }
        let span = model::Span {
            trace_id: "1".into(),
            id: "1".into(),
            timestamp: Some(u64::MAX),
            duration: Some(u64::MAX),
            tags,
            ..model::Span::default()
        };
        let resources = to_otlp::resources(vec![span], true).unwrap();
        prop_assert_eq!(from_otlp::spans(resources, "s").len(), 1);
    }
}
