//! Dials targets on this site; the end of the way for connections from here and from links.
//!
//! ```text
//!  dial fails ──▶ set aside (taken only when nothing else is left) ──▶ probes, ever rarer ──▶ one succeeds ──▶ back at once
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use karez_net::Net;
use karez_router_config::{ConnectorConfig, Protocol};
use karez_topology::Load;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Fault;
use crate::proxy_protocol::{Ends, encode};
use crate::shared::Shared;

/// A target that could not be dialled is probed after this, then ever more rarely.
const FIRST_PROBE: Duration = Duration::from_millis(250);
/// It is probed at least this often.
const RAREST_PROBE: Duration = Duration::from_secs(10);
/// A probe that takes longer has failed.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// A socket that is connected to a target.
pub(crate) enum Socket {
    /// A connection.
    Tcp(TcpStream),
    /// For datagrams.
    Udp(UdpSocket),
}

/// A target on this site.
pub(crate) struct Connector {
    pub(crate) name: Arc<str>,
    pub(crate) config: ConnectorConfig,
    /// Connections open to it.
    pub(crate) open: AtomicU64,
    /// Cancelled when the document no longer has it; what it carries may finish.
    pub(crate) removed: CancellationToken,
    set_aside: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Connector {
    pub(crate) fn new(name: &str, config: ConnectorConfig) -> Self {
        Self {
            name: name.into(),
            config,
            open: AtomicU64::new(0),
            removed: CancellationToken::new(),
            set_aside: AtomicBool::new(false),
            error: Mutex::default(),
        }
    }

    /// How busy it is, and whether it failed lately.
    pub(crate) fn load(&self) -> Load {
        let open = self.open.load(Ordering::Relaxed);
        Load {
            open,
            set_aside: self.set_aside.load(Ordering::Relaxed),
            saturated: self
                .config
                .capacity
                .is_some_and(|capacity| open >= u64::from(capacity)),
        }
    }

    /// Why the last dial failed.
    pub(crate) fn error(&self) -> Option<String> {
        self.error
            .lock()
            .expect("nothing panics while it is held")
            .clone()
    }

    /// Dials it. When that fails it is set aside, and probed until it can be reached.
    ///
    /// A target that wants to know is told whose connection it is.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        ends: Option<Ends>,
    ) -> Result<Socket, String> {
        let mut result = self.connect(shared).await;
        if let (Ok(Socket::Tcp(stream)), Some(version)) = (&mut result, self.config.send_proxy_protocol)
            && let Err(error) = stream.write_all(&encode(version, ends)).await
        {
            result = Err(format!("it did not take the PROXY header: {error}"));
        }
        self.note(shared, result.as_ref().err());
        if result.is_err() {
            shared.metrics.fault(Fault::TargetDown);
        }
        result
    }

    async fn connect(&self, shared: &Shared) -> Result<Socket, String> {
        let (host, port) = (&self.config.host, self.config.port);
        match self.config.protocol {
            Protocol::Tcp => {
                let connected = shared.net.connect_tcp(host, port).await;
                connected.map(Socket::Tcp).map_err(|error| error.to_string())
            }
            Protocol::Udp => connect_udp(&shared.net, host, port).await.map(Socket::Udp),
        }
    }

    /// Takes note of what became of a dial.
    pub(crate) fn note(self: &Arc<Self>, shared: &Arc<Shared>, error: Option<&String>) {
        if error.is_none() && !self.set_aside.load(Ordering::Relaxed) {
            return;
        }
        let changed = {
            let mut known = self.error.lock().expect("nothing panics while it is held");
            let changed = known.as_ref() != error;
            *known = error.cloned();
            changed
        };
        let was = self.set_aside.swap(error.is_some(), Ordering::Relaxed);
        let address = &self.config.address;
        match error {
            Some(error) if changed => {
                tracing::warn!(connector = %self.name, %address, error, "target cannot be reached");
            }
            None if was => tracing::info!(connector = %self.name, %address, "target can be reached again"),
            _ => {}
        }
        if error.is_some() && !was {
            tokio::spawn(probe(self.clone(), shared.clone()));
        }
        if changed {
            shared.touch();
        }
    }
}

/// A UDP socket that talks to the target only. Whether anybody is there shows when something is sent.
async fn connect_udp(net: &Net, host: &str, port: u16) -> Result<UdpSocket, String> {
    let found = net.resolve(host, port).await.map_err(|error| error.to_string())?;
    let target = found.first().ok_or_else(|| format!("{host} has no address"))?;
    let any: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let connected = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(target).await?;
        Ok::<_, std::io::Error>(socket)
    };
    connected.await.map_err(|error| format!("{target}: {error}"))
}

/// Dials until the target answers, is removed, or the router stops.
async fn probe(connector: Arc<Connector>, shared: Arc<Shared>) {
    let mut pause = match connector.config.protocol {
        Protocol::Tcp => FIRST_PROBE,
        // Nothing to see but that it has an address: only a session shows more.
        Protocol::Udp => RAREST_PROBE,
    };
    let probing = async {
        while connector.set_aside.load(Ordering::Relaxed) {
            sleep(pause.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
            pause = (pause * 2).min(RAREST_PROBE);
            match timeout(PROBE_LIMIT, connector.connect(&shared)).await {
                Ok(Ok(_)) => return connector.note(&shared, None),
                Ok(Err(error)) => connector.note(&shared, Some(&error)),
                Err(_) => {}
            }
        }
    };
    tokio::select! {
        () = probing => {}
        () = connector.removed.cancelled() => {}
        () = shared.shutdown.triggered() => {}
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
