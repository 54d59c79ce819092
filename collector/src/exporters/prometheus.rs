//! `prometheus`: the newest value of each series, served for Prometheus to scrape.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use http::{HeaderMap, header};
use karez_collector_config::prometheus::{PrometheusExporter, PrometheusSettings};
use karez_exposition::write;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use crate::batch::Batch;
use crate::component::{ComponentContext, Exporter, Outcome, Running, StartError};
use crate::prometheus::name::Naming;
use crate::prometheus::series::{self, Datum, Kind, Making, Series};
use crate::registry::BuiltExporter;
use crate::server::Server;

/// Series that are kept at most; each is a few hundred bytes.
const MAX_SERIES: usize = 5_000_000;

/// The exporter.
pub struct Prometheus {
    config: PrometheusExporter,
    served: Arc<Served>,
    making: Making,
}

/// What is served.
struct Served {
    settings: PrometheusSettings,
    families: Mutex<Families>,
}

#[derive(Default)]
struct Families {
    by_name: BTreeMap<String, Family>,
    series: usize,
}

struct Family {
    kind: Kind,
    help: String,
    /// By the text of their labels.
    series: HashMap<String, Kept>,
}

/// The newest value of a series.
struct Kept {
    value: Value,
    time: i64,
    seen: Instant,
}

enum Value {
    Number(f64),
    Histogram {
        buckets: Vec<(f64, u64)>,
        sum: Option<f64>,
        count: u64,
    },
    Summary {
        quantiles: Vec<(f64, f64)>,
        sum: f64,
        count: u64,
    },
}

/// Makes the exporter. It is served from [`Exporter::start`] on.
pub fn build(config: &PrometheusExporter, _: &ComponentContext) -> Result<BuiltExporter, StartError> {
    Ok(BuiltExporter {
        exporter: Arc::new(Prometheus::new(config)),
        sending: None,
    })
}

impl Prometheus {
    fn new(config: &PrometheusExporter) -> Self {
        let settings = &config.settings;
        let strategy = settings.translation_strategy;
        let constant = settings.const_labels.iter();
        Prometheus {
            config: config.clone(),
            served: Arc::new(Served {
                settings: settings.clone(),
                families: Mutex::default(),
            }),
            making: Making {
                naming: Naming {
                    namespace: settings.namespace.clone(),
                    suffixes: strategy.suffixes(settings.add_metric_suffixes),
                    escapes: strategy.escapes(),
                },
                constant: constant
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
                resource_labels: settings.resource_to_telemetry_conversion.enabled,
                scope_labels: !settings.without_scope_info,
                target_info: true,
            },
        }
    }

    /// Takes a request in; how many points have no place in the text formats.
    fn take(&self, request: &ExportMetricsServiceRequest) -> usize {
        let mut families = self.served.families();
        let now = Instant::now();
        let mut foreign = 0;
        series::walk(request, &self.making, |series| {
            foreign += usize::from(!families.take(series, now));
        });
        foreign
    }
}

impl Exporter for Prometheus {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move {
            let served = self.served.clone();
            let metrics = get(move |headers: HeaderMap| {
                let served = served.clone();
                async move { served.answer(&headers) }
            });
            let router = axum::Router::new().route("/metrics", metrics);
            Server::http(&self.config.server, "", "").serve(router, cx).await
        })
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let request: ExportMetricsServiceRequest = match batch.decode() {
                Ok(request) => request,
                Err(error) => {
                    return Outcome::Refused {
                        reason: error.to_string(),
                    };
                }
            };
            let foreign = self.take(&request);
            if foreign > 0 {
                tracing::debug!(
                    foreign,
                    "points that the text formats cannot hold: exponential histograms, and differences of histograms"
                );
            }
            Outcome::Delivered
        })
    }
}

impl Served {
    fn families(&self) -> std::sync::MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let asked = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        let openmetrics = asked && self.settings.enable_open_metrics;
        let mut families = self.families();
        families.expire(self.settings.metric_expiration);
        let text = families.text(openmetrics, self.settings.send_timestamps);
        let utf8 = !self.settings.translation_strategy.escapes();
        let content_type = match (openmetrics, utf8) {
            (true, _) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            (false, true) => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            (false, false) => "text/plain; version=0.0.4; charset=utf-8",
        };
        ([(header::CONTENT_TYPE, content_type)], text).into_response()
    }
}

impl Families {
    /// Takes a point; `false` if there is no text for it.
    fn take(&mut self, series: Series<'_>, now: Instant) -> bool {
        let mut labels = String::new();
        let pairs = series
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        write::series(&mut labels, "", pairs);
        let labels = labels.trim_start_matches('{').trim_end_matches('}').to_owned();
        let value = match series.datum {
            Datum::Ended => {
                self.remove(series.name, &labels);
                return true;
            }
            Datum::Exponential(_) => return false,
            Datum::Histogram(_) if series.delta => return false,
            Datum::Number(value) => Value::Number(value),
            Datum::Histogram(point) => Value::Histogram {
                buckets: series::cumulative(point),
                sum: point.sum,
                count: point.count,
            },
            Datum::Summary(point) => Value::Summary {
                quantiles: point
                    .quantile_values
                    .iter()
                    .map(|q| (q.quantile, q.value))
                    .collect(),
                sum: point.sum,
                count: point.count,
            },
        };
        if self.series >= MAX_SERIES {
            return false;
        }
        let family = match self.by_name.get_mut(series.name) {
            Some(family) => family,
            None => self
                .by_name
                .entry(series.name.to_owned())
                .or_insert_with(|| Family {
                    kind: series.kind,
                    help: series.help.to_owned(),
                    series: HashMap::new(),
                }),
        };
        if family.kind != series.kind {
            // Two metrics with one name and different types: Prometheus would refuse the whole answer.
            return false;
        }
        let before = family.series.get(&labels);
        let value = match (value, before.map(|kept| &kept.value)) {
            (Value::Number(more), Some(Value::Number(so_far))) if series.delta => {
                Value::Number(so_far + more)
            }
            (value, _) => value,
        };
        let kept = Kept {
            value,
            time: series.time,
            seen: now,
        };
        if family.series.insert(labels, kept).is_none() {
            self.series += 1;
        }
        true
    }

    fn remove(&mut self, name: &str, labels: &str) {
        if let Some(family) = self.by_name.get_mut(name)
            && family.series.remove(labels).is_some()
        {
            self.series -= 1;
        }
    }

    /// Forgets what was not heard of for so long.
    fn expire(&mut self, after: Duration) {
        let mut left = 0;
        self.by_name.retain(|_, family| {
            family.series.retain(|_, kept| kept.seen.elapsed() <= after);
            left += family.series.len();
            !family.series.is_empty()
        });
        self.series = left;
    }

    fn text(&self, openmetrics: bool, timestamps: bool) -> String {
        let mut out = String::with_capacity(self.series * 100);
        for (name, family) in &self.by_name {
            family.put(&mut out, name, openmetrics, timestamps);
        }
        if openmetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

impl Family {
    fn put(&self, out: &mut String, name: &str, openmetrics: bool, timestamps: bool) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        // OpenMetrics names a counter's family without `_total`, and wants its samples to have it.
        let bare = name.strip_suffix("_total").unwrap_or(name);
        let total = openmetrics && self.kind == Kind::Counter;
        let family = if total { bare } else { name };
        let mut quoted = String::new();
        match write::is_plain_metric(family) {
            true => quoted.push_str(family),
            false => {
                quoted.push('"');
                write::escaped(&mut quoted, family);
                quoted.push('"');
            }
        }
        if !self.help.is_empty() {
            let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {quoted} {help}");
        }
        let _ = writeln!(out, "# TYPE {quoted} {kind}");
        let sample = if total {
            format!("{bare}_total")
        } else {
            name.to_owned()
        };
        let mut series: Vec<(&String, &Kept)> = self.series.iter().collect();
        series.sort_by_key(|(labels, _)| *labels);
        for (labels, kept) in series {
            let time = timestamps.then_some(kept.time).map(|time| match openmetrics {
                true => (time as f64 / 1000.0).to_string(),
                false => time.to_string(),
            });
            kept.put(out, &sample, labels, time.as_deref());
        }
    }
}

impl Kept {
    fn put(&self, out: &mut String, name: &str, labels: &str, time: Option<&str>) {
        let mut line = |suffix: &str, more: Option<(&str, f64)>, value: f64| {
            put_line(out, &format!("{name}{suffix}"), labels, more, value, time);
        };
        match &self.value {
            Value::Number(value) => line("", None, *value),
            Value::Histogram { buckets, sum, count } => {
                for (bound, count) in buckets {
                    line("_bucket", Some(("le", *bound)), *count as f64);
                }
                if let Some(sum) = sum {
                    line("_sum", None, *sum);
                }
                line("_count", None, *count as f64);
            }
            Value::Summary {
                quantiles,
                sum,
                count,
            } => {
                for (quantile, value) in quantiles {
                    line("", Some(("quantile", *quantile)), *value);
                }
                line("_sum", None, *sum);
                line("_count", None, *count as f64);
            }
        }
    }
}

fn put_line(
    out: &mut String,
    name: &str,
    labels: &str,
    more: Option<(&str, f64)>,
    value: f64,
    time: Option<&str>,
) {
    let plain = write::is_plain_metric(name);
    let mut between = "";
    if plain {
        out.push_str(name);
    }
    let braces = !plain || more.is_some() || !labels.is_empty();
    if braces {
        out.push('{');
    }
    if !plain {
        out.push('"');
        write::escaped(out, name);
        out.push('"');
        between = ",";
    }
    if !labels.is_empty() {
        out.push_str(between);
        out.push_str(labels);
        between = ",";
    }
    if let Some((label, bound)) = more {
        out.push_str(between);
        out.push_str(label);
        out.push_str("=\"");
        write::value(out, bound);
        out.push('"');
    }
    if braces {
        out.push('}');
    }
    out.push(' ');
    write::value(out, value);
    if let Some(time) = time {
        out.push(' ');
        out.push_str(time);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests;
