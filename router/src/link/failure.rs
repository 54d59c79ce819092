//! What a failed connection means: the transport's error in, a state and words for both operators out.

use karez_identity::alert_reason;
use karez_router_config::api::LinkState;
use quinn::{ConnectionError, VarInt};

use crate::wire::clean;

/// The longest text that we take from a peer.
const TEXT: usize = 256;

/// Why a side closes a link on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// It stops, or the link was removed from its document.
    Leaving,
    /// It does not admit the other.
    Refused,
    /// The other's token was revoked while the link was up.
    Revoked,
    /// The other broke the protocol.
    Protocol,
}

impl CloseCode {
    fn number(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Leaving => 0,
            Self::Refused => 1,
            Self::Revoked => 2,
            Self::Protocol => 3,
        })
    }

    fn from_number(number: VarInt) -> Option<Self> {
        [Self::Leaving, Self::Refused, Self::Revoked, Self::Protocol]
            .into_iter()
            .find(|code| code.number() == number)
    }
}

/// Closes a connection and says why.
pub(crate) fn close(connection: &quinn::Connection, code: CloseCode, reason: &str) {
    connection.close(code.number(), reason.as_bytes());
}

/// Why a link is not active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `Refused` when trying again alone will not help, else `Down`.
    pub(crate) state: LinkState,
    /// What to tell.
    pub(crate) text: String,
}

impl Failure {
    /// Not reachable for now.
    pub(crate) fn down(text: impl Into<String>) -> Self {
        Self {
            state: LinkState::Down,
            text: text.into(),
        }
    }

    /// One side will not have the other.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self {
            state: LinkState::Refused,
            text: text.into(),
        }
    }
}

impl From<&ConnectionError> for Failure {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(error) => ours(u64::from(error.code), &error.reason),
            ConnectionError::ConnectionClosed(frame) => {
                let code = u64::from(frame.error_code);
                theirs(code, &String::from_utf8_lossy(&frame.reason))
            }
            ConnectionError::ApplicationClosed(frame) => {
                let reason = clean(&String::from_utf8_lossy(&frame.reason), TEXT);
                match CloseCode::from_number(frame.error_code) {
                    Some(CloseCode::Leaving) => Self::down(format!("the peer closed the link: {reason}")),
                    Some(CloseCode::Revoked | CloseCode::Refused) => {
                        Self::refused(format!("the peer refused the link: {reason}"))
                    }
                    _ => Self::refused(format!(
                        "the peer closed the link: {reason} (code {})",
                        frame.error_code
                    )),
                }
            }
            ConnectionError::TimedOut => Self::down("the peer does not answer"),
            ConnectionError::Reset => Self::down("the peer was restarted"),
            ConnectionError::VersionMismatch => Self::refused("the peer speaks another version of QUIC"),
            ConnectionError::LocallyClosed => Self::down("closed here"),
            ConnectionError::CidsExhausted => Self::down("out of connection ids"),
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::from(&error)
    }
}

/// We ended it: what we found wrong with the peer.
fn ours(code: u64, detail: &str) -> Failure {
    match tls_reason(code, detail) {
        Some(reason) => Failure::refused(format!("the peer's certificate was refused here: {reason}")),
        None => Failure::down(format!(
            "the connection failed: {} (code {code:#x})",
            clean(detail, TEXT)
        )),
    }
}

/// The peer ended it: what it found wrong with us.
fn theirs(code: u64, detail: &str) -> Failure {
    match tls_reason(code, detail) {
        Some(reason) => Failure::refused(format!("the peer refused our certificate: {reason}")),
        None if code == CONNECTION_REFUSED => Failure::down("the peer accepts no links there now"),
        None => Failure::down(format!(
            "the peer ended the connection: {} (code {code:#x})",
            clean(detail, TEXT)
        )),
    }
}

/// QUIC's code of a server that takes no connection.
const CONNECTION_REFUSED: u64 = 0x2;

/// What a TLS alert, and the text that came with it, says about a certificate.
fn tls_reason(code: u64, detail: &str) -> Option<&'static str> {
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    // The alert for a wrong name is the one for anything bad; only the text tells.
    if detail.contains("not valid for name") {
        return Some("certificate is for another name than skupper-router");
    }
    if detail.contains("UnknownIssuer") || detail.contains("BadSignature") {
        return Some("signed by another authority");
    }
    Some(alert_reason(alert).unwrap_or("the TLS handshake failed"))
}
