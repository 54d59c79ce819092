//! OpenTelemetry's spans as Zipkin's: what Zipkin has no field for becomes a tag.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::model;

/// Translates the spans of resources.
pub fn spans(resources: Vec<ResourceSpans>, default_service: &str) -> Vec<model::Span> {
    let mut spans = Vec::new();
    for resource in resources {
        let mut tags = BTreeMap::new();
        let attributes = resource
            .resource
            .map(|resource| resource.attributes)
            .unwrap_or_default();
        let mut service = default_service.to_owned();
        for attribute in &attributes {
            match attribute.key.as_str() {
                "service.name" => service = shown(attribute.value.as_ref()),
                key => {
                    tags.insert(key.to_owned(), shown(attribute.value.as_ref()));
                }
            }
        }
        for scope in resource.scope_spans {
            let tags = with_scope(&tags, &scope);
            spans.extend(
                scope
                    .spans
                    .into_iter()
                    .map(|span| translate(span, &service, tags.clone())),
            );
        }
    }
    spans
}

fn with_scope(tags: &BTreeMap<String, String>, scope: &ScopeSpans) -> BTreeMap<String, String> {
    let mut tags = tags.clone();
    let Some(scope) = &scope.scope else { return tags };
    for (key, value) in [
        ("otel.scope.name", &scope.name),
        ("otel.scope.version", &scope.version),
    ] {
        if !value.is_empty() {
            tags.insert(key.to_owned(), value.clone());
        }
    }
    tags
}

fn translate(span: Span, service: &str, mut tags: BTreeMap<String, String>) -> model::Span {
    let mut remote = model::Endpoint::default();
    let mut local = model::Endpoint {
        service_name: Some(service.to_owned()),
        ..model::Endpoint::default()
    };
    for attribute in &span.attributes {
        let value = shown(attribute.value.as_ref());
        let taken = match attribute.key.as_str() {
            "peer.service" => {
                remote.service_name = Some(value.clone());
                true
            }
            "net.peer.ip" => address(&mut remote, &value),
            "net.host.ip" => address(&mut local, &value),
            "net.peer.port" => port(&mut remote, &value),
            "net.host.port" => port(&mut local, &value),
            _ => false,
        };
        if !taken {
            tags.insert(attribute.key.clone(), value);
        }
    }
    let kind = kind(span.kind, &mut tags);
    if let Some(status) = &span.status {
        match status.code() {
            StatusCode::Unset => {}
            StatusCode::Ok => {
                tags.insert("otel.status_code".to_owned(), "OK".to_owned());
            }
            StatusCode::Error => {
                tags.insert("otel.status_code".to_owned(), "ERROR".to_owned());
                let error = if status.message.is_empty() {
                    "true"
                } else {
                    &status.message
                };
                tags.insert("error".to_owned(), error.to_owned());
            }
        }
    }
    if !span.trace_state.is_empty() {
        tags.insert("w3c.tracestate".to_owned(), span.trace_state);
    }
    tags.extend(span.links.iter().enumerate().map(link));
    let lasted = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    model::Span {
        trace_id: hex::encode(&span.trace_id),
        parent_id: (!span.parent_span_id.is_empty()).then(|| hex::encode(&span.parent_span_id)),
        id: hex::encode(&span.span_id),
        kind,
        name: Some(span.name),
        timestamp: Some(span.start_time_unix_nano / 1000).filter(|time| *time > 0),
        // Zipkin takes 0 for a duration that is not known.
        duration: Some((lasted / 1000).max(u64::from(lasted > 0))).filter(|lasted| *lasted > 0),
        debug: None,
        shared: None,
        local_endpoint: Some(local),
        remote_endpoint: Some(remote).filter(|remote| *remote != model::Endpoint::default()),
        annotations: span.events.into_iter().map(annotation).collect(),
        tags,
    }
}

fn kind(kind: i32, tags: &mut BTreeMap<String, String>) -> Option<String> {
    let name = match SpanKind::try_from(kind) {
        Ok(SpanKind::Client) => "CLIENT",
        Ok(SpanKind::Server) => "SERVER",
        Ok(SpanKind::Producer) => "PRODUCER",
        Ok(SpanKind::Consumer) => "CONSUMER",
        Ok(SpanKind::Internal) => {
            tags.insert("span.kind".to_owned(), "internal".to_owned());
            return None;
        }
        Ok(SpanKind::Unspecified) | Err(_) => return None,
    };
    Some(name.to_owned())
}

fn address(endpoint: &mut model::Endpoint, text: &str) -> bool {
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => endpoint.ipv4 = Some(text.to_owned()),
        Ok(std::net::IpAddr::V6(_)) => endpoint.ipv6 = Some(text.to_owned()),
        Err(_) => return false,
    }
    true
}

fn port(endpoint: &mut model::Endpoint, text: &str) -> bool {
    endpoint.port = text.parse().ok();
    endpoint.port.is_some()
}

fn link((number, link): (usize, &Link)) -> (String, String) {
    let (trace, span) = (hex::encode(&link.trace_id), hex::encode(&link.span_id));
    let (attributes, dropped) = (json(&link.attributes), link.dropped_attributes_count);
    let text = format!("{trace}|{span}|{}|{attributes}|{dropped}", link.trace_state);
    (format!("otlp.link.{number}"), text)
}

fn annotation(event: Event) -> model::Annotation {
    let value = match event.attributes.is_empty() && event.dropped_attributes_count == 0 {
        true => event.name,
        false => format!(
            "{}|{}|{}",
            event.name,
            json(&event.attributes),
            event.dropped_attributes_count
        ),
    };
    model::Annotation {
        timestamp: event.time_unix_nano / 1000,
        value,
    }
}

fn json(attributes: &[KeyValue]) -> String {
    let entries = attributes
        .iter()
        .map(|it| (it.key.clone(), json_of(it.value.as_ref())));
    serde_json::Value::Object(entries.collect()).to_string()
}

fn json_of(value: Option<&AnyValue>) -> serde_json::Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => serde_json::Value::Null,
        Some(Value::StringValue(text)) => text.clone().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        Some(Value::BytesValue(bytes)) => hex::encode(bytes).into(),
        Some(Value::ArrayValue(array)) => array.values.iter().map(|value| json_of(Some(value))).collect(),
        Some(Value::KvlistValue(list)) => {
            let entries = list
                .values
                .iter()
                .map(|it| (it.key.clone(), json_of(it.value.as_ref())));
            serde_json::Value::Object(entries.collect())
        }
        // A reference into a table that this message does not have.
        Some(_) => serde_json::Value::Null,
    }
}

/// A value as a tag: texts as they are, everything else as JSON.
fn shown(value: Option<&AnyValue>) -> String {
    match json_of(value) {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}
