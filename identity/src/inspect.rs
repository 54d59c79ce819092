//! Looking at a token: `ConnectionToken` and the time in, a `TokenReport` for people and programs out.

use jiff::Timestamp;
use serde::Serialize;

use crate::facts::{CertificateFacts, FactsError, key_matches, signed_by};
use crate::scope::TokenScope;
use crate::token::ConnectionToken;

/// Where `now` lies in a certificate's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Validity {
    /// It begins later.
    NotYet,
    /// It is valid.
    Valid,
    /// It has ended.
    Expired,
}

impl Validity {
    /// Where `now` lies in the validity of a certificate.
    pub fn of(facts: &CertificateFacts, now: Timestamp) -> Self {
        if now < facts.not_before {
            Self::NotYet
        } else if now > facts.not_after {
            Self::Expired
        } else {
            Self::Valid
        }
    }
}

/// What a token is and whether it can work. Contains no secret.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenReport {
    /// The token's name.
    pub name: String,
    /// The site that issued it.
    pub issuer_site: String,
    /// That site's version.
    pub site_version: String,
    /// Where interior routers dial, `host:port`.
    pub inter_router: String,
    /// Where edge routers dial, `host:port`.
    pub edge: String,
    /// The link's cost.
    pub cost: u32,
    /// What the client certificate says.
    pub certificate: CertificateFacts,
    /// What the issuing authority's certificate says.
    pub authority: CertificateFacts,
    /// Whether it is valid now.
    pub validity: Validity,
    /// Whether the authority signed the certificate.
    pub signed_by_authority: bool,
    /// Whether the private key belongs to the certificate.
    pub key_matches: bool,
    /// What its file says that it may do; what counts is the issuer's record.
    pub scope: TokenScope,
    /// Everything that keeps the token from working; empty when it can.
    pub problems: Vec<String>,
}

/// Looks at a token as of `now`. Whether its issuer has revoked it only the issuer knows.
pub fn inspect(token: &ConnectionToken, now: Timestamp) -> Result<TokenReport, FactsError> {
    let credential = &token.credential;
    let (certificate, ca) = (
        credential.certificate_pem.as_bytes(),
        credential.ca_pem.as_bytes(),
    );
    let (facts, authority) = (
        CertificateFacts::from_pem(certificate)?,
        CertificateFacts::from_pem(ca)?,
    );
    let validity = Validity::of(&facts, now);
    let signed = signed_by(certificate, ca)?;
    let matches = key_matches(certificate, credential.key_pem.as_bytes())?;
    let mut problems = Vec::new();
    match validity {
        Validity::NotYet => problems.push(format!("certificate is not valid before {}", facts.not_before)),
        Validity::Expired => problems.push(format!("certificate expired on {}", facts.not_after)),
        Validity::Valid => {}
    }
    if Validity::of(&authority, now) == Validity::Expired {
        problems.push(format!(
            "the authority's certificate expired on {}",
            authority.not_after
        ));
    }
    if !signed {
        problems.push("certificate (tls.crt) is signed by another authority than ca.crt".to_owned());
    }
    if !matches {
        problems.push("private key (tls.key) does not belong to the certificate (tls.crt)".to_owned());
    }
    if token.scope.expires.is_some_and(|end| end <= now) && validity != Validity::Expired {
        problems.push("the token is past the end that its issuer gave it (karez.dev/expires)".to_owned());
    }
    Ok(TokenReport {
        name: token.name.clone(),
        issuer_site: token.generated_by.clone(),
        site_version: token.site_version.clone(),
        inter_router: host_port(&token.inter_router),
        edge: host_port(&token.edge),
        cost: token.cost.unwrap_or(1),
        certificate: facts,
        authority,
        validity,
        signed_by_authority: signed,
        key_matches: matches,
        scope: token.scope.clone(),
        problems,
    })
}

fn host_port((host, port): &(String, u16)) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
