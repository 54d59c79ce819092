//! Several metrics become one; what differed in their names becomes labels.

use std::collections::BTreeSet;

use karez_collector_config::metrics_transform::SubmatchCase;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};

use super::{Text, Transform, aggregate, operation, set, take};

/// Combines what a transform matches, if it can be.
pub(super) fn combine(metrics: &mut Vec<Metric>, transform: &Transform) {
    let matched: Vec<&Metric> = metrics
        .iter()
        .filter(|metric| transform.matches(metric))
        .collect();
    if matched.is_empty() {
        return;
    }
    if let Some((one, other, what)) = misfit(&matched) {
        tracing::debug!(one, other, what, "metrics cannot be combined");
        return;
    }
    let mut taken = take(metrics, transform).into_iter();
    let Some(mut combined) = taken.next() else { return };
    label(&mut combined, transform);
    for mut metric in taken {
        label(&mut metric, transform);
        append(&mut combined, metric);
    }
    combined.name.clone_from(&transform.config.new_name);
    aggregate::merge(&mut combined, transform.config.aggregation_type);
    if operation::transform(&mut combined, transform) {
        metrics.push(combined);
    }
}

/// Two names and in what they differ, if metrics cannot become one.
fn misfit<'a>(metrics: &[&'a Metric]) -> Option<(&'a str, &'a str, &'static str)> {
    let first = metrics.first()?;
    for metric in metrics.get(1..)? {
        let what = if matches!(metric.data, Some(Data::Summary(_))) {
            "summaries cannot be combined"
        } else if kind(first) != kind(metric) {
            "their types differ"
        } else if first.unit != metric.unit {
            "their units differ"
        } else if keys(first) != keys(metric) {
            "their labels differ"
        } else {
            continue;
        };
        return Some((&first.name, &metric.name, what));
    }
    None
}

/// The type, its temporality, and whether it only grows.
fn kind(metric: &Metric) -> (u8, i32, bool) {
    match &metric.data {
        None => (0, 0, false),
        Some(Data::Gauge(_)) => (1, 0, false),
        Some(Data::Sum(data)) => (2, data.aggregation_temporality, data.is_monotonic),
        Some(Data::Histogram(data)) => (3, data.aggregation_temporality, false),
        Some(Data::ExponentialHistogram(data)) => (4, data.aggregation_temporality, false),
        Some(Data::Summary(_)) => (5, 0, false),
    }
}

fn keys(metric: &Metric) -> BTreeSet<&str> {
    let labels = operation::labels(metric);
    labels
        .into_iter()
        .flatten()
        .map(|label| label.key.as_str())
        .collect()
}

/// Adds what the groups of the pattern matched to each data point's labels.
fn label(metric: &mut Metric, transform: &Transform) {
    let Text::Pattern(pattern) = &transform.name else {
        return;
    };
    let name = std::mem::take(&mut metric.name);
    let Some(captures) = pattern.captures(&name) else {
        return;
    };
    for (index, group) in pattern.capture_names().enumerate().skip(1) {
        let key = group.map_or_else(|| format!("${index}"), str::to_owned);
        let found = captures.get(index).map_or("", |found| found.as_str());
        let found = match transform.config.submatch_case {
            Some(SubmatchCase::Lower) => found.to_lowercase(),
            Some(SubmatchCase::Upper) => found.to_uppercase(),
            None => found.to_owned(),
        };
        operation::each_label(metric, |labels| set(labels, &key, &found));
    }
}

fn append(combined: &mut Metric, metric: Metric) {
    match (&mut combined.data, metric.data) {
        (Some(Data::Gauge(to)), Some(Data::Gauge(from))) => to.data_points.extend(from.data_points),
        (Some(Data::Sum(to)), Some(Data::Sum(from))) => to.data_points.extend(from.data_points),
        (Some(Data::Histogram(to)), Some(Data::Histogram(from))) => to.data_points.extend(from.data_points),
        (Some(Data::ExponentialHistogram(to)), Some(Data::ExponentialHistogram(from))) => {
            to.data_points.extend(from.data_points);
        }
        // Only metrics of one type get here.
        _ => {}
    }
}
