//! TLS 1.3 over TCP: for bulk on clean networks, and where UDP is blocked.
//!
//! ```text
//!  connect.rs ─▶ handshake.rs ─▶ greeting.rs ─┐                       ┌─ stream.rs ◀──▶ carry.rs
//!                                             ├─▶ connection.rs ◀──▶ mux/ (frames.rs), many streams on one connection
//!  accept.rs ──▶ handshake.rs ─▶ greeting.rs ─┘                       │
//!  keeper.rs: lanes made ready ──────────────────────────────────▶ lane.rs, one stream each, for bulk
//! ```
//!
//! What is new or small shares one warm connection, since a handshake costs half a millisecond of two processors; a
//! stream that turns out to be bulk moves to a connection of its own, a *lane*, without its user noticing. All of it is
//! TLS 1.3 with certificates on both sides; rustls does the handshakes, [`record`] the records. Buffers are lent for
//! as long as there is something in them, so that an idle connection or stream holds none.

mod accept;
mod connect;
mod connection;
mod frame;
mod greeting;
pub(crate) mod handshake;
mod incoming;
mod keeper;
mod lane;
mod mux;
mod outgoing;
pub(crate) mod record;
mod setup;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use rustls::pki_types::CertificateDer;

use super::{ConnectionError, RecvStream, SendStream, Statistics, Stream};
use connection::Shared;

pub(crate) use accept::{TlsIncoming, TlsListener};
pub(crate) use connect::{Redial, TlsDialler};
pub(crate) use stream::{TlsReceive, TlsSend};

/// Whatever a peer may send after the handshake: frames, and in between what a router does. For fuzzing only.
pub(crate) fn fuzz(bytes: &[u8]) {
    mux::fuzz(bytes);
    let _ = greeting::Greeting::decode(bytes);
    let _ = record::Opener::length(bytes);
}

/// What both sides say that they speak.
pub(crate) const ALPN: &[u8] = b"karez-link-tcp/1";

/// An authenticated connection to a peer router; clones are the same connection, which closes with the last of them
/// and of its streams.
#[derive(Clone, Debug)]
pub(crate) struct TlsConnection(Arc<Handle>);

/// Closes the connection when nobody uses it any more.
pub(super) struct Handle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("remote", &self.shared.remote)
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(0, "");
    }
}

impl TlsConnection {
    fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Handle { shared }))
    }

    fn stream(&self, id: u32) -> Stream {
        Stream {
            send: SendStream::Tls(TlsSend::new(self.0.clone(), id)),
            receive: RecvStream::Tls(TlsReceive::new(self.0.clone(), id)),
        }
    }

    /// Opens a stream; waits while the peer allows no more.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectionError> {
        let shared = &self.0.shared;
        let opened = poll_fn(|context| shared.with(|state| state.mux.poll_open(context.waker()))).await;
        opened
            .map(|id| self.stream(id))
            .map_err(|end| shared.reason(&end))
    }

    /// The next stream that the peer opens.
    pub(crate) async fn accept(&self) -> Result<Stream, ConnectionError> {
        let shared = &self.0.shared;
        let accepted = poll_fn(|context| shared.with(|state| state.mux.poll_accept(context.waker()))).await;
        accepted
            .map(|id| self.stream(id))
            .map_err(|end| shared.reason(&end))
    }

    /// Closes the connection and everything on it; the peer is told why.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.0.shared.close(code, reason);
    }

    /// Waits until the connection has ended; says why.
    pub(crate) async fn closed(&self) -> ConnectionError {
        let shared = &self.0.shared;
        let end = poll_fn(
            |context| match shared.with(|state| state.mux.poll_end(context.waker())) {
                Poll::Ready(end) => Poll::Ready(end),
                Poll::Pending => Poll::Pending,
            },
        );
        shared.reason(&end.await)
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<ConnectionError> {
        let shared = &self.0.shared;
        let end = shared.with(|state| state.mux.end().cloned())?;
        Some(shared.reason(&end))
    }

    /// Where the peer is.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.shared.remote
    }

    /// The certificate that the peer proved itself with.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.0.shared.peer.clone()
    }

    /// How it and its lanes are doing; what only the kernel knows stays 0.
    pub(crate) fn statistics(&self) -> Statistics {
        let shared = &self.0.shared;
        let both =
            |one: &AtomicU64, other: &AtomicU64| one.load(Ordering::Relaxed) + other.load(Ordering::Relaxed);
        Statistics {
            round_trip: shared.round_trip(),
            bytes_sent: both(&shared.sent, &shared.lanes_sent),
            bytes_received: both(&shared.received, &shared.lanes_received),
            ..Statistics::default()
        }
    }
}
