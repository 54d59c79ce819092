//! The traces' shape, apart from how they travel.

use std::time::{SystemTime, UNIX_EPOCH};

/// The two spans of a trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) trace_id: [u8; 16],
    pub(super) client: [u8; 8],
    pub(super) server: [u8; 8],
    /// Microseconds since 1970.
    pub(super) start: u64,
}

/// How long each span lasts, in microseconds.
pub(super) const CLIENT_MICROS: u64 = 123;
/// The server span lies within the client span.
pub(super) const SERVER_MICROS: u64 = 100;
pub(super) const CLIENT_NAME: &str = "lets-go";
pub(super) const SERVER_NAME: &str = "okey-dokey";
pub(super) const PEER_ADDRESS: &str = "1.2.3.4";

impl Trace {
    /// A trace that started at `now`.
    pub(super) fn random(now: SystemTime) -> Self {
        Self {
            trace_id: non_zero(rand::random),
            client: non_zero(rand::random),
            server: non_zero(rand::random),
            start: now
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_micros() as u64),
        }
    }
}

/// Identifiers of zeros alone mean "none".
fn non_zero<const N: usize>(random: impl Fn() -> [u8; N]) -> [u8; N] {
    loop {
        let id = random();
        if id != [0; N] {
            return id;
        }
    }
}
