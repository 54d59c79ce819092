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
mod renewal;
mod routing;

use crate::link::{ReadExactError, RecvStream, SendStream, WriteError};

pub(crate) use control::{Body, Bye, Control, Hello, Join};
pub(crate) use frame::{WireError, read_control, write_control};
pub(crate) use open::{Answer, Open, read_answer, read_open, write_answer, write_open};
pub(crate) use renewal::Renewal;
pub(crate) use routing::{body, said};

/// The protocol's name in the TLS handshake.
pub(crate) const ALPN: &[u8] = b"karez-link/1";

/// Text from another site, made fit for a log line: short, without control characters.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}

/// What messages are read from: a stream, or bytes.
pub(crate) trait Reader {
    /// Fills the buffer.
    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadExactError>;
}

/// What messages are written to: a stream, or bytes.
pub(crate) trait Writer {
    /// Writes everything.
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError>;
}

impl Reader for RecvStream {
    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadExactError> {
        Self::read_exact(self, buffer).await
    }
}

impl Writer for SendStream {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        Self::write_all(self, bytes).await
    }
}

impl Reader for &[u8] {
    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadExactError> {
        let (taken, rest) = self
            .split_at_checked(buffer.len())
            .ok_or(ReadExactError::Ended(self.len()))?;
        buffer.copy_from_slice(taken);
        *self = rest;
        Ok(())
    }
}

impl Writer for Vec<u8> {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}
