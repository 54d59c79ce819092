//! Links: one authenticated relation to a peer router over a transport, made by us or by the peer.
//!
//! ```text
//!  dial.rs    document's link ──▶ a connection ─┐
//!                                               ├─▶ session.rs: hello, announcements, pings on the control stream;
//!  accept.rs  document's port ──▶ a connection ─┘              data streams ◀──▶ connector.rs
//!  transport/ connections and streams, whatever carries them
//!  stream.rs  a client's connection ──▶ a data stream at the peer
//!  reach.rs    a peer's addresses ──▶ the first session that is up, over whichever transport
//!  rounds.rs   when the next attempt begins, so that a link is soon back after any outage
//!  places.rs   the handshakes under way at a port, so that no flood keeps others out
//!  bind.rs     a document's port ──▶ UDP and TCP sockets that take links
//!  data.rs     further connections of a link, so that several cores work
//!  prefer.rs   how a transport does ──▶ which other one to try
//!  failure.rs a failed connection ──▶ what to say about it, and to whom
//! ```

mod accept;
mod bind;
mod credential;
mod data;
mod dial;
mod failure;
mod live;
mod places;
mod prefer;
mod reach;
mod rounds;
mod session;
mod stream;
mod transport;

pub(crate) use accept::{Accept, accept};
pub(crate) use credential::{revoke, revoked, take_over};
pub(crate) use dial::{Dial, dial};

pub(crate) use live::LiveLink;
pub(crate) use stream::{OpenError, Opened, open};
pub(crate) use transport::proxy::fuzz as fuzz_proxy;
pub(crate) use transport::quic::ClientEndpoints;
pub(crate) use transport::tls::fuzz as fuzz_frames;
pub(crate) use transport::tls::{handshake, record};
pub(crate) use transport::{
    ConnectionError, RESET_CODE, ReadError, ReadExactError, RecvStream, SendStream, Settings, Stream,
    WriteError,
};

/// What a failed QUIC connection means, in words for whoever looks.
pub(crate) fn failure_of(error: quinn::ConnectionError) -> String {
    failure::Failure::from(transport::ConnectionError::from(error)).text
}

/// For tests that play a router themselves.
#[cfg(test)]
pub(crate) mod transport_for_tests {
    pub(crate) use super::transport::Connection;
    pub(crate) use super::transport::tls::TlsListener;
}
