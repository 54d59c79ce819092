//! A link that is up, as the rest of the router sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use karez_router_config::Role;
use karez_router_config::api::Direction;
use karez_topology::{Filter, LinkId, LinkKind, RouterId, Site};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::saturation::Saturation;
use crate::udp::Exchange;

use super::credential::Credential;
use super::data::Further;
use super::failure::{CloseCode, close};
use super::transport::{Connection, ConnectionError, Statistics, Stream, TransportKind};

/// A link that is up.
pub(crate) struct LiveLink {
    pub(crate) id: LinkId,
    pub(crate) kind: LinkKind,
    /// The document's name (outgoing) or the token's (incoming).
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) direction: Direction,
    pub(crate) cost: AtomicU32,
    pub(crate) remote: SocketAddr,
    /// The router at the other end.
    pub(crate) router: RouterId,
    /// Its site.
    pub(crate) peer: Site,
    pub(crate) since: Timestamp,
    /// What each side holds by.
    pub(crate) credential: Credential,
    pub(crate) connection: Connection,
    /// Further connections that carry it.
    pub(crate) further: Further,
    /// What they show.
    pub(crate) ticket: Vec<u8>,
    /// Connections that it carries for us.
    pub(crate) open: AtomicU64,
    /// Connections that it carries for the peer.
    pub(crate) serving: AtomicU64,
    /// What the peer said of addresses whose targets are busy.
    pub(crate) saturation: Saturation,
    /// Sessions of UDP whose datagrams may go beside their streams, on `connection`.
    pub(crate) exchange: Exchange,
    /// What the peer may offer and reach.
    pub(crate) filter: ArcSwap<Filter>,
    /// Wakes the session when there is something to tell the peer.
    pub(crate) wake: Notify,
    /// The link goes on over another transport: this one takes nothing new, and the peer is told.
    pub(crate) leaving: CancellationToken,
    /// Nothing has arrived from the peer for a moment: other ways come first.
    pub(crate) suspect: watch::Sender<bool>,
}

impl LiveLink {
    /// Opens a stream on it.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectionError> {
        self.further.next(&self.connection).open().await
    }

    /// Whether it has failed, though its session may not have noticed yet.
    pub(crate) fn is_dead(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// What carries it.
    pub(crate) fn transport(&self) -> TransportKind {
        self.connection.kind()
    }

    /// How all that carries it does.
    pub(crate) fn statistics(&self) -> Statistics {
        self.further.statistics(self.connection.statistics())
    }

    /// How many connections carry it.
    pub(crate) fn connections(&self) -> usize {
        1 + self.further.len()
    }

    /// Whether it carries nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0 && self.serving.load(Ordering::Relaxed) == 0
    }

    /// Closes it for both sides; what it carries is reset.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.further.close(code, reason);
        close(&self.connection, code, reason);
    }
}

/// A link, counted as serving the peer.
pub(crate) struct Serving(pub(crate) Arc<LiveLink>);

impl AsRef<AtomicU64> for Serving {
    fn as_ref(&self) -> &AtomicU64 {
        &self.0.serving
    }
}
