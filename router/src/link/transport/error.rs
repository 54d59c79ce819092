//! What can go wrong with connections and streams, the same for every transport.

use karez_identity::TlsError;
use quinn::crypto::rustls::NoInitialCipherSuite;

/// Which side did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// We did.
    Here,
    /// The peer did.
    Peer,
}

/// Why a connection ended, or never came up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// Silence, reset, input or output failed: trying again may help.
    #[error("{0}")]
    Lost(String),
    /// The peer closed it on purpose.
    #[error("closed by the peer: {reason} (code {code})")]
    Closed {
        /// Its code.
        code: u32,
        /// Its words; foreign, not cleaned.
        reason: String,
    },
    /// The handshake was refused.
    #[error("the TLS handshake failed: {detail} (alert {alert})")]
    Tls {
        /// Who refused it.
        by: Party,
        /// The alert that was sent.
        alert: u8,
        /// What came with it, if anything; foreign when the peer refused, not cleaned.
        detail: String,
    },
    /// The peer speaks another version of the transport.
    #[error("the peer speaks another version of the transport")]
    Version,
    /// We closed it.
    #[error("closed here")]
    Local,
}

/// Why nothing can be read from a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// The peer abandoned it.
    #[error("reset by the peer (code {0})")]
    Reset(u32),
    /// The connection ended.
    #[error("the link failed: {0}")]
    Lost(#[source] ConnectionError),
    /// We stopped reading it before.
    #[error("no longer read")]
    Closed,
}

/// Why a buffer cannot be filled from a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadExactError {
    /// The stream ended after this many bytes.
    #[error("the stream ended early")]
    Ended(usize),
    /// Nothing can be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why nothing can be written to a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The peer wants no more.
    #[error("no longer wanted by the peer (code {0})")]
    Stopped(u32),
    /// The connection ended.
    #[error("the link failed: {0}")]
    Lost(#[source] ConnectionError),
    /// We ended it before.
    #[error("already ended")]
    Closed,
}

/// Why a datagram cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DatagramError {
    /// Longer than the path takes.
    #[error("the datagram is too long for the path")]
    TooLarge,
    /// The peer, or the transport, has none.
    #[error("no datagrams over this connection")]
    Unsupported,
    /// The connection ended.
    #[error("the link failed: {0}")]
    Lost(#[source] ConnectionError),
}

/// Why a link's cryptography cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CryptoSetupError {
    /// The profile is not usable.
    #[error(transparent)]
    Profile(#[from] TlsError),
    /// The provider lacks QUIC's initial cipher suite.
    #[error("{0}")]
    Suite(#[from] NoInitialCipherSuite),
    /// The socket cannot be used.
    #[error("{0}")]
    Socket(#[from] std::io::Error),
}

impl From<ReadError> for std::io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Reset(_) => std::io::ErrorKind::ConnectionReset,
            ReadError::Lost(_) | ReadError::Closed => std::io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl From<WriteError> for std::io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Stopped(_) => std::io::ErrorKind::ConnectionReset,
            WriteError::Lost(_) | WriteError::Closed => std::io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}
