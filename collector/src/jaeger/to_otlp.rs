//! Jaeger spans as OpenTelemetry's: tags that stand for a field become that field, the rest attributes.
//!
//! What each tag means follows the OpenTelemetry Collector's translator, so that a span comes out the same here and there.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{model, names};
use model::{SpanRefType, ValueType};

/// Translates a batch. Spans with a process of their own get a resource of their own.
pub fn batch(batch: model::Batch) -> Vec<ResourceSpans> {
    let mut all: Vec<(Option<model::Process>, ResourceSpans)> = Vec::new();
    for mut span in batch.spans {
        let process = span.process.take().or_else(|| batch.process.clone());
        // The usual batch has one process: look at the last group only, so that hostile ones cost no search.
        let at = match all.last() {
            Some((last, _)) if *last == process => all.len() - 1,
            _ => {
                let resource = process.clone().map(resource);
                all.push((
                    process,
                    ResourceSpans {
                        resource,
                        ..ResourceSpans::default()
                    },
                ));
                all.len() - 1
            }
        };
        push(&mut all[at].1, translate(span));
    }
    all.into_iter().map(|(_, spans)| spans).collect()
}

fn push(resource: &mut ResourceSpans, (scope, span): (InstrumentationScope, Span)) {
    let found = resource
        .scope_spans
        .iter_mut()
        .rev()
        .take(8)
        .find(|known| known.scope.as_ref() == Some(&scope));
    match found {
        Some(known) => known.spans.push(span),
        None => resource.scope_spans.push(ScopeSpans {
            scope: Some(scope),
            spans: vec![span],
            ..ScopeSpans::default()
        }),
    }
}

fn resource(process: model::Process) -> Resource {
    let mut attributes = Vec::with_capacity(process.tags.len() + 1);
    if !process.service_name.is_empty() && process.service_name != names::NO_SERVICE {
        attributes.push(text(names::SERVICE_NAME, process.service_name));
    }
    attributes.extend(process.tags.into_iter().map(attribute));
    rename(&mut attributes, "hostname", "host.name", "");
    rename(
        &mut attributes,
        "jaeger.version",
        "opencensus.exporterversion",
        "Jaeger-",
    );
    Resource {
        attributes,
        ..Resource::default()
    }
}

/// Gives an attribute of Jaeger's clients its OpenTelemetry name, unless that is there already.
fn rename(attributes: &mut [KeyValue], from: &str, to: &str, prefix: &str) {
    if attributes.iter().any(|known| known.key == to) {
        return;
    }
    if let Some(found) = attributes.iter_mut().find(|known| known.key == from) {
        found.key = to.to_owned();
        if let Some(AnyValue {
            value: Some(Value::StringValue(value)),
        }) = &mut found.value
        {
            value.insert_str(0, prefix);
        }
    }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value)),
    });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

fn attribute(tag: model::KeyValue) -> KeyValue {
    let value = match tag.v_type() {
        ValueType::String => Value::StringValue(tag.v_str),
        ValueType::Bool => Value::BoolValue(tag.v_bool),
        ValueType::Int64 => Value::IntValue(tag.v_int64),
        ValueType::Float64 => Value::DoubleValue(tag.v_float64),
        ValueType::Binary => Value::BytesValue(tag.v_binary),
    };
    KeyValue {
        key: tag.key,
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn translate(span: model::Span) -> (InstrumentationScope, Span) {
    let mut tags = span.tags;
    let parent = parent(&span.trace_id, &span.references);
    let start = span.start_time.as_ref().map_or(0, model::Timestamp::nanos);
    let length = span.duration.as_ref().map_or(0, model::Duration::nanos);
    let kind = take_text(&mut tags, names::SPAN_KIND).map_or(SpanKind::Unspecified, |kind| span_kind(&kind));
    let status = status(&mut tags, kind);
    let scope = InstrumentationScope {
        name: take_either(&mut tags, names::SCOPE_NAME, names::LIBRARY_NAME),
        version: take_either(&mut tags, names::SCOPE_VERSION, names::LIBRARY_VERSION),
        ..InstrumentationScope::default()
    };
    let trace_state = take_text(&mut tags, names::TRACE_STATE).unwrap_or_default();
    let links = span
        .references
        .into_iter()
        .enumerate()
        .filter(|(at, _)| Some(*at) != parent.as_ref().map(|p| p.0));
    let translated = Span {
        parent_span_id: parent.as_ref().map(|(_, id)| id.clone()).unwrap_or_default(),
        links: links.map(|(_, reference)| link(reference)).collect(),
        trace_id: span.trace_id,
        span_id: span.span_id,
        trace_state,
        flags: span.flags & 0xff,
        name: span.operation_name,
        kind: kind as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(length),
        attributes: tags.into_iter().map(attribute).collect(),
        events: span.logs.into_iter().map(event).collect(),
        status,
        ..Span::default()
    };
    (scope, translated)
}

/// The reference that is the parent: `CHILD_OF` into the same trace, else any into the same trace.
fn parent(trace: &[u8], references: &[model::SpanRef]) -> Option<(usize, Vec<u8>)> {
    let same_trace = |reference: &model::SpanRef| reference.trace_id == trace;
    let child = references
        .iter()
        .position(|r| same_trace(r) && r.ref_type() == SpanRefType::ChildOf);
    let at = child.or_else(|| references.iter().position(same_trace))?;
    Some((at, references[at].span_id.clone()))
}

fn link(reference: model::SpanRef) -> Link {
    let kind = match reference.ref_type() {
        SpanRefType::ChildOf => names::CHILD_OF,
        SpanRefType::FollowsFrom => names::FOLLOWS_FROM,
    };
    Link {
        trace_id: reference.trace_id,
        span_id: reference.span_id,
        attributes: vec![text(names::REF_TYPE, kind.to_owned())],
        ..Link::default()
    }
}

fn event(log: model::Log) -> Event {
    let mut fields = log.fields;
    Event {
        time_unix_nano: log.timestamp.as_ref().map_or(0, model::Timestamp::nanos),
        name: take_text(&mut fields, names::EVENT).unwrap_or_default(),
        attributes: fields.into_iter().map(attribute).collect(),
        ..Event::default()
    }
}

fn span_kind(name: &str) -> SpanKind {
    match name {
        "client" => SpanKind::Client,
        "server" => SpanKind::Server,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        "internal" => SpanKind::Internal,
        _ => SpanKind::Unspecified,
    }
}

/// A span's status: a true `error` tag decides, then `otel.status_code`, then the HTTP status.
fn status(tags: &mut Vec<model::KeyValue>, kind: SpanKind) -> Option<Status> {
    let code = take_text(tags, names::STATUS_CODE);
    let failed = tags
        .iter()
        .position(|t| t.key == names::ERROR && t.v_type() == ValueType::Bool && t.v_bool);
    if let Some(at) = failed {
        tags.remove(at);
        let message =
            take_text(tags, names::STATUS_DESCRIPTION).or_else(|| find_text(tags, names::HTTP_STATUS_TEXT));
        return Some(Status {
            message: message.unwrap_or_default(),
            code: StatusCode::Error as i32,
        });
    }
    if let Some(code) = code {
        let code = match code.to_ascii_uppercase().as_str() {
            "OK" => StatusCode::Ok,
            "ERROR" => StatusCode::Error,
            _ => StatusCode::Unset,
        };
        let message = take_text(tags, names::STATUS_DESCRIPTION).unwrap_or_default();
        return Some(Status {
            message,
            code: code as i32,
        });
    }
    let http = tags
        .iter()
        .find(|t| t.key == names::HTTP_STATUS_CODE)
        .and_then(http_status)?;
    let failed = http >= 500 || (http >= 400 && kind != SpanKind::Server);
    failed.then(|| Status {
        message: find_text(tags, names::HTTP_STATUS_TEXT).unwrap_or_default(),
        code: StatusCode::Error as i32,
    })
}

fn http_status(tag: &model::KeyValue) -> Option<i64> {
    let code = match tag.v_type() {
        ValueType::Int64 => tag.v_int64,
        ValueType::String => tag.v_str.parse().ok()?,
        _ => return None,
    };
    (100..600).contains(&code).then_some(code)
}

fn find_text(tags: &[model::KeyValue], key: &str) -> Option<String> {
    tags.iter()
        .find(|tag| tag.key == key && tag.v_type() == ValueType::String)
        .map(|tag| tag.v_str.clone())
}

/// Takes a text tag out of the tags; one of another type stays an attribute.
fn take_text(tags: &mut Vec<model::KeyValue>, key: &str) -> Option<String> {
    let at = tags
        .iter()
        .position(|tag| tag.key == key && tag.v_type() == ValueType::String)?;
    Some(tags.remove(at).v_str)
}

fn take_either(tags: &mut Vec<model::KeyValue>, new: &str, old: &str) -> String {
    take_text(tags, new)
        .or_else(|| take_text(tags, old))
        .unwrap_or_default()
}
