//! A port that peers link to, whatever the transport.

use std::net::SocketAddr;

use karez_identity::TlsMaterial;

use super::quic::{QuicIncoming, QuicListener};
use super::tls::{TlsIncoming, TlsListener};
use super::{Connection, ConnectionError, CryptoSetupError};

/// A bound port; clones are the same port.
#[derive(Clone)]
pub(crate) enum Listener {
    /// UDP.
    Quic(QuicListener),
    /// TCP.
    Tls(TlsListener),
}

/// A peer that wants to connect.
pub(crate) enum Incoming {
    /// Over UDP.
    Quic(Box<QuicIncoming>),
    /// Over TCP.
    Tls(TlsIncoming),
}

impl Listener {
    /// Where it is bound.
    pub(crate) fn local_address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Quic(listener) => listener.local_address(),
            Self::Tls(listener) => listener.local_address(),
        }
    }

    /// Takes over a renewed credential for handshakes to come; connections that are up stay.
    pub(crate) fn renew(&self, profile: &TlsMaterial) -> Result<(), CryptoSetupError> {
        match self {
            Self::Quic(listener) => listener.renew(profile),
            Self::Tls(listener) => Ok(listener.renew(profile)?),
        }
    }

    /// The next peer that wants to connect; `None` once closed.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        match self {
            Self::Quic(listener) => listener
                .accept()
                .await
                .map(|incoming| Incoming::Quic(Box::new(incoming))),
            Self::Tls(listener) => Some(Incoming::Tls(listener.accept().await)),
        }
    }

    /// Takes no more, and ends what is under way.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        match self {
            Self::Quic(listener) => listener.close(code, reason),
            // Links are closed one by one, and nobody accepts any more.
            Self::Tls(_) => {}
        }
    }

    /// Waits until the last farewells are sent.
    pub(crate) async fn wait_idle(&self) {
        match self {
            Self::Quic(listener) => listener.wait_idle().await,
            Self::Tls(_) => {}
        }
    }
}

impl Incoming {
    /// Where it comes from.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(incoming) => incoming.remote_address(),
            Self::Tls(incoming) => incoming.remote_address(),
        }
    }

    /// Tells it that no connections are taken.
    pub(crate) fn refuse(self) {
        match self {
            Self::Quic(incoming) => incoming.refuse(),
            Self::Tls(_) => {}
        }
    }

    /// Demands a proof of its address first, where it could be forged; then it is handed back.
    pub(crate) fn challenge(self) -> Option<Self> {
        match self {
            Self::Quic(incoming) => incoming
                .challenge()
                .map(|incoming| Self::Quic(Box::new(incoming))),
            Self::Tls(incoming) => Some(Self::Tls(incoming)),
        }
    }

    /// The handshake. `None`: it was part of a connection that is up, and is with it now; or the peer left again.
    pub(crate) async fn handshake(self) -> Result<Option<Connection>, ConnectionError> {
        match self {
            Self::Quic(incoming) => incoming.handshake().await,
            Self::Tls(incoming) => incoming.handshake().await,
        }
    }
}
