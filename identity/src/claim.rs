//! Claims: a right to fetch a token. A Secret's parts in, a `Claim` (holder) or a `ClaimRecord` (issuer) out.
//!
//! ```text
//!  issuer                         carried by hand                holder
//!  ClaimRecord (Secret) ◀─────── Claim (Secret in a file) ─────▶ POST https://host:8081/<name>?site-version=…
//!      └─ check ──▶ token, or Refusal ◀──────────── the password ──┘
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::scope::{ScopeError, shown, time};
use crate::token::{ANNOTATION_GENERATED_BY, ANNOTATION_SITE_VERSION};

/// Annotation of a claim: `https://<host>:<port>/<claim name>`.
pub const ANNOTATION_URL: &str = "skupper.io/url";
/// Annotation of claim and record: the end of the claim, RFC 3339.
pub const ANNOTATION_CLAIM_EXPIRATION: &str = "skupper.io/claim-expiration";
/// Annotation of a record: how often it may still be redeemed; absent: without limit.
pub const ANNOTATION_CLAIMS_REMAINING: &str = "skupper.io/claims-remaining";
/// Annotation of a record: how often it was redeemed.
pub const ANNOTATION_CLAIMS_MADE: &str = "skupper.io/claims-made";
/// Data key of claim and record.
pub const DATA_PASSWORD: &str = "password";
/// The longest password that is read.
pub const PASSWORD_LIMIT: usize = 1024;
/// The version of Skupper whose way to redeem a claim is spoken; it is sent as the asking site's.
pub const CLAIM_VERSION: &str = "1.9.6";
/// The oldest version whose sites may redeem.
pub(crate) const MINIMUM_VERSION: (u64, u64, u64) = (0, 8, 0);

/// Why a Secret is no claim.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// A part is missing.
    #[error("claim \"{name}\": {part} is missing: ask its site for a new one")]
    Missing {
        /// The Secret's name.
        name: String,
        /// What is missing.
        part: &'static str,
    },
    /// The URL is none that can be asked.
    #[error("claim \"{name}\": annotation {ANNOTATION_URL}: \"{url}\" is not https://HOST:PORT/NAME")]
    Url {
        /// The Secret's name.
        name: String,
        /// What it says.
        url: String,
    },
    /// A part is longer than it can be.
    #[error("claim \"{name}\": {part} is too long")]
    TooLong {
        /// The Secret's name.
        name: String,
        /// Which part.
        part: &'static str,
    },
    /// An annotation cannot be read.
    #[error("claim \"{name}\": {source}")]
    Annotation {
        /// The Secret's name.
        name: String,
        /// What is wrong.
        #[source]
        source: ScopeError,
    },
}

/// A right to fetch a token. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    /// The Secret's name; the link takes it over.
    pub name: String,
    /// The host of the claims server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The record's name there.
    pub record: String,
    /// The issuing site's id.
    pub generated_by: String,
    /// The end of the claim.
    pub expires: Option<Timestamp>,
    /// What proves the right.
    pub password: Vec<u8>,
    /// The only authority that the claims server is believed by.
    pub ca_pem: Vec<u8>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("name", &self.name)
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Claim {
    /// Reads a claim from the parts of a Secret.
    pub fn from_secret_parts(
        name: &str,
        annotations: &BTreeMap<String, String>,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, ClaimError> {
        let url = annotations
            .get(ANNOTATION_URL)
            .ok_or_else(|| ClaimError::Missing {
                name: name.to_owned(),
                part: ANNOTATION_URL,
            })?;
        let (host, port, record) = split_url(url).ok_or_else(|| ClaimError::Url {
            name: name.to_owned(),
            url: shown(url),
        })?;
        Ok(Self {
            name: name.to_owned(),
            host,
            port,
            record,
            generated_by: annotations
                .get(ANNOTATION_GENERATED_BY)
                .cloned()
                .unwrap_or_default(),
            expires: expiry(name, annotations)?,
            password: part(name, data, DATA_PASSWORD, PASSWORD_LIMIT)?,
            ca_pem: part(name, data, "ca.crt", crate::PEM_LIMIT)?,
        })
    }

    /// Where it is redeemed.
    pub fn url(&self) -> String {
        let host = &self.host;
        if host.contains(':') {
            format!("https://[{host}]:{}/{}", self.port, self.record)
        } else {
            format!("https://{host}:{}/{}", self.port, self.record)
        }
    }

    /// The annotations of the Secret that carries it.
    pub fn annotations(&self, site_version: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([
            (ANNOTATION_URL.to_owned(), self.url()),
            (ANNOTATION_GENERATED_BY.to_owned(), self.generated_by.clone()),
            (ANNOTATION_SITE_VERSION.to_owned(), site_version.to_owned()),
        ]);
        if let Some(expires) = self.expires {
            all.insert(ANNOTATION_CLAIM_EXPIRATION.to_owned(), expires.to_string());
        }
        all
    }

    /// The data of the Secret that carries it.
    pub fn data(&self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            (DATA_PASSWORD.to_owned(), self.password.clone()),
            ("ca.crt".to_owned(), self.ca_pem.clone()),
        ])
    }
}

/// Why a claim is not honoured. The texts are those that Skupper's sites know; they tell a stranger nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another password.
    #[error("Claim refused")]
    Password,
    /// Past its end.
    #[error("No such claim")]
    Expired,
    /// Redeemed as often as it may be.
    #[error("No such claim")]
    UsedUp,
    /// The record is damaged.
    #[error("Corrupted claim")]
    Corrupted,
    /// The asking site is too old.
    #[error("minimum version required 0.8.0")]
    Version,
}

impl Refusal {
    /// The HTTP status that says it.
    pub fn status(self) -> u16 {
        match self {
            Self::Password => 403,
            Self::Expired | Self::UsedUp => 404,
            Self::Corrupted => 500,
            Self::Version => 400,
        }
    }

    /// What the issuer's own operator is told.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Password => "wrong password",
            Self::Expired => "expired",
            Self::UsedUp => "used up",
            Self::Corrupted => "its record is damaged: delete it",
            Self::Version => "the asking site is older than 0.8.0",
        }
    }
}

/// The issuer's record of a claim. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The Secret's name.
    pub name: String,
    /// What proves the right.
    pub password: Vec<u8>,
    /// The end of the claim.
    pub expires: Option<Timestamp>,
    /// How often it may still be redeemed.
    pub remaining: Option<u32>,
    /// How often it was.
    pub made: u32,
}

impl std::fmt::Debug for ClaimRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimRecord")
            .field("name", &self.name)
            .field("expires", &self.expires)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl ClaimRecord {
    /// Reads a record from the parts of a Secret. What cannot be read is refused, never honoured.
    pub fn from_secret_parts(
        name: &str,
        annotations: &BTreeMap<String, String>,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, Refusal> {
        let number = |key| match annotations.get(key).map(|text| text.trim()) {
            None | Some("") => Ok(None),
            Some(text) => text.parse::<u32>().map(Some).map_err(|_| Refusal::Corrupted),
        };
        Ok(Self {
            name: name.to_owned(),
            password: part(name, data, DATA_PASSWORD, PASSWORD_LIMIT).map_err(|_| Refusal::Corrupted)?,
            expires: expiry(name, annotations).map_err(|_| Refusal::Corrupted)?,
            remaining: number(ANNOTATION_CLAIMS_REMAINING)?,
            made: number(ANNOTATION_CLAIMS_MADE)?.unwrap_or(0),
        })
    }

    /// Whether it may be redeemed now by who says this password; the record as it is afterwards.
    pub fn redeem(&self, password: &[u8], now: Timestamp) -> Result<Self, Refusal> {
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::Expired);
        }
        if self.remaining == Some(0) {
            return Err(Refusal::UsedUp);
        }
        // Digests are compared, so that time tells nothing about the password.
        if self.password.is_empty() || Sha256::digest(password) != Sha256::digest(&self.password) {
            return Err(Refusal::Password);
        }
        Ok(Self {
            remaining: self.remaining.map(|left| left - 1),
            made: self.made.saturating_add(1),
            ..self.clone()
        })
    }

    /// The annotations that say how often it was and may be redeemed.
    pub fn counts(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([(ANNOTATION_CLAIMS_MADE.to_owned(), self.made.to_string())]);
        if let Some(left) = self.remaining {
            all.insert(ANNOTATION_CLAIMS_REMAINING.to_owned(), left.to_string());
        }
        all
    }
}

/// Whether a site of this version may redeem. Versions that say nothing may: Skupper's own development builds have none.
pub fn version_may_redeem(version: &str) -> bool {
    let core = version.trim().trim_start_matches('v');
    let core = core.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse::<u64>());
    let numbers = (parts.next(), parts.next(), parts.next());
    match numbers {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => (major, minor, patch) >= MINIMUM_VERSION,
        _ => true,
    }
}

/// `https://host:port/name`: its three parts.
pub fn split_url(url: &str) -> Option<(String, u16, String)> {
    let rest = url.trim().strip_prefix("https://")?;
    let (authority, path) = rest.split_once('/')?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, 443),
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let record: String = path.split('?').next()?.chars().filter(|c| *c != '/').collect();
    let hostile = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '@' | '#' | '%');
    if host.is_empty() || host.len() > 253 || host.contains(hostile) || port == 0 {
        return None;
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    (!record.is_empty() && record.len() <= 253 && record.chars().all(good))
        .then(|| (host.to_owned(), port, record))
}

fn expiry(name: &str, annotations: &BTreeMap<String, String>) -> Result<Option<Timestamp>, ClaimError> {
    match annotations
        .get(ANNOTATION_CLAIM_EXPIRATION)
        .map(|text| text.trim())
    {
        None | Some("") => Ok(None),
        Some(text) => time(ANNOTATION_CLAIM_EXPIRATION, text)
            .map(Some)
            .map_err(|source| ClaimError::Annotation {
                name: name.to_owned(),
                source,
            }),
    }
}

fn part(
    name: &str,
    data: &BTreeMap<String, Vec<u8>>,
    key: &'static str,
    limit: usize,
) -> Result<Vec<u8>, ClaimError> {
    match data.get(key) {
        Some(value) if value.len() > limit => Err(ClaimError::TooLong {
            name: name.to_owned(),
            part: key,
        }),
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(ClaimError::Missing {
            name: name.to_owned(),
            part: key,
        }),
    }
}
