//! Claims on 8081: who holds one exchanges its password for a token of its own.
//!
//! ```text
//!  holder's service-controller              issuer's service-controller              issuer's site-controller
//!  redeem: token-claim Secret ── POST ────▶ serve ─▶ honour: token-claim-record
//!                                                     └─ connection-token-request ──▶ signs with the authority
//!  connection-token Secret   ◀── YAML ──── the filled Secret ◀───────────────────────┘
//! ```
//!
//! The authority's key stays with the site-level controller: what answers strangers cannot sign anything.

mod honour;
mod limit;
mod redeem;
mod serve;

pub(crate) use honour::Denials;
pub(crate) use redeem::Redeemer;
pub(crate) use serve::{ClaimsServer, serve};
