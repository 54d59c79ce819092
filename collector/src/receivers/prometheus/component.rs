//! The receiver as a component.

use std::sync::Arc;

use futures::future::BoxFuture;
use karez_collector_config::prometheus as config;
use karez_scrape::client::Client;
use karez_scrape::discovery::Context;
use xxhash_rust::xxh3::xxh3_64;

use super::allocator::{self, Allocated};
use super::job::Job;
use super::targets::Targets;
use crate::batch::Signal;
use crate::component::{ComponentContext, Consumers, Receiver, Running, StartError};

/// Receiver `prometheus`.
pub struct PrometheusReceiver {
    config: config::PrometheusReceiver,
}

impl PrometheusReceiver {
    /// Takes its configuration.
    pub fn new(config: config::PrometheusReceiver) -> Self {
        Self { config }
    }

    fn begin(&self, consumers: &Consumers, cx: &ComponentContext) -> Result<Running, StartError> {
        let mut running = Running::none();
        let Some(consumer) = consumers.of(Signal::Metrics, "http") else {
            return Ok(running);
        };
        let context = Context {
            net: cx.net.clone(),
            kubernetes: None,
        };
        let mut jobs = Vec::new();
        for config in &self.config.scrape_configs {
            let job = Job::new(config.clone(), &cx.net, self.config.report_extra_scrape_metrics);
            let job = job.map_err(|error| {
                let key = format!("config.scrape_configs.{}", config.job_name);
                StartError::config(key, error.to_string(), "correct it")
            })?;
            jobs.push(Arc::new(job));
        }
        let (seed, stop) = (seed(), running.stopping());
        if !jobs.is_empty() {
            let targets = Targets {
                jobs,
                consumer: consumer.clone(),
                seed,
                stop: stop.clone(),
                told: true,
                lists: None,
            };
            running.spawn(targets.run(context.clone(), stop.clone()));
        }
        if let Some(config) = &self.config.target_allocator {
            let client = Client::new(&allocator::http(config), &cx.net).map_err(|error| {
                StartError::config("target_allocator.tls", error.to_string(), "correct it")
            })?;
            let allocated = Allocated {
                config: config.clone(),
                collector_id: collector_id(config)?,
                consumer,
                cx: context,
                seed,
                extra: self.config.report_extra_scrape_metrics,
                stop,
            };
            running.spawn(allocated.run(client));
        }
        Ok(running)
    }
}

impl Receiver for PrometheusReceiver {
    fn start<'a>(
        &'a self,
        consumers: Consumers,
        cx: &'a ComponentContext,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move { self.begin(&consumers, cx) })
    }
}

/// By which the allocator knows this collector.
fn collector_id(config: &config::TargetAllocator) -> Result<String, StartError> {
    let written = Some(config.collector_id.clone()).filter(|id| !id.is_empty());
    let id = written.or_else(|| std::env::var("POD_NAME").ok().filter(|id| !id.is_empty()));
    id.ok_or_else(|| {
        let message = "there is no id of this collector, nor is POD_NAME set";
        StartError::config("target_allocator.collector_id", message, "write `collector_id:`")
    })
}

/// Another collector scrapes the same target at another instant.
fn seed() -> u64 {
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    xxh3_64(name.unwrap_or_default().as_bytes())
}
