//! Label selectors as Kubernetes has them, with the all-lower-case keys that older operators write.

use std::collections::BTreeMap;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at};
use serde::Deserialize;

/// Which labels an object must have. Without requirements every object is selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// These labels with these values.
    pub labels: BTreeMap<String, String>,
    /// Further requirements.
    pub expressions: Vec<Expression>,
}

/// A requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// What of it.
    pub operator: Operator,
    /// Values.
    pub values: Vec<String>,
}

/// What a requirement asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values, or no such label.
    NotIn,
    /// There is such a label.
    Exists,
    /// There is not.
    DoesNotExist,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<WrittenExpression>>,
    matchlabels: Option<BTreeMap<String, String>>,
    matchexpressions: Option<Vec<WrittenExpression>>,
}

#[derive(Debug, Deserialize)]
struct WrittenExpression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

impl LabelSelector {
    /// Exactly these labels.
    pub fn of_labels(labels: BTreeMap<String, String>) -> Self {
        LabelSelector {
            labels,
            expressions: Vec::new(),
        }
    }

    /// Reads one; a plain map of labels is one, too.
    pub fn read(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self> {
        if node.is_null() {
            return None;
        }
        let known = [
            "matchLabels",
            "matchExpressions",
            "matchlabels",
            "matchexpressions",
        ];
        let plain = node
            .entries()
            .iter()
            .any(|entry| !known.contains(&entry.key.as_str()));
        if plain {
            return decode_at(node, key, diagnoses).map(LabelSelector::of_labels);
        }
        let written: Written = decode_at(node, key, diagnoses)?;
        Some(written.into())
    }

    /// Reads one that a resource holds.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        let written: Written = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        Ok(written.into())
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.labels.iter().all(has)
            && self
                .expressions
                .iter()
                .all(|expression| expression.matches(labels))
    }
}

impl From<Written> for LabelSelector {
    fn from(written: Written) -> Self {
        let expressions = written
            .match_expressions
            .or(written.matchexpressions)
            .unwrap_or_default();
        let expression = |written: WrittenExpression| Expression {
            key: written.key,
            operator: written.operator,
            values: written.values,
        };
        LabelSelector {
            labels: written.match_labels.or(written.matchlabels).unwrap_or_default(),
            expressions: expressions.into_iter().map(expression).collect(),
        }
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
