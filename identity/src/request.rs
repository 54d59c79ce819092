//! Renewal: a new key and a request for its certificate at the holder, a checked request at the issuer.
//!
//! ```text
//!  holder                                         issuer
//!  NewKey::make ── request (PKCS #10) ──────────▶ CertificateRequest::from_pem ──▶ Authority::sign
//!       └─ key stays                              certificate ◀──────────────────────┘
//! ```

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::authority::IssueError;
use crate::facts::{first_certificate, parse};

/// The longest request, as PEM, that is read.
pub const REQUEST_LIMIT: usize = 8 * 1024;

/// Why a request for a certificate is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Longer than any honest request.
    #[error("{0} bytes are too many for a certificate request")]
    TooLong(usize),
    /// It cannot be read.
    #[error("damaged certificate request: {0}")]
    Damaged(String),
    /// Its signature is not of the key that it is for.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// Its key is of a kind that is not issued for.
    #[error("certificates are not issued for this kind of key: {0}")]
    Key(#[source] rcgen::Error),
}

/// A new key with the request for its certificate. `Debug` shows no key.
#[derive(Clone)]
pub struct NewKey {
    /// The private key, PEM: only ever for the Secret that keeps it.
    pub key_pem: String,
    /// The request, PEM: for the issuer.
    pub request_pem: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes a key and a request in this name. The issuer decides what the certificate says; only the key counts.
    pub fn make(common_name: &str) -> Result<Self, IssueError> {
        let failed = |source| IssueError::Certificate {
            subject: common_name.to_owned(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common_name);
        params.distinguished_name = name;
        let request = params.serialize_request(&key).map_err(failed)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            request_pem: request.pem().map_err(failed)?,
        })
    }
}

/// A request whose sender holds the private key; only [`from_pem`](Self::from_pem) makes one.
#[derive(Debug)]
pub struct CertificateRequest {
    pub(crate) key: rcgen::SubjectPublicKeyInfo,
}

impl CertificateRequest {
    /// Reads a request and checks that its sender holds the key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RequestError> {
        if pem.len() > REQUEST_LIMIT {
            return Err(RequestError::TooLong(pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|error| RequestError::Damaged(error.to_string()))?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| RequestError::Damaged(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Damaged("more bytes follow it".to_owned()));
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let key = rcgen::SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(RequestError::Key)?;
        Ok(Self { key })
    }

    /// Whether a certificate (PEM) is for the key of this request.
    pub fn is_answered_by(&self, certificate: &[u8]) -> bool {
        let Ok(der) = first_certificate(certificate) else {
            return false;
        };
        parse(&der).is_ok_and(|parsed| parsed.public_key().raw == self.key.subject_public_key_info())
    }
}

/// SHA-256 of a request, hex: what tells two requests apart.
pub fn request_digest(pem: &[u8]) -> String {
    hex::encode(Sha256::digest(pem))
}
