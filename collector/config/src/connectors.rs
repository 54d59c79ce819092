//! What the connectors are told: each is an exporter of some pipelines and a receiver of others.

use std::time::Duration;

use indexmap::IndexMap;
use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use serde::Deserialize;
use serde_json::Value;

use crate::component::Kind;
use crate::values::{Signal, duration, parse_duration, present};

/// A connector.
#[derive(Debug, Clone, PartialEq)]
pub enum ConnectorConfig {
    /// `forward`
    Forward,
    /// `count`
    Count(Box<Count>),
    /// `spanmetrics`
    SpanMetrics(Box<SpanMetrics>),
}

impl ConnectorConfig {
    /// Whether a type takes one signal and gives another.
    pub fn connects(kind: &str, from: Signal, to: Signal) -> bool {
        match kind {
            "forward" => from == to,
            "count" => to == Signal::Metrics,
            "spanmetrics" | "span_metrics" => (from, to) == (Signal::Traces, Signal::Metrics),
            _ => false,
        }
    }
}

impl Kind for ConnectorConfig {
    const WORD: &'static str = "connector";
    const KNOWN: &'static [&'static str] = &["forward", "count", "spanmetrics", "span_metrics"];
    const ELSEWHERE: &'static [&'static str] = &[
        "routing",
        "servicegraph",
        "service_graph",
        "exceptions",
        "failover",
        "roundrobin",
        "sum",
        "datadog",
        "grafanacloud",
        "otlpjson",
        "signaltometrics",
        "slowsql",
    ];

    fn read(kind: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self> {
        match kind {
            "forward" => {
                decode_at::<Forward>(node, key, diagnoses).map(|Forward {}| ConnectorConfig::Forward)
            }
            "count" => count(node, key, diagnoses)
                .map(Box::new)
                .map(ConnectorConfig::Count),
            "spanmetrics" | "span_metrics" => span_metrics(node, key, diagnoses)
                .map(Box::new)
                .map(ConnectorConfig::SpanMetrics),
            _ => None,
        }
    }
}

/// `forward` has no keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forward {}

/// `count`: metrics by their names, for each thing that is counted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Count {
    /// Of spans.
    pub spans: IndexMap<String, Counted>,
    /// Of spans' events.
    pub spanevents: IndexMap<String, Counted>,
    /// Of metrics.
    pub metrics: IndexMap<String, Counted>,
    /// Of data points.
    pub datapoints: IndexMap<String, Counted>,
    /// Of log records.
    pub logs: IndexMap<String, Counted>,
    /// Of profiles: refused.
    pub profiles: Option<Value>,
}

/// A metric that counts.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counted {
    /// The metric's description.
    pub description: String,
    /// OTTL: refused.
    pub conditions: Option<Value>,
    /// Attributes by which is counted apart.
    pub attributes: Vec<CountedAttribute>,
}

/// An attribute by which is counted apart.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedAttribute {
    /// The attribute: of the item, else of its scope, else of its resource.
    pub key: String,
    /// The value where there is none; without one, such items are not counted.
    #[serde(default)]
    pub default_value: Option<Value>,
}

impl Default for Count {
    fn default() -> Self {
        let one = |name: &str, what: &str| {
            let counted = Counted {
                description: format!("The number of {what} observed."),
                ..Counted::default()
            };
            IndexMap::from([(name.to_owned(), counted)])
        };
        Count {
            spans: one("trace.span.count", "spans"),
            spanevents: one("trace.span.event.count", "span events"),
            metrics: one("metric.count", "metrics"),
            datapoints: one("metric.datapoint.count", "data points"),
            logs: one("log.record.count", "log records"),
            profiles: None,
        }
    }
}

fn count(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Count> {
    let count: Count = decode_at(node, key, diagnoses)?;
    if let Some(profiles) = node.get("profiles").filter(|profiles| !profiles.is_null()) {
        let key = join_key(key, "profiles");
        diagnoses.push(Diagnosis::error(
            profiles.place(),
            key,
            "Karez carries no profiles",
            "remove it",
        ));
    }
    let sections = [
        ("spans", &count.spans),
        ("spanevents", &count.spanevents),
        ("metrics", &count.metrics),
        ("datapoints", &count.datapoints),
        ("logs", &count.logs),
    ];
    for (section, counted) in sections {
        for (name, counted) in counted {
            let key = format!("{key}.{section}.{name}");
            let place = node
                .get(section)
                .map_or_else(|| node.place(), |block| block.key_place(name));
            let mut fault = |part: &str, message: &str, mend: &str| {
                diagnoses.push(Diagnosis::error(
                    place.clone(),
                    join_key(&key, part),
                    message,
                    mend,
                ));
            };
            if name.is_empty() {
                fault("", "the metric has no name", "name it");
            }
            if counted
                .conditions
                .as_ref()
                .is_some_and(|conditions| !conditions.is_null())
            {
                let mend =
                    "remove them, and put a `filter` processor with include and exclude before the connector";
                fault("conditions", "conditions in OTTL are not supported", mend);
            }
            if section == "metrics" && !counted.attributes.is_empty() {
                fault("attributes", "metrics have no attributes", "count data points");
            }
            if counted
                .attributes
                .iter()
                .any(|attribute| attribute.key.is_empty())
            {
                fault("attributes", "an attribute has no key", "write `key:`");
            }
        }
    }
    Some(count)
}

/// `spanmetrics`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanMetrics {
    /// How durations are shown.
    pub histogram: HistogramSettings,
    /// Attributes by which is told apart, beside service, span's name, kind and status.
    pub dimensions: Vec<Dimension>,
    /// More of them for the calls.
    pub calls_dimensions: Vec<Dimension>,
    /// Of the four that are always there, those that are not to be.
    pub exclude_dimensions: Vec<String>,
    /// The metrics' names begin with it.
    pub namespace: String,
    /// `AGGREGATION_TEMPORALITY_CUMULATIVE` or `AGGREGATION_TEMPORALITY_DELTA`.
    pub aggregation_temporality: Temporality,
    /// How often metrics are sent.
    #[serde(deserialize_with = "duration")]
    pub metrics_flush_interval: Duration,
    /// After how long without a span all metrics of a resource go; 0 never.
    #[serde(deserialize_with = "duration")]
    pub metrics_expiration: Duration,
    /// After how long without a span a series goes; 0 never.
    #[serde(deserialize_with = "duration")]
    pub series_expiration: Duration,
    /// The most series of a resource; others are counted together. 0 leaves only the connector's own bound.
    pub aggregation_cardinality_limit: u32,
    /// The most resources; the one that was not seen for longest goes.
    pub resource_metrics_cache_size: u32,
    /// The attributes that make a resource another one; all unless written.
    pub resource_metrics_key_attributes: Vec<String>,
    /// Old: how many combinations of dimensions are kept.
    pub dimensions_cache_size: Option<u32>,
    /// Examples of spans in the histogram.
    pub exemplars: Exemplars,
    /// A metric of spans' events.
    pub events: Events,
    /// Scopes whose name and version become dimensions.
    pub include_instrumentation_scope: Vec<String>,
    /// Tell resources apart and give the metrics their attributes.
    pub add_resource_attributes: bool,
}

impl Default for SpanMetrics {
    fn default() -> Self {
        SpanMetrics {
            histogram: HistogramSettings::default(),
            dimensions: Vec::new(),
            calls_dimensions: Vec::new(),
            exclude_dimensions: Vec::new(),
            namespace: "traces.span.metrics".to_owned(),
            aggregation_temporality: Temporality::Cumulative,
            metrics_flush_interval: Duration::from_secs(60),
            metrics_expiration: Duration::ZERO,
            series_expiration: Duration::ZERO,
            aggregation_cardinality_limit: 0,
            resource_metrics_cache_size: 1000,
            resource_metrics_key_attributes: Vec::new(),
            dimensions_cache_size: None,
            exemplars: Exemplars::default(),
            events: Events::default(),
            include_instrumentation_scope: Vec::new(),
            add_resource_attributes: false,
        }
    }
}

/// Whether metrics count from the start or from the last time they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Temporality {
    /// From the start.
    #[serde(rename = "AGGREGATION_TEMPORALITY_CUMULATIVE")]
    Cumulative,
    /// From the last time.
    #[serde(rename = "AGGREGATION_TEMPORALITY_DELTA")]
    Delta,
}

/// How durations are shown.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistogramSettings {
    /// Not at all.
    pub disable: bool,
    /// Milliseconds or seconds.
    pub unit: Unit,
    /// With these buckets.
    #[serde(deserialize_with = "present")]
    pub explicit: Option<ExplicitHistogram>,
    /// With buckets that adapt.
    #[serde(deserialize_with = "present")]
    pub exponential: Option<ExponentialHistogram>,
    /// More dimensions.
    pub dimensions: Vec<Dimension>,
}

/// The unit of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Milliseconds.
    #[default]
    Ms,
    /// Seconds.
    S,
}

/// Buckets that are given.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExplicitHistogram {
    /// Their upper ends, as durations; the usual ones unless written.
    pub buckets: Vec<String>,
}

impl ExplicitHistogram {
    /// The upper ends.
    pub fn bounds(&self) -> Result<Vec<Duration>, String> {
        self.buckets.iter().map(|text| parse_duration(text)).collect()
    }
}

/// Buckets that adapt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialHistogram {
    /// The most buckets.
    pub max_size: u32,
}

impl Default for ExponentialHistogram {
    fn default() -> Self {
        ExponentialHistogram { max_size: 160 }
    }
}

/// An attribute by which is told apart.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// The attribute, of the span or of its resource.
    pub name: String,
    /// Its value where there is none; without one it is left out.
    #[serde(default)]
    pub default: Option<String>,
}

/// Examples of spans.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exemplars {
    /// Whether there are any.
    pub enabled: bool,
    /// The most of a data point.
    pub max_per_data_point: u32,
}

impl Default for Exemplars {
    fn default() -> Self {
        Exemplars {
            enabled: false,
            max_per_data_point: 5,
        }
    }
}

/// A metric of spans' events.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Whether there is one.
    pub enabled: bool,
    /// The events' attributes by which is told apart.
    pub dimensions: Vec<Dimension>,
}

/// What every span has, and so its metrics.
const COMMON: [&str; 4] = ["service.name", "span.name", "span.kind", "status.code"];

fn span_metrics(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<SpanMetrics> {
    let config: SpanMetrics = decode_at(node, key, diagnoses)?;
    let mut fault = |part: &str, message: String, mend: &str| {
        let top = part.split('.').next().unwrap_or(part);
        diagnoses.push(Diagnosis::error(
            node.key_place(top),
            join_key(key, part),
            message,
            mend,
        ));
    };
    let histogram = &config.histogram;
    if histogram.explicit.is_some() && histogram.exponential.is_some() {
        let message = "both `explicit` and `exponential` are given".to_owned();
        fault("histogram", message, "keep one of them");
    }
    if let Some(Err(wrong)) = histogram.explicit.as_ref().map(ExplicitHistogram::bounds) {
        fault("histogram.explicit.buckets", wrong, "write such as [2ms, 1s]");
    }
    if let Some(Ok(bounds)) = histogram.explicit.as_ref().map(ExplicitHistogram::bounds)
        && !bounds.is_sorted_by(|a, b| a < b)
    {
        let message = "the buckets do not grow".to_owned();
        fault(
            "histogram.explicit.buckets",
            message,
            "write each once, the least first",
        );
    }
    if histogram
        .exponential
        .as_ref()
        .is_some_and(|it| !(2..=4096).contains(&it.max_size))
    {
        let message = "is out of range".to_owned();
        fault(
            "histogram.exponential.max_size",
            message,
            "write a number from 2 to 4096",
        );
    }
    if config.metrics_flush_interval.is_zero() {
        fault(
            "metrics_flush_interval",
            "must be more than 0".to_owned(),
            "write such as 60s",
        );
    }
    if config.resource_metrics_cache_size == 0 {
        fault(
            "resource_metrics_cache_size",
            "must be more than 0".to_owned(),
            "write such as 1000",
        );
    }
    if config.events.enabled && config.events.dimensions.is_empty() {
        let mend = "name the events' attributes by which is told apart, such as exception.type";
        fault("events.dimensions", "is missing".to_owned(), mend);
    }
    let own = [
        ("dimensions", &[][..], &config.dimensions[..]),
        ("calls_dimensions", &config.dimensions, &config.calls_dimensions),
        ("histogram.dimensions", &config.dimensions, &histogram.dimensions),
        ("events.dimensions", &config.dimensions, &config.events.dimensions),
    ];
    for (part, before, dimensions) in own {
        for (index, dimension) in dimensions.iter().enumerate() {
            let same = |other: &Dimension| other.name == dimension.name;
            let twice = dimensions[..index].iter().any(same) || before.iter().any(same);
            if twice || COMMON.contains(&dimension.name.as_str()) {
                let message = format!("the dimension `{}` is there already", dimension.name);
                fault(part, message, "remove it");
            }
        }
    }
    Some(config)
}
