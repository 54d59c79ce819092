//! `metricstransform`: renames, copies, combines and regroups metrics, changes their labels.
//!
//! ```text
//! scope ─▶ does a name match a transform? ─ no ─▶ copied as it is
//!                       └─ yes ─▶ decoded ─▶ transforms in their order ─▶ encoded (groups become resources of their own)
//! ```

mod aggregate;
mod combine;
mod operation;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use karez_collector_config::Signal;
use karez_collector_config::metrics_transform::{self as config, TransformAction};
use karez_collector_config::processors::MatchType;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use regex::Regex;

use super::stateless;
use crate::batch::Batch;
use crate::component::{ComponentContext, Consumer, Processor, Running, StartError};
use crate::wire::field::{fields, put_delimited};
use crate::wire::{count_points, last, single};

/// The processor.
pub struct MetricsTransform {
    transforms: Arc<Vec<Transform>>,
}

/// A transform, compiled.
pub(super) struct Transform {
    config: config::Transform,
    name: Text,
    labels: Vec<(String, Text)>,
}

/// How a text is compared.
enum Text {
    Equal(String),
    Pattern(Regex),
}

impl Text {
    fn new(text: &str, by: MatchType) -> Result<Self, regex::Error> {
        Ok(match by {
            MatchType::Strict => Text::Equal(text.to_owned()),
            MatchType::Regexp => Text::Pattern(Regex::new(text)?),
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Text::Equal(wanted) => wanted == text,
            Text::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

impl MetricsTransform {
    /// A processor of this configuration.
    pub fn new(config: &config::MetricsTransform) -> Result<Self, StartError> {
        let compiled = config.transforms.iter().enumerate().map(|(index, transform)| {
            Transform::new(transform).map_err(|error| {
                let key = format!("transforms[{index}].include");
                StartError::config(key, format!("is no regular expression: {error}"), "correct it")
            })
        });
        Ok(MetricsTransform {
            transforms: Arc::new(compiled.collect::<Result<_, _>>()?),
        })
    }
}

impl Processor for MetricsTransform {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let transforms = self.transforms.clone();
        let change = move |batch| transform(&transforms, batch);
        Ok((stateless::entrance(change, next, cx), Running::none()))
    }
}

/// A batch with its metrics transformed; `None` if nothing is left.
fn transform(transforms: &[Transform], batch: Batch) -> Option<Batch> {
    if batch.signal != Signal::Metrics || !concerned(transforms, &batch.payload) {
        return Some(batch);
    }
    let mut out = Vec::with_capacity(batch.payload.len());
    for field in fields(&batch.payload).flatten() {
        match field.number {
            1 => transform_resource(transforms, field.value, &mut out),
            _ => out.extend_from_slice(field.whole),
        }
    }
    let metrics = || metrics_of(&out);
    let items = metrics().map(count_points).sum();
    (metrics().next().is_some()).then(|| Batch {
        payload: Bytes::from(out.clone()),
        items,
        ..batch
    })
}

fn metrics_of(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = |message, number| {
        let found = fields(message)
            .flatten()
            .filter(move |field| field.number == number);
        found.map(|field| field.value)
    };
    inner(payload, 1)
        .flat_map(move |resource| inner(resource, 2))
        .flat_map(move |scope| inner(scope, 2))
}

/// Whether a metric's name matches any of the transforms.
fn concerned(transforms: &[Transform], payload: &[u8]) -> bool {
    metrics_of(payload).any(|metric| transforms.iter().any(|transform| transform.names(metric)))
}

fn transform_resource(transforms: &[Transform], message: &[u8], out: &mut Vec<u8>) {
    let mut groups = Vec::new();
    let mut left = Vec::with_capacity(message.len());
    let resource = single(message, 1);
    let mut scopes = 0;
    for field in fields(message).flatten() {
        if field.number != 2 {
            left.extend_from_slice(field.whole);
            continue;
        }
        let of = |field: &crate::wire::field::Field<'_>| field.number == 2;
        let mut metrics = fields(field.value).flatten().filter(of);
        if !metrics.any(|metric| transforms.iter().any(|transform| transform.names(metric.value))) {
            left.extend_from_slice(field.whole);
            scopes += 1;
            continue;
        }
        // What was scanned can be decoded.
        let Ok(mut scope) = ScopeMetrics::decode(field.value) else {
            continue;
        };
        transform_scope(transforms, &mut scope, &resource, &mut groups);
        if !scope.metrics.is_empty() {
            put_delimited(&mut left, 2, &scope.encode_to_vec());
            scopes += 1;
        }
    }
    if scopes > 0 {
        put_delimited(out, 1, &left);
    }
    for group in groups {
        put_delimited(out, 1, &group.encode_to_vec());
    }
}

fn transform_scope(
    transforms: &[Transform],
    scope: &mut ScopeMetrics,
    resource: &[u8],
    groups: &mut Vec<ResourceMetrics>,
) {
    for transform in transforms {
        let metrics = &mut scope.metrics;
        match transform.config.action {
            TransformAction::Update => metrics
                .retain_mut(|metric| !transform.matches(metric) || operation::transform(metric, transform)),
            TransformAction::Insert => {
                let matched = metrics.iter().filter_map(|metric| transform.extract(metric));
                let mut copies: Vec<Metric> = matched.collect();
                copies.retain_mut(|metric| operation::transform(metric, transform));
                metrics.append(&mut copies);
            }
            TransformAction::Combine => combine::combine(metrics, transform),
            TransformAction::Group => {
                let grouped = take(metrics, transform);
                if !grouped.is_empty() {
                    groups.push(group(transform, grouped, scope, resource));
                }
            }
        }
    }
}

/// Takes out what a transform matches.
fn take(metrics: &mut Vec<Metric>, transform: &Transform) -> Vec<Metric> {
    let mut taken = Vec::new();
    metrics.retain(|metric| match transform.extract(metric) {
        Some(matched) => {
            taken.push(matched);
            false
        }
        None => true,
    });
    taken
}

fn group(
    transform: &Transform,
    metrics: Vec<Metric>,
    scope: &ScopeMetrics,
    resource: &[u8],
) -> ResourceMetrics {
    let mut resource = Resource::decode(resource).unwrap_or_default();
    for (key, value) in &transform.config.group_resource_labels {
        set(&mut resource.attributes, key, value);
    }
    ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics {
            scope: scope.scope.clone(),
            metrics,
            schema_url: scope.schema_url.clone(),
        }],
        ..ResourceMetrics::default()
    }
}

/// A label's value, if it is a text.
pub(super) fn value<'a>(labels: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = labels.iter().find(|label| label.key == key)?;
    match &found.value.as_ref()?.value {
        Some(Variant::StringValue(text)) => Some(text),
        _ => Some(""),
    }
}

/// Sets a label to a text.
pub(super) fn set(labels: &mut Vec<KeyValue>, key: &str, text: &str) {
    let value = Some(AnyValue {
        value: Some(Variant::StringValue(text.to_owned())),
    });
    match labels.iter_mut().find(|label| label.key == key) {
        Some(label) => label.value = value,
        None => labels.push(KeyValue {
            key: key.to_owned(),
            value,
            ..KeyValue::default()
        }),
    }
}

impl Transform {
    fn new(config: &config::Transform) -> Result<Self, regex::Error> {
        let labels = config
            .experimental_match_labels
            .iter()
            .map(|(label, wanted)| Ok((label.clone(), Text::new(wanted, config.match_type)?)));
        Ok(Transform {
            name: Text::new(&config.include, config.match_type)?,
            labels: labels.collect::<Result<_, regex::Error>>()?,
            config: config.clone(),
        })
    }

    /// Whether an encoded metric's name matches.
    fn names(&self, metric: &[u8]) -> bool {
        let name = last(metric, 1).map_or(Ok(""), std::str::from_utf8);
        name.is_ok_and(|name| self.name.matches(name))
    }

    /// Whether labels match; a missing one is an empty text.
    fn takes(&self, labels: &[KeyValue]) -> bool {
        let matches = |(label, wanted): &(String, Text)| wanted.matches(value(labels, label).unwrap_or(""));
        self.labels.iter().all(matches)
    }

    /// Whether the name matches and any data point does.
    fn matches(&self, metric: &Metric) -> bool {
        if !self.name.matches(&metric.name) {
            return false;
        }
        let labels = operation::labels(metric);
        labels.is_empty() || labels.iter().any(|labels| self.takes(labels))
    }

    /// Whether all data points match.
    fn takes_all(&self, metric: &Metric) -> bool {
        operation::labels(metric).iter().all(|labels| self.takes(labels))
    }

    /// A copy with the data points that match; `None` if there are none.
    fn extract(&self, metric: &Metric) -> Option<Metric> {
        if !self.matches(metric) {
            return None;
        }
        let mut copy = metric.clone();
        operation::retain(&mut copy, |labels| self.takes(labels));
        Some(copy)
    }

    /// The new name of a metric.
    fn new_name(&self, name: &str) -> String {
        let new = &self.config.new_name;
        if let Text::Pattern(pattern) = &self.name
            && let Some(captures) = pattern.captures(name)
        {
            let mut expanded = String::new();
            captures.expand(new, &mut expanded);
            if !expanded.is_empty() {
                return expanded;
            }
        }
        new.clone()
    }
}
