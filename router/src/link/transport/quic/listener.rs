//! A UDP port that peers link to.

use std::net::SocketAddr;

use karez_identity::TlsMaterial;
use quinn::{Endpoint, Incoming};
use tokio::net::UdpSocket;

use super::connection::QuicConnection;
use super::endpoint::{server_config, server_endpoint};
use crate::link::transport::{Connection, ConnectionError};

/// A bound UDP port that takes connections; clones are the same port.
#[derive(Clone)]
pub(crate) struct QuicListener(Endpoint);

/// A peer that wants to connect.
pub(crate) struct QuicIncoming(Incoming);

impl QuicListener {
    /// Takes connections on a bound socket.
    pub(crate) fn new(socket: UdpSocket, profile: &TlsMaterial) -> std::io::Result<Self> {
        Ok(Self(server_endpoint(socket, profile)?))
    }

    /// Where it is bound.
    pub(crate) fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Takes over a renewed credential for handshakes to come; connections that are up stay.
    pub(crate) fn renew(&self, profile: &TlsMaterial) -> Result<(), String> {
        let local = self.0.local_addr().map_err(|error| error.to_string())?;
        let config = server_config(profile, local).map_err(|error| error.to_string())?;
        self.0.set_server_config(Some(config));
        Ok(())
    }

    /// The next peer that wants to connect; `None` once closed.
    pub(crate) async fn accept(&self) -> Option<QuicIncoming> {
        self.0.accept().await.map(QuicIncoming)
    }

    /// Closes the port and every connection on it.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.0.close(code.into(), reason.as_bytes());
    }

    /// Waits until the last farewells are sent.
    pub(crate) async fn wait_idle(&self) {
        self.0.wait_idle().await;
    }
}

impl QuicIncoming {
    /// Where it comes from, as it says.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Tells it that no connections are taken.
    pub(crate) fn refuse(self) {
        self.0.refuse();
    }

    /// Demands a proof of its address first, unless it gave one; then it is handed back.
    pub(crate) fn challenge(self) -> Option<Self> {
        if !self.0.may_retry() {
            return Some(self);
        }
        // It may retry, so that the demand can be sent.
        let _ = self.0.retry();
        None
    }

    /// The handshake.
    pub(crate) async fn handshake(self) -> Result<Connection, ConnectionError> {
        let connection = self.0.accept()?.await?;
        Ok(Connection::Quic(QuicConnection(connection)))
    }
}
