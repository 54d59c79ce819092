//! What is done to the data points of one metric.

use karez_collector_config::metrics_transform::{Operation, OperationAction, TransformAction};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point::Value,
};

use super::{Transform, aggregate, set, value};

/// Renames a metric and does what is to be done to it. False if all its data points went.
pub(super) fn transform(metric: &mut Metric, transform: &Transform) -> bool {
    let empty = labels(metric).is_empty();
    // An update of some of the data points must not change what all of them share.
    let whole = transform.config.action != TransformAction::Update || transform.takes_all(metric);
    if !transform.config.new_name.is_empty() && whole {
        metric.name = transform.new_name(&metric.name);
    }
    for operation in &transform.config.operations {
        apply(metric, operation, transform, whole);
    }
    empty || !labels(metric).is_empty()
}

fn apply(metric: &mut Metric, operation: &Operation, transform: &Transform, whole: bool) {
    match operation.action {
        OperationAction::UpdateLabel => each_label(metric, |labels| {
            if transform.takes(labels) {
                update_label(labels, operation);
            }
        }),
        OperationAction::ToggleScalarDataType => each_number(metric, |point| {
            if transform.takes(&point.attributes) {
                point.value = point.value.map(toggle);
            }
        }),
        OperationAction::ExperimentalScaleValue => scale(metric, operation.experimental_scale, transform),
        OperationAction::AddLabel if whole => each_label(metric, |labels| {
            set(labels, &operation.new_label, &operation.new_value);
        }),
        OperationAction::DeleteLabelValue if whole => retain(metric, |labels| {
            !transform.takes(labels) || value(labels, &operation.label) != Some(&operation.label_value)
        }),
        OperationAction::AggregateLabels if whole => {
            each_label(metric, |labels| {
                labels.retain(|label| operation.label_set.contains(&label.key))
            });
            aggregate::merge(metric, operation.aggregation_type);
        }
        OperationAction::AggregateLabelValues if whole => {
            each_label(metric, |labels| {
                let held = value(labels, &operation.label);
                if held.is_some_and(|held| operation.aggregated_values.iter().any(|value| value == held)) {
                    set(labels, &operation.label, &operation.new_value);
                }
            });
            aggregate::merge(metric, operation.aggregation_type);
        }
        OperationAction::AddLabel
        | OperationAction::DeleteLabelValue
        | OperationAction::AggregateLabels
        | OperationAction::AggregateLabelValues => {}
    }
}

fn update_label(labels: &mut Vec<KeyValue>, operation: &Operation) {
    let Some(index) = labels.iter().position(|label| label.key == operation.label) else {
        return;
    };
    let new = match value(labels, &operation.label) {
        Some(held) => operation.value_actions.iter().find(|action| action.value == held),
        None => None,
    };
    if !operation.new_label.is_empty() && operation.new_label != operation.label {
        let mut label = labels.remove(index);
        label.key.clone_from(&operation.new_label);
        labels.retain(|other| other.key != label.key);
        labels.push(label);
    }
    if let Some(action) = new {
        let key = match operation.new_label.is_empty() {
            true => &operation.label,
            false => &operation.new_label,
        };
        set(labels, key, &action.new_value);
    }
}

fn toggle(value: Value) -> Value {
    match value {
        Value::AsInt(number) => Value::AsDouble(number as f64),
        Value::AsDouble(number) => Value::AsInt(number as i64),
    }
}

fn scale(metric: &mut Metric, by: f64, transform: &Transform) {
    each_number(metric, |point| {
        if transform.takes(&point.attributes) {
            point.value = point.value.map(|value| match value {
                Value::AsInt(number) => Value::AsInt((number as f64 * by) as i64),
                Value::AsDouble(number) => Value::AsDouble(number * by),
            });
        }
    });
    let Some(Data::Histogram(histogram)) = &mut metric.data else {
        return;
    };
    let takes = |point: &&mut HistogramDataPoint| transform.takes(&point.attributes);
    for point in histogram.data_points.iter_mut().filter(takes) {
        for number in [&mut point.sum, &mut point.min, &mut point.max]
            .into_iter()
            .flatten()
        {
            *number *= by;
        }
        point.explicit_bounds.iter_mut().for_each(|bound| *bound *= by);
    }
}

/// The labels of each data point.
pub(super) fn labels(metric: &Metric) -> Vec<&[KeyValue]> {
    macro_rules! of {
        ($data:expr) => {
            $data
                .data_points
                .iter()
                .map(|point| point.attributes.as_slice())
                .collect()
        };
    }
    match &metric.data {
        None => Vec::new(),
        Some(Data::Gauge(data)) => of!(data),
        Some(Data::Sum(data)) => of!(data),
        Some(Data::Histogram(data)) => of!(data),
        Some(Data::ExponentialHistogram(data)) => of!(data),
        Some(Data::Summary(data)) => of!(data),
    }
}

/// Changes the labels of each data point.
pub(super) fn each_label(metric: &mut Metric, mut change: impl FnMut(&mut Vec<KeyValue>)) {
    macro_rules! each {
        ($data:expr) => {
            $data
                .data_points
                .iter_mut()
                .for_each(|point| change(&mut point.attributes))
        };
    }
    match &mut metric.data {
        None => {}
        Some(Data::Gauge(data)) => each!(data),
        Some(Data::Sum(data)) => each!(data),
        Some(Data::Histogram(data)) => each!(data),
        Some(Data::ExponentialHistogram(data)) => each!(data),
        Some(Data::Summary(data)) => each!(data),
    }
}

/// Leaves the data points whose labels are to stay.
pub(super) fn retain(metric: &mut Metric, stays: impl Fn(&[KeyValue]) -> bool) {
    macro_rules! retain {
        ($data:expr) => {
            $data.data_points.retain(|point| stays(&point.attributes))
        };
    }
    match &mut metric.data {
        None => {}
        Some(Data::Gauge(data)) => retain!(data),
        Some(Data::Sum(data)) => retain!(data),
        Some(Data::Histogram(data)) => retain!(data),
        Some(Data::ExponentialHistogram(data)) => retain!(data),
        Some(Data::Summary(data)) => retain!(data),
    }
}

fn each_number(metric: &mut Metric, change: impl FnMut(&mut NumberDataPoint)) {
    match &mut metric.data {
        Some(Data::Gauge(data)) => data.data_points.iter_mut().for_each(change),
        Some(Data::Sum(data)) => data.data_points.iter_mut().for_each(change),
        _ => {}
    }
}
