//! What peers may do: tokens with their scope, patterns of addresses, whether addresses are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Address;
use crate::document::{Role, TokenSection};

/// Entries in one list of a token.
const ENTRIES: usize = 1000;

/// Addresses: `NAME` (all its ports), `NAME:PORT`, with `*` at the end of the name or alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressPattern {
    name: String,
    is_prefix: bool,
    port: Option<u16>,
}

impl AddressPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port > 0)?)),
            None => (text, None),
        };
        let stem = name.strip_suffix('*');
        let is_prefix = stem.is_some();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let stem = stem.unwrap_or(name);
        (!name.is_empty() && name.len() <= 253 && stem.chars().all(good)).then(|| Self {
            name: stem.to_owned(),
            is_prefix,
            port,
        })
    }

    /// Whether a name is meant, with whatever port.
    pub fn names(&self, name: &str) -> bool {
        if self.is_prefix {
            name.starts_with(&self.name)
        } else {
            name == self.name
        }
    }

    /// Whether an address is meant.
    pub fn matches(&self, address: &str, port: u16) -> bool {
        self.names(address) && self.port.is_none_or(|only| only == port)
    }

    /// Whether it is `*`: no name in particular.
    pub fn is_everything(&self) -> bool {
        self.is_prefix && self.name.is_empty()
    }

    /// The names that it stands for, without its port: `shop`, `shop-*`.
    pub fn name_pattern(&self) -> String {
        let star = if self.is_prefix { "*" } else { "" };
        format!("{}{star}", self.name)
    }
}

/// What the holder of a token may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenConfig {
    /// The token's name.
    pub name: String,
    /// The only kind of link that it is for.
    pub role: Option<Role>,
    /// What may be reached; `None`: all that is exposed.
    pub reach: Option<Vec<AddressPattern>>,
    /// What may be offered; `None`: what the policy leaves.
    pub offer: Option<Vec<AddressPattern>>,
    /// The end of the token, whatever its certificate says.
    pub until: Option<Timestamp>,
    /// How many sites may use it.
    pub uses: Option<u32>,
    /// Ids of the sites that have used it.
    pub sites: BTreeSet<String>,
}

impl TokenConfig {
    /// Whether an address may be reached.
    pub fn reaches(&self, address: &Address) -> bool {
        allows(self.reach.as_deref(), address)
    }

    /// Whether an address may be offered, as far as the token itself decides.
    pub fn offers(&self, address: &Address) -> bool {
        allows(self.offer.as_deref(), address)
    }

    /// What a section means; what is wrong with it as key, message and mend.
    pub(crate) fn read(section: &TokenSection) -> (Self, Vec<(&'static str, String, &'static str)>) {
        let mut wrong = Vec::new();
        let config = Self {
            name: section.name.clone(),
            role: section.role,
            reach: patterns("reach", section.reach.as_deref(), &mut wrong),
            offer: patterns("offer", section.offer.as_deref(), &mut wrong),
            until: section.until.as_ref().and_then(|text| match text.parse() {
                Ok(until) => Some(until),
                Err(_) => {
                    wrong.push((
                        "until",
                        format!("\"{text}\" is no time"),
                        "write it as 2026-01-02T03:04:05Z",
                    ));
                    None
                }
            }),
            uses: section.uses,
            sites: section.sites.iter().take(ENTRIES).cloned().collect(),
        };
        if section.uses == Some(0) {
            wrong.push((
                "uses",
                "0 sites may use the token".to_owned(),
                "write 1 or more, or remove the token",
            ));
        }
        (config, wrong)
    }
}

fn allows(patterns: Option<&[AddressPattern]>, address: &Address) -> bool {
    patterns.is_none_or(|patterns| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| pattern.matches(&address.name, address.port))
    })
}

fn patterns(
    key: &'static str,
    written: Option<&[String]>,
    wrong: &mut Vec<(&'static str, String, &'static str)>,
) -> Option<Vec<AddressPattern>> {
    let written = written?;
    if written.len() > ENTRIES {
        let message = format!(
            "{} addresses are more than the {ENTRIES} that are allowed",
            written.len()
        );
        wrong.push((key, message, "use patterns such as shop-*"));
    }
    let read = written.iter().take(ENTRIES).filter_map(|text| {
        let read = AddressPattern::parse(text);
        if read.is_none() {
            let message = format!("\"{text}\" is no address");
            wrong.push((
                key,
                message,
                "write NAME or NAME:PORT, with * at the end of the name or alone",
            ));
        }
        read
    });
    Some(read.collect())
}

/// Whether a peer may offer an address that somebody else has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Every peer may, unless its token says otherwise.
    #[default]
    Any,
    /// Only a peer whose token names the address in `offer`.
    Named,
}

/// Admitted client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    by_fingerprint: BTreeMap<String, (String, Arc<TokenConfig>)>,
}

impl Tokens {
    /// The token whose certificate this is, when it is on the list.
    pub fn admit(&self, serial: &str, fingerprint: &str) -> Option<&Arc<TokenConfig>> {
        let (listed, token) = self.by_fingerprint.get(fingerprint)?;
        (listed == serial).then_some(token)
    }

    /// Adds a certificate; false when it was there.
    pub fn insert(&mut self, token: TokenConfig, serial: &str, fingerprint: &str) -> bool {
        let entry = (serial.to_owned(), Arc::new(token));
        self.by_fingerprint
            .insert(fingerprint.to_owned(), entry)
            .is_none()
    }

    /// All tokens; one with several certificates is there as often.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TokenConfig>> {
        self.by_fingerprint.values().map(|(_, token)| token)
    }

    /// How many certificates there are.
    pub fn len(&self) -> usize {
        self.by_fingerprint.len()
    }

    /// Whether nobody may link to us.
    pub fn is_empty(&self) -> bool {
        self.by_fingerprint.is_empty()
    }
}

/// The certificate that answers a peer's request for a renewed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalConfig {
    /// The new certificate, PEM.
    pub certificate: String,
    /// The authorities to believe from now on, PEM.
    pub authorities: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        crate::validate::parse_address(text).unwrap()
    }

    #[test]
    fn patterns_mean_what_they_say() {
        let matches = |pattern: &str, text: &str| {
            let (pattern, address) = (AddressPattern::parse(pattern).unwrap(), address(text));
            pattern.matches(&address.name, address.port)
        };
        assert!(matches("a", "a:1") && matches("a", "a:2"));
        assert!(matches("a:1", "a:1") && !matches("a:1", "a:2"));
        assert!(matches("shop-*", "shop-7:80") && !matches("shop-*", "shop:80"));
        assert!(matches("*", "x:1") && matches("*:1", "x:1") && !matches("*:1", "x:2"));
        for bad in ["", "a b", "a*b", "a:0", "a:x", ":1", "a:70000"] {
            assert_eq!(AddressPattern::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_a_token_does_not_name_is_denied_and_silence_is_all() {
        let section = TokenSection {
            name: "t".into(),
            reach: Some(vec!["a:1".into()]),
            offer: Some(Vec::new()),
            ..TokenSection::default()
        };
        let (token, wrong) = TokenConfig::read(&section);
        assert!(wrong.is_empty());
        assert!(token.reaches(&address("a:1")) && !token.reaches(&address("a:2")));
        assert!(!token.offers(&address("a:1")), "an empty list is nothing");
        assert!(TokenConfig::default().offers(&address("a:1")));
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let section = TokenSection {
            name: "t".into(),
            reach: Some(vec!["a b".into()]),
            until: Some("soon".into()),
            uses: Some(0),
            ..TokenSection::default()
        };
        let keys: Vec<_> = TokenConfig::read(&section)
            .1
            .into_iter()
            .map(|(key, ..)| key)
            .collect();
        assert_eq!(keys, ["reach", "until", "uses"]);
    }
}
