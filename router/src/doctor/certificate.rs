//! What a peer's port proves itself with, and whether it admits a token.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use karez_identity::{
    CertificateFacts, ConnectionToken, LINK_SERVER_NAME, TlsMaterial, Validity, der_signed_by, provider,
};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::environment::http_date;
use super::{Finding, Outcome};
use crate::link::failure_of;
use crate::wire::ALPN;

/// A peer that does not admit a token says so within this time after the handshake.
const OBJECTION: Duration = Duration::from_secs(1);
/// The longest head that is read for its date.
const HEAD: usize = 4096;

/// Keeps the certificate that a server shows, whatever it is. Nothing is ever sent over what it verified.
#[derive(Debug, Default)]
struct Look(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().expect("nothing panics while it is held") = Some(certificate.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn looking(alpn: &[u8]) -> Result<(Arc<Look>, ClientConfig), String> {
    let look = Arc::new(Look::default());
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(look.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok((look, config))
}

fn endpoint(towards: SocketAddr) -> Result<quinn::Endpoint, String> {
    let any = if towards.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let any = any.parse().map_err(|_| "no address to bind".to_owned())?;
    quinn::Endpoint::client(any).map_err(|error| format!("cannot open a UDP socket: {error}"))
}

async fn dial(
    endpoint: &quinn::Endpoint,
    config: ClientConfig,
    address: SocketAddr,
) -> Result<quinn::Connection, String> {
    let crypto = QuicClientConfig::try_from(config).map_err(|error| error.to_string())?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint
        .connect_with(config, address, LINK_SERVER_NAME)
        .map_err(|error| error.to_string())?;
    connecting.await.map_err(failure_of)
}

/// The certificate that a port shows to whoever asks.
pub(super) async fn seen_by_quic(address: SocketAddr) -> Result<CertificateDer<'static>, String> {
    let (look, config) = looking(ALPN)?;
    let endpoint = endpoint(address)?;
    let dialled = dial(&endpoint, config, address).await;
    endpoint.close(0u32.into(), b"only looking");
    let seen = look.0.lock().expect("nothing panics while it is held").take();
    // Without a certificate of ours the handshake is to fail; by then theirs was seen.
    match (seen, dialled) {
        (Some(seen), _) => Ok(seen),
        (None, Err(reason)) => Err(reason),
        (None, Ok(_)) => Err("the port shows no certificate".to_owned()),
    }
}

/// Whether a certificate is one for links, now, by the authority that the token believes.
pub(super) fn judge(seen: &[u8], authority: Option<&[u8]>, now: Timestamp) -> Finding {
    let facts = match CertificateFacts::from_der(seen) {
        Ok(facts) => facts,
        Err(error) => {
            let found = format!("the peer's certificate: {error}");
            return Finding::new(
                "tls",
                Outcome::Failed,
                found,
                "is this the port for links of a Karez router?",
            );
        }
    };
    let failed = |found: String, mend: &str| Finding::new("tls", Outcome::Failed, found, mend);
    if !facts.dns_names.iter().any(|name| name == LINK_SERVER_NAME) {
        let names = facts.dns_names.join(", ");
        let found = format!("the peer's certificate is for {names}, not for {LINK_SERVER_NAME}");
        return failed(
            found,
            "something between here and the router answers in its place, or the port is another program's",
        );
    }
    match Validity::of(&facts, now) {
        Validity::Valid => {}
        Validity::Expired => {
            let found = format!("the peer's certificate expired at {}", facts.not_after);
            return failed(
                found,
                "its site-controller renews it: is that running? Or this machine's clock is wrong",
            );
        }
        Validity::NotYet => {
            let found = format!("the peer's certificate begins at {}", facts.not_before);
            return failed(found, "set this machine's clock");
        }
    }
    let Some(authority) = authority else {
        let found = format!(
            "TLS 1.3, karez-link/1, certificate of \"{}\" by \"{}\" until {} (not checked: no token was given)",
            facts.common_name, facts.issuer, facts.not_after
        );
        return Finding::ok("tls", found);
    };
    if der_signed_by(seen, authority).unwrap_or(false) {
        let found = format!(
            "TLS 1.3, karez-link/1, certificate of the token's site until {}",
            facts.not_after
        );
        return Finding::ok("tls", found);
    }
    failed(
        format!(
            "the peer's certificate is signed by another authority (\"{}\") than the token's",
            facts.issuer
        ),
        "the site has a new authority, or another site answers at this address: ask it for a new token",
    )
}

/// Whether a port admits a token: a handshake with it, and a moment for objections.
pub(super) async fn admitted(address: SocketAddr, token: &ConnectionToken) -> Result<(), String> {
    let material = TlsMaterial::from_secret(&token.data()).map_err(|error| error.to_string())?;
    let config = karez_identity::client_config(&material, &[ALPN]).map_err(|error| error.to_string())?;
    let endpoint = endpoint(address)?;
    let dialled = timeout(super::PATIENCE * 2, dial(&endpoint, config, address)).await;
    let connection = dialled.map_err(|_| "no handshake in time".to_owned())??;
    let objected = timeout(OBJECTION, connection.closed()).await;
    connection.close(0u32.into(), b"only looking");
    endpoint.close(0u32.into(), b"only looking");
    match objected {
        Ok(error) => Err(failure_of(error)),
        Err(_) => Ok(()),
    }
}

/// What time it is at the server behind an HTTPS port.
pub(super) async fn date_by_https(address: SocketAddr) -> Option<Timestamp> {
    let (_, config) = looking(b"http/1.1").ok()?;
    let stream = TcpStream::connect(address).await.ok()?;
    let name = ServerName::from(address.ip());
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .ok()?;
    let request = b"HEAD / HTTP/1.1\r\nhost: karez\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut head = Vec::new();
    while head.len() < HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => head.extend_from_slice(&buffer[..length]),
        }
    }
    http_date(&head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use karez_identity::{Authority, Subject, Usage};
    use rustls::pki_types::pem::PemObject;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn certificate(authority: &Authority, name: &str) -> CertificateDer<'static> {
        let subject = Subject {
            common_name: name.into(),
            dns_names: vec![name.into()],
            usage: Usage::Server,
            lifetime: DAY,
            uri: None,
        };
        let credential = authority.issue(&subject, now()).unwrap();
        CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_is_judged_by_name_time_and_authority() {
        let (own, other) = (
            Authority::new("a", now(), DAY).unwrap(),
            Authority::new("a", now(), DAY).unwrap(),
        );
        let says = |seen: &[u8], authority: &Authority, at| {
            let finding = judge(seen, Some(authority.certificate_pem().as_bytes()), at);
            (finding.outcome, finding.found)
        };
        let good = certificate(&own, LINK_SERVER_NAME);
        assert_eq!(says(&good, &own, now()).0, Outcome::Ok);
        assert!(says(&good, &other, now()).1.contains("another authority"));
        let late = now().checked_add(DAY * 2).unwrap();
        assert!(says(&good, &own, late).1.contains("expired"));
        assert!(
            says(&certificate(&own, "web"), &own, now())
                .1
                .contains("not for skupper-router")
        );
        assert!(says(b"nonsense", &own, now()).1.contains("certificate"));
        assert_eq!(judge(&good, None, now()).outcome, Outcome::Ok);
    }
}
