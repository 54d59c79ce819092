//! Dials targets on this site; the end of the way for connections from here and from links.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use karez_net::Net;
use karez_router_config::ConnectorConfig;
use karez_topology::Load;
use tokio::net::TcpStream;

/// For how long a target that could not be dialled is only taken when nothing else is left.
const SET_ASIDE: Duration = Duration::from_secs(5);

/// A target on this site.
pub(crate) struct Connector {
    pub(crate) name: Arc<str>,
    pub(crate) config: ConnectorConfig,
    /// Connections open to it.
    pub(crate) open: AtomicU64,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failed: Option<Instant>,
    error: Option<String>,
}

impl Connector {
    pub(crate) fn new(name: &str, config: ConnectorConfig) -> Self {
        Self {
            name: name.into(),
            config,
            open: AtomicU64::new(0),
            health: Mutex::default(),
        }
    }

    /// How busy it is, and whether it failed lately.
    pub(crate) fn load(&self) -> Load {
        let failed = self.health().failed;
        Load {
            open: self.open.load(Ordering::Relaxed),
            set_aside: failed.is_some_and(|at| at.elapsed() < SET_ASIDE),
        }
    }

    /// Why the last dial failed.
    pub(crate) fn error(&self) -> Option<String> {
        self.health().error.clone()
    }

    /// Dials it. The second value says whether its health changed.
    pub(crate) async fn dial(&self, net: &Net) -> (Result<TcpStream, String>, bool) {
        let result = net.connect_tcp(&self.config.host, self.config.port).await;
        let result = result.map_err(|error| error.to_string());
        let mut health = self.health();
        let error = result.as_ref().err().cloned();
        let changed = health.error != error;
        if changed && let Some(error) = &error {
            tracing::warn!(connector = %self.name, address = %self.config.address, error, "target cannot be reached");
        }
        health.failed = error.is_some().then(Instant::now);
        health.error = error;
        (result, changed)
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().expect("nothing panics while it is held")
    }
}

/// Counts an open connection for as long as it lives.
pub(crate) struct Counted<T: AsRef<AtomicU64>>(T);

impl<T: AsRef<AtomicU64>> Counted<T> {
    pub(crate) fn new(what: T) -> Self {
        what.as_ref().fetch_add(1, Ordering::Relaxed);
        Self(what)
    }
}

impl<T: AsRef<AtomicU64>> Drop for Counted<T> {
    fn drop(&mut self) {
        self.0.as_ref().fetch_sub(1, Ordering::Relaxed);
    }
}

/// A shared thing with a count of open connections.
pub(crate) struct Opens<T>(pub(crate) Arc<T>);

impl AsRef<AtomicU64> for Opens<Connector> {
    fn as_ref(&self) -> &AtomicU64 {
        &self.0.open
    }
}

impl AsRef<AtomicU64> for Opens<crate::link::LiveLink> {
    fn as_ref(&self) -> &AtomicU64 {
        &self.0.open
    }
}

impl AsRef<AtomicU64> for Opens<AtomicU64> {
    fn as_ref(&self) -> &AtomicU64 {
        &self.0
    }
}
