//! A client that may send any server name, for an ingress that goes by it, and still believes only a link's certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::provider;
use crate::{LINK_SERVER_NAME, TlsError, TlsMaterial};

/// A client as [`crate::client_config`] makes it, whose peer must prove to be [`LINK_SERVER_NAME`] whatever server name
/// is sent to it.
pub fn fronted_client_config(profile: &TlsMaterial, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(profile.roots()?, provider())
        .build()
        .map_err(|error| TlsError::Authority(error.to_string()))?;
    let mut config = crate::client_config(profile, alpn)?;
    // Nothing is believed that would not be otherwise: only the name to compare with is fixed.
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(LinkVerifier(verifier)));
    Ok(config)
}

#[derive(Debug)]
struct LinkVerifier(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for LinkVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _sent: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name =
            ServerName::try_from(LINK_SERVER_NAME).map_err(|error| Error::General(error.to_string()))?;
        self.0
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
