//! TLS configurations from a credential, and what a failed handshake means in plain words.
//!
//! Both sides speak TLS 1.3 only, present a certificate, and prefer the hybrid post-quantum key exchange
//! X25519MLKEM768.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::PEM_LIMIT;
use crate::facts::{CertificateFacts, FactsError};
use crate::late::{Grace, Lenient};
use crate::suites::with_ring;

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key of the Secret, or a file of the directory, is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The content is too long.
    #[error("{item} is too long ({length} bytes)")]
    TooLong {
        /// Which of `tls.crt`, `tls.key`, `ca.crt`.
        item: &'static str,
        /// How long it is.
        length: usize,
    },
    /// The content is no PEM of the kind that is expected.
    #[error("{item} is not usable: {reason}")]
    Pem {
        /// Which of `tls.crt`, `tls.key`, `ca.crt`.
        item: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are refused together.
    #[error("tls.crt and tls.key are not usable together: {0}")]
    Pair(#[source] rustls::Error),
    /// The authority's certificate is refused.
    #[error("ca.crt is not usable: {0}")]
    Authority(String),
}

/// The three PEM texts of a TLS profile, as a Secret or a directory holds them. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsMaterial {
    /// `tls.crt`: the chain we present.
    pub cert: Vec<u8>,
    /// `tls.key`: its private key.
    pub key: Vec<u8>,
    /// `ca.crt`: whom we believe.
    pub ca: Vec<u8>,
    /// How long past their end clients' certificates are let in, by a server.
    pub grace: Grace,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

impl From<&crate::Credential> for TlsMaterial {
    fn from(credential: &crate::Credential) -> Self {
        Self {
            cert: credential.certificate_pem.clone().into_bytes(),
            key: credential.key_pem.clone().into_bytes(),
            ca: credential.ca_pem.clone().into_bytes(),
            grace: Grace::default(),
        }
    }
}

impl TlsMaterial {
    /// Takes `tls.crt`, `tls.key` and `ca.crt` out of a Secret's data.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, TlsError> {
        let item = |name: &'static str| match data.get(name) {
            None => Err(TlsError::Missing(name)),
            Some(bytes) if bytes.is_empty() => Err(TlsError::Missing(name)),
            Some(bytes) if bytes.len() > PEM_LIMIT => Err(TlsError::TooLong {
                item: name,
                length: bytes.len(),
            }),
            Some(bytes) => Ok(bytes.clone()),
        };
        Ok(Self {
            cert: item("tls.crt")?,
            key: item("tls.key")?,
            ca: item("ca.crt")?,
            grace: Grace::default(),
        })
    }

    /// What the presented certificate says: for reports and for watching its expiry.
    pub fn facts(&self) -> Result<CertificateFacts, FactsError> {
        CertificateFacts::from_pem(&self.cert)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates("tls.crt", &self.cert)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        // The parser's own error could quote what it read; a key must never reach a message.
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::Pem {
            item: "tls.key",
            reason: "no private key in PEM form (PKCS #8, PKCS #1 or SEC 1)".to_owned(),
        })
    }

    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        roots(&self.ca)
    }
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca.crt", pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(item: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason: String| TlsError::Pem { item, reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(32)
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("no certificate in it".to_owned()));
    }
    Ok(found)
}

/// The cryptography that links and local APIs use: aws-lc-rs with X25519MLKEM768 first, and ring for QUIC's packets.
pub fn provider() -> Arc<CryptoProvider> {
    let groups = aws_lc_rs::kx_group::X25519MLKEM768;
    let mut cipher_suites = with_ring(aws_lc_rs::default_provider().cipher_suites);
    // The shorter key first: as strong as the certificates' P-256, and a third less work a byte.
    cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups: vec![
            groups,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// A server that demands a client certificate signed by the profile's authority.
pub fn server_config(profile: &TlsMaterial, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(profile.roots()?, provider.clone())
        .build()
        .map_err(|error| TlsError::Authority(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(Arc::new(Lenient {
            strict: verifier,
            grace: profile.grace.clone(),
        }))
        .with_single_cert(profile.chain()?, profile.private_key()?)
        .map_err(TlsError::Pair)?;
    // A resumed session would outlive the revocation of its token.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A client that presents the profile's certificate and believes only the profile's authority.
pub fn client_config(profile: &TlsMaterial, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_root_certificates(profile.roots()?)
        .with_client_auth_cert(profile.chain()?, profile.private_key()?)
        .map_err(TlsError::Pair)?;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A server that asks for no client certificate: claims are proved by their password, reviews come from an API server.
pub fn untrusting_server_config(profile: &TlsMaterial, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(profile.chain()?, profile.private_key()?)
        .map_err(TlsError::Pair)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A client without a certificate that believes only these authorities (PEM).
pub fn trusting_client_config(authorities: &[u8], alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_root_certificates(roots(authorities)?)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// What is wrong with the other side's certificate, in words that its operator understands.
pub fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate not valid yet (compare the clocks)"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "signed by another authority",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate is for another name than skupper-router"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate is for another purpose"
        }
        CertificateError::Revoked => "token revoked or unknown",
        _ => "certificate not acceptable",
    }
}

/// What a TLS alert from the other side says about the certificate that we presented.
pub fn alert_reason(alert: u8) -> Option<&'static str> {
    Some(match alert {
        42 | 43 | 46 => "certificate not acceptable",
        44 => "token revoked or unknown",
        45 => "certificate expired",
        // Authorities of different sites often share a name; then it is the signature that fails (51).
        48 | 51 => "signed by another authority",
        49 => "access denied",
        116 => "a client certificate is required",
        120 => "the other side does not speak karez-link/1",
        _ => return None,
    })
}
