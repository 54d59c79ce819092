//! `karez allocator`: finds Prometheus targets and divides them among collectors, as the OpenTelemetry target allocator
//! does, for its collectors and for ours.
//!
//! ```text
//! document (watched) ─┬─▶ jobs ──▶ Discovery ──▶ groups ─▶ ┌────────────┐ ─▶ /scrape_configs, /jobs/… ─▶ collectors
//! custom resources ───┘                                    │ Allocation │ ◀─ "I have it", samples scraped ◀─┘
//! Pods, a file or a list ──▶ collectors ─────────────────▶ └────────────┘ ─▶ /explain, a page, /metrics
//! ```
//!
//! Of several allocators one decides, who holds a Lease; the others copy its assignment and pass questions on to it.
//! The engine alone changes the allocation; HTTP reads it and passes on what collectors say.

mod among_others;
mod collectors;
mod config;
mod engine;
mod explain;
mod http;

mod kubernetes;
mod lease;
mod metrics;
mod monitors;
mod peers;
mod push;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;

use karez_document::{Diagnosis, Source};
use karez_lifecycle::Shutdown;
use karez_net::{BindError, Net};
use kube::Client;

pub use config::{AllocatorConfig, Flags, LabelSelector, read};
pub use explain::{ExplainError, explain, render};
pub use monitors::jobs_of;

/// What an allocator is run with.
#[derive(Clone)]
pub struct AllocatorOptions {
    /// Its document.
    pub config: PathBuf,
    /// What the command line says.
    pub flags: Flags,
    /// How names are resolved and ports bound.
    pub net: Net,
    /// The Kubernetes API; looked for when it is needed and not here.
    pub client: Option<Client>,
}

impl std::fmt::Debug for AllocatorOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllocatorOptions")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why an allocator ends.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// There is no document.
    #[error("the configuration {0} is not there or cannot be read")]
    NoDocument(PathBuf),
    /// The document is wrong.
    #[error("the configuration is wrong:\n{}", lines(.0))]
    Document(Vec<Diagnosis>),
    /// The document cannot be watched.
    #[error(transparent)]
    Watch(#[from] karez_document::WatchError),
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no Kubernetes API, and the document needs one.
    #[error("the configuration needs a Kubernetes API: {0}")]
    Kubernetes(#[from] karez_kubernetes::ClientError),
    /// The certificates of HTTPS cannot be used.
    #[error("https: {0}")]
    Tls(String),
}

fn lines(diagnoses: &[Diagnosis]) -> String {
    let lines: Vec<String> = diagnoses.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Runs until the shutdown.
///
/// # Errors
/// When the document is wrong at the start, a port cannot be had, or there is no Kubernetes API where one is needed.
pub async fn run(options: AllocatorOptions, shutdown: Shutdown) -> Result<(), AllocatorError> {
    let source = Source::File(options.config.clone());
    let mut document = karez_document::watch(source, None).await?;
    let text = document.borrow_and_update().clone();
    let text = text.ok_or_else(|| AllocatorError::NoDocument(options.config.clone()))?;
    let (config, diagnoses) = read(&text.text, &text.origin, &options.flags);
    let config = config.ok_or_else(|| AllocatorError::Document(diagnoses.clone()))?;
    for diagnosis in &diagnoses {
        tracing::warn!(%diagnosis, "the configuration is not as it should be");
    }
    let client = kubernetes::client_for(&config, options.client.clone()).await?;
    let identity = among_others::identity();
    let peers = config
        .lease
        .is_some()
        .then(|| peers::Peers::new(options.net.clone(), identity.clone(), config.https.clone()));
    let shared = Arc::new(shared::Shared::new(config.settings.clone(), peers));
    let plain = options.net.listen_tcp(&config.listen).await?;
    let mut own = lease::Peer {
        identity,
        http: among_others::address(&plain, config.lease.as_ref()),
        https: None,
    };
    for address in plain.local_addrs() {
        tracing::info!(%address, strategy = %config.settings.strategy, "the allocator listens");
    }
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(http::serve(plain, None, shared.clone(), shutdown.clone()));
    if let Some(https) = &config.https {
        let tls = http::tls::watch(https.clone())
            .await
            .map_err(AllocatorError::Tls)?;
        let listener = options.net.listen_tcp(&https.listen).await?;
        for address in listener.local_addrs() {
            tracing::info!(%address, "the allocator listens for mutual TLS");
        }
        let address = among_others::address(&listener, config.lease.as_ref());
        own.https = Some(address).filter(|address| !address.is_empty());
        serving.spawn(http::serve(listener, Some(tls), shared.clone(), shutdown.clone()));
    }
    if let (Some(lease), Some(client)) = (config.lease.clone(), client.clone()) {
        among_others::seek(lease, own, client, &shared, &mut serving, &shutdown);
    }
    for to in config.push.clone() {
        serving.spawn(push::push(
            to,
            options.net.clone(),
            shared.clone(),
            shutdown.clone(),
        ));
    }
    let engine = engine::Engine::new(config, options, client, shared, shutdown.clone());
    engine.run(document).await;
    while serving.join_next().await.is_some() {}
    Ok(())
}
