//! One record a connection: written exactly once, also when the connection's task is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use karez_topology::Address;
use prometheus_client::metrics::counter::Counter;

use crate::access::{AccessLog, Verdict};
use crate::caller::Caller;
use crate::metrics::{Ending, Metrics, Way};
use crate::shared::Shared;

/// Where a carried connection came from.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    /// A socket on this site.
    Socket(SocketAddr),
    /// A link, by its name.
    Link(String),
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Link(name) => write!(f, "link {name}"),
        }
    }
}

/// The bytes of one direction: the connection's own count and the router's total.
pub(crate) struct Meter {
    own: AtomicU64,
    total: Counter,
}

impl Meter {
    fn new(total: Counter) -> Self {
        Self {
            own: AtomicU64::default(),
            total,
        }
    }

    /// Adds bytes that were handed on.
    pub(crate) fn add(&self, bytes: u64) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.total.inc_by(bytes);
    }

    fn read(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }
}

/// What is known about a connection; dropping it writes it.
pub(crate) struct ConnectionRecord {
    metrics: Arc<Metrics>,
    access: Arc<AccessLog>,
    caller: Caller,
    client: Client,
    address: Address,
    route: String,
    started: Instant,
    ending: Ending,
    error: Option<String>,
    /// Client to target.
    pub(crate) sent: Meter,
    /// Target to client.
    pub(crate) received: Meter,
}

impl ConnectionRecord {
    /// Begins a connection's record.
    pub(crate) fn new(shared: &Shared, client: Client, address: Address, caller: Caller) -> Self {
        let metrics = &shared.metrics;
        metrics.open.inc();
        Self {
            metrics: metrics.clone(),
            access: shared.access.clone(),
            caller,
            client,
            address,
            route: String::new(),
            started: Instant::now(),
            ending: Ending::Abandoned,
            error: None,
            sent: Meter::new(metrics.bytes(Way::Sent)),
            received: Meter::new(metrics.bytes(Way::Received)),
        }
    }

    /// Where it goes.
    pub(crate) fn set_route(&mut self, route: impl Into<String>) {
        self.route = route.into();
    }

    /// Where it goes, as was said.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    /// How it ended.
    pub(crate) fn end(mut self, ending: Ending, error: Option<String>) {
        self.ending = ending;
        self.error = error;
    }
}

impl ConnectionRecord {
    /// Writes it to the access log.
    fn write(&self) {
        let protocol = if self.address.is_udp() { "udp" } else { "tcp" };
        let ends = self.caller.ends;
        tracing::info!(
            target: "access",
            client = ends.map(|ends| tracing::field::display(ends.source)),
            from = %self.client,
            address = %format_args!("{}:{}", self.address.service(), self.address.port),
            protocol,
            route = self.route,
            sent = self.sent.read(),
            received = self.received.read(),
            milliseconds = self.milliseconds(),
            ending = ?self.ending,
            error = self.error,
            traceparent = %self.caller.trace,
            "connection"
        );
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        self.metrics.open.dec();
        self.metrics.ended(self.ending);
        match self.access.admit() {
            Verdict::Off => {}
            Verdict::Write => return self.write(),
            Verdict::Skip => {
                self.metrics.access_skipped.inc();
            }
        }
        tracing::debug!(
            client = %self.client,
            address = %self.address,
            route = self.route,
            sent = self.sent.read(),
            received = self.received.read(),
            milliseconds = self.milliseconds(),
            ending = ?self.ending,
            error = self.error,
            "connection ended"
        );
    }
}
