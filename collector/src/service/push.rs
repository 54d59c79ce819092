//! The collector's own metrics, pushed by OTLP where `service.telemetry.metrics.readers` says.
//!
//! ```text
//! Metrics ─every interval, and once more at the end─▶ figures ─▶ an `otlp` or `otlphttp` exporter, without a queue
//! ```
//!
//! What is not taken is not kept: the next figures hold it, as they count from the start on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use karez_collector_config::{ComponentId, Push, PushExporter, Telemetry};
use prometheus_client::encoding::text::encode;
use tokio::time::Instant;

use super::figures::{self, Times};
use super::graph::Surroundings;
use crate::component::{Exporter, Outcome, Running, StartError};
use crate::exporters;
use crate::metrics::Metrics;

/// How long the last figures may take: a stop does not wait for a place that does not answer.
const LAST: Duration = Duration::from_secs(2);

/// What pushes the collector's own metrics.
pub(crate) struct Pushers {
    pushes: Vec<Push>,
    resource: Vec<(String, String)>,
    /// This process, among others of its name.
    instance: String,
    begun: u64,
    running: Vec<Running>,
}

impl Default for Pushers {
    fn default() -> Self {
        Pushers {
            pushes: Vec::new(),
            resource: Vec::new(),
            instance: random_uuid(),
            begun: now(),
            running: Vec::new(),
        }
    }
}

impl Pushers {
    /// Pushes where the document says. A place that is no good is reported; pipelines do not depend on it.
    pub(crate) async fn follow(&mut self, telemetry: &Telemetry, around: &Surroundings) {
        let resource = resource(telemetry, &self.instance);
        if self.pushes == telemetry.pushes && self.resource == resource {
            return;
        }
        self.stop(Instant::now() + super::reload::DRAIN).await;
        self.pushes.clone_from(&telemetry.pushes);
        self.resource = resource;
        for push in &self.pushes {
            match build(push, around) {
                Ok(exporter) => {
                    let pusher = Pusher {
                        exporter,
                        key: push.key.clone(),
                        endpoint: push.exporter.endpoint().to_owned(),
                        metrics: around.metrics.clone(),
                        resource: self.resource.clone(),
                        begun: self.begun,
                    };
                    let mut running = Running::none();
                    let (interval, stop) = (push.interval, running.stopping());
                    running.spawn(async move { pusher.run(interval, stop.triggered()).await });
                    self.running.push(running);
                }
                Err(error) => {
                    let (key, mend) = (&push.key, error.mend());
                    tracing::error!("{key}: the collector's own metrics are not pushed: {error}; {mend}");
                }
            }
        }
    }

    /// Pushes the last figures.
    pub(crate) async fn stop(&mut self, deadline: Instant) {
        futures::future::join_all(self.running.drain(..).map(|running| running.stop(deadline))).await;
    }
}

fn build(push: &Push, around: &Surroundings) -> Result<Arc<dyn Exporter>, StartError> {
    let id = ComponentId {
        kind: "metrics".to_owned(),
        name: String::new(),
    };
    let mut cx = around.context("service.telemetry", &id);
    cx.key.clone_from(&push.key);
    let built = match &push.exporter {
        PushExporter::Grpc(config) => exporters::otlp::build(config, &cx),
        PushExporter::Http(config) => exporters::otlp_http::build(config, &cx),
    };
    built.map(|built| built.exporter)
}

struct Pusher {
    exporter: Arc<dyn Exporter>,
    key: String,
    endpoint: String,
    metrics: Arc<Metrics>,
    resource: Vec<(String, String)>,
    begun: u64,
}

impl Pusher {
    async fn run(self, interval: Duration, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut failing = false;
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = &mut stop => true,
            };
            let push = self.push();
            let failed = match last {
                true => tokio::time::timeout(LAST, push)
                    .await
                    .unwrap_or_else(|_| Some(format!("no answer in {} s", LAST.as_secs()))),
                false => push.await,
            };
            match (&failed, failing) {
                (Some(reason), false) => tracing::warn!(
                    endpoint = self.endpoint,
                    reason,
                    "{}: the collector's own metrics cannot be pushed; the next push holds them",
                    self.key
                ),
                (None, true) => {
                    tracing::info!(
                        endpoint = self.endpoint,
                        "the collector's own metrics are pushed again"
                    );
                }
                _ => {}
            }
            failing = failed.is_some();
            if last {
                return;
            }
        }
    }

    /// Pushes once; says why not.
    async fn push(&self) -> Option<String> {
        let mut page = String::new();
        if let Err(error) = encode(&mut page, &self.metrics.registry()) {
            return Some(error.to_string());
        }
        let times = Times {
            begun: self.begun,
            now: now(),
        };
        let batch = figures::batch(&page, &self.resource, times);
        match self.exporter.export(batch).await {
            Outcome::Delivered => None,
            Outcome::Retry { reason, .. } | Outcome::Refused { reason } => Some(reason),
        }
    }
}

/// What the collector says of itself, as the document changes it.
fn resource(telemetry: &Telemetry, instance: &str) -> Vec<(String, String)> {
    let own = [
        ("service.name", "karez-collector"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let kept = own
        .into_iter()
        .filter(|(name, _)| !telemetry.resource.contains_key(*name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let written = telemetry
        .resource
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    kept.chain(written).collect()
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A random (version 4) UUID.
fn random_uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_changes_what_the_collector_says_of_itself() {
        let mut telemetry = Telemetry::default();
        let name = |pair: &(String, String)| format!("{}={}", pair.0, pair.1);
        let all: Vec<_> = resource(&telemetry, "i").iter().map(name).collect();
        assert_eq!(
            all,
            [
                "service.name=karez-collector",
                concat!("service.version=", env!("CARGO_PKG_VERSION")),
                "service.instance.id=i"
            ]
        );
        telemetry
            .resource
            .insert("service.name".into(), Some("mine".into()));
        telemetry.resource.insert("service.version".into(), None);
        telemetry.resource.insert("zone".into(), Some("a".into()));
        let all: Vec<_> = resource(&telemetry, "i").iter().map(name).collect();
        assert_eq!(all, ["service.instance.id=i", "service.name=mine", "zone=a"]);
    }

    #[test]
    fn an_instance_is_named_by_a_uuid() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
    }
}
