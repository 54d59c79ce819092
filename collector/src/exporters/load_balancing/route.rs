//! A batch in several, one a backend, on views of its encoding.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use karez_collector_config::Signal;
use karez_collector_config::load_balancing::RoutingKey;

use super::ring::Ring;
use crate::batch::Batch;
use crate::wire::field::{Field, fields, put_delimited};
use crate::wire::{attribute, count_points, divide, last, single, text_of};

/// Part of a batch that is being written for one backend.
#[derive(Default)]
struct Part {
    payload: Vec<u8>,
    items: usize,
}

/// The parts of a batch by backend; empty without any backend.
pub(super) fn route(ring: &Ring, key: RoutingKey, batch: &Batch) -> BTreeMap<usize, Batch> {
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    for field in fields(&batch.payload).flatten().filter(|field| field.number == 1) {
        match key {
            // Metrics belong to no trace.
            RoutingKey::TraceId if batch.signal != Signal::Metrics => {
                by_trace(ring, batch.signal, field.value, &mut parts)
            }
            RoutingKey::Resource => whole(ring, field, batch.signal, &mut parts, attributes),
            RoutingKey::TraceId | RoutingKey::Service => {
                whole(ring, field, batch.signal, &mut parts, service)
            }
        }
    }
    let batch_of = |part: Part| Batch {
        signal: batch.signal,
        payload: Bytes::from(part.payload),
        items: part.items,
        context: batch.context.clone(),
    };
    parts
        .into_iter()
        .map(|(backend, part)| (backend, batch_of(part)))
        .collect()
}

fn service(resource: &[u8]) -> Vec<u8> {
    attribute(resource, 1, "service.name")
        .map(text_of)
        .unwrap_or_default()
        .as_bytes()
        .to_vec()
}

/// The attributes in an order of their own.
fn attributes(resource: &[u8]) -> Vec<u8> {
    let own = fields(resource).flatten().filter(|field| field.number == 1);
    let mut pairs: Vec<&[u8]> = own.map(|field| field.value).collect();
    pairs.sort_unstable();
    pairs.concat()
}

fn whole(
    ring: &Ring,
    field: Field<'_>,
    signal: Signal,
    parts: &mut BTreeMap<usize, Part>,
    key: fn(&[u8]) -> Vec<u8>,
) {
    let Some(backend) = ring.find(&key(&single(field.value, 1))) else {
        return;
    };
    let part = parts.entry(backend).or_default();
    part.payload.extend_from_slice(field.whole);
    for scope in fields(field.value).flatten().filter(|field| field.number == 2) {
        let items = fields(scope.value).flatten().filter(|field| field.number == 2);
        part.items += items.map(|item| count(signal, item.value)).sum::<usize>();
    }
}

fn count(signal: Signal, item: &[u8]) -> usize {
    match signal {
        Signal::Traces | Signal::Logs => 1,
        Signal::Metrics => count_points(item),
    }
}

fn by_trace(ring: &Ring, signal: Signal, of_resource: &[u8], parts: &mut BTreeMap<usize, Part>) {
    let (scopes, around_scopes) = divide(of_resource);
    let mut resources: BTreeMap<usize, Part> = BTreeMap::new();
    for scope in scopes {
        let (items, around_items) = divide(scope.value);
        let mut of_scope: BTreeMap<usize, Part> = BTreeMap::new();
        for item in items {
            let Some(backend) = ring.find(&trace(signal, item.value)) else {
                continue;
            };
            let part = of_scope.entry(backend).or_default();
            part.payload.extend_from_slice(item.whole);
            part.items += 1;
        }
        for (backend, part) in of_scope {
            let resource = resources.entry(backend).or_default();
            put_delimited(
                &mut resource.payload,
                2,
                &[around_items.as_slice(), &part.payload].concat(),
            );
            resource.items += part.items;
        }
    }
    for (backend, resource) in resources {
        let part = parts.entry(backend).or_default();
        put_delimited(
            &mut part.payload,
            1,
            &[around_scopes.as_slice(), &resource.payload].concat(),
        );
        part.items += resource.items;
    }
}

/// The trace's identifier; what has none goes anywhere.
fn trace(signal: Signal, item: &[u8]) -> Cow<'_, [u8]> {
    let number = if signal == Signal::Logs { 9 } else { 1 };
    match last(item, number) {
        Some(id) if !id.is_empty() => Cow::Borrowed(id),
        _ => Cow::Owned(rand::random::<u128>().to_be_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_span_goes_once_and_those_of_a_trace_together(
            traces in proptest::collection::vec(proptest::collection::vec(0u8..40, 0..12), 0..4),
        ) {
            let ring = Ring::new(vec!["a".into(), "b".into(), "c".into()]);
            let span = |trace: &u8| Span { trace_id: vec![*trace; 16], ..Span::default() };
            let of = |traces: &Vec<u8>| ResourceSpans {
                schema_url: "r".into(),
                scope_spans: vec![ScopeSpans {
                    schema_url: "s".into(),
                    spans: traces.iter().map(span).collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            };
            let request = ExportTraceServiceRequest { resource_spans: traces.iter().map(of).collect() };
            let mut all: Vec<u8> = traces.iter().flatten().copied().collect();
            let batch = Batch::encode(Signal::Traces, &request, all.len());
            for key in [RoutingKey::TraceId, RoutingKey::Service, RoutingKey::Resource] {
                let mut found = Vec::new();
                for (backend, part) in route(&ring, key, &batch) {
                    let decoded: ExportTraceServiceRequest = part.decode().unwrap();
                    let mut ids = Vec::new();
                    for resource in &decoded.resource_spans {
                        prop_assert_eq!(&resource.schema_url, "r");
                        let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
                        ids.extend(spans.map(|span| span.trace_id[0]));
                    }
                    prop_assert_eq!(ids.len(), part.items);
                    if key == RoutingKey::TraceId {
                        prop_assert!(ids.iter().all(|id| ring.find(&[*id; 16]) == Some(backend)));
                    }
                    found.extend(ids);
                }
                found.sort_unstable();
                all.sort_unstable();
                prop_assert_eq!(&found, &all);
            }
        }
    }
}
