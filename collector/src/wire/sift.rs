//! A batch with some of its spans, metrics or log records dropped or changed. What stays is copied, lengths are new; a
//! batch that stays whole is not even copied.

use std::borrow::Cow;

use bytes::Bytes;
use karez_collector_config::Signal;

use super::field::{fields, put_delimited};
use crate::batch::Batch;

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It stays as it is.
    Keep,
    /// It goes.
    Drop,
    /// It becomes this message.
    Change(Vec<u8>),
}

/// A span, a metric or a log record, with what it stands in; each a message's encoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) resource: &'a [u8],
    pub(crate) scope: &'a [u8],
    pub(crate) item: &'a [u8],
}

/// Asks what becomes of each item. Scopes and resources in which nothing is left go with their items; `None` means
/// that nothing at all is left.
pub(crate) fn sift(batch: Batch, mut decide: impl FnMut(Item<'_>) -> Verdict) -> Option<Batch> {
    let mut sieve = Sieve {
        signal: batch.signal,
        items: 0,
        decide: &mut decide,
    };
    match sieve.payload(&batch.payload) {
        None => Some(batch),
        Some(payload) if payload.is_empty() => None,
        Some(payload) => Some(Batch {
            payload: Bytes::from(payload),
            items: sieve.items,
            ..batch
        }),
    }
}

/// The message of a field that stands once; several mean their concatenation.
pub(crate) fn single(message: &[u8], number: u32) -> Cow<'_, [u8]> {
    let mut found = fields(message).flatten().filter(|field| field.number == number);
    match (found.next(), found.next()) {
        (None, _) => Cow::Borrowed(&[]),
        (Some(only), None) => Cow::Borrowed(only.value),
        (Some(first), Some(second)) => {
            let mut all = [first.value, second.value].concat();
            found.for_each(|field| all.extend_from_slice(field.value));
            Cow::Owned(all)
        }
    }
}

/// The last value of a field of bytes or text: protobuf's rule for one that stands several times.
pub(crate) fn last(message: &[u8], number: u32) -> Option<&[u8]> {
    let found = fields(message).flatten().filter(|field| field.number == number);
    found.last().map(|field| field.value)
}

/// The last value of a number; 0 without one.
pub(crate) fn last_number(message: &[u8], number: u32) -> u64 {
    let found = fields(message).flatten().filter(|field| field.number == number);
    found.last().map_or(0, |field| field.number_value())
}

/// The encoding of an attribute's value, of the attributes that a message holds in a field.
pub(crate) fn attribute<'a>(message: &'a [u8], number: u32, key: &str) -> Option<&'a [u8]> {
    let pairs = fields(message).flatten().filter(|field| field.number == number);
    let mut found = pairs.filter(|pair| last(pair.value, 1).unwrap_or_default() == key.as_bytes());
    found.next().map(|pair| last(pair.value, 2).unwrap_or_default())
}

/// The text of an attribute's encoded value; empty if it is none.
pub(crate) fn text_of(value: &[u8]) -> &str {
    std::str::from_utf8(last(value, 1).unwrap_or_default()).unwrap_or_default()
}

/// Writes an attribute with an encoded value.
pub(crate) fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &[u8]) {
    let mut pair = Vec::with_capacity(key.len() + value.len() + 8);
    put_delimited(&mut pair, 1, key.as_bytes());
    put_delimited(&mut pair, 2, value);
    put_delimited(out, number, &pair);
}

/// Writes an attribute with a text.
pub(crate) fn put_text(out: &mut Vec<u8>, number: u32, key: &str, text: &str) {
    let mut value = Vec::with_capacity(text.len() + 4);
    put_delimited(&mut value, 1, text.as_bytes());
    put_attribute(out, number, key, &value);
}

/// How many data points a metric has.
pub(crate) fn count_points(metric: &[u8]) -> usize {
    let data = fields(metric)
        .flatten()
        .filter(|f| matches!(f.number, 5 | 7 | 9 | 10 | 11));
    data.map(|data| fields(data.value).flatten().filter(|f| f.number == 1).count())
        .sum()
}

struct Sieve<'a> {
    signal: Signal,
    /// Items that are left.
    items: usize,
    decide: &'a mut dyn FnMut(Item<'_>) -> Verdict,
}

impl Sieve<'_> {
    fn payload(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        self.rewrite(payload, 1, |sieve, resource_items| {
            let resource = single(resource_items, 1);
            let left = sieve.rewrite(resource_items, 2, |sieve, scope_items| {
                let scope = single(scope_items, 1);
                let left = sieve.rewrite(scope_items, 2, |sieve, item| {
                    let place = Item {
                        resource: &resource,
                        scope: &scope,
                        item,
                    };
                    let verdict = (sieve.decide)(place);
                    sieve.items += match &verdict {
                        Verdict::Drop => 0,
                        Verdict::Keep => sieve.count(item),
                        Verdict::Change(item) => sieve.count(item),
                    };
                    verdict
                });
                emptied(left)
            });
            emptied(left)
        })
    }

    fn count(&self, item: &[u8]) -> usize {
        match self.signal {
            Signal::Traces | Signal::Logs => 1,
            Signal::Metrics => count_points(item),
        }
    }

    /// A message with the fields of a number sifted; `None` if all of them stayed.
    fn rewrite(
        &mut self,
        message: &[u8],
        number: u32,
        mut decide: impl FnMut(&mut Self, &[u8]) -> Verdict,
    ) -> Option<Vec<u8>> {
        // Everything up to the first change is copied at once when it comes.
        let mut out: Option<Vec<u8>> = None;
        let mut passed = 0;
        for field in fields(message).flatten() {
            let verdict = match field.number == number {
                true => decide(self, field.value),
                false => Verdict::Keep,
            };
            if out.is_none() && verdict != Verdict::Keep {
                let mut start = Vec::with_capacity(message.len() + 64);
                start.extend_from_slice(&message[..passed]);
                out = Some(start);
            }
            if let Some(out) = &mut out {
                match &verdict {
                    Verdict::Keep => out.extend_from_slice(field.whole),
                    Verdict::Drop => {}
                    Verdict::Change(changed) => put_delimited(out, number, changed),
                }
            }
            passed += field.whole.len();
        }
        out
    }
}

/// What became of a message whose items were sifted: without an item it goes.
fn emptied(left: Option<Vec<u8>>) -> Verdict {
    match left {
        None => Verdict::Keep,
        Some(message) if !fields(&message).flatten().any(|field| field.number == 2) => Verdict::Drop,
        Some(message) => Verdict::Change(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use proptest::prelude::*;

    fn request(shape: &[Vec<Vec<u32>>]) -> ExportLogsServiceRequest {
        let record = |number: &u32| LogRecord {
            flags: *number,
            ..LogRecord::default()
        };
        let scope = |records: &Vec<u32>| ScopeLogs {
            schema_url: "s".into(),
            log_records: records.iter().map(record).collect(),
            ..ScopeLogs::default()
        };
        let resource = |scopes: &Vec<Vec<u32>>| ResourceLogs {
            schema_url: "r".into(),
            scope_logs: scopes.iter().map(scope).collect(),
            ..ResourceLogs::default()
        };
        ExportLogsServiceRequest {
            resource_logs: shape.iter().map(resource).collect(),
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_there_in_its_order_and_nothing_else(
            shape in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(0u32..9, 1..5), 1..4), 0..4),
            drop in 0u32..9,
            change in 0u32..9,
        ) {
            let request = request(&shape);
            let all: Vec<u32> = shape.iter().flatten().flatten().copied().collect();
            let batch = Batch::encode(Signal::Logs, &request, all.len());
            let before = batch.clone();
            let sifted = sift(batch, |item| match last_number(item.item, 8) as u32 {
                number if number == drop => Verdict::Drop,
                number if number == change => Verdict::Change([item.item, &[0x12 << 1 | 1, 0]].concat()),
                _ => Verdict::Keep,
            });
            // The added field is none that OTLP knows, but the encoding holds.
            let left: Vec<u32> = all.iter().copied().filter(|number| *number != drop).collect();
            match sifted {
                None => prop_assert!(left.is_empty() && !all.is_empty()),
                Some(batch) => {
                    let decoded: Option<ExportLogsServiceRequest> = batch.decode().ok();
                    prop_assert_eq!(batch.items, left.len());
                    if !all.contains(&drop) && !all.contains(&change) {
                        prop_assert_eq!(&batch, &before);
                    }
                    if let Some(decoded) = decoded.filter(|_| !all.contains(&change)) {
                        let scopes = decoded.resource_logs.iter().flat_map(|r| &r.scope_logs);
                        let found: Vec<u32> = scopes.flat_map(|s| &s.log_records).map(|r| r.flags).collect();
                        prop_assert_eq!(found, left);
                        prop_assert!(decoded.resource_logs.iter().all(|r| !r.scope_logs.is_empty()));
                    }
                }
            }
        }
    }
}
