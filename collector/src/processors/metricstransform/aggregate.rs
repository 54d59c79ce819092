//! Data points that became the same are made one: numbers by an aggregation, histograms by adding them up.

use std::collections::BTreeMap;

use karez_collector_config::metrics_transform::Aggregation;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
};
use prost::Message;

/// Makes one of the data points of a metric that have the same labels and time. Summaries cannot be added up.
pub(super) fn merge(metric: &mut Metric, by: Aggregation) {
    let delta = |temporality: i32| temporality == AggregationTemporality::Delta as i32;
    match &mut metric.data {
        Some(Data::Gauge(data)) => numbers(&mut data.data_points, by, false),
        Some(Data::Sum(data)) => {
            let delta = delta(data.aggregation_temporality);
            numbers(&mut data.data_points, by, delta);
        }
        Some(Data::Histogram(data)) => {
            let delta = delta(data.aggregation_temporality);
            let key = |point: &HistogramDataPoint| {
                let mut key = key(
                    &point.attributes,
                    point.time_unix_nano,
                    start(delta, point.start_time_unix_nano),
                );
                key.extend(point.explicit_bounds.iter().flat_map(|bound| bound.to_le_bytes()));
                key
            };
            group(&mut data.data_points, key, |points| fold(points, add_histogram));
        }
        Some(Data::ExponentialHistogram(data)) => {
            let delta = delta(data.aggregation_temporality);
            let key = |point: &ExponentialHistogramDataPoint| {
                let mut key = key(
                    &point.attributes,
                    point.time_unix_nano,
                    start(delta, point.start_time_unix_nano),
                );
                key.extend(point.scale.to_le_bytes());
                key
            };
            group(&mut data.data_points, key, |points| fold(points, add_exponential));
        }
        Some(Data::Summary(_)) | None => {}
    }
}

/// Only data points of deltas are told apart by when they began.
fn start(delta: bool, start: u64) -> u64 {
    if delta { start } else { 0 }
}

fn key(labels: &[KeyValue], time: u64, start: u64) -> Vec<u8> {
    let mut sorted: Vec<Vec<u8>> = labels.iter().map(Message::encode_to_vec).collect();
    sorted.sort_unstable();
    let mut key = [time.to_le_bytes(), start.to_le_bytes()].concat();
    for label in sorted {
        key.extend((label.len() as u64).to_le_bytes());
        key.extend(label);
    }
    key
}

/// Groups by a key, in the order of each group's first, and makes one of each group.
fn group<T>(points: &mut Vec<T>, key: impl Fn(&T) -> Vec<u8>, merge: impl Fn(Vec<T>) -> Option<T>) {
    let mut index: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<T>> = Vec::new();
    for point in points.drain(..) {
        let at = *index.entry(key(&point)).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    points.extend(groups.into_iter().filter_map(merge));
}

fn fold<T>(points: Vec<T>, add: impl Fn(&mut T, T)) -> Option<T> {
    let mut points = points.into_iter();
    let mut first = points.next()?;
    points.for_each(|point| add(&mut first, point));
    Some(first)
}

fn numbers(points: &mut Vec<NumberDataPoint>, by: Aggregation, delta: bool) {
    let key = |point: &NumberDataPoint| {
        key(
            &point.attributes,
            point.time_unix_nano,
            start(delta, point.start_time_unix_nano),
        )
    };
    group(points, key, |points| {
        let values: Vec<Value> = points.iter().filter_map(|point| point.value).collect();
        let value = aggregate(&values, by);
        let mut merged = fold(points, |first, other| {
            first.start_time_unix_nano = first.start_time_unix_nano.min(other.start_time_unix_nano);
            first.exemplars.extend(other.exemplars);
        })?;
        merged.value = value.or(merged.value);
        Some(merged)
    });
}

fn number(value: &Value) -> f64 {
    match value {
        Value::AsInt(number) => *number as f64,
        Value::AsDouble(number) => *number,
    }
}

/// Of whole numbers the result is one, cut off.
fn aggregate(values: &[Value], by: Aggregation) -> Option<Value> {
    if by == Aggregation::Count {
        return Some(Value::AsInt(i64::try_from(values.len()).unwrap_or(i64::MAX)));
    }
    let whole: Option<Vec<i64>> = values
        .iter()
        .map(|value| match value {
            Value::AsInt(number) => Some(*number),
            Value::AsDouble(_) => None,
        })
        .collect();
    match whole {
        Some(mut whole) => {
            let count = i64::try_from(whole.len()).ok().filter(|count| *count > 0)?;
            whole.sort_unstable();
            let sum = || whole.iter().fold(0i64, |sum, number| sum.wrapping_add(*number));
            let middle = whole.len() / 2;
            Some(Value::AsInt(match by {
                Aggregation::Sum => sum(),
                Aggregation::Mean => sum() / count,
                Aggregation::Min => whole[0],
                Aggregation::Max => whole[whole.len() - 1],
                Aggregation::Median if whole.len().is_multiple_of(2) => {
                    ((i128::from(whole[middle - 1]) + i128::from(whole[middle])) / 2) as i64
                }
                Aggregation::Median | Aggregation::Count => whole[middle],
            }))
        }
        None => {
            let mut numbers: Vec<f64> = values.iter().map(number).collect();
            numbers.sort_unstable_by(f64::total_cmp);
            let (first, last) = (numbers.first().copied()?, numbers.last().copied()?);
            let sum = || numbers.iter().sum::<f64>();
            let middle = numbers.len() / 2;
            Some(Value::AsDouble(match by {
                Aggregation::Sum => sum(),
                Aggregation::Mean => sum() / numbers.len() as f64,
                Aggregation::Min => first,
                Aggregation::Max => last,
                Aggregation::Median if numbers.len().is_multiple_of(2) => {
                    (numbers[middle - 1] + numbers[middle]) / 2.0
                }
                Aggregation::Median | Aggregation::Count => numbers[middle],
            }))
        }
    }
}

fn added(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? + other?)
}

fn of_both(one: Option<f64>, other: Option<f64>, choose: fn(f64, f64) -> f64) -> Option<f64> {
    Some(choose(one?, other?))
}

fn add_histogram(first: &mut HistogramDataPoint, other: HistogramDataPoint) {
    first.start_time_unix_nano = first.start_time_unix_nano.min(other.start_time_unix_nano);
    first.count = first.count.saturating_add(other.count);
    first.sum = added(first.sum, other.sum);
    first.min = of_both(first.min, other.min, f64::min);
    first.max = of_both(first.max, other.max, f64::max);
    for (count, more) in first.bucket_counts.iter_mut().zip(other.bucket_counts) {
        *count = count.saturating_add(more);
    }
    first.exemplars.extend(other.exemplars);
}

fn add_exponential(first: &mut ExponentialHistogramDataPoint, other: ExponentialHistogramDataPoint) {
    first.start_time_unix_nano = first.start_time_unix_nano.min(other.start_time_unix_nano);
    first.count = first.count.saturating_add(other.count);
    first.zero_count = first.zero_count.saturating_add(other.zero_count);
    first.sum = added(first.sum, other.sum);
    first.min = of_both(first.min, other.min, f64::min);
    first.max = of_both(first.max, other.max, f64::max);
    first.positive = add_buckets(first.positive.take(), other.positive);
    first.negative = add_buckets(first.negative.take(), other.negative);
    first.exemplars.extend(other.exemplars);
}

/// The most buckets of a merged histogram; what is further away is left out of the buckets, not of the count.
const MAX_BUCKETS: i64 = 4096;

fn add_buckets(one: Option<Buckets>, other: Option<Buckets>) -> Option<Buckets> {
    let (one, other) = match (one, other) {
        (Some(one), Some(other)) => (one, other),
        (one, other) => return one.or(other),
    };
    let end = |buckets: &Buckets| i64::from(buckets.offset) + buckets.bucket_counts.len() as i64;
    let first = one.offset.min(other.offset);
    let length = (end(&one).max(end(&other)) - i64::from(first)).clamp(0, MAX_BUCKETS);
    let mut bucket_counts = vec![0u64; length as usize];
    for buckets in [&one, &other] {
        for (index, count) in buckets.bucket_counts.iter().enumerate() {
            let at = i64::from(buckets.offset) - i64::from(first) + index as i64;
            let slot = usize::try_from(at).ok().and_then(|at| bucket_counts.get_mut(at));
            if let Some(slot) = slot {
                *slot = slot.saturating_add(*count);
            }
        }
    }
    Some(Buckets {
        offset: first,
        bucket_counts,
    })
}
