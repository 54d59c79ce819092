//! What the processors are told.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, join_key};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::values::duration;

/// `batch`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchProcessor {
    /// The longest that data waits; 0 sends at once.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Items after which a batch is sent; 0 only after the timeout.
    pub send_batch_size: u32,
    /// The most items of a batch; 0 no limit.
    pub send_batch_max_size: u32,
    /// Headers by whose values data is kept apart; the receiver has to keep them (`include_metadata`).
    pub metadata_keys: Vec<String>,
    /// The most combinations of them at once; 0 no limit.
    pub metadata_cardinality_limit: u32,
}

impl Default for BatchProcessor {
    fn default() -> Self {
        BatchProcessor {
            timeout: Duration::from_millis(200),
            send_batch_size: 8192,
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: 1000,
        }
    }
}

/// `memory_limiter`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryLimiter {
    /// How often memory is measured; required.
    #[serde(deserialize_with = "duration")]
    pub check_interval: Duration,
    /// The hard limit in MiB.
    pub limit_mib: u32,
    /// How much below it data is refused; a fifth of it unless written.
    pub spike_limit_mib: u32,
    /// The hard limit in hundredths of what the machine or container has.
    pub limit_percentage: u32,
    /// How much below it data is refused.
    pub spike_limit_percentage: u32,
    /// Has no effect: there is no garbage to collect.
    #[serde(deserialize_with = "duration")]
    pub min_gc_interval_when_soft_limited: Duration,
    /// Has no effect: there is no garbage to collect.
    #[serde(deserialize_with = "duration")]
    pub min_gc_interval_when_hard_limited: Duration,
}

/// `resource`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceProcessor {
    /// Done in this order to the resource's attributes.
    pub attributes: Vec<Action>,
}

/// `attributes`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttributesProcessor {
    /// Done in this order to the attributes of spans, data points, log records.
    pub actions: Vec<Action>,
    /// Only where this matches.
    pub include: Option<Match>,
    /// But not where this matches.
    pub exclude: Option<Match>,
}

/// One change of attributes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The attribute.
    #[serde(default)]
    pub key: String,
    /// What is done.
    pub action: ActionKind,
    /// The value.
    #[serde(default)]
    pub value: Option<Value>,
    /// Or the attribute to take it from.
    #[serde(default)]
    pub from_attribute: Option<String>,
    /// Or the part of the request's context.
    #[serde(default)]
    pub from_context: Option<String>,
    /// For `extract`: named groups become attributes. For `delete` and `hash`: the attributes it matches.
    #[serde(default)]
    pub pattern: Option<String>,
    /// For `convert`: `int`, `double`, `string`.
    #[serde(default)]
    pub converted_type: Option<ConvertedType>,
    /// What is used where `from_attribute` or `from_context` finds nothing.
    #[serde(default)]
    pub default_value: Option<Value>,
}

/// What is done to an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// Only if absent.
    Insert,
    /// Only if present.
    Update,
    /// In any case.
    Upsert,
    /// Away with it.
    Delete,
    /// Its SHA-256.
    Hash,
    /// Named groups of a pattern.
    Extract,
    /// To another type.
    Convert,
}

impl<'de> Deserialize<'de> for ActionKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const NAMES: &[&str] = &[
            "insert", "update", "upsert", "delete", "hash", "extract", "convert",
        ];
        let text = String::deserialize(deserializer)?;
        Ok(match text.to_ascii_lowercase().as_str() {
            "insert" => ActionKind::Insert,
            "update" => ActionKind::Update,
            "upsert" => ActionKind::Upsert,
            "delete" => ActionKind::Delete,
            "hash" => ActionKind::Hash,
            "extract" => ActionKind::Extract,
            "convert" => ActionKind::Convert,
            _ => return Err(serde::de::Error::unknown_variant(&text, NAMES)),
        })
    }
}

/// The type that `convert` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvertedType {
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// A text.
    String,
}

/// How names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchType {
    /// Equal.
    #[default]
    Strict,
    /// By regular expression.
    Regexp,
}

/// An attribute that must be there, with a value if one is given.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeMatch {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: Option<Value>,
}

/// An instrumentation library (scope).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryMatch {
    /// Its name.
    pub name: String,
    /// Its version; any if absent.
    #[serde(default)]
    pub version: Option<String>,
}

/// `include` and `exclude`: each list that is given must match, by one of its entries (of attributes: by all).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// How names are compared.
    pub match_type: MatchType,
    /// Has no effect.
    pub regexp: Option<Value>,
    /// `service.name`.
    pub services: Vec<String>,
    /// Spans' names.
    pub span_names: Vec<String>,
    /// Spans' kinds, as `SPAN_KIND_SERVER`.
    pub span_kinds: Vec<String>,
    /// Log records' bodies.
    pub log_bodies: Vec<String>,
    /// Log records' severity texts.
    pub log_severity_texts: Vec<String>,
    /// Metrics' names.
    pub metric_names: Vec<String>,
    /// Attributes of the item.
    pub attributes: Vec<AttributeMatch>,
    /// Attributes of the resource.
    pub resources: Vec<AttributeMatch>,
    /// Scopes.
    pub libraries: Vec<LibraryMatch>,
}

/// What is wrong with a list of actions beyond its keys.
pub(crate) fn check_actions(node: Option<&Node>, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let items = node.map_or(&[][..], Node::items);
    if items.is_empty() {
        if let Some(node) = node {
            let mend = "add an entry such as `{key: k, value: v, action: upsert}`";
            diagnoses.push(Diagnosis::error(node.place(), key, "no action is given", mend));
        }
        return;
    }
    for (index, item) in items.iter().enumerate() {
        let key = format!("{key}[{index}]");
        if let Some((part, message, mend)) = action_fault(item) {
            diagnoses.push(Diagnosis::error(
                item.place(),
                join_key(&key, part),
                message,
                mend,
            ));
        }
    }
}

fn action_fault(item: &Node) -> Option<(&'static str, String, String)> {
    let has = |key: &str| item.get(key).is_some_and(|node| !node.is_null());
    let fault = |part, message: &str, mend: &str| Some((part, message.to_owned(), mend.to_owned()));
    let action = item.get("action")?.as_str()?.to_ascii_lowercase();
    let by_pattern = matches!(action.as_str(), "delete" | "hash") && has("pattern");
    if !has("key") && !by_pattern {
        return fault("key", "is missing", "name the attribute with `key:`");
    }
    let sources = ["value", "from_attribute", "from_context"]
        .iter()
        .filter(|key| has(key))
        .count();
    match action.as_str() {
        "insert" | "update" | "upsert" if sources == 0 => {
            return fault(
                "value",
                "is missing",
                "add `value:`, `from_attribute:` or `from_context:`",
            );
        }
        "insert" | "update" | "upsert" if sources > 1 => {
            return fault(
                "value",
                "several sources of the value are given",
                "keep one of them",
            );
        }
        "extract" if !has("pattern") => return fault("pattern", "is missing", "add a regular expression"),
        "convert" if !has("converted_type") => {
            return fault("converted_type", "is missing", "add int, double or string");
        }
        _ => {}
    }
    let pattern = item.get("pattern").and_then(Node::as_str)?;
    match Regex::new(pattern) {
        Err(error) => Some((
            "pattern",
            format!("is no regular expression: {error}"),
            "correct it".to_owned(),
        )),
        Ok(regex) if action == "extract" && regex.capture_names().flatten().next().is_none() => {
            fault("pattern", "has no named group", "write such as `(?P<name>.*)`")
        }
        Ok(_) => None,
    }
}

/// What is wrong with a memory limiter beyond its keys.
pub(crate) fn memory_limiter_fault(
    limiter: &MemoryLimiter,
) -> Option<(&'static str, &'static str, &'static str)> {
    if limiter.check_interval.is_zero() {
        return Some((
            "check_interval",
            "must be more than 0",
            "write `check_interval: 1s`",
        ));
    }
    if limiter.limit_mib == 0 && limiter.limit_percentage == 0 {
        return Some((
            "limit_mib",
            "no limit is given",
            "write `limit_mib:` or `limit_percentage:`",
        ));
    }
    if limiter.limit_percentage > 100 || limiter.spike_limit_percentage > 100 {
        return Some(("limit_percentage", "is more than 100", "write a percentage"));
    }
    if limiter.limit_mib > 0 && limiter.spike_limit_mib >= limiter.limit_mib {
        return Some((
            "spike_limit_mib",
            "must be less than limit_mib",
            "write a fifth of it",
        ));
    }
    None
}
