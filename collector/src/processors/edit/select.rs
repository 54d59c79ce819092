//! `include` and `exclude`, compiled.

use karez_collector_config::Signal;
use karez_collector_config::processors::{self as config, MatchType};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use regex::Regex;

use super::attributes::{Attributes, value_of};
use crate::component::StartError;
use crate::wire::field::fields;

/// What is edited: what `include` matches and `exclude` does not.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    include: Option<Rule>,
    exclude: Option<Rule>,
}

/// An item with what it stands in.
pub(crate) struct Item<'a> {
    pub(crate) signal: Signal,
    /// The resource's message.
    pub(crate) resource: &'a [u8],
    /// The scope's message.
    pub(crate) scope: &'a [u8],
    /// The span, the log record, or the metric.
    pub(crate) item: &'a [u8],
    /// The message that holds the attributes: the item itself, or a metric's data point.
    pub(crate) holder: &'a [u8],
    /// The field of the attributes in it.
    pub(crate) number: u32,
}

#[derive(Debug)]
struct Rule {
    services: Vec<Text>,
    span_names: Vec<Text>,
    span_kinds: Vec<Text>,
    metric_names: Vec<Text>,
    log_bodies: Vec<Text>,
    log_severity_texts: Vec<Text>,
    attributes: Vec<(String, Option<Wanted>)>,
    resources: Vec<(String, Option<Wanted>)>,
    libraries: Vec<(Text, Option<Text>)>,
}

#[derive(Debug)]
enum Text {
    Equal(String),
    Pattern(Regex),
}

#[derive(Debug)]
enum Wanted {
    Equal(opentelemetry_proto::tonic::common::v1::AnyValue),
    Pattern(Regex),
}

impl Selection {
    pub(crate) fn new(
        include: Option<&config::Match>,
        exclude: Option<&config::Match>,
    ) -> Result<Self, StartError> {
        let rule = |rule: Option<&config::Match>, key: &str| {
            let compiled = rule.map(Rule::new).transpose();
            compiled.map_err(|error| {
                StartError::config(key, format!("is no regular expression: {error}"), "correct it")
            })
        };
        Ok(Selection {
            include: rule(include, "include")?,
            exclude: rule(exclude, "exclude")?,
        })
    }

    pub(crate) fn takes(&self, item: &Item<'_>) -> bool {
        self.include.as_ref().is_none_or(|rule| rule.matches(item))
            && !self.exclude.as_ref().is_some_and(|rule| rule.matches(item))
    }
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Text::Equal(wanted) => wanted == text,
            Text::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

fn any(rules: &[Text], text: impl FnOnce() -> String) -> bool {
    if rules.is_empty() {
        return true;
    }
    let text = text();
    rules.iter().any(|rule| rule.matches(&text))
}

impl Rule {
    fn new(rule: &config::Match) -> Result<Self, regex::Error> {
        let text = |text: &String| match rule.match_type {
            MatchType::Strict => Ok(Text::Equal(text.clone())),
            MatchType::Regexp => Regex::new(text).map(Text::Pattern),
        };
        let texts = |list: &[String]| list.iter().map(text).collect::<Result<Vec<_>, _>>();
        let wanted = |list: &[config::AttributeMatch]| {
            let compiled = list.iter().map(|entry| {
                let value = match (&entry.value, rule.match_type) {
                    (None, _) => None,
                    (Some(serde_json::Value::String(text)), MatchType::Regexp) => {
                        Some(Wanted::Pattern(Regex::new(text)?))
                    }
                    (Some(value), _) => Some(Wanted::Equal(value_of(value))),
                };
                Ok((entry.key.clone(), value))
            });
            compiled.collect::<Result<Vec<_>, regex::Error>>()
        };
        let libraries = rule.libraries.iter().map(|library| {
            let version = library.version.as_ref().map(text).transpose()?;
            Ok((text(&library.name)?, version))
        });
        Ok(Rule {
            services: texts(&rule.services)?,
            span_names: texts(&rule.span_names)?,
            span_kinds: texts(&rule.span_kinds)?,
            metric_names: texts(&rule.metric_names)?,
            log_bodies: texts(&rule.log_bodies)?,
            log_severity_texts: texts(&rule.log_severity_texts)?,
            attributes: wanted(&rule.attributes)?,
            resources: wanted(&rule.resources)?,
            libraries: libraries.collect::<Result<Vec<_>, regex::Error>>()?,
        })
    }

    fn matches(&self, item: &Item<'_>) -> bool {
        any(&self.services, || service(item.resource))
            && self.matches_item(item)
            && all(&self.attributes, item.holder, item.number)
            && all(&self.resources, item.resource, 1)
            && self.matches_library(item.scope)
    }

    fn matches_item(&self, item: &Item<'_>) -> bool {
        match item.signal {
            Signal::Traces => {
                any(&self.span_names, || text_at(item.item, 5)) && any(&self.span_kinds, || kind(item.item))
            }
            Signal::Metrics => any(&self.metric_names, || text_at(item.item, 1)),
            Signal::Logs => {
                any(&self.log_severity_texts, || text_at(item.item, 3))
                    && any(&self.log_bodies, || body(item.item))
            }
        }
    }

    fn matches_library(&self, scope: &[u8]) -> bool {
        self.libraries.is_empty()
            || self.libraries.iter().any(|(name, version)| {
                name.matches(&text_at(scope, 1))
                    && version
                        .as_ref()
                        .is_none_or(|version| version.matches(&text_at(scope, 2)))
            })
    }
}

fn all(wanted: &[(String, Option<Wanted>)], holder: &[u8], number: u32) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let attributes = Attributes::read(holder, number);
    wanted
        .iter()
        .all(|(key, wanted)| match (attributes.get(key), wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(Wanted::Equal(wanted))) => value == *wanted,
            (Some(value), Some(Wanted::Pattern(pattern))) => {
                matches!(&value.value, Some(Variant::StringValue(text)) if pattern.is_match(text))
            }
        })
}

fn service(resource: &[u8]) -> String {
    match Attributes::read(resource, 1)
        .get("service.name")
        .and_then(|value| value.value)
    {
        Some(Variant::StringValue(name)) => name,
        _ => String::new(),
    }
}

/// The last text of a field: protobuf's rule for one that stands several times.
fn text_at(message: &[u8], number: u32) -> String {
    let found = fields(message)
        .flatten()
        .filter(|field| field.number == number)
        .last();
    found.map(|field| field.text().to_owned()).unwrap_or_default()
}

fn kind(span: &[u8]) -> String {
    let kind = fields(span).flatten().filter(|field| field.number == 6).last();
    let name = match kind.map_or(0, |kind| kind.number_value()) {
        1 => "INTERNAL",
        2 => "SERVER",
        3 => "CLIENT",
        4 => "PRODUCER",
        5 => "CONSUMER",
        _ => "UNSPECIFIED",
    };
    format!("SPAN_KIND_{name}")
}

fn body(record: &[u8]) -> String {
    let body = fields(record).flatten().filter(|field| field.number == 5).last();
    body.map(|body| text_at(body.value, 1)).unwrap_or_default()
}
