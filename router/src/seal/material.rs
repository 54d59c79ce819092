//! What a site proves itself with at the ends of sealed connections, read from its TLS profile.

use std::sync::Arc;

use jiff::Timestamp;
use karez_identity::{CertificateFacts, SealScope, TlsMaterial, client_config, der_signed_by, server_config};
use karez_router_config::AddressPattern;
use karez_topology::{Address, Fingerprint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ServerConfig};
use sha2::{Digest, Sha256};

/// Authorities that one site believes.
const AUTHORITIES: usize = 16;

/// What a site proves itself with, what that allows, and whom it believes.
pub(crate) struct Material {
    client: ClientConfig,
    server: ServerConfig,
    scope: Patterns,
    believed: Vec<Fingerprint>,
    /// The one of them that vouches for this site.
    pub(crate) authority: Fingerprint,
    /// This site's name, as the certificate has it.
    pub(crate) site: String,
    /// When the certificate ends.
    pub(crate) until: Timestamp,
}

impl Material {
    /// Reads a profile; else the reason why it cannot be used.
    pub(super) fn read(material: &TlsMaterial) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let facts = material.facts().map_err(|error| text(&error))?;
        let scope = Patterns::of(&facts);
        if scope.serve.is_empty() && scope.reach.is_empty() {
            return Err(format!(
                "the certificate of \"{}\" names no address: it was not made for sealing",
                facts.common_name
            ));
        }
        let authorities: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&material.ca)
            .take(AUTHORITIES)
            .collect::<Result<_, _>>()
            .map_err(|error| text(&error))?;
        let leaf = CertificateDer::from_pem_slice(&material.cert).map_err(|error| text(&error))?;
        let signer = |authority: &&CertificateDer<'_>| {
            let pem = as_pem(authority);
            der_signed_by(&leaf, pem.as_bytes()).unwrap_or(false)
        };
        let signer = authorities
            .iter()
            .find(signer)
            .ok_or("the certificate is not signed by an authority in ca.crt")?;
        let mut client = client_config(material, &[]).map_err(|error| text(&error))?;
        let mut server = server_config(material, &[]).map_err(|error| text(&error))?;
        client.enable_secret_extraction = true;
        server.enable_secret_extraction = true;
        Ok(Self {
            client,
            server,
            scope,
            authority: print(signer),
            believed: authorities.iter().map(print).collect(),
            site: facts.common_name,
            until: facts.not_after,
        })
    }

    /// Whether the certificate has not ended; else what to do.
    pub(super) fn in_time(&self, now: Timestamp) -> Result<(), String> {
        if self.until > now {
            return Ok(());
        }
        Err(format!(
            "this site's seal certificate ended at {}: have a new one made",
            self.until
        ))
    }

    /// Whether this site speaks for an address.
    pub(super) fn serves(&self, address: &Address) -> bool {
        Patterns::name(&self.scope.serve, address)
    }

    /// Whether this site reaches an address sealed, and never otherwise.
    pub(super) fn reaches(&self, address: &Address) -> bool {
        Patterns::name(&self.scope.reach, address)
    }

    /// Whether an authority is believed.
    pub(super) fn believes(&self, authority: &Fingerprint) -> bool {
        self.believed.contains(authority)
    }

    /// For one connection to a far site.
    pub(super) fn client(&self, bound: Vec<u8>) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        config.alpn_protocols = vec![bound];
        Arc::new(config)
    }

    /// For one connection from a far site.
    pub(super) fn server(&self, bound: Vec<u8>) -> Arc<ServerConfig> {
        let mut config = self.server.clone();
        config.alpn_protocols = vec![bound];
        Arc::new(config)
    }
}

/// What a seal certificate allows.
pub(super) struct Patterns {
    pub(super) serve: Vec<AddressPattern>,
    pub(super) reach: Vec<AddressPattern>,
}

impl Patterns {
    pub(super) fn of(facts: &CertificateFacts) -> Self {
        let scope = SealScope::of(facts);
        let read = |patterns: &[String]| {
            patterns
                .iter()
                .filter_map(|text| AddressPattern::parse(text))
                .collect()
        };
        Self {
            serve: read(&scope.serve),
            reach: read(&scope.reach),
        }
    }

    pub(super) fn name(patterns: &[AddressPattern], address: &Address) -> bool {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| pattern.matches(address.service(), address.port))
    }
}

fn print(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint(Sha256::digest(certificate).into())
}

fn as_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
