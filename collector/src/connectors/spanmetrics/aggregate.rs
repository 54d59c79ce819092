//! Spans in, series kept, metrics out: without a clock, on views of the spans' encoding.

use std::collections::HashMap;

use karez_collector_config::connectors::{Dimension, SpanMetrics, Temporality};

use super::series::{Buckets, Durations, Example, in_unit};
use crate::wire::field::{Field, fields, put_delimited};
use crate::wire::{attribute, last, last_number, put_attribute, put_text, single, text_of};

/// The most series of a connector, whatever the document says: others are counted together.
const MAX_SERIES: usize = 100_000;
/// The attribute of the series in which those beyond the limit are counted.
const OVERFLOW: &str = "otel.metric.overflow";
/// The usual upper ends, in milliseconds.
const BUCKETS: [f64; 16] = [
    2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1400.0, 2000.0, 5000.0, 10_000.0,
    15_000.0,
];

/// What is kept of a series beside its counts.
#[derive(Debug, Clone)]
pub(super) struct Kept<T> {
    pub(super) counted: T,
    /// When it began.
    pub(super) since: u64,
    /// When it was last added to.
    pub(super) seen: u64,
}

/// Series by the encoding of their attributes.
pub(super) type SeriesOf<T> = HashMap<Vec<u8>, Kept<T>>;

/// The series of a resource.
#[derive(Debug, Default)]
pub(super) struct OfResource {
    /// The resource's encoding, if the metrics carry it.
    pub(super) resource: Vec<u8>,
    pub(super) calls: SeriesOf<u64>,
    pub(super) durations: SeriesOf<Durations>,
    pub(super) events: SeriesOf<u64>,
    pub(super) seen: u64,
}

impl OfResource {
    pub(super) fn len(&self) -> usize {
        self.calls.len() + self.durations.len() + self.events.len()
    }
}

/// All series.
pub(super) struct Aggregator {
    pub(super) config: SpanMetrics,
    pub(super) buckets: Buckets,
    pub(super) resources: HashMap<Vec<u8>, OfResource>,
    series: usize,
}

/// A span with what it stands in.
#[derive(Clone, Copy)]
struct Spanned<'a> {
    resource: &'a [u8],
    scope: &'a [u8],
    span: &'a [u8],
    service: &'a str,
}

impl Aggregator {
    pub(super) fn new(config: &SpanMetrics) -> Self {
        let histogram = &config.histogram;
        let given = histogram
            .explicit
            .as_ref()
            .and_then(|explicit| explicit.bounds().ok());
        let given = given.filter(|bounds| !bounds.is_empty());
        let unit = |nanoseconds: u64| in_unit(nanoseconds, histogram.unit);
        let bounds = match given {
            Some(bounds) => {
                let nanoseconds = bounds
                    .iter()
                    .map(|bound| u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX));
                nanoseconds.map(unit).collect()
            }
            None => BUCKETS.iter().map(|ms| unit((*ms * 1e6) as u64)).collect(),
        };
        Aggregator {
            buckets: match &histogram.exponential {
                Some(exponential) => Buckets::Exponential(exponential.max_size),
                None => Buckets::Explicit(bounds),
            },
            config: config.clone(),
            resources: HashMap::new(),
            series: 0,
        }
    }

    /// Adds the spans of a batch.
    pub(super) fn add(&mut self, payload: &[u8], now: u64) {
        for of_resource in numbered(payload, 1) {
            let resource = single(of_resource.value, 1);
            let service = attribute(&resource, 1, "service.name").map_or("unknown_service", text_of);
            let key = self.resource(&resource, now);
            for of_scope in numbered(of_resource.value, 2) {
                let scope = single(of_scope.value, 1);
                for span in numbered(of_scope.value, 2) {
                    let spanned = Spanned {
                        resource: &resource,
                        scope: &scope,
                        span: span.value,
                        service,
                    };
                    self.span(&key, spanned, now);
                }
            }
        }
    }

    /// The key of a resource, which is there then.
    fn resource(&mut self, resource: &[u8], now: u64) -> Vec<u8> {
        let key = match (
            self.config.add_resource_attributes,
            &self.config.resource_metrics_key_attributes,
        ) {
            (false, _) => Vec::new(),
            (true, names) if names.is_empty() => resource.to_vec(),
            (true, names) => {
                let mut key = Vec::new();
                for name in names {
                    if let Some(value) = attribute(resource, 1, name) {
                        put_attribute(&mut key, 1, name, value);
                    }
                }
                key
            }
        };
        if !self.resources.contains_key(&key) {
            self.make_room();
            let kept = match self.config.add_resource_attributes {
                true => resource.to_vec(),
                false => Vec::new(),
            };
            let of_resource = OfResource {
                resource: kept,
                ..OfResource::default()
            };
            self.resources.insert(key.clone(), of_resource);
        }
        if let Some(of_resource) = self.resources.get_mut(&key) {
            of_resource.seen = now;
        }
        key
    }

    /// Lets the resource go that was not seen for longest, if there are as many as may be.
    fn make_room(&mut self) {
        if self.resources.len() < self.config.resource_metrics_cache_size.max(1) as usize {
            return;
        }
        let oldest = self
            .resources
            .iter()
            .min_by_key(|(_, of_resource)| of_resource.seen);
        if let Some(key) = oldest.map(|(key, _)| key.clone())
            && let Some(gone) = self.resources.remove(&key)
        {
            self.series -= gone.len();
        }
    }

    fn span(&mut self, resource: &[u8], spanned: Spanned<'_>, now: u64) {
        let config = &self.config;
        let mut key = common(config, spanned);
        dimensions(&mut key, &config.dimensions, spanned.span, 9, spanned.resource);
        let Some(of) = self.resources.get_mut(resource) else {
            return;
        };
        let most = match config.aggregation_cardinality_limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let room = &mut Room {
            of_metric: most,
            series: &mut self.series,
        };
        let with = |more: &[Dimension], holder: &[u8], number| {
            let mut key = key.clone();
            dimensions(&mut key, more, holder, number, spanned.resource);
            key
        };
        let calls = with(&config.calls_dimensions, spanned.span, 9);
        *of_series(&mut of.calls, calls, now, room, || 0) += 1;
        if !config.histogram.disable {
            let key = with(&config.histogram.dimensions, spanned.span, 9);
            let buckets = &self.buckets;
            let durations = of_series(&mut of.durations, key, now, room, || Durations::new(buckets));
            let began = last_number(spanned.span, 7);
            // A clock that ran backwards is no duration of centuries.
            let lasted = last_number(spanned.span, 8).saturating_sub(began);
            let example = config.exemplars.enabled.then(|| Example {
                trace_id: last(spanned.span, 1).unwrap_or_default(),
                span_id: last(spanned.span, 2).unwrap_or_default(),
                time: now,
                most: config.exemplars.max_per_data_point as usize,
            });
            durations.record(in_unit(lasted, config.histogram.unit), buckets, example);
        }
        if config.events.enabled {
            for event in numbered(spanned.span, 11) {
                let key = with(&config.events.dimensions, event.value, 3);
                *of_series(&mut of.events, key, now, room, || 0) += 1;
            }
        }
    }

    /// Lets go what was not added to for as long as the document says.
    pub(super) fn expire(&mut self, now: u64) {
        let limit = |after: std::time::Duration| match after.is_zero() {
            true => 0,
            false => now.saturating_sub(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
        };
        let (resources, series) = (
            limit(self.config.metrics_expiration),
            limit(self.config.series_expiration),
        );
        self.resources.retain(|_, of| of.seen >= resources);
        for of in self.resources.values_mut() {
            of.calls.retain(|_, kept| kept.seen >= series);
            of.durations.retain(|_, kept| kept.seen >= series);
            of.events.retain(|_, kept| kept.seen >= series);
        }
        self.count();
    }

    /// After what was counted has been written: differences begin anew, examples are not told twice.
    pub(super) fn written(&mut self) {
        match self.config.aggregation_temporality {
            Temporality::Delta => self.resources.clear(),
            Temporality::Cumulative => {
                let durations = self
                    .resources
                    .values_mut()
                    .flat_map(|of| of.durations.values_mut());
                durations.for_each(|kept| kept.counted.forget_examples());
            }
        }
        self.count();
    }

    fn count(&mut self) {
        self.series = self.resources.values().map(OfResource::len).sum();
    }
}

/// How many more series there may be.
struct Room<'a> {
    /// The most of a metric of a resource.
    of_metric: usize,
    /// How many there are of all.
    series: &'a mut usize,
}

/// The series of a key: a new one if there is room, else the one for what is too much.
fn of_series<'a, T>(
    all: &'a mut SeriesOf<T>,
    mut key: Vec<u8>,
    now: u64,
    room: &mut Room<'_>,
    new: impl FnOnce() -> T,
) -> &'a mut T {
    if !all.contains_key(&key) && (all.len() >= room.of_metric || *room.series >= MAX_SERIES) {
        key.clear();
        // A boolean: field 2 of a value.
        put_attribute(&mut key, 1, OVERFLOW, &[2 << 3, 1]);
    }
    let kept = all.entry(key).or_insert_with(|| {
        *room.series += 1;
        Kept {
            counted: new(),
            since: now,
            seen: now,
        }
    });
    kept.seen = now;
    &mut kept.counted
}

fn numbered(message: &[u8], number: u32) -> impl Iterator<Item = Field<'_>> {
    fields(message)
        .flatten()
        .filter(move |field| field.number == number)
}

/// The attributes that every series has.
fn common(config: &SpanMetrics, spanned: Spanned<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(160);
    let mut put = |name: &str, value: &str| {
        if !config.exclude_dimensions.iter().any(|excluded| excluded == name) {
            put_text(&mut key, 1, name, value);
        }
    };
    let text =
        |message, number| std::str::from_utf8(last(message, number).unwrap_or_default()).unwrap_or_default();
    put("service.name", spanned.service);
    put("span.name", text(spanned.span, 5));
    put("span.kind", kind(last_number(spanned.span, 6)));
    put("status.code", status(last_number(&single(spanned.span, 15), 3)));
    let scope = text(spanned.scope, 1);
    if !scope.is_empty()
        && config
            .include_instrumentation_scope
            .iter()
            .any(|name| name == scope)
    {
        put_text(&mut key, 1, "span.instrumentation.scope.name", scope);
        let version = text(spanned.scope, 2);
        if !version.is_empty() {
            put_text(&mut key, 1, "span.instrumentation.scope.version", version);
        }
    }
    key
}

fn kind(kind: u64) -> &'static str {
    match kind {
        1 => "SPAN_KIND_INTERNAL",
        2 => "SPAN_KIND_SERVER",
        3 => "SPAN_KIND_CLIENT",
        4 => "SPAN_KIND_PRODUCER",
        5 => "SPAN_KIND_CONSUMER",
        _ => "SPAN_KIND_UNSPECIFIED",
    }
}

fn status(code: u64) -> &'static str {
    match code {
        1 => "STATUS_CODE_OK",
        2 => "STATUS_CODE_ERROR",
        _ => "STATUS_CODE_UNSET",
    }
}

/// Adds dimensions: of the holder, else of the resource, else their default.
fn dimensions(key: &mut Vec<u8>, dimensions: &[Dimension], holder: &[u8], number: u32, resource: &[u8]) {
    for dimension in dimensions {
        let name = &dimension.name;
        let found = attribute(holder, number, name).or_else(|| attribute(resource, 1, name));
        match (found, &dimension.default) {
            (Some(value), _) => put_attribute(key, 1, name, value),
            (None, Some(default)) => put_text(key, 1, name, default),
            (None, None) => {}
        }
    }
}

/// Writes a message's field 1 to a payload.
pub(super) fn put_resource(payload: &mut Vec<u8>, resource: &[u8], scope: &[u8]) {
    let mut of_resource = Vec::with_capacity(resource.len() + scope.len() + 8);
    put_delimited(&mut of_resource, 1, resource);
    put_delimited(&mut of_resource, 2, scope);
    put_delimited(payload, 1, &of_resource);
}
