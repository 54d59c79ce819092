//! What a token may do: annotations of the issuer's record in, a `TokenScope` out, and back.
//!
//! The record at the issuer is what counts; the same annotations in the token's own file only inform its holder.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// Annotation: the addresses that the holder may reach here, a comma list of [patterns](TokenScope); absent: all that is exposed.
pub const ANNOTATION_REACH: &str = "karez.dev/reach";
/// Annotation: the addresses that the holder may offer, a comma list of patterns; absent: those that nobody else has.
pub const ANNOTATION_OFFER: &str = "karez.dev/offer";
/// Annotation: until when the token is good, RFC 3339.
pub const ANNOTATION_EXPIRES: &str = "karez.dev/expires";
/// Annotation: how many sites may link with the token; absent: any number.
pub const ANNOTATION_USES: &str = "karez.dev/uses";
/// Annotation: ids of the sites that have linked with the token, a comma list.
pub const ANNOTATION_USED_BY: &str = "karez.dev/used-by";
/// Annotation: the only kind of link that the token is for, `edge` or `inter-router`.
pub const ANNOTATION_ROLE: &str = "karez.dev/role";

/// Patterns in one list.
const PATTERNS: usize = 1000;
/// The longest value of an annotation.
const VALUE: usize = 64 * 1024;

/// Why a scope cannot be read; the token must not be admitted then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A pattern is none.
    #[error(
        "{key}: \"{value}\" is no address: write NAME or NAME:PORT, with letters, digits, '.', '-' and '_', and '*' at the end or alone"
    )]
    Pattern {
        /// The annotation.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// Too long or too many.
    #[error("{0}: too long: at most {PATTERNS} addresses")]
    TooLong(&'static str),
    /// No time.
    #[error("{key}: \"{value}\" is no time: write it as 2026-01-02T03:04:05Z")]
    Time {
        /// The annotation.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// No number.
    #[error("{key}: \"{value}\" is no number of uses: write 1 or more")]
    Number {
        /// The annotation.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// No kind of link.
    #[error("{ANNOTATION_ROLE}: \"{0}\" is no kind of link: write edge or inter-router")]
    Role(String),
}

/// What a token's holder may do at the issuer.
///
/// A pattern is an address `NAME` (all its ports), `NAME:PORT`, the same with `*` at the name's end (`shop-*`), or `*` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenScope {
    /// The addresses that may be reached; `None`: all that is exposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<Vec<String>>,
    /// The addresses that may be offered; `None`: those that nobody else has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Vec<String>>,
    /// The end of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How many sites may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// The only kind of link that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Ids of the sites that have used it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
}

impl TokenScope {
    /// Reads the scope of a token from its Secret's annotations.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, ScopeError> {
        let text = |key| annotations.get(key).map(|value| value.trim());
        let role = match text(ANNOTATION_ROLE) {
            None => None,
            Some(role @ ("edge" | "inter-router")) => Some(role.to_owned()),
            Some(other) => return Err(ScopeError::Role(shown(other))),
        };
        let sites = text(ANNOTATION_USED_BY).unwrap_or_default();
        Ok(Self {
            reach: text(ANNOTATION_REACH)
                .map(|value| patterns(ANNOTATION_REACH, value))
                .transpose()?,
            offer: text(ANNOTATION_OFFER)
                .map(|value| patterns(ANNOTATION_OFFER, value))
                .transpose()?,
            expires: text(ANNOTATION_EXPIRES)
                .map(|value| time(ANNOTATION_EXPIRES, value))
                .transpose()?,
            uses: text(ANNOTATION_USES)
                .map(|value| uses(ANNOTATION_USES, value))
                .transpose()?,
            role,
            used_by: list(sites).take(PATTERNS).map(str::to_owned).collect(),
        })
    }

    /// The same with an end, counted from `now`, and a number of sites; zero means without.
    #[must_use]
    pub fn limited(self, now: Timestamp, expiry: Option<Duration>, uses: Option<u32>) -> Self {
        let end = |expiry: Duration| now.checked_add(SignedDuration::try_from(expiry).ok()?).ok();
        Self {
            expires: expiry.filter(|expiry| !expiry.is_zero()).and_then(end),
            uses: uses.filter(|number| *number > 0),
            ..self
        }
    }

    /// The annotations that say this.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let entries = [
            (ANNOTATION_REACH, self.reach.as_ref().map(|all| all.join(","))),
            (ANNOTATION_OFFER, self.offer.as_ref().map(|all| all.join(","))),
            (
                ANNOTATION_EXPIRES,
                self.expires.as_ref().map(Timestamp::to_string),
            ),
            (ANNOTATION_USES, self.uses.as_ref().map(u32::to_string)),
            (ANNOTATION_ROLE, self.role.clone()),
            (
                ANNOTATION_USED_BY,
                (!self.used_by.is_empty()).then(|| self.used_by.join(",")),
            ),
        ];
        entries
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }
}

/// Reads a comma list of patterns, as an annotation or an option of the command line has them.
pub fn patterns(key: &'static str, text: &str) -> Result<Vec<String>, ScopeError> {
    if text.len() > VALUE {
        return Err(ScopeError::TooLong(key));
    }
    let mut all = Vec::new();
    for pattern in list(text) {
        if !is_pattern(pattern) {
            return Err(ScopeError::Pattern {
                key,
                value: shown(pattern),
            });
        }
        if all.len() == PATTERNS {
            return Err(ScopeError::TooLong(key));
        }
        all.push(pattern.to_owned());
    }
    Ok(all)
}

/// Whether this is a pattern of addresses.
pub fn is_pattern(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return false;
    }
    let stem = name.strip_suffix('*').unwrap_or(name);
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= 253 && stem.chars().all(good)
}

pub(crate) fn time(key: &'static str, value: &str) -> Result<Timestamp, ScopeError> {
    value.parse().map_err(|_| ScopeError::Time {
        key,
        value: shown(value),
    })
}

fn uses(key: &'static str, value: &str) -> Result<u32, ScopeError> {
    let number = value.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| ScopeError::Number {
        key,
        value: shown(value),
    })
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Foreign text, fit for a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
