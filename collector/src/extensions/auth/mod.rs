//! Authenticators: what a receiver asks whether a caller may, and what an exporter adds so that it may.
//!
//! ```text
//! receiver: request headers ─▶ [ServerAuth::authenticate] ─▶ Principal, or AuthError (401 / Unauthenticated with its text)
//! exporter: [ClientAuth::headers] ─▶ request headers
//! ```
//!
//! The texts of [`AuthError`] are those of the OpenTelemetry Collector, since callers see them.

mod basic;
mod bearer;
mod component;
mod crypt;
mod file;
mod headers_setter;
mod htpasswd;
mod oauth2;
mod oidc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::batch::Context;

pub use basic::{BasicAuthClient, BasicAuthServer, ClientAuthConfig, HtpasswdConfig};
pub use bearer::{BearerConfig, BearerTokenAuth};
pub use component::{BasicAuthExtension, BearerTokenAuthExtension};
pub use headers_setter::HeadersSetterExtension;
pub use htpasswd::Htpasswd;
pub use oauth2::OAuth2ClientExtension;
pub use oidc::OidcExtension;

/// Who a caller proved to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The user's name, where the scheme has one.
    pub username: Option<String>,
    /// The groups that a token names.
    pub groups: Vec<String>,
}

/// Why a caller is refused. The text goes to the caller and never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credentials at all.
    #[error("no basic auth provided")]
    NoBasicAuth,
    /// Credentials of another scheme.
    #[error("invalid authorization scheme prefix")]
    InvalidSchemePrefix,
    /// Credentials that cannot be read.
    #[error("invalid authorization format")]
    InvalidFormat,
    /// An unknown user or a wrong password.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// No token at all.
    #[error("missing or empty authorization header: {0}")]
    MissingHeader(String),
    /// A wrong token.
    #[error("provided authorization does not match expected scheme or token")]
    WrongToken,
    /// No token of a provider.
    #[error("authentication didn't succeed")]
    NotAuthenticated,
    /// A header without a bearer token.
    #[error("invalid authorization header format")]
    InvalidHeader,
    /// A provider's token that does not hold.
    #[error("failed to verify token: {0}")]
    Token(String),
    /// A claim that the configuration asks for is not in the token, or of the wrong kind.
    #[error("the token has no claim {0:?} of the right kind")]
    Claim(String),
}

/// Decides about requests.
pub trait ServerAuth: Send + Sync + std::fmt::Debug {
    /// The scheme by which callers prove themselves, as `WWW-Authenticate` names it.
    fn scheme(&self) -> &str {
        "Bearer"
    }

    /// Looks at a request's headers (for gRPC, its metadata).
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError>;

    /// The same, if it takes no time; `None` if a slow hash has to be computed, which must not hold up other requests.
    fn authenticate_at_once(&self, headers: &HeaderMap) -> Option<Result<Principal, AuthError>> {
        Some(self.authenticate(headers))
    }
}

/// Adds credentials to requests.
pub trait ClientAuth: Send + Sync + std::fmt::Debug {
    /// The headers that carry the credentials.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialsError>;

    /// Writes the credentials to a request's headers; `context` is the request that the data came with.
    fn apply(&self, headers: &mut HeaderMap, context: Option<&Context>) -> Result<(), CredentialsError> {
        let _ = context;
        for (name, value) in self.headers()? {
            headers.insert(name, value);
        }
        Ok(())
    }

    /// Whether gRPC must not carry them without TLS.
    fn needs_secure_transport(&self) -> bool {
        true
    }
}

/// Why an authenticator cannot be made, or has no credentials to send.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Nothing is configured.
    #[error("no credentials are configured: {0}")]
    Missing(&'static str),
    /// A file cannot be read.
    #[error("{path} cannot be read; mount or create it")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line of the password file.
    #[error("htpasswd line {line}: {what}")]
    Htpasswd {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A value that no header can carry.
    #[error("the {0} holds characters that a header cannot carry (is there a line break in it?)")]
    NotAHeader(&'static str),
    /// A header's name that is none.
    #[error("{0:?} is no header name")]
    HeaderName(String),
}

#[cfg(test)]
mod tests;
