//! Everything that proves who a site is: authorities, certificates, connection tokens, what they may do, and claims.
//!
//! ```text
//!  site-controller                                       a peer's site-controller, router
//!  Authority ──issue──▶ Credential ──▶ ConnectionToken ──(a Secret)──▶ ConnectionToken ──▶ TlsMaterial
//!      │                    └─ CertificateFacts (serial, fingerprint) ──▶ the router's `tokens:` list      │
//!      └──issue──▶ server Credential ──▶ TlsMaterial ──▶ `server_config` ◀── mutual TLS ── `client_config` ┘
//! ```
//!
//! The crate is pure: time comes in as `now`, nothing is read from or written to a store, and no socket is
//! opened. Keys that it makes are ECDSA P-256; RSA ones made elsewhere are accepted. Everything that comes
//! from a Secret or from a peer is treated as hostile: bounded in size, and never a panic.

mod authority;
mod claim;
mod facts;
mod fronted;
mod inspect;
mod late;
mod request;
mod scope;
mod seal;
mod suites;
mod tls;
mod token;

pub use authority::{Authority, Credential, IssueError, Subject, Usage};
pub use claim::{
    ANNOTATION_CLAIM_EXPIRATION, ANNOTATION_CLAIMS_MADE, ANNOTATION_CLAIMS_REMAINING, ANNOTATION_URL,
    CLAIM_VERSION, Claim, ClaimError, ClaimRecord, DATA_PASSWORD, PASSWORD_LIMIT, Refusal, split_url,
    version_may_redeem,
};
pub use facts::{CertificateFacts, FactsError, TokenUri, der_signed_by, key_matches, signed_by, still_valid};
pub use fronted::fronted_client_config;
pub use inspect::{TokenReport, Validity, inspect};
pub use late::Grace;
pub use request::{CertificateRequest, NewKey, REQUEST_LIMIT, RequestError, request_digest};
pub use scope::{
    ANNOTATION_EXPIRES, ANNOTATION_OFFER, ANNOTATION_REACH, ANNOTATION_ROLE, ANNOTATION_USED_BY,
    ANNOTATION_USES, ScopeError, TokenScope, is_pattern, patterns,
};
pub use seal::{SEAL_SERVER_NAME, SealError, SealScope, TYPE_SEAL};
pub use tls::{
    TlsError, TlsMaterial, alert_reason, certificate_reason, client_config, provider, server_config,
    trusting_client_config, untrusting_server_config,
};
pub use token::{
    ANNOTATION_COST, ANNOTATION_EDGE_HOST, ANNOTATION_EDGE_PORT, ANNOTATION_GENERATED_BY,
    ANNOTATION_INTER_ROUTER_HOST, ANNOTATION_INTER_ROUTER_PORT, ANNOTATION_SITE_VERSION, ConnectionToken,
    LABEL_TYPE, TYPE_CLAIM, TYPE_CLAIM_RECORD, TYPE_TOKEN, TYPE_TOKEN_REQUEST, TokenError,
};

/// The name every link's server certificate must carry, whatever address it was dialled at.
pub const LINK_SERVER_NAME: &str = "skupper-router";

/// The name the certificate of a router's local API must carry.
pub const LOCAL_SERVER_NAME: &str = "skupper-router-local";

/// The longest PEM text that is read: far above any honest chain, far below what hurts.
pub(crate) const PEM_LIMIT: usize = 256 * 1024;
