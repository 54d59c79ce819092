//! Links: one authenticated relation to a peer router over QUIC, made by us or by the peer.
//!
//! ```text
//!  dial.rs    document's link ──▶ QUIC connection ─┐
//!                                                  ├─▶ session.rs: hello, announcements, pings on the control stream;
//!  accept.rs  document's port ──▶ QUIC connection ─┘              data streams ◀──▶ connector.rs
//!  stream.rs  a client's connection ──▶ a data stream at the peer
//!  failure.rs a failed connection ──▶ what to say about it, and to whom
//! ```

mod accept;
mod dial;
mod failure;
mod live;
mod session;
mod stream;
mod transport;

pub(crate) use accept::{Accept, accept};
pub(crate) use dial::{Dial, dial};
pub(crate) use failure::CloseCode;
pub(crate) use live::LiveLink;
pub(crate) use session::{TOKEN_REVOKED, revoked};
pub(crate) use stream::{OpenError, open};
pub(crate) use transport::{ClientEndpoints, RESET_CODE};
