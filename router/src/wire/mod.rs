//! What goes over a link, as bytes: control messages, stream headers and answers.
//!
//! ```text
//!  control stream   length (u32) ‖ Control        both ways, from hello to bye
//!  data stream      length (u16) ‖ Open ──▶        then the client's bytes
//!                   ◀── status (u8) [‖ length (u16) ‖ reason]   then the target's bytes
//! ```
//!
//! Everything read here comes from another site: every length is bounded before it is believed.

mod control;
mod frame;
mod open;

pub(crate) use control::{Announce, Body, Bye, Control, Hello, PROTOCOL_VERSION};
pub(crate) use frame::{WireError, read_control, write_control};
pub(crate) use open::{Answer, Open, read_answer, read_open, write_answer, write_open};

/// The protocol's name in the TLS handshake.
pub(crate) const ALPN: &[u8] = b"karez-link/1";

/// Text from another site, made fit for a log line: short, without control characters.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}
