//! OTLP's data points, encoded. Field numbers are those of `opentelemetry/proto/metrics/v1`.

use karez_exposition::{Exemplar, Histogram, series};

use super::group::Group;
use crate::wire::field::{put_delimited, put_varint};

/// Dense buckets of an exponential histogram; more are merged by two.
const MAX_BUCKETS: i64 = 4096;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`
const NO_VALUE: u64 = 1;

/// What a number's point is made of.
pub(super) struct Point<'a> {
    pub(super) created: Option<i64>,
    pub(super) time: i64,
    pub(super) value: f64,
    pub(super) attributes: &'a [u8],
    pub(super) exemplars: &'a [u8],
}

/// Milliseconds → nanoseconds since 1970.
fn nanos(milliseconds: i64) -> u64 {
    u64::try_from(milliseconds.saturating_mul(1_000_000)).unwrap_or(0)
}

fn put_fixed(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_double(out: &mut Vec<u8>, number: u8, value: f64) {
    put_fixed(out, number, value.to_bits());
}

fn put_number(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    put_varint(out, value);
}

/// The length of a variable-length number.
fn varint_length(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The length of a delimited field with a number below 16 and a value of so many bytes.
pub(super) fn delimited_length(value: usize) -> usize {
    1 + varint_length(value) + value
}

/// An attribute `{key, value: text}` as field `number`.
pub(super) fn attribute(out: &mut Vec<u8>, number: u8, key: &str, value: &str) {
    let text = 1 + varint_length(value.len()) + value.len();
    let body = 1 + varint_length(key.len()) + key.len() + 1 + varint_length(text) + text;
    out.push(number << 3 | 2);
    put_varint(out, body as u64);
    put_delimited(out, 1, key.as_bytes());
    out.push(2 << 3 | 2);
    put_varint(out, text as u64);
    put_delimited(out, 1, value.as_bytes());
}

/// A `NumberDataPoint`, as field 1. With `room` there is room for its start, even if it is not known yet: where.
pub(super) fn number(out: &mut Vec<u8>, point: &Point<'_>, room: bool) -> Option<usize> {
    let start = room || point.created.is_some();
    let length = 18 + if start { 9 } else { 0 } + point.attributes.len() + point.exemplars.len();
    out.push(1 << 3 | 2);
    let stale = is_stale(point.value);
    put_varint(out, (length + if stale { 2 } else { 0 }) as u64);
    let mut position = None;
    if start {
        put_fixed(out, 2, point.created.map_or(0, nanos));
        position = room.then(|| out.len() - 8);
    }
    put_fixed(out, 3, nanos(point.time));
    put_double(out, 4, if stale { 0.0 } else { point.value });
    out.extend_from_slice(point.exemplars);
    out.extend_from_slice(point.attributes);
    if stale {
        put_number(out, 8, NO_VALUE);
    }
    position
}

/// Fills in when counting began.
pub(super) fn fill_start(out: &mut [u8], position: usize, created: i64) {
    if let Some(room) = out.get_mut(position..position + 8) {
        room.copy_from_slice(&nanos(created).to_le_bytes());
    }
}

/// Prometheus' mark of a series that has ended: a NaN of its own.
pub(super) const STALE: u64 = 0x7ff0_0000_0000_0002;

fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE
}

/// A point that says that its series has ended: of numbers, histograms or summaries, by where those keep attributes
/// (already encoded) and flags.
pub(super) fn ended(out: &mut Vec<u8>, time: i64, attributes: &[u8], flags: u8) {
    out.push(1 << 3 | 2);
    put_varint(out, (9 + attributes.len() + 2) as u64);
    put_fixed(out, 3, nanos(time));
    out.extend_from_slice(attributes);
    put_number(out, flags, NO_VALUE);
}

/// A point made aside, as field 1.
fn put_point(out: &mut Vec<u8>, body: &[u8]) {
    put_delimited(out, 1, body);
}

/// A `HistogramDataPoint`.
pub(super) fn histogram(out: &mut Vec<u8>, group: &mut Group) {
    group.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    group.buckets.dedup_by(|a, b| a.0 == b.0);
    let infinite = group.buckets.last().filter(|(bound, _)| *bound == f64::INFINITY);
    let count = group.count.or(infinite.map(|(_, count)| *count)).unwrap_or(0.0);
    if infinite.is_none() {
        group.buckets.push((f64::INFINITY, count));
    }
    let mut body = Vec::with_capacity(group.buckets.len() * 16 + group.attributes.len() + 64);
    if let Some(created) = group.created {
        put_fixed(&mut body, 2, nanos(created));
    }
    put_fixed(&mut body, 3, nanos(group.time));
    if is_stale(count) || group.sum.is_some_and(is_stale) {
        body.extend_from_slice(&group.attributes);
        put_number(&mut body, 10, NO_VALUE);
        return put_point(out, &body);
    }
    put_fixed(&mut body, 4, whole(count));
    if let Some(sum) = group.sum {
        put_double(&mut body, 5, sum);
    }
    body.push(6 << 3 | 2);
    put_varint(&mut body, group.buckets.len() as u64 * 8);
    let mut before = 0.0;
    for (_, cumulative) in &group.buckets {
        body.extend_from_slice(&whole(cumulative - before).to_le_bytes());
        before = *cumulative;
    }
    body.push(7 << 3 | 2);
    put_varint(&mut body, (group.buckets.len() as u64 - 1) * 8);
    for (bound, _) in &group.buckets[..group.buckets.len() - 1] {
        body.extend_from_slice(&bound.to_le_bytes());
    }
    body.extend_from_slice(&group.exemplars);
    body.extend_from_slice(&group.attributes);
    put_point(out, &body);
}

/// A `SummaryDataPoint`.
pub(super) fn summary(out: &mut Vec<u8>, group: &mut Group) {
    group.quantiles.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut body = Vec::with_capacity(group.quantiles.len() * 20 + group.attributes.len() + 48);
    if let Some(created) = group.created {
        put_fixed(&mut body, 2, nanos(created));
    }
    put_fixed(&mut body, 3, nanos(group.time));
    put_fixed(&mut body, 4, whole(group.count.unwrap_or(0.0)));
    put_double(&mut body, 5, group.sum.unwrap_or(0.0));
    for (quantile, value) in &group.quantiles {
        body.push(6 << 3 | 2);
        put_varint(&mut body, 18);
        put_double(&mut body, 1, *quantile);
        put_double(&mut body, 2, *value);
    }
    body.extend_from_slice(&group.attributes);
    put_point(out, &body);
}

/// A count as a whole number; NaN and what is below 0 count nothing.
fn whole(count: f64) -> u64 {
    count as u64
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// An `ExponentialHistogramDataPoint`.
pub(super) fn exponential(out: &mut Vec<u8>, h: &Histogram<'_>, time: i64, attributes: &[u8]) {
    let mut scale = i64::from(h.schema);
    let mut merged = 0u32;
    let widest = |merged: u32| {
        [h.positive, h.negative]
            .into_iter()
            .map(|buckets| match (buckets.first(), buckets.last()) {
                (Some(first), Some(last)) => index(last.0, merged) - index(first.0, merged) + 1,
                _ => 0,
            })
            .max()
            .unwrap_or(0)
    };
    while widest(merged) > MAX_BUCKETS && merged < 32 {
        merged += 1;
        scale -= 1;
    }
    let mut body = Vec::with_capacity(64 + attributes.len() + h.positive.len() * 2);
    body.extend_from_slice(attributes);
    if let Some(created) = h.created {
        put_fixed(&mut body, 2, nanos(created));
    }
    put_fixed(&mut body, 3, nanos(time));
    if is_stale(h.sum) {
        put_number(&mut body, 10, NO_VALUE);
        return put_point(out, &body);
    }
    put_fixed(&mut body, 4, whole(h.count));
    put_double(&mut body, 5, h.sum);
    put_number(&mut body, 6, zigzag(scale));
    put_fixed(&mut body, 7, whole(h.zero_count));
    for (number, buckets) in [(8, h.positive), (9, h.negative)] {
        let dense = dense(buckets, merged);
        if !dense.is_empty() {
            put_delimited(&mut body, number, &dense);
        }
    }
    for e in h.exemplars {
        exemplar(&mut body, 11, e);
    }
    put_double(&mut body, 14, h.zero_threshold);
    put_point(out, &body);
}

/// OTLP's index of a bucket: Prometheus names a bucket by its upper end, OTLP by its lower one.
fn index(prometheus: i32, merged: u32) -> i64 {
    (i64::from(prometheus) - 1) >> merged
}

/// `Buckets`: an offset and the counts of all buckets from there on.
fn dense(buckets: &[(i32, f64)], merged: u32) -> Vec<u8> {
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
        return Vec::new();
    };
    let offset = index(first.0, merged);
    let length = usize::try_from(index(last.0, merged) - offset + 1).unwrap_or(0);
    let mut counts = vec![0u64; length];
    for (bucket, count) in buckets {
        let at = usize::try_from(index(*bucket, merged) - offset).unwrap_or(usize::MAX);
        if let Some(room) = counts.get_mut(at) {
            *room = room.saturating_add(whole(*count));
        }
    }
    let mut packed = Vec::with_capacity(length);
    counts
        .into_iter()
        .for_each(|count| put_varint(&mut packed, count));
    let mut out = Vec::with_capacity(packed.len() + 12);
    put_number(&mut out, 1, zigzag(offset));
    put_delimited(&mut out, 2, &packed);
    out
}

/// An exemplar, as field `number`. Labels that are a trace's and a span's id become those.
pub(super) fn exemplar(out: &mut Vec<u8>, number: u32, exemplar: &Exemplar<'_>) {
    let mut body = Vec::with_capacity(exemplar.labels.len() + 48);
    if let Some(time) = exemplar.timestamp {
        put_fixed(&mut body, 2, nanos(time));
    }
    put_double(&mut body, 3, exemplar.value);
    let read = series::parse(exemplar.labels, |name, value| {
        let id = match &*name {
            "trace_id" if value.len() == 32 => hex::decode(value.as_bytes()).ok().map(|id| (5, id)),
            "span_id" if value.len() == 16 => hex::decode(value.as_bytes()).ok().map(|id| (4, id)),
            _ => None,
        };
        match id {
            Some((number, id)) => put_delimited(&mut body, number, &id),
            None => attribute(&mut body, 7, &name, &value),
        }
    });
    // An example is not worth losing the sample for.
    if read.is_ok() {
        put_delimited(out, number, &body);
    }
}
