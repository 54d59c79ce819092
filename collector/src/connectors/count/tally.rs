//! Counts the items of a batch, on views of its encoding.

use std::collections::BTreeMap;

use bytes::Bytes;
use karez_collector_config::Signal;
use karez_collector_config::connectors::{Count, Counted};
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value,
};
use prost::Message;

use crate::batch::Batch;
use crate::processors::edit::value_of;
use crate::wire::field::{Field, fields, put_delimited};
use crate::wire::{attribute, put_attribute, single};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Spans,
    Events,
    Metrics,
    Points,
    Records,
}

/// A metric that counts.
#[derive(Debug)]
pub(super) struct Counter {
    what: What,
    name: String,
    description: String,
    /// Attributes, each with the encoding of the value that stands in.
    attributes: Vec<(String, Option<Vec<u8>>)>,
}

/// The metrics of a configuration.
pub(super) fn counters(config: &Count) -> Vec<Counter> {
    let sections = [
        (What::Spans, &config.spans),
        (What::Events, &config.spanevents),
        (What::Metrics, &config.metrics),
        (What::Points, &config.datapoints),
        (What::Records, &config.logs),
    ];
    let counter = |what, name: &String, counted: &Counted| {
        let attribute = |attribute: &karez_collector_config::connectors::CountedAttribute| {
            let default = attribute
                .default_value
                .as_ref()
                .map(|value| value_of(value).encode_to_vec());
            (attribute.key.clone(), default)
        };
        Counter {
            what,
            name: name.clone(),
            description: counted.description.clone(),
            attributes: counted.attributes.iter().map(attribute).collect(),
        }
    };
    let of = |(what, counted)| {
        let counted: &indexmap::IndexMap<String, Counted> = counted;
        counted
            .iter()
            .map(move |(name, counted)| counter(what, name, counted))
            .collect::<Vec<_>>()
    };
    sections.into_iter().flat_map(of).collect()
}

/// A counter's counts, by the encoding of the attributes.
type Counts = BTreeMap<Vec<u8>, i64>;

/// The counts of a batch; `None` if nothing of it is counted.
pub(super) fn count(counters: &[Counter], batch: &Batch, now: u64) -> Option<Batch> {
    let mut payload = Vec::new();
    let mut items = 0;
    for of_resource in numbered(&batch.payload, 1) {
        let resource = single(of_resource.value, 1);
        let mut counts: Vec<Counts> = counters.iter().map(|_| Counts::new()).collect();
        for of_scope in numbered(of_resource.value, 2) {
            let scope = single(of_scope.value, 1);
            for item in numbered(of_scope.value, 2) {
                let around = Around {
                    scope: &scope,
                    resource: &resource,
                };
                tally(counters, &mut counts, batch.signal, around, item.value);
            }
        }
        items += counts.iter().map(BTreeMap::len).sum::<usize>();
        let metrics = counters
            .iter()
            .zip(counts)
            .filter(|(_, counts)| !counts.is_empty());
        let metrics: Vec<Metric> = metrics
            .map(|(counter, counts)| metric(counter, counts, now))
            .collect();
        if !metrics.is_empty() {
            put_resource(&mut payload, &resource, metrics);
        }
    }
    (items > 0).then(|| Batch {
        signal: Signal::Metrics,
        payload: Bytes::from(payload),
        items,
        context: batch.context.clone(),
    })
}

fn numbered(message: &[u8], number: u32) -> impl Iterator<Item = Field<'_>> {
    fields(message)
        .flatten()
        .filter(move |field| field.number == number)
}

/// What an item stands in.
#[derive(Clone, Copy)]
struct Around<'a> {
    scope: &'a [u8],
    resource: &'a [u8],
}

fn tally(counters: &[Counter], counts: &mut [Counts], signal: Signal, around: Around<'_>, item: &[u8]) {
    let mut add = |what, holder: &[u8], number| {
        let counted = counters.iter().zip(counts.iter_mut());
        for (counter, counts) in counted.filter(|(counter, _)| counter.what == what) {
            if let Some(key) = counter.key(holder, number, around) {
                *counts.entry(key).or_default() += 1;
            }
        }
    };
    match signal {
        Signal::Traces => {
            add(What::Spans, item, 9);
            numbered(item, 11).for_each(|event| add(What::Events, event.value, 3));
        }
        Signal::Logs => add(What::Records, item, 6),
        Signal::Metrics => {
            add(What::Metrics, item, 12);
            for data in fields(item).flatten() {
                let number = match data.number {
                    5 | 7 | 11 => 7,
                    9 => 9,
                    10 => 1,
                    _ => continue,
                };
                numbered(data.value, 1).for_each(|point| add(What::Points, point.value, number));
            }
        }
    }
}

impl Counter {
    /// The attributes' encoding; `None` if one that has no default is missing.
    fn key(&self, holder: &[u8], number: u32, around: Around<'_>) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        for (name, default) in &self.attributes {
            let value = attribute(holder, number, name)
                .or_else(|| attribute(around.scope, 3, name))
                .or_else(|| attribute(around.resource, 1, name))
                .or(default.as_deref())?;
            put_attribute(&mut key, 1, name, value);
        }
        Some(key)
    }
}

fn metric(counter: &Counter, counts: Counts, now: u64) -> Metric {
    let point = |(key, count): (Vec<u8>, i64)| {
        // The encoding was made above, of what was scanned.
        let attributes: Vec<KeyValue> = KeyValueList::decode(key.as_slice()).unwrap_or_default().values;
        NumberDataPoint {
            attributes,
            time_unix_nano: now,
            value: Some(Value::AsInt(count)),
            ..NumberDataPoint::default()
        }
    };
    Metric {
        name: counter.name.clone(),
        description: counter.description.clone(),
        data: Some(Data::Sum(Sum {
            data_points: counts.into_iter().map(point).collect(),
            aggregation_temporality: AggregationTemporality::Delta as i32,
            is_monotonic: true,
        })),
        ..Metric::default()
    }
}

fn put_resource(payload: &mut Vec<u8>, resource: &[u8], metrics: Vec<Metric>) {
    let scope = ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: "karez/connector/count".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        metrics,
        ..ScopeMetrics::default()
    };
    let mut of_resource = Vec::new();
    put_delimited(&mut of_resource, 1, resource);
    put_delimited(&mut of_resource, 2, &scope.encode_to_vec());
    put_delimited(payload, 1, &of_resource);
}
