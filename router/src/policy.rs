//! What a peer may do: its certificate and the document in, an `Admission` or a `Refusal` out. Nothing here touches a link.
//!
//! ```text
//!  handshake ─▶ certificate ─▶ admit ─▶ Admission ─▶ hello ─▶ admit_site ─▶ the link is up
//!  announcement ─▶ Holders::offer ─▶ what is believed of it
//!  stream ─▶ TokenConfig::reaches ─▶ carried, or refused
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karez_identity::CertificateFacts;
use karez_router_config::{Role, Sharing, TokenConfig, Tokens};
use karez_topology::{Filter, Scope};
use prometheus_client::encoding::EncodeLabelValue;

use crate::wire::clean;

/// What both sides say of a token that is not on the list.
pub(crate) const TOKEN_REVOKED: &str = "token revoked or unknown";
/// What both sides say when a link outlives its certificate.
pub(crate) const CERTIFICATE_ENDED: &str = "the certificate expired and was not renewed: ask for a new token";
/// A peer whose certificate has ended has this long to renew it, before it is tried again.
const TO_RENEW: SignedDuration = SignedDuration::from_mins(2);
/// Names that tokens may hold together.
const HELD: usize = 100_000;

/// Why a peer was refused, for the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelValue)]
pub(crate) enum RefusedFor {
    /// Signed by another authority, or tampered with.
    Authority,
    /// Its certificate or its token has ended.
    Expired,
    /// Its certificate begins later.
    NotYetValid,
    /// Its token is not on the list.
    Revoked,
    /// The token is for another kind of link.
    Role,
    /// More sites than the token allows.
    Uses,
    /// It did not finish in time.
    Slow,
    /// Its messages make no sense.
    Protocol,
    /// It wanted an address that its token does not reach.
    Reach,
    /// It offered an address that it may not.
    Offer,
    /// It wanted more connections at once than a peer may have.
    TooMany,
    /// Anything else.
    Other,
}

impl RefusedFor {
    /// What a failure's words are about: the transports tell by text alone what was wrong with a certificate.
    pub(crate) fn of(text: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["not valid yet"]) {
            Self::NotYetValid
        } else if says(&["expired", "the token ended"]) {
            Self::Expired
        } else if says(&[
            "another authority",
            "certificate not acceptable",
            "certificate is for",
            "certificate is required",
        ]) {
            Self::Authority
        } else if says(&[TOKEN_REVOKED]) {
            Self::Revoked
        } else if says(&["role", "links only"]) {
            Self::Role
        } else if says(&["may use it"]) {
            Self::Uses
        } else if says(&["too long", "in time", "does not answer"]) {
            Self::Slow
        } else if says(&["the peer sent", "control stream", "first message", "version"]) {
            Self::Protocol
        } else {
            Self::Other
        }
    }
}

/// Why a peer is not admitted, in words for both operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not on the list.
    #[error("{TOKEN_REVOKED} (certificate of \"{0}\")")]
    Unknown(String),
    /// For another kind of link.
    #[error("the token \"{token}\" is for {} links only", only.as_str())]
    Role {
        /// The token.
        token: String,
        /// What it is for.
        only: Role,
    },
    /// Past the end that its issuer gave it.
    #[error("the token ended at {0}: ask for a new one")]
    Ended(Timestamp),
    /// Too many sites.
    #[error("the token \"{token}\" was used by other sites already, and {uses} may use it")]
    Uses {
        /// The token.
        token: String,
        /// How many may.
        uses: u32,
    },
}

/// By what a peer is admitted; only [`admit`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Of its certificate.
    pub(crate) serial: String,
    /// Of its certificate.
    pub(crate) fingerprint: String,
    /// When its certificate ends.
    pub(crate) not_after: Timestamp,
    /// When it is over, unless the certificate is renewed: at that end, or at its token's.
    pub(crate) until: Timestamp,
    /// Its certificate has ended: until it is renewed the peer may do nothing but that.
    pub(crate) is_late: bool,
    /// What the peer may do.
    pub(crate) token: Arc<TokenConfig>,
}

/// Whether a certificate, which the transport has verified, admits its holder to a port of this role.
pub(crate) fn admit(
    tokens: &Tokens,
    facts: &CertificateFacts,
    role: Role,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    let token = tokens
        .admit(&facts.serial, &facts.fingerprint)
        .ok_or_else(|| Refusal::Unknown(clean(&facts.common_name, 64)))?;
    if let Some(only) = token.role.filter(|only| *only != role) {
        return Err(Refusal::Role {
            token: token.name.clone(),
            only,
        });
    }
    if let Some(end) = token.until.filter(|end| *end <= now) {
        return Err(Refusal::Ended(end));
    }
    // The transport lets a certificate that has ended in only where the policy does.
    let is_late = facts.not_after <= now;
    let end = if is_late {
        now.checked_add(TO_RENEW).unwrap_or(now)
    } else {
        facts.not_after
    };
    Ok(Admission {
        serial: facts.serial.clone(),
        fingerprint: facts.fingerprint.clone(),
        not_after: facts.not_after,
        until: token.until.map_or(end, |until| until.min(end)),
        is_late,
        token: token.clone(),
    })
}

/// Whether a site may use a token that these sites use now.
pub(crate) fn admit_site<'a>(
    token: &'a TokenConfig,
    site: &str,
    now: impl IntoIterator<Item = &'a str>,
) -> Result<(), Refusal> {
    let Some(uses) = token.uses else { return Ok(()) };
    if token.sites.contains(site) {
        return Ok(());
    }
    let mut sites: BTreeSet<&str> = token.sites.iter().map(String::as_str).collect();
    sites.extend(now);
    sites.remove(site);
    if sites.len() < usize::try_from(uses).unwrap_or(usize::MAX) {
        return Ok(());
    }
    Err(Refusal::Uses {
        token: token.name.clone(),
        uses,
    })
}

/// Which token holds which address's name: whoever offered it first, for as long as the token is on the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    by_name: BTreeMap<String, String>,
}

impl Holders {
    /// Takes what the holder of a token offers; gives the names that it must not offer.
    ///
    /// `is_reserved` says what this site or another token's scope has a claim on.
    pub(crate) fn offer<'a>(
        &mut self,
        token: &TokenConfig,
        sharing: Sharing,
        names: impl IntoIterator<Item = &'a str>,
        is_reserved: impl Fn(&str) -> bool,
    ) -> BTreeSet<String> {
        let mut denied = BTreeSet::new();
        for name in names {
            // What the token names it may offer, whoever else does.
            if sharing == Sharing::Any || token.offer.is_some() {
                continue;
            }
            let is_full = self.by_name.len() >= HELD;
            let is_free = match self.by_name.get(name) {
                Some(holder) => *holder == token.name,
                None => !is_full && !is_reserved(name),
            };
            if is_free {
                self.by_name.insert(name.to_owned(), token.name.clone());
            } else {
                denied.insert(name.to_owned());
            }
        }
        denied
    }

    /// Frees what tokens held that are gone.
    pub(crate) fn keep(&mut self, tokens: &Tokens) {
        let names: BTreeSet<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        self.by_name.retain(|_, holder| names.contains(holder.as_str()));
    }
}

/// Whether another token's scope names an address: it is kept for that one.
pub(crate) fn is_named_elsewhere(tokens: &Tokens, token: &TokenConfig, name: &str) -> bool {
    tokens.iter().any(|other| {
        let patterns = other.offer.iter().flatten();
        let mut patterns = patterns.filter(|pattern| !pattern.is_everything());
        other.name != token.name && patterns.any(|pattern| pattern.names(name))
    })
}

/// What the topology believes of a peer that may only renew its certificate: nothing.
pub(crate) fn nothing() -> Filter {
    let none = || Scope::only(std::iter::empty::<String>());
    Filter {
        offer: none(),
        reach: none(),
    }
}

/// What the topology believes of a peer, and tells it.
pub(crate) fn filter(token: &TokenConfig, denied: BTreeSet<String>) -> Filter {
    let only = |patterns: &Option<Vec<_>>, otherwise: Scope| match patterns {
        None => otherwise,
        Some(patterns) => Scope::only(
            patterns
                .iter()
                .map(karez_router_config::AddressPattern::name_pattern),
        ),
    };
    let rest = if denied.is_empty() {
        Scope::Any
    } else {
        Scope::Except(denied)
    };
    Filter {
        offer: only(&token.offer, rest),
        reach: only(&token.reach, Scope::Any),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use karez_router_config::{TokenSection, parse_address};

    fn token(change: impl FnOnce(&mut TokenSection)) -> TokenConfig {
        let mut section = TokenSection {
            name: "t".into(),
            serial: "01".into(),
            fingerprint: "ab".repeat(32),
            ..TokenSection::default()
        };
        change(&mut section);
        let document = karez_router_config::RouterDocument {
            version: 1,
            site: karez_router_config::SiteSection {
                id: "s".into(),
                name: "s".into(),
                ..Default::default()
            },
            tokens: vec![section.clone()],
            ..Default::default()
        };
        let config = karez_router_config::validate(&document).unwrap();
        (**config.tokens.admit("01", &section.fingerprint).unwrap()).clone()
    }

    fn tokens(all: impl IntoIterator<Item = TokenConfig>) -> Tokens {
        let mut tokens = Tokens::default();
        for (index, token) in all.into_iter().enumerate() {
            tokens.insert(token, "01", &format!("{index:064x}"));
        }
        tokens
    }

    fn facts() -> CertificateFacts {
        CertificateFacts {
            common_name: "edge\n".into(),
            issuer: String::new(),
            serial: "01".into(),
            fingerprint: format!("{:064x}", 0),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: at(100),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            is_authority: false,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_admits_for_its_role_and_until_its_end() {
        let admit_at = |token: TokenConfig, role, second| admit(&tokens([token]), &facts(), role, at(second));
        let plain = token(|_| ());
        assert_eq!(admit_at(plain, Role::Edge, 0).unwrap().until, at(100));
        let edge = token(|section| section.role = Some(Role::Edge));
        assert!(admit_at(edge.clone(), Role::Edge, 0).is_ok());
        let refused = admit_at(edge, Role::InterRouter, 0).unwrap_err().to_string();
        assert_eq!(refused, "the token \"t\" is for edge links only");
        let short = token(|section| section.until = Some("1970-01-01T00:00:50Z".into()));
        assert_eq!(admit_at(short.clone(), Role::Edge, 0).unwrap().until, at(50));
        assert_eq!(admit_at(short, Role::Edge, 50), Err(Refusal::Ended(at(50))));
        let late = admit_at(token(|_| ()), Role::Edge, 101).unwrap();
        assert!(
            late.is_late && late.until == at(101 + 120),
            "only to renew it, and not for long"
        );
        assert!(!nothing().offer.allows("a") && !nothing().reach.allows("a"));
        let unknown = admit(&Tokens::default(), &facts(), Role::Edge, at(0)).unwrap_err();
        assert_eq!(
            unknown,
            Refusal::Unknown("edge".into()),
            "and no control characters"
        );
    }

    #[test]
    fn a_token_is_used_by_so_many_sites_and_by_these_again() {
        let two = token(|section| (section.uses, section.sites) = (Some(2), vec!["a".into()]));
        assert!(admit_site(&two, "a", ["a", "b"]).is_ok(), "a has used it");
        assert!(admit_site(&two, "b", ["a"]).is_ok());
        assert!(admit_site(&two, "b", ["a", "b"]).is_ok(), "a second link");
        assert!(admit_site(&two, "c", ["a", "b"]).is_err());
        assert!(admit_site(&token(|_| ()), "c", ["a", "b"]).is_ok());
    }

    #[test]
    fn an_address_stays_with_whom_it_is() {
        let (one, two) = (token(|_| ()), token(|section| section.name = "u".into()));
        let named = token(|section| {
            section.name = "v".into();
            section.offer = Some(vec!["db".into()]);
        });
        let mut holders = Holders::default();
        let free = |_: &str| false;
        assert!(holders.offer(&one, Sharing::Named, ["db"], free).is_empty());
        assert_eq!(
            holders.offer(&two, Sharing::Named, ["db", "web"], free),
            BTreeSet::from(["db".into()])
        );
        assert!(
            holders.offer(&named, Sharing::Named, ["db"], free).is_empty(),
            "it is named"
        );
        assert!(
            holders.offer(&two, Sharing::Any, ["db"], free).is_empty(),
            "all is shared"
        );
        holders.keep(&tokens([two.clone()]));
        assert!(
            holders.offer(&two, Sharing::Named, ["db"], free).is_empty(),
            "its holder is gone"
        );
        let reserved = |name: &str| name == "own";
        assert_eq!(holders.offer(&two, Sharing::Named, ["own"], reserved).len(), 1);
        let all = tokens([two.clone(), named]);
        assert!(is_named_elsewhere(&all, &two, "db") && !is_named_elsewhere(&all, &two, "web"));
    }

    #[test]
    fn a_scope_becomes_what_the_topology_believes() {
        let scoped = token(|section| {
            section.reach = Some(vec!["a:1".into()]);
            section.offer = Some(vec!["shop-*".into()]);
        });
        let filter = filter(&scoped, BTreeSet::new());
        assert!(filter.offer.allows("shop-7") && !filter.offer.allows("a"));
        assert!(filter.reach.allows("a") && !filter.reach.allows("b"));
        assert!(!scoped.reaches(&parse_address("a:2").unwrap()));
        let open = super::filter(&token(|_| ()), BTreeSet::from(["db".into()]));
        assert!(open.offer.allows("web") && !open.offer.allows("db") && open.reach.allows("db"));
    }

    #[test]
    fn words_are_counted_under_what_they_say() {
        for (text, reason) in [
            (
                "the peer's certificate was refused here: certificate expired",
                RefusedFor::Expired,
            ),
            (
                "certificate not valid yet (compare the clocks)",
                RefusedFor::NotYetValid,
            ),
            (
                "the peer's certificate was refused here: signed by another authority",
                RefusedFor::Authority,
            ),
            (
                "token revoked or unknown (certificate of \"x\")",
                RefusedFor::Revoked,
            ),
            (
                "this port takes edge links, asked for was one of another role",
                RefusedFor::Role,
            ),
            ("the handshake took too long", RefusedFor::Slow),
            ("the peer sent an address that is none", RefusedFor::Protocol),
            ("anything", RefusedFor::Other),
        ] {
            assert_eq!(RefusedFor::of(text), reason, "{text}");
        }
    }
}
