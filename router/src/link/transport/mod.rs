//! What links are carried by: connections of one kind or another, alike for everything above.
//!
//! ```text
//!  dial.rs ──▶ quic::dial ───┐
//!                            ├─▶ Connection ── open / accept ──▶ Stream { send, receive } ◀──▶ session.rs, stream.rs, carry.rs
//!  accept.rs ◀─ quic::Listener┘
//! ```
//!
//! Dispatch is by enum, so that the carrying path has neither a boxed future nor an allocation. Half-close, reset and
//! stop mean the same over every transport:
//!
//! - [`SendStream::finish`] ends what we say; the peer reads to the end;
//! - [`SendStream::reset`] throws away what is under way; the peer's read fails with [`ReadError::Reset`];
//! - [`RecvStream::stop`] says that nobody reads on; the peer's write fails with [`WriteError::Stopped`].
//!
//! A stream that is dropped is reset or stopped, unless it ended before.

mod error;
pub(crate) mod listener;
pub(crate) mod proxy;
pub(crate) mod quic;
pub(crate) mod route;
mod tcp;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use karez_router_config::Congestion;
use rustls::pki_types::CertificateDer;

pub(crate) use error::{
    ConnectionError, CryptoSetupError, DatagramError, Party, ReadError, ReadExactError, WriteError,
};

/// A stream that is reset, or that its reader no longer wants, carries this code.
pub(crate) const RESET_CODE: u32 = 1;

/// Chunks taken at once of a stream over TLS: each is a record's.
const RECORDS: usize = 16;

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TransportKind {
    /// QUIC over UDP.
    Quic,
    /// TLS 1.3 over TCP.
    Tls,
}

impl TransportKind {
    /// As documents, status and metrics spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }
}

/// How a connection is made, whatever the transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How it finds out what the path takes.
    pub(crate) congestion: Congestion,
    /// Streams that the peer may have open at once.
    pub(crate) streams: u32,
}

impl Settings {
    /// Streams that the transport takes: a few more, since it hears of ended ones late. So the peer is refused with a
    /// reason before it is made to wait without one.
    fn streams_taken(self) -> u32 {
        self.streams + self.streams / 4 + 64
    }
}

/// What a connection says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Statistics {
    /// The smoothed round trip.
    pub(crate) round_trip: Duration,
    /// Packets sent.
    pub(crate) packets_sent: u64,
    /// Packets of those that were lost.
    pub(crate) packets_lost: u64,
    /// Bytes that may be in flight.
    pub(crate) congestion_window: u64,
    /// The largest packet that the path takes, as found out; 0 where the transport does not say.
    pub(crate) datagram_size: u16,
    /// Bytes sent, with the transport's own.
    pub(crate) bytes_sent: u64,
    /// Bytes received, with the transport's own.
    pub(crate) bytes_received: u64,
}

/// An authenticated connection to a peer router; clones are the same connection.
#[derive(Clone, Debug)]
pub(crate) enum Connection {
    /// Over QUIC.
    Quic(quic::QuicConnection),
    /// Over TLS.
    Tls(tls::TlsConnection),
}

/// A bidirectional stream of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What we say.
    pub(crate) send: SendStream,
    /// What the peer says.
    pub(crate) receive: RecvStream,
}

/// The half of a stream that we write to.
#[derive(Debug)]
pub(crate) enum SendStream {
    /// Over QUIC.
    Quic(quic::QuicSend),
    /// Over TLS.
    Tls(tls::TlsSend),
}

/// The half of a stream that we read from.
#[derive(Debug)]
pub(crate) enum RecvStream {
    /// Over QUIC.
    Quic(quic::QuicReceive),
    /// Over TLS.
    Tls(tls::TlsReceive),
}

impl Connection {
    /// Opens a stream; waits while the peer allows no more.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectionError> {
        match self {
            Self::Quic(connection) => connection.open().await,
            Self::Tls(connection) => connection.open().await,
        }
    }

    /// The next stream that the peer opens.
    pub(crate) async fn accept(&self) -> Result<Stream, ConnectionError> {
        match self {
            Self::Quic(connection) => connection.accept().await,
            Self::Tls(connection) => connection.accept().await,
        }
    }

    /// The peer has so many streams open; room is made for more where there is little at first.
    pub(crate) fn serves(&self, open: u64) {
        match self {
            Self::Quic(connection) => connection.serves(open),
            Self::Tls(_) => {}
        }
    }

    /// Closes the connection and everything on it; the peer is told why.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        match self {
            Self::Quic(connection) => connection.close(code, reason),
            Self::Tls(connection) => connection.close(code, reason),
        }
    }

    /// Waits until the connection has ended; says why.
    pub(crate) async fn closed(&self) -> ConnectionError {
        match self {
            Self::Quic(connection) => connection.closed().await,
            Self::Tls(connection) => connection.closed().await,
        }
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<ConnectionError> {
        match self {
            Self::Quic(connection) => connection.close_reason(),
            Self::Tls(connection) => connection.close_reason(),
        }
    }

    /// Where the peer is.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tls(connection) => connection.remote_address(),
        }
    }

    /// The certificate that the peer proved itself with.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        match self {
            Self::Quic(connection) => connection.peer_certificate(),
            Self::Tls(connection) => connection.peer_certificate(),
        }
    }

    /// Which transport it is.
    pub(crate) fn kind(&self) -> TransportKind {
        match self {
            Self::Quic(_) => TransportKind::Quic,
            Self::Tls(_) => TransportKind::Tls,
        }
    }

    /// How it is doing.
    pub(crate) fn statistics(&self) -> Statistics {
        match self {
            Self::Quic(connection) => connection.statistics(),
            Self::Tls(connection) => connection.statistics(),
        }
    }

    /// The longest datagram that fits; `None`: they go framed on a stream.
    pub(crate) fn max_datagram_size(&self) -> Option<usize> {
        match self {
            Self::Quic(connection) => connection.max_datagram_size(),
            Self::Tls(_) => None,
        }
    }

    /// Sends a datagram, which may be lost; when the queue is full the oldest one is.
    pub(crate) fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        match self {
            Self::Quic(connection) => connection.send_datagram(datagram),
            Self::Tls(_) => Err(DatagramError::Unsupported),
        }
    }

    /// The next datagram from the peer; waits forever where there are none.
    pub(crate) async fn read_datagram(&self) -> Result<Bytes, ConnectionError> {
        match self {
            Self::Quic(connection) => connection.read_datagram().await,
            Self::Tls(_) => std::future::pending().await,
        }
    }
}

impl SendStream {
    /// Writes everything.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        match self {
            Self::Quic(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => stream.write_all(bytes).await,
        }
    }

    /// Writes all chunks; they are empty afterwards.
    pub(crate) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        match self {
            Self::Quic(stream) => stream.write_chunks(chunks).await,
            Self::Tls(stream) => stream.write_chunks(chunks).await,
        }
    }

    /// Ends what we say; everything written still arrives.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        match self {
            Self::Quic(stream) => stream.finish(),
            Self::Tls(stream) => stream.finish(),
        }
    }

    /// Abandons what we say.
    pub(crate) fn reset(&mut self, code: u32) {
        match self {
            Self::Quic(stream) => stream.reset(code),
            Self::Tls(stream) => stream.reset(code),
        }
    }

    /// Waits until the peer wants no more, has everything, or the connection is gone.
    #[cfg(test)]
    pub(crate) async fn stopped(&mut self) {
        match self {
            Self::Quic(stream) => stream.stopped().await,
            Self::Tls(stream) => stream.stopped().await,
        }
    }
}

impl RecvStream {
    /// Fills the buffer.
    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadExactError> {
        match self {
            Self::Quic(stream) => stream.read_exact(buffer).await,
            Self::Tls(stream) => stream.read_exact(buffer).await,
        }
    }

    /// Takes what has arrived, at least something, into the first of the chunks; `None` at the end.
    pub(crate) async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        match self {
            Self::Quic(stream) => stream.read_chunks(chunks).await,
            Self::Tls(stream) => {
                let most = chunks.len().min(RECORDS);
                stream.read_chunks(&mut chunks[..most]).await
            }
        }
    }

    /// Tells the peer that nobody reads on.
    pub(crate) fn stop(&mut self, code: u32) {
        match self {
            Self::Quic(stream) => stream.stop(code),
            Self::Tls(stream) => stream.stop(code),
        }
    }
}
