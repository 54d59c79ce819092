//! Actions, compiled, and what each does to a list of attributes.

use karez_collector_config::processors::{self as config, ActionKind, ConvertedType};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use regex::Regex;
use sha2::{Digest, Sha256};

use super::attributes::{Attributes, Prepared, text, value_of};
use crate::batch::Context;

/// One action.
#[derive(Debug)]
pub(super) struct Action {
    key: String,
    kind: ActionKind,
    source: Source,
    pattern: Option<Regex>,
    converted_type: ConvertedType,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Value(Prepared),
    Attribute { name: String, default: Option<AnyValue> },
    Context { name: String, default: Option<AnyValue> },
}

impl Action {
    pub(super) fn new(action: &config::Action) -> Result<Self, String> {
        let default = action.default_value.as_ref().map(value_of);
        let source = match (&action.value, &action.from_attribute) {
            (Some(value), _) => Source::Value(Prepared::new(&action.key, value_of(value))),
            (None, Some(name)) => Source::Attribute {
                name: name.clone(),
                default,
            },
            (None, None) => Source::Context {
                name: action.from_context.clone().unwrap_or_default(),
                default,
            },
        };
        let pattern = action.pattern.as_deref().map(Regex::new).transpose();
        Ok(Action {
            key: action.key.clone(),
            kind: action.action,
            source,
            pattern: pattern.map_err(|error| format!("the pattern is no regular expression: {error}"))?,
            converted_type: action.converted_type.unwrap_or(ConvertedType::String),
        })
    }

    pub(super) fn apply<'a>(&'a self, attributes: &mut Attributes<'a>, context: Option<&Context>) {
        let key = self.key.as_str();
        match self.kind {
            ActionKind::Insert if attributes.contains(key) => {}
            ActionKind::Update if !attributes.contains(key) => {}
            ActionKind::Insert | ActionKind::Update | ActionKind::Upsert => {
                if let Source::Value(prepared) = &self.source {
                    attributes.set_prepared(prepared);
                } else if let Some(value) = self.source(attributes, context) {
                    attributes.set(key, value);
                }
            }
            ActionKind::Delete if self.pattern.is_none() && !key.is_empty() => attributes.remove_one(key),
            ActionKind::Delete => attributes.remove(|other| self.concerns(other)),
            ActionKind::Hash => {
                let keys: Vec<String> = attributes
                    .keys()
                    .filter(|k| self.concerns(k))
                    .map(str::to_owned)
                    .collect();
                for key in keys {
                    if let Some(hashed) = attributes.get(&key).and_then(|value| hash(&value)) {
                        attributes.set(&key, hashed);
                    }
                }
            }
            ActionKind::Extract => self.extract(attributes),
            ActionKind::Convert => {
                if let Some(value) = attributes
                    .get(key)
                    .and_then(|value| convert(value, self.converted_type))
                {
                    attributes.set(key, value);
                }
            }
        }
    }

    /// Whether delete and hash mean this attribute.
    fn concerns(&self, key: &str) -> bool {
        (!self.key.is_empty() && self.key == key) || self.pattern.as_ref().is_some_and(|p| p.is_match(key))
    }

    /// The value, unless it is the document's own.
    fn source(&self, attributes: &Attributes<'_>, context: Option<&Context>) -> Option<AnyValue> {
        match &self.source {
            Source::Value(_) => None,
            Source::Attribute { name, default } => attributes.get(name).or_else(|| default.clone()),
            Source::Context { name, default } => {
                let found = context.and_then(|context| context.find(name));
                found.map(|found| text(&found)).or_else(|| default.clone())
            }
        }
    }

    fn extract(&self, attributes: &mut Attributes<'_>) {
        let Some(pattern) = &self.pattern else { return };
        let Some(Variant::StringValue(value)) = attributes.get(&self.key).and_then(|value| value.value)
        else {
            return;
        };
        let Some(captures) = pattern.captures(&value) else {
            return;
        };
        for name in pattern.capture_names().flatten() {
            let found = captures.name(name).map_or("", |found| found.as_str());
            attributes.set(name, text(found));
        }
    }
}

fn hash(value: &AnyValue) -> Option<AnyValue> {
    let bytes = match value.value.as_ref()? {
        Variant::StringValue(text) => text.as_bytes().to_vec(),
        Variant::BoolValue(value) => vec![u8::from(*value)],
        Variant::IntValue(value) => value.to_le_bytes().to_vec(),
        Variant::DoubleValue(value) => value.to_bits().to_le_bytes().to_vec(),
        Variant::BytesValue(bytes) => bytes.clone(),
        _ => return None,
    };
    match bytes.is_empty() {
        true => Some(text("")),
        false => Some(text(hex::encode(Sha256::digest(&bytes)))),
    }
}

/// The value in another type; `None` if it cannot be or need not be.
fn convert(value: AnyValue, to: ConvertedType) -> Option<AnyValue> {
    let converted = match (to, value.value?) {
        (ConvertedType::Int, Variant::StringValue(text)) => Variant::IntValue(text.trim().parse().ok()?),
        (ConvertedType::Int, Variant::DoubleValue(value)) => Variant::IntValue(value as i64),
        (ConvertedType::Int, Variant::BoolValue(value)) => Variant::IntValue(i64::from(value)),
        (ConvertedType::Double, Variant::StringValue(text)) => {
            Variant::DoubleValue(text.trim().parse().ok()?)
        }
        (ConvertedType::Double, Variant::IntValue(value)) => Variant::DoubleValue(value as f64),
        (ConvertedType::Double, Variant::BoolValue(value)) => {
            Variant::DoubleValue(f64::from(u8::from(value)))
        }
        (ConvertedType::String, Variant::IntValue(value)) => Variant::StringValue(value.to_string()),
        (ConvertedType::String, Variant::DoubleValue(value)) => Variant::StringValue(value.to_string()),
        (ConvertedType::String, Variant::BoolValue(value)) => Variant::StringValue(value.to_string()),
        _ => return None,
    };
    Some(AnyValue {
        value: Some(converted),
    })
}
