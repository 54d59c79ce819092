//! What a certificate says: PEM or DER in, `CertificateFacts` out; and who signed what.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::PEM_LIMIT;
use crate::authority::BACKDATE;

/// The longest time before its end that a certificate is renewed.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why a certificate could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// Nothing is there.
    #[error("no certificate in it: expected a PEM block that begins with -----BEGIN CERTIFICATE-----")]
    Empty,
    /// Longer than any honest certificate.
    #[error("{0} bytes are too many for a certificate")]
    TooLong(usize),
    /// The PEM armour is damaged.
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// The certificate inside is damaged.
    #[error("damaged certificate: {0}")]
    Certificate(String),
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// The subject's common name; empty when it has none.
    pub common_name: String,
    /// The issuer's common name.
    pub issuer: String,
    /// The serial number, lower-case hex without a leading zero byte.
    pub serial: String,
    /// SHA-256 of the DER encoding, lower-case hex.
    pub fingerprint: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// DNS names it is for.
    pub dns_names: Vec<String>,
    /// IP addresses it is for.
    pub addresses: Vec<IpAddr>,
    /// URIs that name the holder.
    pub uris: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
}

/// The identity Karez writes into a connection token's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUri {
    /// The site that issued the token.
    pub site_id: String,
    /// The token's name at the issuer.
    pub token: String,
}

impl TokenUri {
    /// `karez://site/<issuer's id>/token/<name>`
    pub fn to_uri(&self) -> String {
        format!("karez://site/{}/token/{}", self.site_id, self.token)
    }

    /// Reads what [`to_uri`](Self::to_uri) wrote.
    pub fn parse(uri: &str) -> Option<Self> {
        let (site_id, token) = uri.strip_prefix("karez://site/")?.split_once("/token/")?;
        if site_id.is_empty() || token.is_empty() || site_id.contains('/') || token.contains('/') {
            return None;
        }
        Some(Self {
            site_id: site_id.to_owned(),
            token: token.to_owned(),
        })
    }
}

impl CertificateFacts {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, FactsError> {
        Self::from_der(&first_certificate(pem)?)
    }

    /// Reads a DER certificate, such as a peer presents.
    pub fn from_der(der: &[u8]) -> Result<Self, FactsError> {
        if der.len() > PEM_LIMIT {
            return Err(FactsError::TooLong(der.len()));
        }
        let certificate = parse(der)?;
        let mut facts = Self {
            common_name: common_name(certificate.subject()),
            issuer: common_name(certificate.issuer()),
            serial: hex::encode(trim_zeros(certificate.raw_serial())),
            fingerprint: hex::encode(Sha256::digest(der)),
            not_before: timestamp(certificate.validity().not_before.timestamp())?,
            not_after: timestamp(certificate.validity().not_after.timestamp())?,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            is_authority: certificate.is_ca(),
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            names
                .value
                .general_names
                .iter()
                .for_each(|name| facts.add_name(name));
        }
        Ok(facts)
    }

    /// The token this certificate was issued for, when it was issued by Karez for one.
    pub fn token(&self) -> Option<TokenUri> {
        self.uris.iter().find_map(|uri| TokenUri::parse(uri))
    }

    /// When to ask for the next one: when a third of its life is left, and a month before its end at the earliest.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        let backdate = SignedDuration::try_from(BACKDATE).unwrap_or(SignedDuration::ZERO);
        let used = if life > backdate { life - backdate } else { life };
        let before = (used / 3).min(RENEW_BEFORE);
        self.not_after.checked_sub(before).unwrap_or(self.not_after)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => {
                if let Ok(four) = <[u8; 4]>::try_from(*bytes) {
                    self.addresses.push(IpAddr::from(four));
                } else if let Ok(sixteen) = <[u8; 16]>::try_from(*bytes) {
                    self.addresses.push(IpAddr::from(sixteen));
                }
            }
            _ => {}
        }
    }
}

/// Whether `certificate` carries a valid signature by one of the `authorities` (both PEM; there are several while one
/// takes over from another). Validity in time is another question.
pub fn signed_by(certificate: &[u8], authorities: &[u8]) -> Result<bool, FactsError> {
    der_signed_by(&first_certificate(certificate)?, authorities)
}

/// The same for a DER certificate, such as a peer presents.
pub fn der_signed_by(certificate: &[u8], authorities: &[u8]) -> Result<bool, FactsError> {
    let certificate = parse(certificate)?;
    // The first must be readable; a damaged one further on speaks for nobody.
    first_certificate(authorities)?;
    let mut signed = false;
    for authority in all_certificates(authorities) {
        let authority = parse(&authority)?;
        signed |= certificate.issuer() == authority.subject()
            && certificate.verify_signature(Some(authority.public_key())).is_ok();
    }
    Ok(signed)
}

/// Those certificates of a PEM bundle that have not ended at `now`, each once.
pub fn still_valid(bundle: &str, now: Timestamp) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut seen = std::collections::BTreeSet::new();
    let mut kept = String::new();
    for block in bundle.split_inclusive(END).take(32) {
        let Some(start) = block.find("-----BEGIN CERTIFICATE-----") else {
            continue;
        };
        let block = &block[start..];
        if let Ok(facts) = CertificateFacts::from_pem(block.as_bytes())
            && facts.not_after > now
            && seen.insert(facts.fingerprint)
        {
            kept.push_str(block);
            kept.push('\n');
        }
    }
    kept
}

fn all_certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    if pem.len() > PEM_LIMIT {
        return Vec::new();
    }
    CertificateDer::pem_slice_iter(pem).take(32).flatten().collect()
}

/// Whether a PEM private key belongs to a PEM certificate; an unreadable key does not.
pub fn key_matches(certificate: &[u8], key: &[u8]) -> Result<bool, FactsError> {
    let certificate = first_certificate(certificate)?;
    let certificate = parse(&certificate)?;
    let pair = std::str::from_utf8(key)
        .ok()
        .and_then(|key| rcgen::KeyPair::from_pem(key).ok());
    Ok(pair.is_some_and(|pair| pair.subject_public_key_info() == certificate.public_key().raw))
}

pub(crate) fn first_certificate(pem: &[u8]) -> Result<CertificateDer<'static>, FactsError> {
    if pem.len() > PEM_LIMIT {
        return Err(FactsError::TooLong(pem.len()));
    }
    match CertificateDer::pem_slice_iter(pem).next() {
        None => Err(FactsError::Empty),
        Some(Ok(certificate)) => Ok(certificate),
        Some(Err(error)) => Err(FactsError::Pem(error.to_string())),
    }
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, FactsError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(FactsError::Certificate("more bytes follow it".to_owned())),
        Err(error) => Err(FactsError::Certificate(error.to_string())),
    }
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    name.iter_common_name()
        .next()
        .and_then(|part| part.as_str().ok())
        .unwrap_or_default()
        .to_owned()
}

fn trim_zeros(serial: &[u8]) -> &[u8] {
    let first = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    &serial[first..]
}

fn timestamp(seconds: i64) -> Result<Timestamp, FactsError> {
    Timestamp::from_second(seconds).map_err(|error| FactsError::Certificate(error.to_string()))
}
