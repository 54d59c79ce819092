//! Spans as Zipkin's protobuf has them (`zipkin.proto3`).

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use prost::Message;

use super::model;

/// Several spans.
#[derive(Clone, PartialEq, Message)]
pub struct ListOfSpans {
    /// The spans.
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<Span>,
}

/// A span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 8 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// The parent's; empty without one.
    #[prost(bytes = "vec", tag = "2")]
    pub parent_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub id: Vec<u8>,
    /// 1 client, 2 server, 3 producer, 4 consumer.
    #[prost(int32, tag = "4")]
    pub kind: i32,
    /// What was done.
    #[prost(string, tag = "5")]
    pub name: String,
    /// When it began, in microseconds.
    #[prost(fixed64, tag = "6")]
    pub timestamp: u64,
    /// How long it took, in microseconds.
    #[prost(uint64, tag = "7")]
    pub duration: u64,
    /// Who recorded it.
    #[prost(message, optional, tag = "8")]
    pub local_endpoint: Option<Endpoint>,
    /// The other side.
    #[prost(message, optional, tag = "9")]
    pub remote_endpoint: Option<Endpoint>,
    /// What happened meanwhile.
    #[prost(message, repeated, tag = "10")]
    pub annotations: Vec<Annotation>,
    /// What else is known.
    #[prost(map = "string, string", tag = "11")]
    pub tags: HashMap<String, String>,
    /// Whether it is to be kept in any case.
    #[prost(bool, tag = "12")]
    pub debug: bool,
    /// Whether the other side has a span of the same identifier.
    #[prost(bool, tag = "13")]
    pub shared: bool,
}

/// A place in the network.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoint {
    /// The service.
    #[prost(string, tag = "1")]
    pub service_name: String,
    /// 4 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub ipv4: Vec<u8>,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub ipv6: Vec<u8>,
    /// Its port.
    #[prost(int32, tag = "4")]
    pub port: i32,
}

/// Something that happened.
#[derive(Clone, PartialEq, Message)]
pub struct Annotation {
    /// When, in microseconds.
    #[prost(fixed64, tag = "1")]
    pub timestamp: u64,
    /// What.
    #[prost(string, tag = "2")]
    pub value: String,
}

const KINDS: [&str; 5] = ["", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"];

fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

impl From<Span> for model::Span {
    fn from(span: Span) -> Self {
        let kind = usize::try_from(span.kind).ok().and_then(|kind| KINDS.get(kind));
        let annotation = |it: Annotation| model::Annotation {
            timestamp: it.timestamp,
            value: it.value,
        };
        model::Span {
            trace_id: hex::encode(span.trace_id),
            parent_id: some(hex::encode(span.parent_id)),
            id: hex::encode(span.id),
            kind: kind
                .filter(|kind| !kind.is_empty())
                .map(|kind| (*kind).to_owned()),
            name: some(span.name),
            timestamp: some(span.timestamp),
            duration: some(span.duration),
            debug: some(span.debug),
            shared: some(span.shared),
            local_endpoint: span.local_endpoint.map(Into::into),
            remote_endpoint: span.remote_endpoint.map(Into::into),
            annotations: span.annotations.into_iter().map(annotation).collect(),
            tags: span.tags.into_iter().collect(),
        }
    }
}

impl From<Endpoint> for model::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        let ipv4 = <[u8; 4]>::try_from(endpoint.ipv4).ok();
        let ipv6 = <[u8; 16]>::try_from(endpoint.ipv6).ok();
        model::Endpoint {
            service_name: some(endpoint.service_name),
            ipv4: ipv4.map(|address| Ipv4Addr::from(address).to_string()),
            ipv6: ipv6.map(|address| Ipv6Addr::from(address).to_string()),
            port: u16::try_from(endpoint.port).ok().and_then(some),
        }
    }
}

impl From<model::Span> for Span {
    fn from(span: model::Span) -> Self {
        let kind = span
            .kind
            .and_then(|kind| KINDS.iter().position(|known| *known == kind));
        let bytes = |text: &str| hex::decode(text).unwrap_or_default();
        let annotation = |it: model::Annotation| Annotation {
            timestamp: it.timestamp,
            value: it.value,
        };
        Span {
            trace_id: bytes(&span.trace_id),
            parent_id: span.parent_id.as_deref().map(bytes).unwrap_or_default(),
            id: bytes(&span.id),
            kind: kind.and_then(|kind| i32::try_from(kind).ok()).unwrap_or(0),
            name: span.name.unwrap_or_default(),
            timestamp: span.timestamp.unwrap_or(0),
            duration: span.duration.unwrap_or(0),
            local_endpoint: span.local_endpoint.map(Into::into),
            remote_endpoint: span.remote_endpoint.map(Into::into),
            annotations: span.annotations.into_iter().map(annotation).collect(),
            tags: span.tags.into_iter().collect(),
            debug: span.debug.unwrap_or(false),
            shared: span.shared.unwrap_or(false),
        }
    }
}

impl From<model::Endpoint> for Endpoint {
    fn from(endpoint: model::Endpoint) -> Self {
        let ipv4: Option<Ipv4Addr> = endpoint.ipv4.and_then(|text| text.parse().ok());
        let ipv6: Option<Ipv6Addr> = endpoint.ipv6.and_then(|text| text.parse().ok());
        Endpoint {
            service_name: endpoint.service_name.unwrap_or_default(),
            ipv4: ipv4.map(|address| address.octets().to_vec()).unwrap_or_default(),
            ipv6: ipv6.map(|address| address.octets().to_vec()).unwrap_or_default(),
            port: i32::from(endpoint.port.unwrap_or(0)),
        }
    }
}
