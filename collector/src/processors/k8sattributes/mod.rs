//! `k8sattributes`: says of data which Pod it comes from.
//!
//! ```text
//! API ─watch─▶ Pods, namespaces, nodes ─▶ Index (read without a lock)
//! Batch ─▶ each resource ─▶ its Pod, by address, uid or other attributes ─▶ attributes that it lacks ─▶ edited encoding
//! ```

mod extract;
mod index;
#[cfg(test)]
mod tests;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::k8s_attributes as config;
use karez_kubernetes::ClientOptions;
use regex::RegexSet;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use self::extract::Rules;
use self::index::{Index, Known, Ways};
use self::watch::Watch;
use super::edit::{Attributes, edit_resources, text};
use crate::batch::Batch;
use crate::component::{ComponentContext, Consume, Consumer, Processor, Refusal, Running, StartError};
use crate::metrics::ProcessorMeter;

const POD_IP: &str = "k8s.pod.ip";

/// The processor.
pub struct K8sAttributes {
    config: config::K8sAttributes,
    rules: Arc<Rules>,
    ways: Arc<Ways>,
    excluded: RegexSet,
}

impl K8sAttributes {
    /// A processor of this configuration.
    pub fn new(config: config::K8sAttributes) -> Result<Self, StartError> {
        let excluded = RegexSet::new(config.exclude.pods.iter().map(|pod| &pod.name));
        let excluded = excluded.map_err(|error| {
            StartError::config(
                "exclude.pods",
                error.to_string(),
                "correct the regular expression",
            )
        })?;
        Ok(K8sAttributes {
            rules: Arc::new(Rules::new(&config.extract)?),
            ways: Arc::new(Ways::new(&config.pod_association)),
            excluded,
            config,
        })
    }

    /// The node whose Pods are asked for; empty for all.
    fn node(&self) -> Result<String, StartError> {
        let filter = &self.config.filter;
        if filter.node_from_env_var.is_empty() {
            return Ok(filter.node.clone());
        }
        std::env::var(&filter.node_from_env_var).map_err(|_| {
            let message = format!("the variable {} is not set", filter.node_from_env_var);
            let mend = "set it in the Pod: `valueFrom: {fieldRef: {fieldPath: spec.nodeName}}`";
            StartError::config("filter.node_from_env_var", message, mend)
        })
    }

    fn follow(
        &self,
        index: Arc<ArcSwap<Index>>,
        synced: channel::Sender<bool>,
    ) -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
        let (config, node) = (self.config.clone(), self.node()?);
        let (rules, ways, excluded) = (self.rules.clone(), self.ways.clone(), self.excluded.clone());
        Ok(async move {
            let options = ClientOptions {
                context: Some(config.context).filter(|context| !context.is_empty()),
                ..ClientOptions::default()
            };
            let client = loop {
                match karez_kubernetes::client(&options).await {
                    Ok((client, _)) => break client,
                    Err(error) => tracing::error!(%error, "k8sattributes has no API to ask; trying again"),
                }
                tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            };
            let watch = Watch {
                client,
                filter: config.filter,
                node,
                excluded,
                rules,
                ways,
                index,
                synced,
            };
            watch.run().await;
        })
    }
}

impl Processor for K8sAttributes {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let index = Arc::new(ArcSwap::from_pointee(Index::default()));
        let (sender, synced) = channel::channel(false);
        let mut running = Running::none();
        if !self.config.passthrough {
            let (follow, stop) = (self.follow(index.clone(), sender)?, running.stopping());
            running.spawn(async move {
                tokio::select! { () = follow => {}, () = stop.triggered() => {} }
            });
        }
        let wait = self.config.wait_for_metadata && !self.config.passthrough;
        let entrance = Entrance {
            marker: Marker {
                rules: self.rules.clone(),
                ways: self.ways.clone(),
                index,
            },
            wait_until: wait.then(|| Instant::now() + self.config.wait_for_metadata_timeout),
            synced,
            next,
            meters: Signal::ALL.map(|signal| cx.metrics.processor(&cx.id, signal)),
        };
        Ok((Consumer::new(entrance), running))
    }
}

/// Marks data with its Pod's attributes.
struct Marker {
    rules: Arc<Rules>,
    ways: Arc<Ways>,
    index: Arc<ArcSwap<Index>>,
}

impl Marker {
    fn mark(&self, batch: Batch) -> Batch {
        let peer = batch.context.as_ref().and_then(|context| context.peer);
        let index = self.index.load();
        edit_resources(batch, |attributes| self.mark_resource(&index, peer, attributes))
    }

    fn mark_resource(&self, index: &Index, peer: Option<IpAddr>, attributes: &mut Attributes<'_>) {
        let pod = index.pod(&self.ways, peer, |name| attributes.text(name));
        if let Some(pod) = pod {
            for (name, value) in &pod.facts {
                put(attributes, name, value);
            }
            self.mark_container(pod, attributes);
        }
        let comes_from = peer.map(|peer| peer.to_canonical().to_string());
        if let Some(address) = comes_from {
            put(attributes, POD_IP, &address);
        }
        for (name, facts) in [("k8s.namespace.name", true), ("k8s.node.name", false)] {
            let Some(name) = attributes.text(name) else {
                continue;
            };
            let facts = if facts {
                index.namespace(&name)
            } else {
                index.node(&name)
            };
            for (name, value) in facts.into_iter().flatten() {
                put(attributes, name, value);
            }
        }
    }

    /// Adds what is known of the container that the resource names.
    fn mark_container(&self, pod: &Known, attributes: &mut Attributes<'_>) {
        let (name, id) = (
            attributes.text("k8s.container.name"),
            attributes.text("container.id"),
        );
        let meant = pod.containers.iter().find(|container| {
            name.as_ref() == Some(&container.name)
                || (!container.id.is_empty() && id.as_ref() == Some(&container.id))
        });
        let Some(container) = meant else { return };
        let (image, tag) = container.image_parts();
        let facts = [
            ("k8s.container.name", Some(container.name.as_str())),
            ("container.id", Some(container.id.as_str())),
            ("container.image.name", Some(image)),
            ("container.image.tag", tag),
        ];
        for (name, value) in facts {
            if let Some(value) = value.filter(|value| !value.is_empty() && self.rules.wants(name)) {
                put(attributes, name, value);
            }
        }
    }
}

/// Sets an attribute that is not there or empty.
fn put(attributes: &mut Attributes<'_>, name: &str, value: &str) {
    if attributes.text(name).is_none_or(|value| value.is_empty()) {
        attributes.set(name, text(value));
    }
}

struct Entrance {
    marker: Marker,
    /// Until when data waits for the Pods to be known.
    wait_until: Option<Instant>,
    synced: channel::Receiver<bool>,
    next: Consumer,
    meters: [ProcessorMeter; 3],
}

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let meter = &self.meters[batch.signal as usize];
            let items = batch.items as u64;
            meter.incoming.inc_by(items);
            if let Some(until) = self.wait_until {
                let mut synced = self.synced.clone();
                // Late or never: the data goes on as it is.
                let _ = tokio::time::timeout_at(until, synced.wait_for(|synced| *synced)).await;
            }
            self.next.send(self.marker.mark(batch)).await?;
            meter.outgoing.inc_by(items);
            Ok(())
        })
    }
}
