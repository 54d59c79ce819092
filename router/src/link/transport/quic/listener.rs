//! A UDP port that peers link to.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use karez_identity::TlsMaterial;
use quinn::{Endpoint, Incoming, ServerConfig};
use tokio::net::UdpSocket;

use super::connection::QuicConnection;
use super::driver::begun;
use super::endpoint::{server_config, server_endpoint, towards};
use crate::link::transport::{Connection, ConnectionError, CryptoSetupError, Settings};

/// A bound UDP port that takes connections; clones are the same port.
#[derive(Clone)]
pub(crate) struct QuicListener(Arc<Port>);

struct Port {
    endpoint: Endpoint,
    config: ArcSwap<ServerConfig>,
    settings: Settings,
}

/// A peer that wants to connect.
pub(crate) struct QuicIncoming {
    incoming: Incoming,
    port: Arc<Port>,
}

impl QuicListener {
    /// Takes connections on a bound socket.
    pub(crate) fn new(
        socket: UdpSocket,
        profile: &TlsMaterial,
        settings: Settings,
    ) -> Result<Self, CryptoSetupError> {
        let config = server_config(profile, settings)?;
        Ok(Self(Arc::new(Port {
            endpoint: server_endpoint(socket, profile, config.clone())?,
            config: ArcSwap::from_pointee(config),
            settings,
        })))
    }

    /// Where it is bound.
    pub(crate) fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// Takes over a renewed credential for handshakes to come; connections that are up stay.
    pub(crate) fn renew(&self, profile: &TlsMaterial) -> Result<(), CryptoSetupError> {
        let config = server_config(profile, self.0.settings)?;
        self.0.endpoint.set_server_config(Some(config.clone()));
        self.0.config.store(Arc::new(config));
        Ok(())
    }

    /// The next peer that wants to connect; `None` once closed.
    pub(crate) async fn accept(&self) -> Option<QuicIncoming> {
        let incoming = self.0.endpoint.accept().await?;
        let port = self.0.clone();
        Some(QuicIncoming { incoming, port })
    }

    /// Closes the port and every connection on it.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.0.endpoint.close(code.into(), reason.as_bytes());
    }

    /// Waits until the last farewells are sent.
    pub(crate) async fn wait_idle(&self) {
        self.0.endpoint.wait_idle().await;
    }
}

impl QuicIncoming {
    /// Where it comes from, as it says.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Tells it that no connections are taken.
    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Demands a proof of its address first, unless it gave one; then it is handed back.
    pub(crate) fn challenge(self) -> Option<Self> {
        if !self.incoming.may_retry() {
            return Some(self);
        }
        // It may retry, so that the demand can be sent.
        let _ = self.incoming.retry();
        None
    }

    /// The handshake. `None`: the peer left without a complaint, as one that tried several ways at once.
    pub(crate) async fn handshake(self) -> Result<Option<Connection>, ConnectionError> {
        let Self { incoming, port } = self;
        let config = towards(&port.config.load(), incoming.remote_address(), port.settings);
        let (connecting, driver) = begun(|| incoming.accept_with(Arc::new(config)));
        match connecting?.await {
            Ok(connection) => Ok(Some(Connection::Quic(QuicConnection::new(
                connection,
                driver,
                port.settings,
            )))),
            Err(error) if has_left(&error) => {
                tracing::debug!(%error, "a peer left during the handshake");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the peer closed the connection on purpose. What its application says during a handshake is hidden behind one
/// code (RFC 9000, section 10.2.3); a certificate that it refuses has a code of its own.
fn has_left(error: &quinn::ConnectionError) -> bool {
    matches!(error, quinn::ConnectionError::ConnectionClosed(frame)
        if frame.error_code == quinn::TransportErrorCode::APPLICATION_ERROR)
}
