//! `tls_config` → rustls.

use std::sync::{Arc, OnceLock};

use karez_scrape_config::http::Tls;
use karez_scrape_config::values::Secret;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ClientError;
use super::credentials::read_blocking;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(super) fn client(tls: &Tls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, ClientError> {
    let mut versions = vec![&rustls::version::TLS13, &rustls::version::TLS12];
    if tls.min_version == "TLS13" {
        versions.truncate(1);
    }
    if tls.max_version == "TLS12" {
        versions.remove(0);
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)
        .map_err(|error| fault("tls_config", &error.to_string()))?;
    let builder = if tls.insecure_skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    let mut config = match (
        pem(&tls.cert, &tls.cert_file, "cert")?,
        pem(&tls.key, &tls.key_file, "key")?,
    ) {
        (Some((cert, file)), Some((key, key_file))) => {
            let chain = certificates(&cert, &file)?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|_| fault(&key_file, "holds no private key in PEM"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| fault(&file, &error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn fault(file: &str, reason: &str) -> ClientError {
    ClientError::File {
        file: file.to_owned(),
        reason: reason.to_owned(),
    }
}

/// A PEM and what to call it.
fn pem(inline: &Secret, file: &str, key: &str) -> Result<Option<(Vec<u8>, String)>, ClientError> {
    if !inline.is_empty() {
        return Ok(Some((
            inline.expose().as_bytes().to_vec(),
            format!("tls_config.{key}"),
        )));
    }
    if file.is_empty() {
        return Ok(None);
    }
    Ok(Some((read_blocking(file)?, file.to_owned())))
}

fn certificates(pem: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(fault(file, "holds no certificate in PEM")),
    }
}

fn roots(tls: &Tls) -> Result<RootCertStore, ClientError> {
    let Some((pem, file)) = pem(&tls.ca, &tls.ca_file, "ca")? else {
        // Read once: every job without an authority of its own trusts the same.
        static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
        let system = SYSTEM.get_or_init(|| {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        });
        return Ok(system.clone());
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(&pem, &file)? {
        store
            .add(certificate)
            .map_err(|error| fault(&file, &error.to_string()))?;
    }
    Ok(store)
}

/// Takes any server's certificate, as `insecure_skip_verify` asks; the signature of the handshake is still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
