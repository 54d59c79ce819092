//! Who may be at the ends of connections that are encrypted from the first to the last site.
//!
//! ```text
//!  a seal authority, kept off every site ──issue_seal──▶ Credential: site, what it serves, what it reaches (a Secret)
//!                                                             │
//!  the far router's certificate ──▶ SealScope: whether it speaks for the address, whether it may reach it
//! ```
//!
//! Sites have authorities of their own, and believe those that they link to; whoever is between two sites could
//! therefore vouch for anyone. So what is sealed rests on one authority that the network's operator holds: it signs for
//! each site by name, and the certificate itself says which addresses the site serves and reaches sealed.

use std::time::Duration;

use jiff::Timestamp;

use crate::authority::{Authority, Credential, IssueError, Subject, Usage};
use crate::facts::CertificateFacts;
use crate::scope::{is_pattern, shown};

/// The name that a seal certificate carries, beside what it allows.
pub const SEAL_SERVER_NAME: &str = "karez-seal";
/// The `skupper.io/type` of the Secret that holds a site's seal certificate.
pub const TYPE_SEAL: &str = "karez-seal";

const SERVE: &str = "karez://seal/serve/";
const REACH: &str = "karez://seal/reach/";
/// Patterns in one certificate: a handshake carries it.
const PATTERNS: usize = 256;

/// Why a seal certificate cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A pattern is none.
    #[error(
        "\"{0}\" is no address: write NAME or NAME:PORT, with letters, digits, '.', '-' and '_', and '*' at the end or alone"
    )]
    Pattern(String),
    /// More than a certificate should carry.
    #[error(
        "{0} addresses are more than the {PATTERNS} that one certificate names: use patterns such as shop-*"
    )]
    TooMany(usize),
    /// Nothing would be allowed.
    #[error("the certificate would allow nothing: name addresses that the site serves or reaches")]
    Nothing,
    /// The certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// What a site may do at the ends of sealed connections: patterns of addresses, as a [token's scope](crate::TokenScope) has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealScope {
    /// The addresses that it speaks for.
    pub serve: Vec<String>,
    /// The addresses that it reaches sealed, and never otherwise.
    pub reach: Vec<String>,
}

impl SealScope {
    /// What a certificate allows; whatever is no pattern allows nothing.
    #[must_use]
    pub fn of(facts: &CertificateFacts) -> Self {
        let patterns = |prefix: &str| {
            let all = facts.uris.iter().filter_map(|uri| uri.strip_prefix(prefix));
            all.filter(|pattern| is_pattern(pattern))
                .take(PATTERNS)
                .map(str::to_owned)
                .collect()
        };
        Self {
            serve: patterns(SERVE),
            reach: patterns(REACH),
        }
    }

    fn uris(&self) -> Result<Vec<String>, SealError> {
        let count = self.serve.len() + self.reach.len();
        match count {
            0 => return Err(SealError::Nothing),
            1..=PATTERNS => {}
            more => return Err(SealError::TooMany(more)),
        }
        let named = |prefix: &'static str, patterns: &'_ [String]| {
            let checked = patterns.iter().map(move |pattern| match is_pattern(pattern) {
                true => Ok(format!("{prefix}{pattern}")),
                false => Err(SealError::Pattern(shown(pattern))),
            });
            checked.collect::<Result<Vec<_>, _>>()
        };
        let mut uris = named(SERVE, &self.serve)?;
        uris.extend(named(REACH, &self.reach)?);
        Ok(uris)
    }
}

impl Authority {
    /// Issues what a site proves itself with at the ends of sealed connections.
    ///
    /// # Errors
    /// When the scope is empty, too large or no scope, or no certificate can be made.
    pub fn issue_seal(
        &self,
        site: &str,
        scope: &SealScope,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Credential, SealError> {
        let subject = Subject {
            common_name: site.to_owned(),
            dns_names: vec![SEAL_SERVER_NAME.to_owned()],
            usage: Usage::Both,
            lifetime,
            uri: None,
        };
        Ok(self.issue_named(&subject, &scope.uris()?, now)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(serve: &[&str], reach: &[&str]) -> SealScope {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        SealScope {
            serve: owned(serve),
            reach: owned(reach),
        }
    }

    #[test]
    fn what_is_issued_says_what_it_allows() {
        let now = Timestamp::now();
        let authority = Authority::new("seal", now, Duration::from_secs(3600)).unwrap();
        let wanted = scope(&["db:5432", "shop-*"], &["*"]);
        let issued = authority
            .issue_seal("shop", &wanted, Duration::from_secs(60), now)
            .unwrap();
        let facts = CertificateFacts::from_pem(issued.certificate_pem.as_bytes()).unwrap();
        assert_eq!(SealScope::of(&facts), wanted);
        assert_eq!(facts.common_name, "shop");
        assert_eq!(facts.dns_names, [SEAL_SERVER_NAME]);
        assert!(facts.token().is_none(), "it is no token");
    }

    #[test]
    fn nothing_too_much_and_nonsense_are_not_issued() {
        let now = Timestamp::now();
        let authority = Authority::new("seal", now, Duration::from_secs(3600)).unwrap();
        let issue = |scope: SealScope| {
            let issued = authority.issue_seal("s", &scope, Duration::from_secs(60), now);
            issued.unwrap_err()
        };
        assert!(matches!(issue(SealScope::default()), SealError::Nothing));
        assert!(matches!(issue(scope(&["a b"], &[])), SealError::Pattern(_)));
        let many: Vec<_> = (0..257).map(|number| format!("a{number}")).collect();
        let many = SealScope {
            serve: many,
            reach: Vec::new(),
        };
        assert!(matches!(issue(many), SealError::TooMany(257)));
    }

    #[test]
    fn a_token_allows_nothing_sealed() {
        let facts = CertificateFacts {
            common_name: String::new(),
            issuer: String::new(),
            serial: String::new(),
            fingerprint: String::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            uris: vec!["karez://site/a/token/b".into(), format!("{SERVE}a b")],
            is_authority: false,
        };
        assert_eq!(SealScope::of(&facts), SealScope::default());
    }
}
