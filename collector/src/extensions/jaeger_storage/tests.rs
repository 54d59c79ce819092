use super::search::{Query, dependencies, find};
use super::{Added, Limits, TraceStore};
use crate::jaeger::model::{self, KeyValue, SpanRef};
use crate::jaeger::to_otlp;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;

const WIDE: Limits = Limits {
    max_bytes: 1 << 20,
    max_traces: 0,
};

fn span(trace: i64, id: i64, parent: i64, name: &str, start_ms: i64) -> model::Span {
    let reference = SpanRef {
        trace_id: model::trace_id(0, trace),
        span_id: parent.to_be_bytes().to_vec(),
        ref_type: 0,
    };
    model::Span {
        trace_id: model::trace_id(0, trace),
        span_id: id.to_be_bytes().to_vec(),
        operation_name: name.into(),
        references: if parent == 0 { vec![] } else { vec![reference] },
        start_time: Some(model::Timestamp::from_micros(start_ms * 1_000)),
        duration: Some(model::Duration::from_micros(id * 1_000)),
        tags: vec![KeyValue::string("span.kind", "server"), KeyValue::int("n", id)],
        ..model::Span::default()
    }
}

fn batch(service: &str, spans: Vec<model::Span>) -> Vec<u8> {
    let process = model::Process {
        service_name: service.into(),
        tags: vec![KeyValue::string("zone", "a")],
    };
    let resource_spans = to_otlp::batch(model::Batch {
        spans,
        process: Some(process),
    });
    TracesData { resource_spans }.encode_to_vec()
}

fn ids(found: &[super::StoredTrace]) -> Vec<u8> {
    found.iter().map(|trace| trace.id[15]).collect()
}

fn all() -> Query {
    Query {
        end: u64::MAX,
        limit: 100,
        ..Query::default()
    }
}

#[test]
fn keeps_what_it_was_given_and_knows_a_retry() {
    let store = TraceStore::new(WIDE);
    let sent = batch("shop", vec![span(1, 2, 0, "get", 10), span(1, 3, 2, "query", 11)]);
    assert_eq!(
        store.add(&sent),
        Ok(Added {
            stored: 2,
            ..Added::default()
        })
    );
    assert_eq!(
        store.add(&sent),
        Ok(Added {
            known: 2,
            ..Added::default()
        })
    );
    let trace = store.trace(&model::trace_id(0, 1).try_into().unwrap()).unwrap();
    let mut decoded = trace.spans[1].decode();
    assert_eq!(decoded.process.take().unwrap().service_name, "shop");
    assert_eq!(decoded.references, span(1, 3, 2, "query", 11).references);
    assert_eq!(store.services(), ["shop"]);
    assert_eq!(
        store
            .operations("shop")
            .iter()
            .map(|o| (&*o.name, o.kind))
            .collect::<Vec<_>>(),
        [("get", "server"), ("query", "server")]
    );
}

#[test]
fn lets_the_oldest_trace_go_first_and_forgets_its_service() {
    let store = TraceStore::new(Limits {
        max_bytes: 4_000,
        max_traces: 0,
    });
    for trace in 1..=20 {
        store
            .add(&batch(
                if trace < 10 { "old" } else { "new" },
                vec![span(trace, 1, 0, "op", trace)],
            ))
            .unwrap();
        assert!(store.bytes() <= 4_000);
    }
    assert_eq!(store.services(), ["new"]);
    assert!(store.operations("old").is_empty());
    let left = ids(&find(&store, &all()));
    assert_eq!(left.first(), Some(&20));
    assert!(!left.contains(&1) && left.len() == store.traces());
    let two = TraceStore::new(Limits {
        max_traces: 2,
        ..WIDE
    });
    for trace in 1..=5 {
        two.add(&batch("s", vec![span(trace, 1, 0, "op", trace)]))
            .unwrap();
    }
    assert_eq!(ids(&find(&two, &all())), [5, 4]);
}

#[test]
fn emptied_stores_count_nothing() {
    let store = TraceStore::new(Limits {
        max_traces: 1,
        ..WIDE
    });
    store
        .add(&batch("s", vec![span(1, 1, 0, "op", 1), span(1, 2, 1, "op", 1)]))
        .unwrap();
    let one = store.bytes();
    store
        .add(&batch("s", vec![span(2, 1, 0, "op", 1), span(2, 2, 1, "op", 1)]))
        .unwrap();
    assert_eq!(store.bytes(), one);
}

#[test]
fn a_trace_larger_than_the_store_is_cut_not_the_store_emptied() {
    let store = TraceStore::new(Limits {
        max_bytes: 3_000,
        max_traces: 0,
    });
    let spans = (1..100).map(|id| span(1, id, 0, "op", 1)).collect();
    let added = store.add(&batch("s", spans)).unwrap();
    assert!(added.stored > 0 && added.too_large > 0 && added.stored + added.too_large == 99);
    assert_eq!(store.traces(), 1);
}

#[test]
fn refuses_what_is_no_otlp_and_counts_spans_without_ids() {
    let store = TraceStore::new(WIDE);
    assert!(store.add(b"\x0a\xff").is_err());
    let mut nameless = span(1, 1, 0, "op", 1);
    nameless.trace_id = vec![0; 16];
    assert_eq!(
        store.add(&batch("s", vec![nameless])),
        Ok(Added {
            invalid: 1,
            ..Added::default()
        })
    );
    assert_eq!(store.bytes(), 0);
}

#[test]
fn every_condition_must_hold_on_one_span() {
    let store = TraceStore::new(WIDE);
    store
        .add(&batch(
            "shop",
            vec![span(1, 5, 0, "get", 100), span(1, 6, 5, "put", 200)],
        ))
        .unwrap();
    store
        .add(&batch("cart", vec![span(2, 7, 0, "get", 300)]))
        .unwrap();
    let shop = Query {
        service: Some("shop".into()),
        ..all()
    };
    let found = |query: Query| ids(&find(&store, &query));
    assert_eq!(found(all()), [2, 1]);
    assert_eq!(found(Query { limit: 1, ..all() }), [2]);
    assert_eq!(found(shop.clone()), [1]);
    assert_eq!(
        found(Query {
            operation: Some("get".into()),
            ..shop.clone()
        }),
        [1]
    );
    assert!(
        found(Query {
            operation: Some("get".into()),
            min_duration: Some(5_500_000),
            ..shop.clone()
        })
        .is_empty()
    );
    assert_eq!(
        found(Query {
            max_duration: Some(5_000_000),
            ..shop.clone()
        }),
        [1]
    );
    let tags = |tags: &[(&str, &str)]| tags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    assert_eq!(
        found(Query {
            tags: tags(&[("n", "6"), ("zone", "a"), ("span.kind", "server")]),
            ..shop.clone()
        }),
        [1]
    );
    assert!(
        found(Query {
            tags: tags(&[("n", "6")]),
            operation: Some("get".into()),
            ..shop.clone()
        })
        .is_empty()
    );
    assert!(
        found(Query {
            start: 201_000_000,
            ..shop.clone()
        })
        .is_empty()
    );
    assert_eq!(
        found(Query {
            start: 150_000_000,
            end: 200_000_000,
            ..shop
        }),
        [1]
    );
}

#[test]
fn calls_between_services_are_counted() {
    let store = TraceStore::new(WIDE);
    store
        .add(&batch(
            "front",
            vec![span(1, 1, 0, "get", 100), span(1, 2, 1, "inner", 101)],
        ))
        .unwrap();
    store
        .add(&batch(
            "back",
            vec![span(1, 3, 2, "query", 102), span(1, 4, 2, "query", 103)],
        ))
        .unwrap();
    let found = dependencies(&store, 0, u64::MAX);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].parent.as_str(), found[0].child.as_str(), found[0].calls),
        ("front", "back", 2)
    );
    assert!(dependencies(&store, 200_000_000, u64::MAX).is_empty());
}
