use super::model::{self, KeyValue, SpanRef, SpanRefType};
use super::{from_otlp, to_otlp};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

fn jaeger(tags: Vec<KeyValue>) -> model::Span {
    model::Span {
        trace_id: model::trace_id(1, 2),
        span_id: 3i64.to_be_bytes().to_vec(),
        operation_name: "GET /".into(),
        start_time: Some(model::Timestamp::from_micros(1_700_000_000_000_001)),
        duration: Some(model::Duration::from_micros(1_500_000)),
        tags,
        ..model::Span::default()
    }
}

fn one(span: model::Span) -> (Vec<opentelemetry_proto::tonic::trace::v1::ResourceSpans>, Span) {
    let process = model::Process {
        service_name: "shop".into(),
        tags: vec![
            KeyValue::string("hostname", "box"),
            KeyValue::string("jaeger.version", "Go-2.30.0"),
        ],
    };
    let all = to_otlp::batch(model::Batch {
        spans: vec![span],
        process: Some(process),
    });
    let span = all[0].scope_spans[0].spans[0].clone();
    (all, span)
}

fn there_and_back(span: model::Span) -> model::Span {
    let (mut all, _) = one(span);
    from_otlp::batch(all.remove(0)).expect("one span").spans.remove(0)
}

#[test]
fn process_becomes_resource_with_renamed_client_tags() {
    let (all, _) = one(jaeger(vec![]));
    let keys: Vec<_> = all[0]
        .resource
        .as_ref()
        .unwrap()
        .attributes
        .iter()
        .map(|a| a.key.as_str())
        .collect();
    assert_eq!(keys, ["service.name", "host.name", "opencensus.exporterversion"]);
    assert_eq!(
        from_otlp::process(all[0].resource.as_ref().unwrap()).service_name,
        "shop"
    );
}

#[test]
fn kind_status_scope_and_state_become_fields() {
    let (all, span) = one(jaeger(vec![
        KeyValue::string("span.kind", "server"),
        KeyValue::string("otel.library.name", "lib"),
        KeyValue::string("otel.scope.version", "1"),
        KeyValue::bool("error", true),
        KeyValue::string("otel.status_code", "OK"),
        KeyValue::string("otel.status_description", "broken"),
        KeyValue::string("w3c.tracestate", "a=b"),
        KeyValue::int("n", 7),
    ]));
    assert_eq!(span.kind, SpanKind::Server as i32);
    let status = span.status.unwrap();
    assert_eq!(
        (status.code, status.message.as_str()),
        (StatusCode::Error as i32, "broken")
    );
    assert_eq!(span.trace_state, "a=b");
    let scope = all[0].scope_spans[0].scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("lib", "1"));
    assert_eq!(span.attributes.len(), 1);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_500_000_000);
}

#[test]
fn error_false_and_text_errors_stay_attributes() {
    let (_, span) = one(jaeger(vec![
        KeyValue::bool("error", false),
        KeyValue::string("otel.status_code", "ok"),
    ]));
    assert_eq!(span.status.unwrap().code, StatusCode::Ok as i32);
    assert_eq!(span.attributes[0].key, "error");
}

#[test]
fn http_status_decides_only_when_nothing_else_does() {
    let code = |tags| one(jaeger(tags)).1.status.map(|status| status.code);
    let http = |code| KeyValue::int("http.status_code", code);
    assert_eq!(code(vec![http(404)]), Some(StatusCode::Error as i32));
    assert_eq!(
        code(vec![http(404), KeyValue::string("span.kind", "server")]),
        None
    );
    assert_eq!(
        code(vec![http(503), KeyValue::string("span.kind", "server")]),
        Some(StatusCode::Error as i32)
    );
    assert_eq!(code(vec![http(200)]), None);
}

#[test]
fn the_parent_is_a_field_and_other_references_are_links() {
    let mut span = jaeger(vec![]);
    let follows = |trace: Vec<u8>, id: i64, kind: SpanRefType| SpanRef {
        trace_id: trace,
        span_id: id.to_be_bytes().to_vec(),
        ref_type: kind as i32,
    };
    span.references = vec![
        follows(span.trace_id.clone(), 8, SpanRefType::FollowsFrom),
        follows(span.trace_id.clone(), 9, SpanRefType::ChildOf),
        follows(model::trace_id(5, 5), 10, SpanRefType::ChildOf),
    ];
    let (_, otlp) = one(span.clone());
    assert_eq!(otlp.parent_span_id, 9i64.to_be_bytes());
    assert_eq!(otlp.links.len(), 2);
    let back = there_and_back(span.clone());
    let expected = vec![
        span.references[1].clone(),
        span.references[0].clone(),
        span.references[2].clone(),
    ];
    assert_eq!(back.references, expected);
}

#[test]
fn a_follows_from_parent_stays_the_parent() {
    let mut span = jaeger(vec![]);
    span.references = vec![SpanRef {
        trace_id: span.trace_id.clone(),
        span_id: 4i64.to_be_bytes().to_vec(),
        ref_type: SpanRefType::FollowsFrom as i32,
    }];
    assert_eq!(one(span).1.parent_span_id, 4i64.to_be_bytes());
}

#[test]
fn logs_are_events_and_come_back() {
    let mut span = jaeger(vec![
        KeyValue::float("f", 0.5),
        KeyValue::binary("b", vec![0, 255]),
    ]);
    span.logs = vec![model::Log {
        timestamp: Some(model::Timestamp::from_micros(5)),
        fields: vec![KeyValue::string("event", "retry"), KeyValue::int("attempt", 2)],
    }];
    let (_, otlp) = one(span.clone());
    assert_eq!(otlp.events[0].name, "retry");
    assert_eq!(otlp.events[0].time_unix_nano, 5_000);
    assert_eq!(there_and_back(span.clone()), span);
}

#[test]
fn structured_attributes_become_json_text() {
    let mut resource = one(jaeger(vec![])).0.remove(0);
    let list = Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue {
        values: vec![
            AnyValue {
                value: Some(Value::IntValue(1)),
            },
            AnyValue {
                value: Some(Value::BoolValue(true)),
            },
        ],
    });
    resource.resource.as_mut().unwrap().attributes[1].value = Some(AnyValue { value: Some(list) });
    let process = from_otlp::process(resource.resource.as_ref().unwrap());
    assert_eq!(process.tags[0].v_str, "[1,true]");
}

#[test]
fn a_span_with_its_own_process_gets_its_own_resource() {
    let mut other = jaeger(vec![]);
    other.process = Some(model::Process {
        service_name: "cart".into(),
        tags: vec![],
    });
    let process = model::Process {
        service_name: "shop".into(),
        tags: vec![],
    };
    let all = to_otlp::batch(model::Batch {
        spans: vec![jaeger(vec![]), other],
        process: Some(process),
    });
    assert_eq!(all.len(), 2);
}

#[test]
fn a_resource_without_a_service_has_the_name_that_says_so() {
    let resource = opentelemetry_proto::tonic::resource::v1::Resource::default();
    assert_eq!(
        from_otlp::process(&resource).service_name,
        "OTLPResourceNoServiceName"
    );
}
