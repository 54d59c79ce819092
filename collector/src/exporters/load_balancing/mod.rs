//! `loadbalancing`: what belongs together goes to the same of several backends, each with a client and a queue of its
//! own.
//!
//! ```text
//! resolver ─▶ backends ─▶ ring
//! Batch ─▶ parts by ring ─▶ queue of each backend ─▶ OTLP/gRPC
//! ```
//!
//! A backend that goes is sent nothing new; what waits for it is tried until its retry gives up.

mod resolve;
mod ring;
mod route;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use karez_collector_config::exporters::GrpcExporter;
use karez_collector_config::load_balancing::{LoadBalancing, RoutingKey};
use karez_collector_config::{ComponentId, PipelineId, Signal};
use karez_lifecycle::Shutdown;
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::ring::Ring;
use crate::batch::Batch;
use crate::component::{ComponentContext, Consumer, Exporter, Outcome, Running, StartError};
use crate::exporters::otlp;
use crate::registry::BuiltExporter;
use crate::service::Queued;

/// The port of a backend that is named without one.
const PORT: u16 = 4317;
/// While stopping, how long what waits for backends is delivered.
const DRAIN: Duration = Duration::from_secs(8);
/// How often is looked whether a backend that went has got everything.
const LOOK: Duration = Duration::from_millis(500);
/// How long what waits for a backend that went is tried at most.
const RETIRE: Duration = Duration::from_secs(600);

/// The exporter.
pub struct LoadBalancer {
    config: LoadBalancing,
    state: Arc<RwLock<State>>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    backends: HashMap<String, Backend>,
}

struct Backend {
    queued: Queued,
    /// By signal.
    entrances: [Consumer; 3],
}

/// Makes the exporter. A backend's settings are tried at once, so that what is wrong with them is told.
pub fn build(config: &LoadBalancing, cx: &ComponentContext) -> Result<BuiltExporter, StartError> {
    otlp::build(&settings(&config.otlp, "localhost:4317"), cx)?;
    let exporter = LoadBalancer {
        config: config.clone(),
        state: Arc::default(),
    };
    Ok(BuiltExporter {
        exporter: Arc::new(exporter),
        sending: None,
    })
}

fn settings(otlp: &GrpcExporter, backend: &str) -> GrpcExporter {
    let mut settings = otlp.clone();
    let bare = backend.trim_start_matches('[');
    let with_port = match backend.starts_with('[') {
        true => bare.contains("]:"),
        false => backend.contains(':'),
    };
    settings.client.endpoint = match with_port {
        true => backend.to_owned(),
        false => format!("{backend}:{PORT}"),
    };
    settings
}

impl Exporter for LoadBalancer {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move {
            let mut running = Running::none();
            let resolver = self.config.settings.resolver.clone();
            let (sender, receiver) = watch::channel(Vec::new());
            if let Some(fixed) = resolver.fixed {
                sender.send_replace(fixed.hostnames);
            } else if let Some(dns) = resolver.dns {
                let (net, stop) = (cx.net.clone(), running.stopping());
                running.spawn(async move {
                    tokio::select! { () = resolve::follow_dns(net, dns, sender) => {}, () = stop.triggered() => {} }
                });
            } else if let Some(k8s) = resolver.k8s {
                let stop = running.stopping();
                running.spawn(async move {
                    tokio::select! { () = resolve::follow_service(k8s, sender) => {}, () = stop.triggered() => {} }
                });
            }
            let mut keeper = Keeper {
                otlp: self.config.otlp.clone(),
                cx: cx.clone(),
                state: self.state.clone(),
                retiring: JoinSet::new(),
            };
            let first = receiver.borrow().clone();
            keeper.change(&first).await;
            running.spawn(keeper.run(receiver, running.stopping()));
            Ok(running)
        })
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.hand_on(batch))
    }
}

impl LoadBalancer {
    async fn hand_on(&self, batch: Batch) -> Outcome {
        let key: RoutingKey = self.config.settings.routing_key;
        let parts: Vec<(Consumer, Batch)> = {
            let state = self.state.read().await;
            if state.ring.backends().is_empty() {
                let reason = "there is no backend yet".to_owned();
                return Outcome::Retry { after: None, reason };
            }
            let routed = route::route(&state.ring, key, &batch).into_iter();
            let with = routed.filter_map(|(backend, part)| {
                let backend = state.backends.get(state.ring.backends().get(backend)?)?;
                Some((backend.entrances[part.signal as usize].clone(), part))
            });
            with.collect()
        };
        let sent = parts
            .into_iter()
            .map(|(entrance, part)| async move { entrance.send(part).await });
        let refused = futures::future::join_all(sent)
            .await
            .into_iter()
            .filter_map(Result::err);
        let refused: Vec<_> = refused.collect();
        match refused
            .iter()
            .find(|refusal| !refusal.retryable)
            .or(refused.first())
        {
            None => Outcome::Delivered,
            Some(refusal) if refusal.retryable => Outcome::Retry {
                after: refusal.after,
                reason: refusal.reason.clone(),
            },
            Some(refusal) => Outcome::Refused {
                reason: refusal.reason.clone(),
            },
        }
    }
}

/// Keeps a client and a queue for each backend.
struct Keeper {
    otlp: GrpcExporter,
    cx: ComponentContext,
    state: Arc<RwLock<State>>,
    retiring: JoinSet<()>,
}

impl Keeper {
    async fn run(mut self, mut told: watch::Receiver<Vec<String>>, stop: Shutdown) {
        loop {
            tokio::select! {
                changed = told.changed() => match changed {
                    Ok(()) => {
                        let backends = told.borrow_and_update().clone();
                        self.change(&backends).await;
                    }
                    // Backends that are listed do not change.
                    Err(_) => {
                        stop.triggered().await;
                        break;
                    }
                },
                Some(_) = self.retiring.join_next() => {}
                () = stop.triggered() => break,
            }
        }
        let backends = std::mem::take(&mut *self.state.write().await).backends;
        let deadline = Instant::now() + DRAIN;
        let stopping = backends
            .into_iter()
            .map(|(name, backend)| stop_backend(name, backend, deadline));
        futures::future::join_all(stopping).await;
        let _ = tokio::time::timeout_at(deadline, async {
            while self.retiring.join_next().await.is_some() {}
        })
        .await;
    }

    async fn change(&mut self, wanted: &[String]) {
        let ring = Ring::new(wanted.to_vec());
        let mut state = self.state.write().await;
        for name in ring.backends() {
            if state.backends.contains_key(name) {
                continue;
            }
            match self.start(name).await {
                Ok(backend) => {
                    tracing::info!(component = self.cx.key, backend = name, "a backend is there");
                    state.backends.insert(name.clone(), backend);
                }
                Err(error) => {
                    tracing::error!(component = self.cx.key, backend = name, %error, "a backend cannot be used");
                }
            }
        }
        let gone: Vec<String> = state
            .backends
            .keys()
            .filter(|name| !ring.backends().contains(name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(backend) = state.backends.remove(&name) {
                tracing::info!(component = self.cx.key, backend = name, "a backend went");
                self.retiring.spawn(retire(name, backend));
            }
        }
        // A backend that cannot be used has nothing to be sent to.
        let usable = ring
            .backends()
            .iter()
            .filter(|name| state.backends.contains_key(*name));
        state.ring = Ring::new(usable.cloned().collect());
    }

    async fn start(&self, name: &str) -> Result<Backend, StartError> {
        let id = ComponentId {
            kind: self.cx.id.kind.clone(),
            name: match self.cx.id.name.as_str() {
                "" => name.to_owned(),
                own => format!("{own}/{name}"),
            },
        };
        let cx = ComponentContext {
            id,
            ..self.cx.clone()
        };
        let queued = Queued::start(otlp::build(&settings(&self.otlp, name), &cx)?, &cx).await?;
        let entrances = Signal::ALL.map(|signal| {
            queued.consumer(&PipelineId {
                signal,
                name: String::new(),
            })
        });
        Ok(Backend { queued, entrances })
    }
}

/// Lets a backend that went have what waits for it.
async fn retire(name: String, backend: Backend) {
    let until = Instant::now() + RETIRE;
    while backend.queued.items() > 0 && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    stop_backend(name, backend, Instant::now()).await;
}

async fn stop_backend(name: String, backend: Backend, deadline: Instant) {
    let items = backend.queued.stop(deadline).await;
    if items > 0 {
        tracing::error!(backend = name, items, "not delivered to this backend");
    }
}
