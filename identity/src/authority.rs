//! Authorities and what they issue: `Subject` in, `Credential` out.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};

use crate::facts::{CertificateFacts, FactsError, key_matches};
use crate::request::CertificateRequest;

/// Certificates begin this much before `now`, so that a peer whose clock is a little behind accepts them.
pub(crate) const BACKDATE: Duration = Duration::from_secs(300);

/// Why an authority could not be made or read, or could not issue.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The certificate library refused; it says why.
    #[error("cannot make a certificate for \"{subject}\": {source}")]
    Certificate {
        /// The common name it was for.
        subject: String,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// A subject alternative name cannot be written into a certificate.
    #[error(
        "\"{name}\" cannot be a name in a certificate: use ASCII letters, digits, '-' and '.', or an IP address"
    )]
    Name {
        /// The offending name.
        name: String,
    },
    /// The authority's own certificate cannot be read.
    #[error("the authority's certificate (tls.crt) cannot be read: {0}")]
    Authority(#[source] FactsError),
    /// The authority's private key cannot be read.
    #[error("the authority's private key (tls.key) cannot be read: {0}")]
    Key(#[source] rcgen::Error),
    /// Certificate and key do not belong together.
    #[error("the authority's private key (tls.key) does not belong to its certificate (tls.crt)")]
    KeyMismatch,
    /// The certificate is not one of an authority.
    #[error("the certificate of \"{0}\" is not an authority's: it may not sign others")]
    NotAnAuthority(String),
    /// The authority is past its own validity; nothing it issued would be accepted.
    #[error("the authority \"{name}\" is only valid until {until}: replace it")]
    Expired {
        /// Common name of the authority.
        name: String,
        /// When it ended.
        until: Timestamp,
    },
    /// `now` or the lifetime is outside what a certificate can say.
    #[error("the time {0} cannot be written into a certificate")]
    Time(Timestamp),
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It proves a server.
    Server,
    /// It proves a client.
    Client,
    /// It proves both.
    Both,
}

/// Whom a certificate is issued to.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The common name.
    pub common_name: String,
    /// DNS names and IP addresses (recognised by their form).
    pub dns_names: Vec<String>,
    /// Server, client or both.
    pub usage: Usage,
    /// How long it is valid; cut to the authority's own end.
    pub lifetime: Duration,
    /// A URI that names the holder, such as `karez://site/<id>/token/<name>`.
    pub uri: Option<String>,
}

/// A certificate, its private key, and the authority that signed it, as PEM.
///
/// `Debug` shows no key.
#[derive(Clone)]
pub struct Credential {
    /// The certificate (`tls.crt`).
    pub certificate_pem: String,
    /// The private key (`tls.key`).
    pub key_pem: String,
    /// The authority's certificate (`ca.crt`).
    pub ca_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = CertificateFacts::from_pem(self.certificate_pem.as_bytes()).map(|facts| facts.common_name);
        f.debug_struct("Credential")
            .field("subject", &name.unwrap_or_default())
            .finish_non_exhaustive()
    }
}

/// A certificate authority: a site's own, or its local one.
pub struct Authority {
    certificate_pem: String,
    key: KeyPair,
    key_pem: String,
    facts: CertificateFacts,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.facts.common_name)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority, self-signed, valid from `now` for `lifetime`.
    pub fn new(common_name: &str, now: Timestamp, lifetime: Duration) -> Result<Self, IssueError> {
        let failed = |source| IssueError::Certificate {
            subject: common_name.to_owned(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = params(common_name, now, end(now, lifetime)?)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads an authority from its certificate and key (PKCS #8, PKCS #1 or SEC 1), as a Secret keeps them.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let facts = CertificateFacts::from_pem(certificate.as_bytes()).map_err(IssueError::Authority)?;
        if !facts.is_authority {
            return Err(IssueError::NotAnAuthority(facts.common_name));
        }
        let pair = KeyPair::from_pem(key).map_err(IssueError::Key)?;
        if !key_matches(certificate.as_bytes(), key.as_bytes()).map_err(IssueError::Authority)? {
            return Err(IssueError::KeyMismatch);
        }
        Ok(Self {
            certificate_pem: certificate.to_owned(),
            key: pair,
            key_pem: key.to_owned(),
            facts,
        })
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key: only ever for the Secret that keeps it.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// What the authority's certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// Issues a certificate with a fresh key.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Credential, IssueError> {
        self.issue_named(subject, &[], now)
    }

    /// The same with further URIs that name what the holder may do.
    pub(crate) fn issue_named(
        &self,
        subject: &Subject,
        uris: &[String],
        now: Timestamp,
    ) -> Result<Credential, IssueError> {
        let failed = |source| IssueError::Certificate {
            subject: subject.common_name.clone(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        Ok(Credential {
            certificate_pem: self.certify(&key, subject, uris, now)?,
            key_pem: key.serialize_pem(),
            ca_pem: self.certificate_pem.clone(),
        })
    }

    /// Issues a certificate for the key of a request. What it says is the subject's, not the request's.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        subject: &Subject,
        now: Timestamp,
    ) -> Result<String, IssueError> {
        self.certify(&request.key, subject, &[], now)
    }

    fn certify(
        &self,
        key: &impl rcgen::PublicKeyData,
        subject: &Subject,
        uris: &[String],
        now: Timestamp,
    ) -> Result<String, IssueError> {
        if self.facts.not_after <= now {
            return Err(IssueError::Expired {
                name: self.facts.common_name.clone(),
                until: self.facts.not_after,
            });
        }
        let failed = |source| IssueError::Certificate {
            subject: subject.common_name.clone(),
            source,
        };
        let until = end(now, subject.lifetime)?.min(self.facts.not_after);
        let mut params = params(&subject.common_name, now, until)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = purposes(subject.usage);
        params.subject_alt_names = names(subject)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(ascii(uri)?));
        }
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key).map_err(failed)?;
        let certificate = params.signed_by(key, &issuer).map_err(failed)?;
        Ok(certificate.pem())
    }
}

fn purposes(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    match usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
    }
}

fn names(subject: &Subject) -> Result<Vec<SanType>, IssueError> {
    let mut names = Vec::new();
    for name in &subject.dns_names {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(ascii(name)?),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if let Some(uri) = &subject.uri {
        names.push(SanType::URI(ascii(uri)?));
    }
    Ok(names)
}

fn ascii(name: &str) -> Result<rcgen::string::Ia5String, IssueError> {
    let bad = || IssueError::Name {
        name: name.to_owned(),
    };
    if name.is_empty() || name.len() > 512 || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    name.try_into().map_err(|_| bad())
}

fn params(common_name: &str, now: Timestamp, until: Timestamp) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.serial_number = Some(serial());
    // `rcgen` speaks another crate's dates; adding to its epoch avoids depending on that crate.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now)?.saturating_sub(BACKDATE);
    params.not_after = epoch + since_epoch(until)?;
    Ok(params)
}

/// 16 random bytes, positive and never starting with a zero byte, so that every reader spells it alike.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn end(now: Timestamp, lifetime: Duration) -> Result<Timestamp, IssueError> {
    now.checked_add(lifetime).map_err(|_| IssueError::Time(now))
}

fn since_epoch(at: Timestamp) -> Result<Duration, IssueError> {
    // Year 9999 is the last one a certificate can name.
    let last = 253_402_300_799;
    u64::try_from(at.as_second())
        .ok()
        .filter(|seconds| *seconds <= last)
        .map(Duration::from_secs)
        .ok_or(IssueError::Time(at))
}
