//! OpenTelemetry spans as Jaeger's: kind, status, scope and trace state become tags, events logs, links references.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};

use super::{model, names};
use base64::Engine as _;
use model::{Duration, SpanRef, SpanRefType, Timestamp};

/// Translates the spans of one resource; `None` if there are none.
pub fn batch(resource_spans: ResourceSpans) -> Option<model::Batch> {
    let process = process(&resource_spans.resource.unwrap_or_default());
    let mut spans = Vec::new();
    for scope_spans in resource_spans.scope_spans {
        let scope = scope_spans.scope.unwrap_or_default();
        spans.extend(scope_spans.spans.iter().map(|one| span(one, &scope)));
    }
    (!spans.is_empty()).then_some(model::Batch {
        spans,
        process: Some(process),
    })
}

/// Translates a resource.
pub fn process(resource: &Resource) -> model::Process {
    let service = resource
        .attributes
        .iter()
        .find(|a| a.key == names::SERVICE_NAME)
        .map(|a| match &a.value {
            Some(AnyValue {
                value: Some(Value::StringValue(name)),
            }) => name.clone(),
            Some(other) => text_of(other),
            None => String::new(),
        });
    let others = resource
        .attributes
        .iter()
        .filter(|a| a.key != names::SERVICE_NAME);
    model::Process {
        service_name: service.unwrap_or_else(|| names::NO_SERVICE.to_owned()),
        tags: others.map(tag).collect(),
    }
}

/// Translates a span.
pub fn span(span: &Span, scope: &InstrumentationScope) -> model::Span {
    let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    model::Span {
        trace_id: span.trace_id.clone(),
        span_id: span.span_id.clone(),
        operation_name: span.name.clone(),
        references: references(span),
        flags: span.flags & 0xff,
        start_time: Some(Timestamp::from_nanos(span.start_time_unix_nano)),
        duration: Some(Duration::from_nanos(duration)),
        tags: tags(span, scope),
        logs: span.events.iter().map(log).collect(),
        ..model::Span::default()
    }
}

fn tags(span: &Span, scope: &InstrumentationScope) -> Vec<model::KeyValue> {
    let mut tags = Vec::with_capacity(span.attributes.len() + 4);
    if !scope.name.is_empty() {
        tags.push(model::KeyValue::string(names::SCOPE_NAME, scope.name.clone()));
    }
    if !scope.version.is_empty() {
        tags.push(model::KeyValue::string(
            names::SCOPE_VERSION,
            scope.version.clone(),
        ));
    }
    tags.extend(span.attributes.iter().map(tag));
    if let Some(kind) = kind_name(span.kind) {
        tags.push(model::KeyValue::string(names::SPAN_KIND, kind));
    }
    if let Some(status) = &span.status {
        match StatusCode::try_from(status.code) {
            Ok(StatusCode::Ok) => tags.push(model::KeyValue::string(names::STATUS_CODE, "OK")),
            Ok(StatusCode::Error) => {
                tags.push(model::KeyValue::string(names::STATUS_CODE, "ERROR"));
                tags.push(model::KeyValue::bool(names::ERROR, true));
            }
            _ => {}
        }
        if !status.message.is_empty() {
            tags.push(model::KeyValue::string(
                names::STATUS_DESCRIPTION,
                status.message.clone(),
            ));
        }
    }
    if !span.trace_state.is_empty() {
        tags.push(model::KeyValue::string(
            names::TRACE_STATE,
            span.trace_state.clone(),
        ));
    }
    tags
}

/// A span kind's name in the `span.kind` tag and in the query API; none if it is not given.
pub fn kind_name(kind: i32) -> Option<&'static str> {
    match SpanKind::try_from(kind) {
        Ok(SpanKind::Client) => Some("client"),
        Ok(SpanKind::Server) => Some("server"),
        Ok(SpanKind::Producer) => Some("producer"),
        Ok(SpanKind::Consumer) => Some("consumer"),
        Ok(SpanKind::Internal) => Some("internal"),
        _ => None,
    }
}

/// The parent first, then the links; a link to the parent is not repeated.
fn references(span: &Span) -> Vec<SpanRef> {
    let mut all = Vec::with_capacity(span.links.len() + 1);
    let parent = span
        .parent_span_id
        .iter()
        .any(|byte| *byte != 0)
        .then_some(&span.parent_span_id);
    if let Some(parent) = parent {
        all.push(SpanRef {
            trace_id: span.trace_id.clone(),
            span_id: parent.clone(),
            ref_type: SpanRefType::ChildOf as i32,
        });
    }
    let is_parent = |link: &&Link| parent == Some(&link.span_id) && link.trace_id == span.trace_id;
    all.extend(
        span.links
            .iter()
            .filter(|link| !is_parent(link))
            .map(|link| SpanRef {
                trace_id: link.trace_id.clone(),
                span_id: link.span_id.clone(),
                ref_type: reference_type(link) as i32,
            }),
    );
    all
}

fn reference_type(link: &Link) -> SpanRefType {
    let kind = link
        .attributes
        .iter()
        .find(|a| a.key == names::REF_TYPE)
        .and_then(|a| a.value.as_ref());
    match kind {
        Some(AnyValue {
            value: Some(Value::StringValue(kind)),
        }) if kind == names::CHILD_OF => SpanRefType::ChildOf,
        _ => SpanRefType::FollowsFrom,
    }
}

fn log(event: &Event) -> model::Log {
    let mut fields = Vec::with_capacity(event.attributes.len() + 1);
    // An attribute of that name wins, as in the Collector's translator.
    if !event.name.is_empty() && !event.attributes.iter().any(|a| a.key == names::EVENT) {
        fields.push(model::KeyValue::string(names::EVENT, event.name.clone()));
    }
    fields.extend(event.attributes.iter().map(tag));
    model::Log {
        timestamp: Some(Timestamp::from_nanos(event.time_unix_nano)),
        fields,
    }
}

fn tag(attribute: &KeyValue) -> model::KeyValue {
    let key = attribute.key.clone();
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        None => model::KeyValue::string(key, ""),
        Some(Value::StringValue(text)) => model::KeyValue::string(key, text.clone()),
        Some(Value::BoolValue(value)) => model::KeyValue::bool(key, *value),
        Some(Value::IntValue(value)) => model::KeyValue::int(key, *value),
        Some(Value::DoubleValue(value)) => model::KeyValue::float(key, *value),
        Some(Value::BytesValue(bytes)) => model::KeyValue::binary(key, bytes.clone()),
        Some(_) => model::KeyValue::string(key, attribute.value.as_ref().map(text_of).unwrap_or_default()),
    }
}

/// A structured value as JSON text, which is how the Collector puts it into a tag.
fn text_of(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        None => String::new(),
        _ => json_of(value, 16).to_string(),
    }
}

fn json_of(value: &AnyValue, depth: u8) -> serde_json::Value {
    use serde_json::Value as Json;
    let Some(deeper) = depth.checked_sub(1) else {
        return Json::Null;
    };
    match &value.value {
        Some(Value::StringValue(text)) => Json::from(text.as_str()),
        Some(Value::BoolValue(value)) => Json::from(*value),
        Some(Value::IntValue(value)) => Json::from(*value),
        Some(Value::DoubleValue(value)) => Json::from(*value),
        Some(Value::BytesValue(bytes)) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
        Some(Value::ArrayValue(array)) => array.values.iter().map(|value| json_of(value, deeper)).collect(),
        Some(Value::KvlistValue(list)) => list
            .values
            .iter()
            .map(|pair| {
                (
                    pair.key.clone(),
                    pair.value
                        .as_ref()
                        .map_or(Json::Null, |value| json_of(value, deeper)),
                )
            })
            .collect(),
        _ => Json::Null,
    }
}
