//! The program: load, check, run, follow changes, drain.

use std::path::PathBuf;
use std::time::Duration;

use karez_collector_config::{CollectorConfig, Text, check_all};
use karez_document::{Diagnosis, Severity, SourceError, WatchError, has_errors};
use karez_lifecycle::Shutdown;
use karez_net::Net;

use super::load::{self, Config};
use super::reload::Service;
use crate::footprint;

/// The longest text that a `${file:…}` stands for.
const MAX_VALUE: u64 = 1 << 20;

/// What the command line says.
#[derive(Clone)]
pub struct CollectorOptions {
    /// `--config`, in order: paths, `file:`, `yaml:`, `env:`, `kube:NAMESPACE/NAME[#KEY]`.
    pub configs: Vec<String>,
    /// `--set a.b=value`, over all of them.
    pub sets: Vec<String>,
    /// `--feature-gates`; none has an effect.
    pub feature_gates: Vec<String>,
    /// `--metrics-addr HOST:PORT`, the old flag; wins over the document.
    pub metrics_addr: Option<String>,
    /// Sockets and names.
    pub net: Net,
    /// For `kube:` sources.
    pub client: Option<kube::Client>,
}

/// Why a collector does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing to run.
    #[error("no configuration is given: name a file with --config")]
    NoConfig,
    /// A source that cannot be understood.
    #[error("--config: {0}")]
    Source(#[source] SourceError),
    /// A source that cannot be watched.
    #[error("--config: {0}")]
    Watch(#[source] WatchError),
    /// A file that is not there.
    #[error("--config: the file {} is not there or cannot be read", .0.display())]
    NoFile(PathBuf),
    /// A variable that is not set.
    #[error("--config=env:{0}: the environment has no such variable")]
    NoVariable(String),
    /// A server does not give it.
    #[error("--config: {url} cannot be fetched: {reason}")]
    Fetch {
        /// From where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The document is wrong.
    #[error("the configuration has errors:\n{}", lines(.0))]
    Document(Vec<Diagnosis>),
    /// A component does not start.
    #[error("{0}")]
    Start(Diagnosis),
}

fn lines(diagnoses: &[Diagnosis]) -> String {
    diagnoses
        .iter()
        .map(|diagnosis| format!("  {diagnosis}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Runs a collector until the shutdown, following its configuration. A changed document that is wrong is reported, and
/// what runs runs on.
pub async fn run(options: CollectorOptions, shutdown: Shutdown) -> Result<(), RunError> {
    if options.configs.is_empty() && options.sets.is_empty() {
        return Err(RunError::NoConfig);
    }
    let mut configs = open(&options).await?;
    let Some(texts) = first_texts(&mut configs, &options, &shutdown).await else {
        return Ok(());
    };
    let (config, diagnoses) = checked(&texts, &options);
    report(&diagnoses);
    let config = config.ok_or(RunError::Document(diagnoses))?;
    let mut service = Service::new(options.net.clone());
    if let Err(diagnosis) = service.apply(&config).await {
        service.stop().await;
        return Err(RunError::Start(diagnosis));
    }
    tracing::info!("everything is ready: begin to run and process data");
    footprint::forget_start();
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    loop {
        tokio::select! {
            () = any_change(&mut configs) => {}
            Some(()) = hung_up(&mut hangup) => {
                tracing::info!("asked to read the configuration again");
                for config in &mut configs {
                    config.refresh().await;
                }
            }
            () = shutdown.triggered() => break,
        }
        reload(&mut service, &mut configs, &options).await;
    }
    service.stop().await;
    Ok(())
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

async fn open(options: &CollectorOptions) -> Result<Vec<Config>, RunError> {
    let mut configs = Vec::new();
    for config in &options.configs {
        configs.push(load::open(config, options.client.clone(), &options.net).await?);
    }
    Ok(configs)
}

fn texts(configs: &mut [Config]) -> Option<Vec<Text>> {
    configs.iter_mut().map(Config::text).collect()
}

/// Waits until every source is there. `None` when asked to stop before.
async fn first_texts(
    configs: &mut [Config],
    options: &CollectorOptions,
    shutdown: &Shutdown,
) -> Option<Vec<Text>> {
    let mut told = false;
    loop {
        if let Some(texts) = texts(configs) {
            return Some(texts);
        }
        let waiting =
            || tracing::info!(configs = ?options.configs, "waiting for the configuration to be there");
        tokio::select! {
            () = any_change(configs) => {}
            () = tokio::time::sleep(Duration::from_secs(1)), if !told => {
                waiting();
                told = true;
            }
            () = shutdown.triggered() => return None,
        }
    }
}

/// Ends when one of them has changed and, editors writing in steps, a moment has passed.
async fn any_change(configs: &mut [Config]) {
    if configs.is_empty() {
        return std::future::pending().await;
    }
    let changes = configs.iter_mut().map(|config| Box::pin(config.changed()));
    futures::future::select_all(changes).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn checked(texts: &[Text], options: &CollectorOptions) -> (Option<CollectorConfig>, Vec<Diagnosis>) {
    let (mut config, diagnoses) = check_all(texts, &options.sets, &resolve);
    if let (Some(config), Some(address)) = (&mut config, &options.metrics_addr) {
        let address = if address.contains(':') {
            address.clone()
        } else {
            format!(":{address}")
        };
        config.telemetry.metrics = vec![address];
    }
    (config, diagnoses)
}

/// A variable, or the text of a file (`file:PATH`), for references inside of values.
fn resolve(name: &str) -> Option<String> {
    let Some(path) = name.strip_prefix("file:") else {
        return std::env::var(name).ok();
    };
    let path = karez_lifecycle::volumes::locate(std::path::Path::new(path));
    let size = std::fs::metadata(&path).ok()?.len();
    // A value is short; a device or a pipe has no size and is not read either.
    (1..=MAX_VALUE)
        .contains(&size)
        .then(|| std::fs::read_to_string(&path).ok())?
}

fn report(diagnoses: &[Diagnosis]) {
    for diagnosis in diagnoses {
        match diagnosis.severity {
            Severity::Error => tracing::error!("{diagnosis}"),
            Severity::Warning => tracing::warn!("{diagnosis}"),
        }
    }
}

async fn reload(service: &mut Service, configs: &mut [Config], options: &CollectorOptions) {
    let metrics = service.metrics();
    let Some(texts) = texts(configs) else {
        metrics.reload_failures.inc();
        tracing::error!("the configuration is gone; what runs runs on");
        return;
    };
    let (config, diagnoses) = checked(&texts, options);
    report(&diagnoses);
    let Some(config) = config else {
        metrics.reload_failures.inc();
        tracing::error!("the changed configuration has errors; what runs runs on");
        return;
    };
    match service.apply(&config).await {
        Ok(()) => {
            metrics.reloads.inc();
            tracing::info!("the changed configuration runs");
        }
        Err(diagnosis) => {
            metrics.reload_failures.inc();
            tracing::error!("{diagnosis}");
            tracing::error!("the changed configuration does not start; what ran before runs again");
        }
    }
}

/// Checks a configuration as `run` would, without running it: everything that is wrong with it.
pub async fn validate(options: &CollectorOptions) -> Result<Vec<Diagnosis>, RunError> {
    if options.configs.is_empty() && options.sets.is_empty() {
        return Err(RunError::NoConfig);
    }
    let mut configs = open(options).await?;
    let limit = Duration::from_secs(10);
    let never = Shutdown::new();
    let wait = first_texts(&mut configs, options, &never);
    let texts = tokio::time::timeout(limit, wait).await.ok().flatten();
    let texts = texts.ok_or_else(|| RunError::NoFile(PathBuf::from(options.configs.join(", "))))?;
    let (config, mut diagnoses) = checked(&texts, options);
    if let Some(config) = config.filter(|_| !has_errors(&diagnoses)) {
        diagnoses.extend(super::reload::dry_run(&config, &options.net).await);
    }
    Ok(diagnoses)
}
