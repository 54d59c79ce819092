//! `spanmetrics`: calls, errors and durations from spans.
//!
//! ```text
//! Batch of spans ─▶ series by service, name, kind, status and dimensions (bounded) ─ every interval ─▶ Batch of metrics
//! ```
//!
//! Counts from the start are sent whole each time, so a refused batch costs a point, not a count. Differences that are
//! refused wait, within a bound, for the next time.

mod aggregate;
mod exponential;
mod series;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::connectors::{self as config, Temporality, Unit};
use karez_lifecycle::Shutdown;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, Histogram, Metric, ScopeMetrics, Sum, metric::Data,
};
use prost::Message;

use self::aggregate::{Aggregator, OfResource, SeriesOf, put_resource};
use crate::batch::Batch;
use crate::component::{ComponentContext, Connector, Consume, Consumer, Refusal, Running, StartError};
use crate::connectors::{Connected, now};
use crate::wire::split;

/// The most items that are sent as one.
const MAX_ITEMS: usize = 10_000;
/// The most bytes of differences that wait to be sent again.
const MAX_WAITING: usize = 16 << 20;

/// The connector.
pub struct SpanMetrics {
    config: config::SpanMetrics,
}

impl SpanMetrics {
    /// A connector of this configuration.
    pub fn new(config: &config::SpanMetrics) -> Self {
        SpanMetrics {
            config: config.clone(),
        }
    }
}

impl Connector for SpanMetrics {
    fn start(
        &self,
        [_, metrics, _]: [Option<Consumer>; 3],
        cx: &ComponentContext,
    ) -> Result<Connected, StartError> {
        let mut running = Running::none();
        let Some(next) = metrics else {
            return Ok(Connected {
                entrances: [None, None, None],
                running,
            });
        };
        let aggregator = Arc::new(Mutex::new(Aggregator::new(&self.config)));
        let flush = Flush {
            aggregator: aggregator.clone(),
            config: self.config.clone(),
            next,
            since: now(),
            waiting: Vec::new(),
            key: cx.key.clone(),
        };
        running.spawn(flush.run(running.stopping()));
        Ok(Connected {
            entrances: [Some(Consumer::new(Entrance(aggregator))), None, None],
            running,
        })
    }
}

struct Entrance(Arc<Mutex<Aggregator>>);

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut aggregator = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        aggregator.add(&batch.payload, now());
        drop(aggregator);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Sends metrics now and then.
struct Flush {
    aggregator: Arc<Mutex<Aggregator>>,
    config: config::SpanMetrics,
    next: Consumer,
    /// When the last differences began.
    since: u64,
    /// Differences that were not taken.
    waiting: Vec<Batch>,
    key: String,
}

impl Flush {
    async fn run(mut self, stop: Shutdown) {
        let mut stopped = false;
        while !stopped {
            tokio::select! {
                () = tokio::time::sleep(self.config.metrics_flush_interval) => {}
                () = stop.triggered() => stopped = true,
            }
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let now = now();
        let batch = {
            let mut aggregator = self.aggregator.lock().unwrap_or_else(PoisonError::into_inner);
            aggregator.expire(now);
            let batch = write(&aggregator, self.since, now);
            aggregator.written();
            batch
        };
        self.since = now;
        let mut batches = std::mem::take(&mut self.waiting);
        batches.extend(batch.into_iter().flat_map(|batch| split(batch, MAX_ITEMS)));
        for batch in batches {
            if let Err(refusal) = self.next.send(batch.clone()).await {
                self.refused(batch, &refusal);
            }
        }
    }

    fn refused(&mut self, batch: Batch, refusal: &Refusal) {
        let delta = self.config.aggregation_temporality == Temporality::Delta;
        let waiting: usize = self.waiting.iter().map(Batch::bytes).sum();
        if delta && refusal.retryable && waiting + batch.bytes() <= MAX_WAITING {
            return self.waiting.push(batch);
        }
        let (items, reason) = (batch.items, &refusal.reason);
        match delta {
            true => tracing::error!(component = self.key, items, reason, "differences are lost"),
            false => tracing::warn!(
                component = self.key,
                items,
                reason,
                "a point of each series is not taken"
            ),
        }
    }
}

/// All series as metrics; `None` without one.
fn write(aggregator: &Aggregator, since: u64, now: u64) -> Option<Batch> {
    let mut payload = Vec::new();
    let mut items = 0;
    for of in aggregator.resources.values().filter(|of| of.len() > 0) {
        items += of.len();
        let scope = ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: "karez/connector/spanmetrics".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            metrics: metrics(aggregator, of, since, now),
            ..ScopeMetrics::default()
        };
        put_resource(&mut payload, &of.resource, &scope.encode_to_vec());
    }
    (items > 0).then(|| Batch {
        signal: Signal::Metrics,
        payload: Bytes::from(payload),
        items,
        context: None,
    })
}

fn metrics(aggregator: &Aggregator, of: &OfResource, since: u64, now: u64) -> Vec<Metric> {
    let config = &aggregator.config;
    let delta = config.aggregation_temporality == Temporality::Delta;
    let temporality = match delta {
        true => AggregationTemporality::Delta,
        false => AggregationTemporality::Cumulative,
    } as i32;
    let times = |began: u64| (if delta { since } else { began }, now);
    let name = |name: &str| match config.namespace.as_str() {
        "" => name.to_owned(),
        namespace => format!("{namespace}.{name}"),
    };
    let sum = |series: &SeriesOf<u64>| {
        let points = series
            .iter()
            .map(|(key, kept)| series::point(key, kept.counted, times(kept.since)));
        Data::Sum(Sum {
            data_points: points.collect(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        })
    };
    let durations = || match &aggregator.buckets {
        series::Buckets::Explicit(_) => {
            let point = |(key, kept): (&Vec<u8>, &aggregate::Kept<series::Durations>)| {
                kept.counted.explicit(key, &aggregator.buckets, times(kept.since))
            };
            Data::Histogram(Histogram {
                data_points: of.durations.iter().filter_map(point).collect(),
                aggregation_temporality: temporality,
            })
        }
        series::Buckets::Exponential(_) => {
            let point = |(key, kept): (&Vec<u8>, &aggregate::Kept<series::Durations>)| {
                kept.counted.exponential(key, times(kept.since))
            };
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: of.durations.iter().filter_map(point).collect(),
                aggregation_temporality: temporality,
            })
        }
    };
    let unit = match config.histogram.unit {
        Unit::Ms => "ms",
        Unit::S => "s",
    };
    let metric = |of: &str, unit: &str, data| Metric {
        name: name(of),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let mut metrics = Vec::new();
    if !of.calls.is_empty() {
        metrics.push(metric("calls", "1", sum(&of.calls)));
    }
    if !of.durations.is_empty() {
        metrics.push(metric("duration", unit, durations()));
    }
    if !of.events.is_empty() {
        metrics.push(metric("events", "1", sum(&of.events)));
    }
    metrics
}
