//! Datagrams: services of protocol UDP, one session for each client's address.
//!
//! ```text
//!  client ──▶ listener.rs ──session──▶ relay.rs ──▶ UDP socket of a target on this site
//!                                         │
//!                                         └──▶ a stream to the peer: every datagram behind its length (wire.rs),
//!                                              or beside it, as a QUIC datagram, when it fits (exchange.rs)
//!                                                  └──▶ relay.rs ──▶ UDP socket of a target there
//! ```
//!
//! Datagrams wait nowhere for long: queues are short, and what finds its queue full is dropped and counted with the
//! reason. What a link loses is counted too: each side tells the other from time to time how many it sent.

mod exchange;
mod kernel;
mod listener;
mod relay;
mod table;
mod wire;

pub(crate) use exchange::{Direct, Exchange, receive};
pub(crate) use listener::listen;
pub(crate) use relay::{Port, serve};

use std::cell::RefCell;
use std::io;

use bytes::Bytes;

/// The longest datagram that a socket can give.
const LONGEST: usize = 65_535;

thread_local! {
    /// Sockets are read into this, so that idle sessions hold no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
}

/// What a peer may send. For fuzzing only.
pub(crate) fn fuzz(bytes: &[u8]) {
    wire::fuzz(bytes);
}

/// Reads one datagram with a call that does not wait.
fn read<T>(receive: impl FnOnce(&mut [u8]) -> io::Result<(usize, T)>) -> io::Result<(Bytes, T)> {
    BUFFER.with_borrow_mut(|buffer| {
        let (length, from) = receive(buffer)?;
        Ok((Bytes::copy_from_slice(&buffer[..length]), from))
    })
}
