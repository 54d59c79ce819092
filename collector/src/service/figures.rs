//! The collector's own metrics as OTLP: the families that `/metrics` shows, with the same names but for the `_total` of
//! counters, which OTLP leaves to those who write text.

use std::collections::BTreeMap;
use std::convert::Infallible;

use karez_exposition::text::{Format, parse};
use karez_exposition::{Histogram, Kind, Meta, Sample, Sink, series};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::batch::{Batch, Signal};

const SCOPE: &str = "karez.dev/collector";

/// What the points of one request have in common; nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) begun: u64,
    pub(super) now: u64,
}

/// The figures of a page as a batch.
pub(super) fn batch(page: &str, resource: &[(String, String)], times: Times) -> Batch {
    let mut families = Families::default();
    // The page is our own; what of it could not be read is not pushed.
    if let Err(error) = parse(page, Format::OpenMetrics, &mut families) {
        tracing::debug!(%error, "the collector's own metrics cannot be read to their end");
    }
    let metrics: Vec<Metric> = families
        .0
        .into_iter()
        .filter_map(|(name, family)| family.metric(name, times))
        .collect();
    let points = metrics.iter().map(|metric| match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        _ => 0,
    });
    let items = points.sum();
    let attribute = |(key, value): &(String, String)| attribute(key, value);
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource.iter().map(attribute).collect(),
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: SCOPE.to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    Batch::encode(Signal::Metrics, &request, items)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// A family: all of ours are counters or gauges.
#[derive(Default)]
struct Family {
    kind: Kind,
    help: String,
    points: Vec<(Vec<KeyValue>, f64)>,
}

#[derive(Default)]
struct Families(BTreeMap<String, Family>);

impl Sink for Families {
    type Stop = Infallible;

    fn meta(&mut self, family: &str, meta: Meta<'_>) -> Result<(), Infallible> {
        let family = self.0.entry(family.to_owned()).or_default();
        match meta {
            Meta::Help(help) => help.trim_end_matches('.').clone_into(&mut family.help),
            Meta::Kind(kind) => family.kind = kind,
            Meta::Unit(_) => {}
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), Infallible> {
        let mut labels = Vec::new();
        let name = series::parse(sample.series, |name, value| {
            if !value.is_empty() {
                labels.push(attribute(&name, &value));
            }
        });
        let Ok(name) = name else { return Ok(()) };
        let family = match self.0.contains_key(&*name) {
            true => &*name,
            false => name.strip_suffix("_total").unwrap_or(&name),
        };
        if let Some(family) = self.0.get_mut(family) {
            family.points.push((labels, sample.value));
        }
        Ok(())
    }

    fn histogram(&mut self, _: &Histogram<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Family {
    /// As OTLP has it; nothing where there is none.
    fn metric(self, name: String, times: Times) -> Option<Metric> {
        if self.points.is_empty() {
            return None;
        }
        // What is measured in seconds is a real number, what is counted is a whole one.
        let real = name.ends_with("_seconds") || name.ends_with("_uptime");
        let counts = self.kind == Kind::Counter;
        let point = |(attributes, value): (Vec<KeyValue>, f64)| NumberDataPoint {
            attributes,
            start_time_unix_nano: if counts { times.begun } else { 0 },
            time_unix_nano: times.now,
            value: Some(match real {
                true => Number::AsDouble(value),
                false => Number::AsInt(value as i64),
            }),
            ..NumberDataPoint::default()
        };
        let data_points = self.points.into_iter().map(point).collect();
        let data = match counts {
            true => Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: true,
            }),
            false => Data::Gauge(Gauge { data_points }),
        };
        Some(Metric {
            name,
            description: self.help,
            data: Some(data),
            ..Metric::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn figures_are_what_the_page_says() {
        let metrics = Metrics::new();
        let id = "otlp/a".parse().unwrap();
        metrics.exporter(&id, Signal::Traces).sent.inc_by(7);
        metrics.exporter(&id, Signal::Traces).queue_size.set(3);
        let mut page = String::new();
        encode(&mut page, &metrics.registry()).unwrap();
        let about = [("service.name".to_owned(), "me".to_owned())];
        let batch = batch(&page, &about, Times { begun: 1, now: 2 });
        let scanned = Batch::scan(Signal::Metrics, batch.payload.clone()).unwrap();
        assert_eq!((scanned.items, batch.items > 5), (batch.items, true));
        let request: ExportMetricsServiceRequest = batch.decode().unwrap();
        let one = &request.resource_metrics[0];
        assert_eq!(
            one.resource.as_ref().unwrap().attributes,
            [attribute("service.name", "me")]
        );
        let all = &one.scope_metrics[0].metrics;
        let named = |name: &str| all.iter().find(|metric| metric.name == name).unwrap();
        let Some(Data::Sum(sum)) = &named("otelcol_exporter_sent_spans").data else {
            panic!("a sum")
        };
        let point = &sum.data_points[0];
        assert!(sum.is_monotonic);
        assert_eq!(point.attributes, [attribute("exporter", "otlp/a")]);
        assert_eq!(
            (point.value, point.start_time_unix_nano, point.time_unix_nano),
            (Some(Number::AsInt(7)), 1, 2)
        );
        let Some(Data::Gauge(gauge)) = &named("otelcol_exporter_queue_size").data else {
            panic!("a gauge")
        };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsInt(3)));
        let Some(Data::Sum(uptime)) = &named("otelcol_process_uptime").data else {
            panic!("a sum")
        };
        assert!(matches!(uptime.data_points[0].value, Some(Number::AsDouble(_))));
        // Every family of the page that has a sample is there.
        let families: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for family in families {
            let sampled = page.lines().any(|line| {
                !line.starts_with('#')
                    && line
                        .split(['{', ' '])
                        .next()
                        .is_some_and(|name| name.strip_suffix("_total").unwrap_or(name) == family)
            });
            assert_eq!(
                sampled,
                all.iter().any(|metric| metric.name == family),
                "{family}"
            );
        }
    }
}
