//! What the `filter` processor is told, in its attribute form: `include` and `exclude` for spans, metrics, logs.
//! Conditions in OTTL are refused, with a word on what stands in for them.

use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::processors::{AttributeMatch, Match, MatchType};

/// `filter`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Spans that stay.
    pub spans: Pair<Match>,
    /// Metrics that stay.
    pub metrics: MetricFilter,
    /// Log records that stay.
    pub logs: LogFilter,
    /// What an error of a condition does; matching by attributes has none.
    pub error_mode: ErrorMode,
    /// OTTL: refused.
    pub traces: Option<Value>,
    /// OTTL: refused.
    pub profiles: Option<Value>,
    /// OTTL: refused.
    pub trace_conditions: Option<Value>,
    /// OTTL: refused.
    pub metric_conditions: Option<Value>,
    /// OTTL: refused.
    pub log_conditions: Option<Value>,
    /// OTTL: refused.
    pub profile_conditions: Option<Value>,
}

/// What an error of a condition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorMode {
    /// The batch is refused.
    #[default]
    Propagate,
    /// It is logged.
    Ignore,
    /// Nothing.
    Silent,
}

/// First what is included, then of that what is excluded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pair<T> {
    /// Only what this matches stays.
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    pub include: Option<T>,
    /// What this matches goes.
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    pub exclude: Option<T>,
}

impl<T> Default for Pair<T> {
    fn default() -> Self {
        Pair {
            include: None,
            exclude: None,
        }
    }
}

/// `metrics:` of `filter`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricFilter {
    /// Only what this matches stays.
    pub include: Option<MetricMatch>,
    /// What this matches goes.
    pub exclude: Option<MetricMatch>,
    /// A cache of the other implementation; matching is the same without.
    pub regexp: Option<Value>,
    /// OTTL: refused.
    pub resource: Option<Value>,
    /// OTTL: refused.
    pub metric: Option<Value>,
    /// OTTL: refused.
    pub datapoint: Option<Value>,
}

/// Metrics by name, and by their resource.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricMatch {
    /// How names are compared: `strict` or `regexp`.
    pub match_type: FilterMatchType,
    /// A cache of the other implementation; matching is the same without.
    pub regexp: Option<Value>,
    /// Names.
    pub metric_names: Vec<String>,
    /// Expressions: refused.
    pub expressions: Option<Value>,
    /// Attributes of the resource, which decide about all its metrics.
    pub resource_attributes: Vec<AttributeMatch>,
}

/// How `filter` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterMatchType {
    /// Equal.
    #[default]
    Strict,
    /// By regular expression.
    Regexp,
    /// By expression: refused.
    Expr,
}

impl FilterMatchType {
    /// The same for names and attributes.
    pub fn by_text(self) -> MatchType {
        match self {
            FilterMatchType::Regexp => MatchType::Regexp,
            FilterMatchType::Strict | FilterMatchType::Expr => MatchType::Strict,
        }
    }
}

/// `logs:` of `filter`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFilter {
    /// Only what this matches stays.
    pub include: Option<LogMatch>,
    /// What this matches goes.
    pub exclude: Option<LogMatch>,
    /// OTTL: refused.
    pub resource: Option<Value>,
    /// OTTL: refused.
    pub log_record: Option<Value>,
}

/// Log records: each list that is given must match.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogMatch {
    /// How texts are compared.
    pub match_type: MatchType,
    /// Attributes of the resource.
    pub resource_attributes: Vec<AttributeMatch>,
    /// Attributes of the record.
    pub record_attributes: Vec<AttributeMatch>,
    /// Severity texts.
    pub severity_texts: Vec<String>,
    /// The least severity.
    pub severity_number: Option<SeverityMatch>,
    /// Bodies.
    pub bodies: Vec<String>,
}

/// The least severity.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeverityMatch {
    /// A number from 1 to 24, or a name such as `INFO` or `error2`.
    pub min: String,
    /// Whether records without a severity match.
    pub match_undefined: bool,
}

impl SeverityMatch {
    /// The number; 0 if none is written.
    pub fn number(&self) -> Option<u64> {
        if self.min.is_empty() {
            return Some(0);
        }
        if let Ok(number) = self.min.parse::<u64>() {
            return (1..=24).contains(&number).then_some(number);
        }
        let text = self.min.to_ascii_uppercase();
        let name = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let step = match &text[name.len()..] {
            "" => 0,
            "2" => 1,
            "3" => 2,
            "4" => 3,
            _ => return None,
        };
        let names = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
        let index = names.iter().position(|known| *known == name)?;
        Some(index as u64 * 4 + 1 + step)
    }
}

pub(crate) fn read(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Filter> {
    let filter: Filter = decode_at(node, key, diagnoses)?;
    let before = diagnoses.len();
    refuse_conditions(node, key, diagnoses);
    for side in ["include", "exclude"] {
        for signal in ["spans", "metrics", "logs"] {
            if let Some(block) = node.at_path(&[signal, side]) {
                let key = format!("{key}.{signal}.{side}");
                check_match(block, &key, diagnoses);
            }
        }
    }
    for (side, rule) in [
        ("include", &filter.logs.include),
        ("exclude", &filter.logs.exclude),
    ] {
        let severity = rule.as_ref().and_then(|rule| rule.severity_number.as_ref());
        if let Some(severity) = severity.filter(|severity| severity.number().is_none()) {
            let key = format!("{key}.logs.{side}.severity_number.min");
            let message = format!("`{}` is no severity", severity.min);
            let mend = "write 1 to 24, or such as INFO, WARN2, ERROR";
            diagnoses.push(Diagnosis::error(node.place(), key, message, mend));
        }
    }
    let rules = [
        filter.spans.include.is_some() || filter.spans.exclude.is_some(),
        filter.metrics.include.is_some() || filter.metrics.exclude.is_some(),
        filter.logs.include.is_some() || filter.logs.exclude.is_some(),
    ];
    if !rules.contains(&true) && diagnoses.len() == before {
        let mend = "write such as `metrics: {exclude: {match_type: strict, metric_names: [x]}}`";
        diagnoses.push(Diagnosis::error(node.place(), key, "nothing is filtered", mend));
    }
    Some(filter)
}

/// The keys that hold OTTL, and what to write instead.
const CONDITIONS: &[(&[&str], &str)] = &[
    (&["traces"], "spans: {include: …, exclude: …}"),
    (&["profiles"], "spans, metrics or logs"),
    (&["trace_conditions"], "spans: {include: …, exclude: …}"),
    (&["metric_conditions"], "metrics: {include: …, exclude: …}"),
    (&["log_conditions"], "logs: {include: …, exclude: …}"),
    (&["profile_conditions"], "spans, metrics or logs"),
    (
        &["metrics", "resource"],
        "metrics: {exclude: {resource_attributes: …}}",
    ),
    (&["metrics", "metric"], "metrics: {exclude: {metric_names: …}}"),
    (&["metrics", "datapoint"], "metrics: {exclude: {metric_names: …}}"),
    (&["logs", "resource"], "logs: {exclude: {resource_attributes: …}}"),
    (
        &["logs", "log_record"],
        "logs: {exclude: {record_attributes: …, bodies: …}}",
    ),
];

fn refuse_conditions(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    for (path, instead) in CONDITIONS {
        let Some(found) = node.at_path(path).filter(|found| !found.is_null()) else {
            continue;
        };
        let message = "conditions in OTTL are not supported";
        let mend = format!("match by name and attribute, strict or regexp: `{instead}`");
        diagnoses.push(Diagnosis::error(
            found.place(),
            join_key(key, &path.join(".")),
            message,
            mend,
        ));
    }
}

fn check_match(block: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let written = |name: &&str| block.get(name).is_some_and(|node| !node.is_null());
    if written(&"expressions") || block.get("match_type").and_then(Node::as_str) == Some("expr") {
        let message = "expressions are not supported";
        let mend = "write `match_type: regexp` with `metric_names:` or `resource_attributes:`";
        diagnoses.push(Diagnosis::error(block.place(), key, message, mend));
        return;
    }
    let what = [
        "services",
        "span_names",
        "span_kinds",
        "attributes",
        "resources",
        "libraries",
        "metric_names",
        "resource_attributes",
        "record_attributes",
        "severity_texts",
        "severity_number",
        "bodies",
    ];
    if !what.iter().any(written) {
        let mend = "name what it matches, such as `metric_names:`, `span_names:` or `attributes:`";
        diagnoses.push(Diagnosis::error(block.place(), key, "matches nothing", mend));
    }
    if block.get("match_type").and_then(Node::as_str) != Some("regexp") {
        return;
    }
    for name in [
        "services",
        "span_names",
        "span_kinds",
        "metric_names",
        "severity_texts",
        "bodies",
    ] {
        let items = block.get(name).map_or(&[][..], Node::items);
        check_patterns(items.iter(), &join_key(key, name), diagnoses);
    }
    for name in [
        "attributes",
        "resources",
        "resource_attributes",
        "record_attributes",
    ] {
        let items = block.get(name).map_or(&[][..], Node::items);
        check_patterns(
            items.iter().filter_map(|item| item.get("value")),
            &join_key(key, name),
            diagnoses,
        );
    }
}

fn check_patterns<'a>(patterns: impl Iterator<Item = &'a Node>, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    for pattern in patterns {
        if let Err(error) = Regex::new(pattern.as_str().unwrap_or_default()) {
            let message = format!("is no regular expression: {error}");
            diagnoses.push(Diagnosis::error(pattern.place(), key, message, "correct it"));
        }
    }
}
