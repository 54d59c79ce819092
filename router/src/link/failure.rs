//! What a failed connection means: the transport's error in, a state and words for both operators out.

use karez_identity::alert_reason;
use karez_router_config::api::LinkState;

use super::transport::{Connection, ConnectionError, Party};
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
    /// Nothing arrives on this connection any more. Others of the link, and what they carry, go on.
    Silent,
}

impl CloseCode {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Leaving => 0,
            Self::Refused => 1,
            Self::Revoked => 2,
            Self::Protocol => 3,
            Self::Silent => 4,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [
            Self::Leaving,
            Self::Refused,
            Self::Revoked,
            Self::Protocol,
            Self::Silent,
        ]
        .into_iter()
        .find(|code| code.number() == number)
    }
}

/// Closes a connection and says why.
pub(crate) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(code.number(), reason);
}

/// Whether a connection ended by itself, not because one side ends the link.
pub(crate) fn is_loss(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Lost(_) => true,
        // Who ends a link here closes all of its connections.
        ConnectionError::Local => true,
        ConnectionError::Closed { code, .. } => CloseCode::from_number(*code) == Some(CloseCode::Silent),
        ConnectionError::Tls { .. } | ConnectionError::Version => false,
    }
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
            ConnectionError::Lost(text) => Self::down(text.clone()),
            ConnectionError::Closed { code, reason } => {
                let reason = clean(reason, TEXT);
                match CloseCode::from_number(*code) {
                    Some(CloseCode::Leaving) => Self::down(format!("the peer closed the link: {reason}")),
                    Some(CloseCode::Silent) => {
                        Self::down(format!("the peer gave the connection up: {reason}"))
                    }
                    Some(CloseCode::Revoked | CloseCode::Refused) => {
                        Self::refused(format!("the peer refused the link: {reason}"))
                    }
                    _ => Self::refused(format!("the peer closed the link: {reason} (code {code})")),
                }
            }
            ConnectionError::Tls { by, alert, detail } => {
                let reason = tls_reason(*alert, detail);
                Self::refused(match by {
                    Party::Here => format!("the peer's certificate was refused here: {reason}"),
                    Party::Peer => format!("the peer refused our certificate: {reason}"),
                })
            }
            ConnectionError::Version => Self::refused("the peer speaks another version of the transport"),
            ConnectionError::Local => Self::down("closed here"),
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::from(&error)
    }
}

/// What a TLS alert, and the text that came with it, says about a certificate.
fn tls_reason(alert: u8, detail: &str) -> &'static str {
    // The alert for a wrong name is the one for anything bad; only the text tells.
    if detail.contains("not valid for name") {
        return "certificate is for another name than skupper-router";
    }
    // The alert of an early certificate is the one of a late one.
    if detail.contains("not valid yet") || detail.contains("NotValidYet") {
        return "certificate not valid yet (compare the clocks)";
    }
    if detail.contains("UnknownIssuer") || detail.contains("BadSignature") {
        return "signed by another authority";
    }
    alert_reason(alert).unwrap_or("the TLS handshake failed")
}
