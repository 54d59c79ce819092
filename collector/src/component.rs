//! The contract of components. Data goes down, its fate comes back up:
//!
//! ```text
//! Receiver ──Consumer::send(batch)──▶ Processor ──▶ … ──▶ queue ──▶ Exporter::export(batch)
//!    ▲                                                      │              │
//!    └────────── Ok, or Refusal (retryable or not) ─────────┘   Outcome ◀──┘
//! ```
//!
//! A component is built from its configuration by `registry.rs`, started once with a [`ComponentContext`], and stopped
//! by [`Running::stop`]. It binds and dials through `cx.net`, finds extensions through `cx`, and spawns nothing that its
//! [`Running`] does not hold.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use karez_collector_config::common::Auth;
use karez_collector_config::{ComponentId, Signal};
use karez_lifecycle::Shutdown;
use karez_net::{BindError, Net};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::connectors::Connected;
use crate::extensions::auth::{ClientAuth, ServerAuth};
use crate::extensions::file_storage::Storage;
use crate::extensions::jaeger_storage::TraceStore;
use crate::metrics::Metrics;

/// Why data was not taken. What to answer a client: retryable → `Unavailable`/503, else `InvalidArgument`/400.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Why, for the client and the log.
    pub reason: String,
    /// Whether the same data may be taken later.
    pub retryable: bool,
    /// When to try again.
    pub after: Option<Duration>,
}

impl Refusal {
    /// Later, please.
    pub fn later(reason: impl Into<String>) -> Self {
        Refusal {
            reason: reason.into(),
            retryable: true,
            after: None,
        }
    }

    /// Never.
    pub fn never(reason: impl Into<String>) -> Self {
        Refusal {
            reason: reason.into(),
            retryable: false,
            after: None,
        }
    }
}

/// What became of an export.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The other side has it.
    Delivered,
    /// It may be tried again, at the earliest after so long.
    Retry {
        /// What the other side asked for.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// The other side does not want it; trying again is of no use.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Names a batch to the other side: the same for every attempt to deliver it.
pub type BatchName = [u8; 16];

/// Takes batches: the next processor, a fan-out, an exporter's queue.
pub trait Consume: Send + Sync {
    /// Takes a batch, or says why not.
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// A handle to what takes batches.
#[derive(Clone)]
pub struct Consumer {
    consume: Arc<dyn Consume>,
    durable: bool,
}

impl Consumer {
    /// Wraps what takes batches.
    pub fn new(consume: impl Consume + 'static) -> Self {
        Consumer {
            consume: Arc::new(consume),
            durable: false,
        }
    }

    /// The same, with the promise that what it has taken is on a disk; or without.
    pub fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Whether what it has taken is to outlive the process. Then whoever stands before it answers only when it has
    /// answered.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Hands a batch on. `Ok` means that it is delivered, or queued as the pipeline promises.
    pub async fn send(&self, batch: Batch) -> Result<(), Refusal> {
        self.consume.consume(batch).await
    }
}

/// What a receiver sends to: one consumer a signal that its pipelines carry.
#[derive(Clone)]
pub struct Consumers {
    pub(crate) receiver: ComponentId,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) by_signal: [Option<Consumer>; 3],
}

impl Consumers {
    /// The consumer of a signal, if a pipeline with this receiver carries it. What goes through it is counted under
    /// the transport (`grpc`, `http`, `udp`).
    pub fn of(&self, signal: Signal, transport: &'static str) -> Option<Consumer> {
        let next = self.by_signal[signal as usize].clone()?;
        let meter = self.metrics.receiver(&self.receiver, transport, signal);
        Some(Consumer::new(Metered { next, meter }))
    }
}

struct Metered {
    next: Consumer,
    meter: crate::metrics::ReceiverMeter,
}

impl Consume for Metered {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let items = batch.items as u64;
            let taken = self.next.send(batch).await;
            match &taken {
                Ok(()) => self.meter.accepted.inc_by(items),
                Err(refusal) if refusal.retryable => self.meter.refused.inc_by(items),
                Err(_) => self.meter.failed.inc_by(items),
            };
            taken
        })
    }
}

/// Brings data in.
pub trait Receiver: Send + Sync {
    /// Binds what is to be bound and starts to receive. Everything runs until `Running::stop`.
    fn start<'a>(
        &'a self,
        consumers: Consumers,
        cx: &'a ComponentContext,
    ) -> BoxFuture<'a, Result<Running, StartError>>;
}

/// Changes data, or holds it for a while.
pub trait Processor: Send + Sync {
    /// Stands before `next`. Stopping flushes what is held.
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError>;
}

/// Takes data out. Queue, retry and timeout stand around it; it only tries once.
pub trait Exporter: Send + Sync {
    /// Starts what runs by itself: a server from which data is taken.
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        let _ = cx;
        Box::pin(async { Ok(Running::none()) })
    }

    /// Tries to deliver a batch.
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome>;

    /// The same for a batch with a name, by which a Karez collector on the other side knows it when it comes twice.
    fn export_named(&self, batch: Batch, name: BatchName) -> BoxFuture<'_, Outcome> {
        let _ = name;
        self.export(batch)
    }
}

/// An exporter of some pipelines and a receiver of others.
pub trait Connector: Send + Sync {
    /// Stands between pipelines: `next` takes what comes out, by signal. Stopping sends what is held.
    fn start(&self, next: [Option<Consumer>; 3], cx: &ComponentContext) -> Result<Connected, StartError>;
}

/// What a collector has beside its pipelines: authenticators, stores, servers.
pub trait Extension: Send + Sync {
    /// Starts what runs by itself.
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        let _ = cx;
        Box::pin(async { Ok(Running::none()) })
    }

    /// Checks callers.
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        None
    }

    /// Adds credentials to calls.
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        None
    }

    /// A store of traces by its name.
    fn trace_store(&self, name: &str) -> Option<Arc<TraceStore>> {
        let _ = name;
        None
    }

    /// Where a component may keep files. `section` is what kind it is: `exporter`.
    fn storage(&self, section: &str, id: &ComponentId) -> Option<Storage> {
        let _ = (section, id);
        None
    }

    /// Hears when the pipelines run, and when they no longer do.
    fn pipelines_ready(&self, ready: bool) {
        let _ = ready;
    }
}

/// Why a component does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("{source}")]
    Bind {
        /// The key below the component (`protocols.grpc.endpoint`).
        key: String,
        /// Why.
        source: Box<BindError>,
    },
    /// Something that the document names is not as it says (a certificate file, an extension).
    #[error("{message}")]
    Config {
        /// The key below the component.
        key: String,
        /// What is wrong.
        message: String,
        /// What to do.
        mend: String,
    },
}

impl StartError {
    /// Something that the document names is not as it says.
    pub fn config(key: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) -> Self {
        StartError::Config {
            key: key.into(),
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// An address that cannot be had.
    pub fn bind(key: impl Into<String>, source: BindError) -> Self {
        StartError::Bind {
            key: key.into(),
            source: Box::new(source),
        }
    }

    /// The key below the component.
    pub fn key(&self) -> &str {
        match self {
            StartError::Bind { key, .. } | StartError::Config { key, .. } => key,
        }
    }

    /// What to do.
    pub fn mend(&self) -> &str {
        match self {
            StartError::Bind { .. } => "stop what holds the address, or choose another",
            StartError::Config { mend, .. } => mend,
        }
    }
}

/// The tasks of a started component. Dropped without [`Running::stop`], they are ended at once.
#[derive(Debug, Default)]
pub struct Running {
    stop: Shutdown,
    tasks: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Nothing runs.
    pub fn none() -> Self {
        Running::default()
    }

    /// What asks the tasks to stop; they are to finish what they hold.
    pub fn stopping(&self) -> Shutdown {
        self.stop.clone()
    }

    /// Runs a task until it ends or the deadline of `stop` has passed.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Notes an address that was bound.
    pub fn bound(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.addresses.extend(addresses);
    }

    /// What was bound.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Adds another's tasks, which then stop with these.
    pub fn join(&mut self, mut other: Running) {
        let (mine, theirs) = (self.stop.clone(), std::mem::take(&mut other.stop));
        self.tasks.append(&mut other.tasks);
        self.addresses.append(&mut other.addresses);
        self.tasks.push(tokio::spawn(async move {
            mine.triggered().await;
            theirs.trigger();
        }));
    }

    /// Asks the tasks to stop, waits for them until the deadline, then ends them.
    pub async fn stop(mut self, deadline: Instant) {
        self.stop.trigger();
        for task in &mut self.tasks {
            if tokio::time::timeout_at(deadline, &mut *task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.trigger();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The extensions that run, by id.
#[derive(Clone, Default)]
pub struct Extensions(pub(crate) Arc<Vec<(ComponentId, Arc<dyn Extension>)>>);

impl Extensions {
    /// An extension.
    pub fn find(&self, id: &ComponentId) -> Option<&Arc<dyn Extension>> {
        self.0
            .iter()
            .find(|(other, _)| other == id)
            .map(|(_, extension)| extension)
    }

    /// All of them, in the order of their start.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Extension>> {
        self.0.iter().map(|(_, extension)| extension)
    }
}

/// What a component is given when it starts.
#[derive(Clone)]
pub struct ComponentContext {
    /// Its id.
    pub id: ComponentId,
    /// `receivers.otlp`: for messages.
    pub key: String,
    /// Sockets and names.
    pub net: Net,
    /// The extensions that run before all else.
    pub extensions: Extensions,
    /// The collector's own metrics.
    pub metrics: Arc<Metrics>,
}

impl ComponentContext {
    /// The authenticator that a server's `auth:` names.
    pub fn server_auth(&self, auth: Option<&Auth>) -> Result<Option<Arc<dyn ServerAuth>>, StartError> {
        self.authenticator(auth, |extension| extension.server_auth())
    }

    /// The authenticator that a client's `auth:` names.
    pub fn client_auth(&self, auth: Option<&Auth>) -> Result<Option<Arc<dyn ClientAuth>>, StartError> {
        self.authenticator(auth, |extension| extension.client_auth())
    }

    fn authenticator<T>(
        &self,
        auth: Option<&Auth>,
        of: impl Fn(&dyn Extension) -> Option<T>,
    ) -> Result<Option<T>, StartError> {
        let Some(auth) = auth else { return Ok(None) };
        let id: Option<ComponentId> = auth.authenticator.parse().ok();
        match id.and_then(|id| of(self.extensions.find(&id)?.as_ref())) {
            Some(authenticator) => Ok(Some(authenticator)),
            None => {
                let message = format!(
                    "the extension `{}` cannot be used for this here",
                    auth.authenticator
                );
                Err(StartError::config(
                    "auth.authenticator",
                    message,
                    "name an authenticator that the service starts",
                ))
            }
        }
    }

    /// The storage that a key of this component names.
    pub fn storage(&self, section: &str, key: &str, name: &str) -> Result<Storage, StartError> {
        let id: Option<ComponentId> = name.parse().ok();
        let storage = id.and_then(|id| self.extensions.find(&id)?.storage(section, &self.id));
        storage.ok_or_else(|| {
            let message = format!("the extension `{name}` cannot keep data");
            StartError::config(
                key,
                message,
                "name a `file_storage` extension that the service starts",
            )
        })
    }

    /// A store of traces by its name.
    pub fn trace_store(&self, name: &str) -> Option<Arc<TraceStore>> {
        self.extensions
            .iter()
            .find_map(|extension| extension.trace_store(name))
    }
}
