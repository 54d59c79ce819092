//! A link that is up, as the rest of the router sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use jiff::Timestamp;
use karez_router_config::Role;
use karez_router_config::api::Direction;
use karez_topology::{Announcement, LinkId, Site};
use tokio::sync::watch;

use crate::saturation::Saturation;

use super::failure::{CloseCode, close};
use super::transport::{Connection, ConnectionError, Stream};

/// A link that is up.
pub(crate) struct LiveLink {
    pub(crate) id: LinkId,
    /// The document's name (outgoing) or the token's (incoming).
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) direction: Direction,
    pub(crate) cost: AtomicU32,
    pub(crate) remote: SocketAddr,
    pub(crate) peer: Site,
    pub(crate) since: Timestamp,
    /// Of the certificate that the peer was admitted by (incoming only): serial and fingerprint.
    pub(crate) admitted_by: Option<(String, String)>,
    pub(crate) connection: Connection,
    /// Connections that it carries for us.
    pub(crate) open: AtomicU64,
    /// What the peer said of addresses whose targets are busy.
    pub(crate) saturation: Saturation,
    /// What the session is to announce; only the latest counts.
    pub(crate) say: watch::Sender<Arc<Announcement>>,
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
