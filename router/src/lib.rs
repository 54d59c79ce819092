//! The router: carries TCP connections between sites by virtual address, over links.
//!
//! ```text
//!  document ──▶ reload ──▶ listeners, links, ports, targets
//!
//!  client ──▶ listener.rs ──decide──▶ connector.rs ──▶ target on this site
//!                  │   carry.rs (both ways)
//!                  │   seal/ (sealed or plain)
//!                  └──decide──▶ link/stream.rs ══ QUIC ══ link/stream.rs ──decide──▶ connector.rs ──▶ target there
//!
//!  status.rs ──▶ local_api.rs (5671)      metrics.rs ──▶ admin port (9090)
//! ```
//!
//! Every bad document leaves what runs running, and is reported in the log, the status and the metrics.

// The in-process tests' sites, which tests in here use as well, know the crate by its name.
#[cfg(test)]
extern crate self as karez_router;

mod access;
mod buffer;
mod caller;
mod carry;
mod connector;
pub mod doctor;
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod listener;
mod local_api;
mod memory;
mod metrics;
mod observe;
mod peers;
mod policy;
mod profiles;
pub mod proxy_protocol;
mod record;
mod reload;
mod saturation;
mod seal;
mod shared;
mod slots;
mod status;
mod trace;
mod udp;
mod way;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use karez_document::{Diagnosis, Document, Source, WatchError};
use karez_lifecycle::{Readiness, ReadyGuard, Shutdown, volumes};
use karez_net::Net;
use karez_router_config::api::{DocumentStatus, Status};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use metrics::{Metrics, Way};
use observe::Observer;
use profiles::Secrets;
use reload::Running;
use shared::Shared;

/// Open connections may end by themselves for this long once the router is to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections that carry nothing for this long are not waited for.
const QUIET: Duration = Duration::from_millis(500);

/// What a router needs to start.
#[derive(Clone)]
pub struct RouterOptions {
    /// Where its document is.
    pub config: Source,
    /// The API that documents and Secrets are read from, when they are objects.
    pub client: Option<kube::Client>,
    /// Where TLS profiles' Secrets are, when the document is a file; a ConfigMap's are beside it.
    pub namespace: String,
    /// How it binds and dials.
    pub net: Net,
}

/// Why a router could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its document cannot be watched.
    #[error("the router's document: {0}")]
    Document(#[from] WatchError),
    /// Its main task failed; this is a defect.
    #[error("the router's main task failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

/// Runs a router until the shutdown, then drains it.
pub async fn run(options: RouterOptions, shutdown: Shutdown) -> Result<(), RunError> {
    Router::start(options, shutdown).await?.finished().await
}

/// A running router, for a program that also wants to look at it.
pub struct Router {
    shared: Arc<Shared>,
    main: JoinHandle<()>,
}

impl Router {
    /// Starts a router; it runs until the shutdown.
    pub async fn start(options: RouterOptions, shutdown: Shutdown) -> Result<Self, RunError> {
        let (source, namespace) = match options.config {
            Source::File(path) => (Source::File(volumes::locate(&path)), options.namespace),
            Source::Kube { namespace, name, key } => {
                let key = key.or_else(|| Some(karez_router_config::CONFIG_KEY.to_owned()));
                (
                    Source::Kube {
                        namespace: namespace.clone(),
                        name,
                        key,
                    },
                    namespace,
                )
            }
        };
        let documents = karez_document::watch(source.clone(), options.client.clone()).await?;
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let readiness = Readiness::new();
        let shared = Arc::new(Shared::new(options.net, metrics, shutdown));
        registry.register_collector(Box::new(Observer(Arc::downgrade(&shared))));
        let secrets = Secrets {
            client: options.client,
            namespace,
        };
        let running = Running::new(shared.clone(), secrets, Arc::new(registry), readiness.clone());
        let guard = readiness.hold(format!("the document {source}"));
        let main = tokio::spawn(follow(shared.clone(), running, documents, source, guard));
        Ok(Self { shared, main })
    }

    /// What it says about itself, as its local API does.
    pub fn status(&self) -> Status {
        status::status(&self.shared)
    }

    /// Moves on with each change of the status.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.shared.generation()
    }

    /// Where its local API listens.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.shared.read(|state| state.local)
    }

    /// Where its metrics and health are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.shared.read(|state| state.admin)
    }

    /// Waits until it has stopped.
    pub async fn finished(self) -> Result<(), RunError> {
        Ok(self.main.await?)
    }
}

/// Follows the document until the shutdown, then drains and stops.
async fn follow(
    shared: Arc<Shared>,
    mut running: Running,
    mut documents: watch::Receiver<Option<Document>>,
    source: Source,
    guard: ReadyGuard,
) {
    let mut guard = Some(guard);
    let timer = tokio::spawn({
        let shared = shared.clone();
        async move {
            tokio::join!(shared.keep_time(), memory::give_back(shared.clone()));
        }
    });
    loop {
        let document = documents.borrow_and_update().clone();
        match document {
            None => missing(&shared, &source),
            Some(document) => {
                if take(&shared, &mut running, document).await {
                    guard = None;
                }
            }
        }
        tokio::select! {
            () = shared.shutdown.triggered() => break,
            changed = documents.changed() => if changed.is_err() {
                tracing::error!(%source, "the document is no longer watched; what runs keeps running");
                shared.shutdown.triggered().await;
                break;
            },
        }
    }
    drop(guard);
    drain(&shared).await;
    timer.abort();
    running.stop().await;
    // Bounded: a peer that does not hear the farewell notices by itself.
    let _ = timeout(QUIET, shared.client_endpoints.wait_idle()).await;
    tracing::info!("the router has stopped");
}

/// Runs a document, or reports what is wrong with it; says whether it runs.
async fn take(shared: &Shared, running: &mut Running, document: Document) -> bool {
    let (config, diagnoses) = karez_router_config::check(&document.text, &document.origin);
    let Some(config) = config else {
        shared.metrics.document_errors.inc();
        reject(shared, diagnoses.iter().map(Diagnosis::to_string).collect());
        return false;
    };
    shared.metrics.document_rejected.set(0);
    let site = config.site.name.clone();
    running.apply(config).await;
    tracing::info!(site, version = document.version, "document taken over");
    shared.change(|state| {
        state.document = DocumentStatus {
            version: document.version,
            errors: Vec::new(),
        }
    });
    true
}

/// The source has no document: at first that is only early, later what runs keeps running.
fn missing(shared: &Shared, source: &Source) {
    if shared.read(|state| state.config.is_some()) {
        return reject(shared, vec![format!("{source} is not there any more")]);
    }
    tracing::info!(%source, "waiting for the document");
    shared.change(|state| state.document.errors = vec![format!("{source} is not there yet")]);
}

/// Reports a document that does not run; what runs keeps running.
fn reject(shared: &Shared, errors: Vec<String>) {
    shared.metrics.document_rejected.set(1);
    for error in &errors {
        tracing::error!(
            error,
            "the router's document is not usable; what runs keeps running"
        );
    }
    shared.change(|state| state.document.errors = errors);
}

/// Lets carried connections end: until none is left, none moves, or the deadline.
async fn drain(shared: &Shared) {
    let deadline = Instant::now() + DRAIN;
    let carried = || shared.metrics.bytes(Way::Sent).get() + shared.metrics.bytes(Way::Received).get();
    let mut seen = (carried(), Instant::now());
    shared.carried.close();
    while !shared.carried.is_empty() && Instant::now() < deadline && seen.1.elapsed() < QUIET {
        tokio::select! {
            () = shared.carried.wait() => break,
            () = sleep(QUIET / 10) => {}
        }
        let now = carried();
        if now != seen.0 {
            seen = (now, Instant::now());
        }
    }
    if !shared.carried.is_empty() {
        tracing::info!(
            connections = shared.carried.len(),
            "connections that are still open are closed"
        );
    }
    shared.force.cancel();
    let _ = timeout(QUIET, shared.carried.wait()).await;
}
