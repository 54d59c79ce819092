//! What the `metricstransform` processor is told.

use indexmap::IndexMap;
use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use regex::Regex;
use serde::Deserialize;

use crate::processors::MatchType;

/// `metricstransform`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsTransform {
    /// Done in this order.
    pub transforms: Vec<Transform>,
}

/// What is done to some metrics.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Their name, or a pattern of it.
    #[serde(alias = "metric_name", default)]
    pub include: String,
    /// How names and labels are compared.
    #[serde(default)]
    pub match_type: MatchType,
    /// Only data points with these labels.
    #[serde(default)]
    pub experimental_match_labels: IndexMap<String, String>,
    /// What is done.
    pub action: TransformAction,
    /// The new name; `$1` and `${name}` stand for groups of the pattern.
    #[serde(default)]
    pub new_name: String,
    /// `combine`: how data points that become the same are made one.
    #[serde(default)]
    pub aggregation_type: Aggregation,
    /// `combine`: the case of label values that come from the name.
    #[serde(default)]
    pub submatch_case: Option<SubmatchCase>,
    /// `group`: attributes of the new resource.
    #[serde(default)]
    pub group_resource_labels: IndexMap<String, String>,
    /// Done to each metric.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

/// What is done to metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformAction {
    /// They are changed.
    Update,
    /// A changed copy is added.
    Insert,
    /// They become one metric.
    Combine,
    /// They move to a resource of their own.
    Group,
}

/// How several values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// How many they are.
    Count,
    /// The one in the middle.
    Median,
}

/// The case of a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubmatchCase {
    /// Lower.
    Lower,
    /// Upper.
    Upper,
}

/// What is done to a metric's data points.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// What.
    pub action: OperationAction,
    /// The label it is about.
    #[serde(default)]
    pub label: String,
    /// The label's new name, or a new label.
    #[serde(default)]
    pub new_label: String,
    /// The labels that stay.
    #[serde(default)]
    pub label_set: Vec<String>,
    /// The value whose data points go.
    #[serde(default)]
    pub label_value: String,
    /// The new label's value, or that of the values that become one.
    #[serde(default)]
    pub new_value: String,
    /// The values that become one.
    #[serde(default)]
    pub aggregated_values: Vec<String>,
    /// How data points that become the same are made one.
    #[serde(default)]
    pub aggregation_type: Aggregation,
    /// By what values are multiplied.
    #[serde(default)]
    pub experimental_scale: f64,
    /// Values that are renamed.
    #[serde(default)]
    pub value_actions: Vec<ValueAction>,
}

/// What is done to a metric's data points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationAction {
    /// Adds a label.
    AddLabel,
    /// Renames a label, or its values.
    UpdateLabel,
    /// Removes data points with a label's value.
    DeleteLabelValue,
    /// Whole numbers become others, and the other way round.
    ToggleScalarDataType,
    /// Multiplies values.
    ExperimentalScaleValue,
    /// Removes labels and makes one of what becomes the same.
    AggregateLabels,
    /// Makes one of several values of a label.
    AggregateLabelValues,
}

/// A value that is renamed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueAction {
    /// The value.
    pub value: String,
    /// What it becomes.
    pub new_value: String,
}

pub(crate) fn read(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<MetricsTransform> {
    let config: MetricsTransform = decode_at(node, key, diagnoses)?;
    let list = node.get("transforms");
    if config.transforms.is_empty() {
        let mend = "add an entry such as `{include: a, action: update, new_name: b}`";
        let key = join_key(key, "transforms");
        diagnoses.push(Diagnosis::error(
            node.key_place("transforms"),
            key,
            "no transform is given",
            mend,
        ));
    }
    for (index, transform) in config.transforms.iter().enumerate() {
        let key = format!("{key}.transforms[{index}]");
        let place = list
            .and_then(|list| list.items().get(index))
            .map_or_else(|| node.place(), Node::place);
        if let Some((part, message, mend)) = transform_fault(transform) {
            diagnoses.push(Diagnosis::error(
                place.clone(),
                join_key(&key, part),
                message,
                mend,
            ));
        }
        for (index, operation) in transform.operations.iter().enumerate() {
            if let Some((part, mend)) = operation_fault(operation) {
                let key = format!("{key}.operations[{index}].{part}");
                diagnoses.push(Diagnosis::error(place.clone(), key, "is missing", mend));
            }
        }
    }
    Some(config)
}

fn transform_fault(transform: &Transform) -> Option<(&'static str, String, &'static str)> {
    let missing = |part, mend| Some((part, "is missing".to_owned(), mend));
    if transform.include.is_empty() {
        return missing(
            "include",
            "name the metric, or write a pattern with `match_type: regexp`",
        );
    }
    if transform.match_type == MatchType::Regexp {
        let patterns =
            std::iter::once(&transform.include).chain(transform.experimental_match_labels.values());
        for pattern in patterns {
            if let Err(error) = Regex::new(pattern) {
                return Some((
                    "include",
                    format!("is no regular expression: {error}"),
                    "correct it",
                ));
            }
        }
    }
    match transform.action {
        TransformAction::Insert if transform.new_name.is_empty() => {
            missing("new_name", "name the new metric")
        }
        TransformAction::Combine if transform.new_name.is_empty() => {
            missing("new_name", "name the combined metric")
        }
        TransformAction::Group if transform.group_resource_labels.is_empty() => missing(
            "group_resource_labels",
            "write the attributes of the new resource",
        ),
        _ => None,
    }
}

fn operation_fault(operation: &Operation) -> Option<(&'static str, &'static str)> {
    let label = operation.label.is_empty().then_some(("label", "name the label"));
    match operation.action {
        OperationAction::UpdateLabel => label,
        OperationAction::AddLabel if operation.new_label.is_empty() => {
            Some(("new_label", "name the new label"))
        }
        OperationAction::AddLabel if operation.new_value.is_empty() => Some(("new_value", "write its value")),
        OperationAction::DeleteLabelValue => label.or(operation
            .label_value
            .is_empty()
            .then_some(("label_value", "write the value"))),
        OperationAction::AggregateLabelValues => label.or(operation
            .new_value
            .is_empty()
            .then_some(("new_value", "write the value of what becomes one"))),
        OperationAction::ExperimentalScaleValue if operation.experimental_scale == 0.0 => {
            Some(("experimental_scale", "write by what values are multiplied"))
        }
        _ => None,
    }
}
