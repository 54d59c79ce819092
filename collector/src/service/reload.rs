//! A running collector and how it follows a changed document: what differs is stopped and started, the rest runs on.

use std::sync::Arc;
use std::time::Duration;

use karez_collector_config::{CollectorConfig, Component, ComponentId, ExtensionConfig};
use karez_document::Diagnosis;
use karez_net::Net;
use tokio::time::Instant;

use super::graph::{Started, Surroundings, diagnosis};
use super::island::{Island, islands};
use super::push::Pushers;
use super::telemetry::MetricsServer;
use crate::component::{Extension, Extensions, Running};
use crate::metrics::Metrics;
use crate::registry;

/// For how long data is drained when something stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// A collector that runs.
pub struct Service {
    around: Surroundings,
    extensions: Vec<StartedExtension>,
    islands: Vec<Started>,
    metrics_server: MetricsServer,
    pushers: Pushers,
}

struct StartedExtension {
    component: Component<ExtensionConfig>,
    extension: Arc<dyn Extension>,
    running: Running,
}

impl Service {
    /// A collector that runs nothing yet.
    pub fn new(net: Net) -> Self {
        let around = Surroundings {
            net,
            metrics: Metrics::new(),
            extensions: Extensions::default(),
        };
        Service {
            around,
            extensions: Vec::new(),
            islands: Vec::new(),
            metrics_server: MetricsServer::default(),
            pushers: Pushers::default(),
        }
    }

    /// Its metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.around.metrics.clone()
    }

    /// Where its components listen: `receivers.otlp` and the address.
    pub fn addresses(&self) -> Vec<(String, std::net::SocketAddr)> {
        let extensions = self.extensions.iter().flat_map(|started| {
            let id = &started.component.id;
            started
                .running
                .addresses()
                .iter()
                .map(move |address| (format!("extensions.{id}"), *address))
        });
        self.islands
            .iter()
            .flat_map(Started::addresses)
            .chain(extensions)
            .collect()
    }

    /// Runs a configuration instead of what runs now, changing only what differs. If something of it does not start,
    /// what ran before runs again.
    pub async fn apply(&mut self, config: &CollectorConfig) -> Result<(), Diagnosis> {
        self.metrics_server
            .follow(&config.telemetry.metrics, &self.around)
            .await;
        self.pushers.follow(&config.telemetry, &self.around).await;
        let before: Vec<Component<ExtensionConfig>> = self
            .extensions
            .iter()
            .map(|started| started.component.clone())
            .collect();
        let after: Vec<_> = config.extensions.values().cloned().collect();
        if same_extensions(&before, &after) {
            return self.apply_islands(islands(config)).await;
        }
        // Components hold what extensions give them, so all of them start again.
        let old = self.stop_islands(|_| true).await;
        let started = match self.change_extensions(&after).await {
            Ok(()) => self.apply_islands(islands(config)).await,
            Err(diagnosis) => Err(diagnosis),
        };
        if started.is_err() && !old.is_empty() {
            self.stop_islands(|_| true).await;
            if let Err(diagnosis) = self.change_extensions(&before).await {
                tracing::error!("cannot start again what ran before: {diagnosis}");
            }
            self.start_again(old).await;
        }
        started
    }

    async fn apply_islands(&mut self, mut wanted: Vec<Island>) -> Result<(), Diagnosis> {
        let old = self
            .stop_islands(|island| !wanted.iter().any(|w| w.same(island)))
            .await;
        wanted.retain(|wanted| !self.islands.iter().any(|started| started.island.same(wanted)));
        let kept = self.islands.len();
        for island in wanted {
            match Started::start(island, &self.around).await {
                Ok(started) => self.islands.push(started),
                Err(diagnosis) => {
                    for started in self.islands.split_off(kept) {
                        started.stop(Instant::now() + DRAIN).await;
                    }
                    self.start_again(old).await;
                    return Err(diagnosis);
                }
            }
        }
        self.ready(true);
        Ok(())
    }

    async fn start_again(&mut self, islands: Vec<Island>) {
        for island in islands {
            match Started::start(island, &self.around).await {
                Ok(started) => self.islands.push(started),
                Err(diagnosis) => tracing::error!("cannot start again what ran before: {diagnosis}"),
            }
        }
        self.ready(!self.islands.is_empty());
    }

    async fn stop_islands(&mut self, which: impl Fn(&Island) -> bool) -> Vec<Island> {
        let (stop, keep): (Vec<_>, Vec<_>) =
            self.islands.drain(..).partition(|started| which(&started.island));
        self.islands = keep;
        if self.islands.is_empty() {
            self.ready(false);
        }
        let stopped = stop.iter().map(|started| started.island.clone()).collect();
        let deadline = Instant::now() + DRAIN;
        futures::future::join_all(stop.into_iter().map(|started| started.stop(deadline))).await;
        stopped
    }

    /// Stops the extensions that differ, builds all that are new, then starts them in their order.
    async fn change_extensions(&mut self, wanted: &[Component<ExtensionConfig>]) -> Result<(), Diagnosis> {
        let mut old: Vec<StartedExtension> = Vec::new();
        for started in self.extensions.drain(..) {
            let wanted = wanted
                .iter()
                .any(|w| w.id == started.component.id && w.config == started.component.config);
            match wanted && stands_alone(&started.component.config) {
                true => old.push(started),
                false => started.running.stop(Instant::now() + DRAIN).await,
            }
        }
        let mut built = Vec::new();
        for component in wanted {
            match old
                .iter()
                .position(|started| started.component.id == component.id)
            {
                Some(index) => {
                    let started = old.remove(index);
                    built.push((component.clone(), started.extension, Some(started.running)));
                }
                None => {
                    let extension = registry::extension(&component.config);
                    let extension = extension.map_err(|error| diagnosis("extensions", component, &error))?;
                    built.push((component.clone(), extension, None));
                }
            }
        }
        let handles: Vec<(ComponentId, Arc<dyn Extension>)> = built
            .iter()
            .map(|(component, extension, _)| (component.id.clone(), extension.clone()))
            .collect();
        self.around.extensions = Extensions(Arc::new(handles));
        for (component, extension, running) in built {
            let running = match running {
                Some(running) => running,
                None => {
                    let cx = self.around.context("extensions", &component.id);
                    let started = extension.start(&cx).await;
                    started.map_err(|error| diagnosis("extensions", &component, &error))?
                }
            };
            self.extensions.push(StartedExtension {
                component,
                extension,
                running,
            });
        }
        Ok(())
    }

    fn ready(&self, ready: bool) {
        self.around
            .extensions
            .iter()
            .for_each(|extension| extension.pipelines_ready(ready));
    }

    /// Stops everything: receivers first, then what is held is delivered, until the drain's deadline.
    pub async fn stop(mut self) {
        self.stop_islands(|_| true).await;
        let deadline = Instant::now() + DRAIN;
        while let Some(started) = self.extensions.pop() {
            started.running.stop(deadline).await;
        }
        self.pushers.stop(deadline).await;
        self.metrics_server.stop(deadline).await;
    }
}

/// Whether an extension holds nothing of another: those that do would go on with a store or an authenticator of before.
fn stands_alone(config: &ExtensionConfig) -> bool {
    match config {
        ExtensionConfig::BasicAuth(_)
        | ExtensionConfig::BearerTokenAuth(_)
        | ExtensionConfig::Oidc(_)
        | ExtensionConfig::OAuth2Client(_)
        | ExtensionConfig::FileStorage(_)
        | ExtensionConfig::JaegerStorage(_) => true,
        ExtensionConfig::HealthCheck(_)
        | ExtensionConfig::JaegerQuery(_)
        | ExtensionConfig::HeadersSetter(_)
        | ExtensionConfig::ZPages(_) => false,
    }
}

fn same_extensions(one: &[Component<ExtensionConfig>], other: &[Component<ExtensionConfig>]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| a.id == b.id && a.config == b.config)
}

/// Builds every component without starting it, and says which cannot be.
pub(crate) async fn dry_run(config: &CollectorConfig, net: &Net) -> Vec<Diagnosis> {
    let mut around = Surroundings {
        net: net.clone(),
        metrics: Metrics::new(),
        extensions: Extensions::default(),
    };
    let mut wrong = Vec::new();
    let mut extensions: Vec<(ComponentId, Arc<dyn Extension>)> = Vec::new();
    for (id, component) in &config.extensions {
        match registry::extension(&component.config) {
            Ok(extension) => {
                // Authenticators bind nothing, and read their files when they start.
                let authenticator = matches!(
                    component.config,
                    ExtensionConfig::BasicAuth(_) | ExtensionConfig::BearerTokenAuth(_)
                );
                if authenticator && let Err(error) = extension.start(&around.context("extensions", id)).await
                {
                    wrong.push(diagnosis("extensions", component, &error));
                }
                extensions.push((id.clone(), extension));
            }
            Err(error) => wrong.push(diagnosis("extensions", component, &error)),
        }
    }
    if !wrong.is_empty() {
        return wrong;
    }
    around.extensions = Extensions(Arc::new(extensions));
    for component in config.receivers.values() {
        wrong.extend(
            registry::receiver(&component.config)
                .err()
                .map(|e| diagnosis("receivers", component, &e)),
        );
    }
    for component in config.processors.values() {
        wrong.extend(
            registry::processor(&component.config)
                .err()
                .map(|e| diagnosis("processors", component, &e)),
        );
    }
    for (id, component) in config
        .exporters
        .iter()
        .filter(|(_, component)| component.fault.is_none())
    {
        let built = registry::exporter(&component.config, &around.context("exporters", id));
        wrong.extend(built.err().map(|error| diagnosis("exporters", component, &error)));
    }
    wrong
}
