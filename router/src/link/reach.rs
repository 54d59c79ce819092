//! Reaching a peer: over each transport that the link may use, at each of its addresses; the first that is up wins, and the peer says hello.
//!
//! ```text
//!  a round    0 ms  QUIC, first address ──┐
//!           250 ms  TLS, or as soon as    ├─▶ the first connection ──▶ hello ──▶ a session
//!                   QUIC failed ──────────┤
//!           500 ms  QUIC, next address … ─┘
//!  the next round soon after, beside what is still under way: rounds.rs
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use karez_identity::TlsMaterial;
use karez_router_config::api::{Direction, LinkState};
use karez_router_config::{LinkConfig, Transport};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::dial::Dial;
use super::failure::Failure;
use super::rounds;
use super::session::{Session, Side, greet};
use super::transport::proxy::Proxy;
use super::transport::route::TcpRoute;
use super::transport::tls::{Redial, TlsDialler};
use super::transport::{Connection, TransportKind, quic};
use crate::shared::Shared;

/// What comes first has this long before the next is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// An attempt that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// What it takes to reach a peer.
pub(crate) struct Reach {
    pub(crate) shared: Arc<Shared>,
    /// What the document calls the link.
    pub(crate) name: String,
    /// What it costs, which may change.
    pub(crate) cost: watch::Receiver<u32>,
    pub(crate) config: LinkConfig,
    material: ArcSwap<TlsMaterial>,
    /// What links over TLS make their lanes with.
    diallers: Mutex<Vec<TlsDialler>>,
}

/// One thing to try.
#[derive(Clone, Copy, Debug)]
enum Way {
    Quic(SocketAddr),
    Tls,
}

impl Reach {
    pub(crate) fn new(shared: Arc<Shared>, dial: &Dial, material: TlsMaterial) -> Self {
        Self {
            shared,
            name: dial.name.clone(),
            cost: dial.cost.clone(),
            config: dial.config.clone(),
            material: ArcSwap::from_pointee(material),
            diallers: Mutex::default(),
        }
    }

    /// What we prove ourselves with now.
    pub(super) fn material(&self) -> Arc<TlsMaterial> {
        self.material.load_full()
    }

    /// Takes over a renewed credential for all connections to come, also of links that are up.
    pub(super) fn renew(&self, material: &TlsMaterial) {
        self.material.store(Arc::new(material.clone()));
        let mut diallers = self.diallers.lock().unwrap_or_else(PoisonError::into_inner);
        diallers.retain(TlsDialler::is_shared);
        for dialler in diallers.iter() {
            if let Err(error) = dialler.renew(material, self.config.server_name.as_deref()) {
                tracing::error!(tls = self.config.tls, %error, "the renewed TLS profile is not usable");
            }
        }
    }

    fn remember(&self, dialler: &TlsDialler) {
        let mut diallers = self.diallers.lock().unwrap_or_else(PoisonError::into_inner);
        diallers.retain(TlsDialler::is_shared);
        diallers.push(dialler.clone());
    }

    /// Tries until a session is up, or the peer refuses us; each round that failed is told.
    pub(crate) async fn first(self: &Arc<Self>, told: impl Fn(&Failure)) -> Result<Session, Failure> {
        let answered = Arc::new(Notify::new());
        let round = || {
            let (reach, answered) = (self.clone(), answered.clone());
            async move {
                let connection = reach.round().await?;
                answered.notify_one();
                reach.greet(connection).await
            }
        };
        rounds::first(round, &answered, told).await
    }

    /// A session over one transport.
    pub(crate) async fn session_over(&self, kind: TransportKind) -> Result<Session, Failure> {
        self.greet(self.over(kind).await?).await
    }

    async fn greet(&self, connection: Connection) -> Result<Session, Failure> {
        let side = Side {
            connection,
            direction: Direction::Outgoing,
            role: self.config.role,
            name: self.name.clone(),
            cost: *self.cost.borrow(),
            first: None,
            admission: None,
        };
        greet(&self.shared, side).await
    }

    /// One attempt over one transport.
    async fn over(&self, kind: TransportKind) -> Result<Connection, Failure> {
        let mut last = Failure::down(format!("{} has no address", self.config.host));
        for way in self.ways().await? {
            if way.kind() == kind {
                match self.attempt(way).await {
                    Ok(connection) => return Ok(connection),
                    Err(failure) => last = failure,
                }
            }
        }
        Err(last)
    }

    /// Everything once, each a little after the one before.
    async fn round(self: &Arc<Self>) -> Result<Connection, Failure> {
        let mut waiting = self.ways().await?;
        let mut running = JoinSet::new();
        let mut failures = Vec::new();
        loop {
            if let Some(way) = waiting.pop_front() {
                let reach = self.clone();
                running.spawn(async move { (way, reach.attempt(way).await) });
            } else if running.is_empty() {
                return Err(together(failures));
            }
            tokio::select! {
                Some(ended) = running.join_next() => match ended {
                    Ok((_, Ok(connection))) => return Ok(connection),
                    Ok((way, Err(failure))) => failures.push((way.kind(), failure)),
                    Err(error) => tracing::error!(%error, "an attempt to link ended badly"),
                },
                () = sleep(HEAD_START), if !waiting.is_empty() => {}
            }
        }
    }

    /// What there is to try, in this order.
    async fn ways(&self) -> Result<VecDeque<Way>, Failure> {
        let choice = self.config.transport;
        let mut ways = VecDeque::new();
        let mut unknown = None;
        if choice != Transport::Tls {
            match self.shared.net.resolve(&self.config.host, self.config.port).await {
                Ok(addresses) => ways.extend(addresses.into_iter().map(Way::Quic)),
                Err(error) => unknown = Some(Failure::down(error.to_string())),
            }
        }
        if choice != Transport::Quic {
            // A proxy may know a name that we do not.
            ways.insert(ways.len().min(1), Way::Tls);
        }
        match unknown {
            Some(failure) if ways.is_empty() => Err(failure),
            _ => Ok(ways),
        }
    }

    async fn attempt(&self, way: Way) -> Result<Connection, Failure> {
        let (attempted, late) = match way {
            Way::Quic(address) => (
                timeout(LIMIT, self.quic(address)).await,
                format!(
                    "no answer from {address} (UDP): no router listens there, or UDP is blocked on the way"
                ),
            ),
            Way::Tls => (
                timeout(LIMIT, self.tls()).await,
                format!("no answer from {}:{} (TCP)", self.config.host, self.config.port),
            ),
        };
        attempted.unwrap_or_else(|_| Err(Failure::down(late)))
    }

    async fn quic(&self, address: SocketAddr) -> Result<Connection, Failure> {
        let endpoint = self.shared.client_endpoints.towards(address);
        let endpoint =
            endpoint.map_err(|error| Failure::down(format!("cannot open a UDP socket: {error}")))?;
        let settings = self.shared.settings(self.config.congestion);
        quic::dial(&endpoint, &self.material(), address, settings)
            .await
            .map_err(|failure| self.named(failure))
    }

    async fn tls(&self) -> Result<Connection, Failure> {
        let (host, port) = (self.config.host.clone(), self.config.port);
        let variable = |name: &str| std::env::var(name).ok();
        let proxy = Proxy::choose(&self.config.proxy, &host, port, variable);
        let route = TcpRoute {
            net: self.shared.net.clone(),
            host,
            port,
            proxy: proxy.map_err(|error| Failure::down(error.to_string()))?,
        };
        let settings = self.shared.settings(self.config.congestion);
        let dialler = TlsDialler::new(&self.material(), self.config.server_name.as_deref(), settings);
        let dialler = dialler.map_err(|error| self.named(Failure::refused(error.to_string())))?;
        self.remember(&dialler);
        let socket = route.connect().await;
        let socket = socket.map_err(|error| Failure::down(error.to_string()))?;
        let redial: Redial = Arc::new(move || {
            let route = route.clone();
            Box::pin(async move { Ok(route.connect().await?) })
        });
        Ok(dialler.connect(socket, Some(redial)).await?)
    }

    fn named(&self, failure: Failure) -> Failure {
        match failure.state {
            LinkState::Refused if !failure.text.contains("peer") => {
                Failure::refused(format!("TLS profile \"{}\": {}", self.config.tls, failure.text))
            }
            _ => failure,
        }
    }
}

impl Way {
    fn kind(self) -> TransportKind {
        match self {
            Self::Quic(_) => TransportKind::Quic,
            Self::Tls => TransportKind::Tls,
        }
    }
}

/// One failure of many: refused only when nothing else could have helped.
fn together(mut failures: Vec<(TransportKind, Failure)>) -> Failure {
    // QUIC's first: it is what a link is meant to be on.
    failures.sort_by_key(|(kind, _)| *kind);
    let refused = failures
        .iter()
        .all(|(_, failure)| failure.state == LinkState::Refused);
    let several = failures
        .iter()
        .any(|(kind, _)| Some(*kind) != failures.first().map(|first| first.0));
    let mut texts: Vec<String> = Vec::new();
    for (kind, failure) in &failures {
        if texts.iter().any(|text| text.ends_with(&failure.text)) {
            continue;
        }
        texts.push(if several {
            format!("over {}: {}", kind.as_str(), failure.text)
        } else {
            failure.text.clone()
        });
    }
    match (failures.is_empty(), refused) {
        (true, _) => Failure::down("no way to try"),
        (false, true) => Failure::refused(failures.swap_remove(0).1.text),
        (false, false) => Failure::down(texts.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_refuses_only_when_every_transport_says_so() {
        let (quic, tls) = (TransportKind::Quic, TransportKind::Tls);
        let both = together(vec![
            (tls, Failure::refused("no")),
            (quic, Failure::refused("not you")),
        ]);
        assert_eq!(both, Failure::refused("not you"));
        let mixed = together(vec![
            (tls, Failure::refused("no")),
            (quic, Failure::down("silent")),
        ]);
        assert_eq!(mixed, Failure::down("over quic: silent; over tls: no"));
        let alone = together(vec![
            (quic, Failure::down("silent")),
            (quic, Failure::down("silent")),
        ]);
        assert_eq!(alone, Failure::down("silent"));
    }
}
