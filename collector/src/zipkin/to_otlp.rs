//! Zipkin's spans as OpenTelemetry's: tags that stand for a field become that field, the rest attributes.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::model;

/// A span that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} `{text}` is no identifier of {digits} hexadecimal digits")]
pub struct NoIdentifier {
    what: &'static str,
    text: String,
    digits: &'static str,
}

/// Translates spans; those of a service stand together.
pub fn resources(spans: Vec<model::Span>, typed: bool) -> Result<Vec<ResourceSpans>, NoIdentifier> {
    let mut by_service: BTreeMap<String, BTreeMap<(String, String), Vec<Span>>> = BTreeMap::new();
    for mut span in spans {
        let local = span.local_endpoint.as_ref();
        let service = local
            .and_then(|local| local.service_name.clone())
            .unwrap_or_default();
        let mut tag = |new: &str, old: &str| {
            let old = span.tags.remove(old);
            span.tags.remove(new).or(old).unwrap_or_default()
        };
        let scope = (
            tag("otel.scope.name", "otel.library.name"),
            tag("otel.scope.version", "otel.library.version"),
        );
        let translated = translate(span, typed)?;
        by_service
            .entry(service)
            .or_default()
            .entry(scope)
            .or_default()
            .push(translated);
    }
    Ok(by_service.into_iter().map(resource).collect())
}

fn resource((service, scopes): (String, BTreeMap<(String, String), Vec<Span>>)) -> ResourceSpans {
    let attributes = match service.is_empty() {
        true => Vec::new(),
        false => vec![text("service.name", &service)],
    };
    let scope = |((name, version), spans): ((String, String), Vec<Span>)| ScopeSpans {
        scope: Some(InstrumentationScope {
            name,
            version,
            ..InstrumentationScope::default()
        }),
        spans,
        ..ScopeSpans::default()
    };
    ResourceSpans {
        resource: Some(Resource {
            attributes,
            ..Resource::default()
        }),
        scope_spans: scopes.into_iter().map(scope).collect(),
        ..ResourceSpans::default()
    }
}

fn translate(span: model::Span, typed: bool) -> Result<Span, NoIdentifier> {
    let trace_id = identifier("traceId", &span.trace_id, 16)?;
    let span_id = identifier("id", &span.id, 8)?;
    let parent_span_id = match span.parent_id.as_deref() {
        None | Some("") => Vec::new(),
        Some(parent) => identifier("parentId", parent, 8)?,
    };
    let mut tags = span.tags;
    let status = status(&mut tags);
    let kind = kind(span.kind.as_deref(), &mut tags);
    let first = span
        .annotations
        .iter()
        .map(|annotation| annotation.timestamp)
        .min();
    let began = span.timestamp.or(first).unwrap_or(0);
    let links = links(&mut tags);
    let trace_state = tags.remove("w3c.tracestate").unwrap_or_default();
    let mut attributes = Vec::new();
    attributes.extend(endpoint(
        span.local_endpoint.as_ref(),
        ["", "net.host.ip", "net.host.port"],
    ));
    attributes.extend(endpoint(
        span.remote_endpoint.as_ref(),
        ["peer.service", "net.peer.ip", "net.peer.port"],
    ));
    if let Some(true) = span.debug {
        attributes.push(pair("zipkin.debug", Value::BoolValue(true)));
    }
    attributes.extend(tags.iter().map(|(key, value)| match typed {
        true => pair(key, parsed(value)),
        false => text(key, value),
    }));
    Ok(Span {
        trace_id,
        span_id,
        parent_span_id,
        trace_state,
        name: span.name.unwrap_or_default(),
        kind: kind as i32,
        start_time_unix_nano: nanoseconds(began),
        end_time_unix_nano: nanoseconds(began.saturating_add(span.duration.unwrap_or(0))),
        attributes,
        events: span.annotations.into_iter().map(event).collect(),
        links,
        status,
        ..Span::default()
    })
}

fn nanoseconds(microseconds: u64) -> u64 {
    microseconds.saturating_mul(1000)
}

/// An identifier of so many bytes; a shorter one is filled up with zeros at its start.
fn identifier(what: &'static str, text: &str, bytes: usize) -> Result<Vec<u8>, NoIdentifier> {
    let wrong = || NoIdentifier {
        what,
        text: text.chars().take(40).collect(),
        digits: if bytes == 16 { "16 or 32" } else { "16" },
    };
    let decoded = (!text.is_empty() && text.len() <= bytes * 2)
        .then(|| hex::decode(format!("{text:0>width$}", width = bytes * 2)).ok())
        .flatten();
    decoded
        .filter(|id| id.iter().any(|byte| *byte != 0))
        .ok_or_else(wrong)
}

fn status(tags: &mut BTreeMap<String, String>) -> Option<Status> {
    if let Some(code) = tags.remove("otel.status_code") {
        let message = tags.remove("otel.status_description");
        let code = match code
            .trim_start_matches("STATUS_CODE_")
            .to_ascii_uppercase()
            .as_str()
        {
            "OK" => StatusCode::Ok,
            "ERROR" => StatusCode::Error,
            _ => StatusCode::Unset,
        };
        let error = if code == StatusCode::Error {
            tags.remove("error")
        } else {
            None
        };
        let message = message
            .or(error.filter(|error| error != "true"))
            .unwrap_or_default();
        return Some(Status {
            code: code as i32,
            message,
        });
    }
    let error = tags.get("error")?.clone();
    let message = match error.as_str() {
        "false" => return None,
        "true" | "" => String::new(),
        text => text.to_owned(),
    };
    tags.remove("error");
    Some(Status {
        code: StatusCode::Error as i32,
        message,
    })
}

fn kind(kind: Option<&str>, tags: &mut BTreeMap<String, String>) -> SpanKind {
    match kind {
        Some("CLIENT") => SpanKind::Client,
        Some("SERVER") => SpanKind::Server,
        Some("PRODUCER") => SpanKind::Producer,
        Some("CONSUMER") => SpanKind::Consumer,
        _ if tags.get("span.kind").is_some_and(|kind| kind == "internal") => {
            tags.remove("span.kind");
            SpanKind::Internal
        }
        _ => SpanKind::Unspecified,
    }
}

/// `otlp.link.N`: identifiers, trace state, attributes and how many were dropped, separated by `|`.
fn links(tags: &mut BTreeMap<String, String>) -> Vec<Link> {
    let mut links = Vec::new();
    for number in 0..128 {
        let Some(text) = tags.remove(&format!("otlp.link.{number}")) else {
            break;
        };
        let mut parts = text.splitn(4, '|');
        let mut next = || parts.next().unwrap_or_default();
        let (trace, span, state, rest) = (next(), next(), next(), next());
        let (attributes, dropped) = rest.rsplit_once('|').unwrap_or((rest, "0"));
        links.push(Link {
            trace_id: identifier("", trace, 16).unwrap_or_default(),
            span_id: identifier("", span, 8).unwrap_or_default(),
            trace_state: state.to_owned(),
            attributes: attributes_of(attributes).unwrap_or_default(),
            dropped_attributes_count: dropped.parse().unwrap_or(0),
            ..Link::default()
        });
    }
    links
}

/// A name, or `name|{attributes}|dropped`.
fn event(annotation: model::Annotation) -> Event {
    let time_unix_nano = nanoseconds(annotation.timestamp);
    if let Some((name, rest)) = annotation.value.split_once('|')
        && let Some((attributes, dropped)) = rest.rsplit_once('|')
        && let (Some(attributes), Ok(dropped)) = (attributes_of(attributes), dropped.parse())
    {
        return Event {
            time_unix_nano,
            name: name.to_owned(),
            attributes,
            dropped_attributes_count: dropped,
        };
    }
    Event {
        time_unix_nano,
        name: annotation.value,
        ..Event::default()
    }
}

fn attributes_of(json: &str) -> Option<Vec<KeyValue>> {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let one = |(key, value): (String, serde_json::Value)| KeyValue {
        key,
        value: Some(crate::processors::edit::value_of(&value)),
        ..KeyValue::default()
    };
    Some(map.into_iter().map(one).collect())
}

fn endpoint(endpoint: Option<&model::Endpoint>, [service, ip, port]: [&str; 3]) -> Vec<KeyValue> {
    let Some(endpoint) = endpoint else {
        return Vec::new();
    };
    let mut attributes = Vec::new();
    if let Some(name) = endpoint
        .service_name
        .as_deref()
        .filter(|name| !service.is_empty() && !name.is_empty())
    {
        attributes.push(text(service, name));
    }
    if let Some(address) = endpoint.ipv4.as_deref().or(endpoint.ipv6.as_deref()) {
        attributes.push(text(ip, address));
    }
    if let Some(number) = endpoint.port.filter(|port| *port > 0) {
        attributes.push(pair(port, Value::IntValue(i64::from(number))));
    }
    attributes
}

fn parsed(text: &str) -> Value {
    if let Ok(value) = text.parse::<bool>() {
        return Value::BoolValue(value);
    }
    if let Ok(value) = text.parse::<i64>() {
        return Value::IntValue(value);
    }
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match text.parse::<f64>() {
        Ok(value) if number => Value::DoubleValue(value),
        _ => Value::StringValue(text.to_owned()),
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}
