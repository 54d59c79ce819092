//! A link that is up, as the rest of the router sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use karez_router_config::Role;
use karez_router_config::api::Direction;
use karez_topology::{Filter, LinkId, LinkKind, RouterId, Site};
use tokio::sync::Notify;

use crate::saturation::Saturation;
use crate::udp::Exchange;

use super::failure::{CloseCode, close};
use super::transport::{Connection, ConnectionError, Stream};

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
    /// Of the certificate that the peer was admitted by (incoming only): serial and fingerprint.
    pub(crate) admitted_by: Option<(String, String)>,
    pub(crate) connection: Connection,
    /// Connections that it carries for us.
    pub(crate) open: AtomicU64,
    /// What the peer said of addresses whose targets are busy.
    pub(crate) saturation: Saturation,
    /// Sessions of UDP whose datagrams may go beside their streams, on `connection`.
    pub(crate) exchange: Exchange,
    /// What the peer may offer and reach.
    pub(crate) filter: ArcSwap<Filter>,
    /// Wakes the session when there is something to tell the peer.
    pub(crate) wake: Notify,
}

impl LiveLink {
    /// Opens a stream on it.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectionError> {
        self.connection.open().await
    }

    /// Whether it has failed, though its session may not have noticed yet.
    pub(crate) fn is_dead(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Closes it for both sides; what it carries is reset.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        close(&self.connection, code, reason);
    }
}
