//! The session of one sealed connection: a TLS handshake inside the stream, then two halves that seal and open.
//!
//! The handshake proves both sites by the authority that they share. It is bound to the address and to the client: both
//! ends put a digest of them into the name of the protocol (ALPN) that they agree on, so that a connection that a router
//! between led elsewhere, or gave another client's address, comes to nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use karez_identity::{CertificateFacts, FactsError, SEAL_SERVER_NAME, alert_reason, certificate_reason};
use karez_topology::Address;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::halves::{About, SealedReceive, SealedSend};
use super::material::{Material, Patterns};
use crate::caller::Caller;
use crate::link::Stream;
use crate::link::handshake::{self, HandshakeError, Pipe, Secured};
use crate::shared::Shared;
use crate::wire::clean;

/// A far site that takes longer for the handshake is not waited for.
const LIMIT: Duration = Duration::from_secs(8);

/// Why a connection could not be sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// The handshake failed.
    #[error("the handshake with the far site failed: {}", words(.0))]
    Handshake(#[from] HandshakeError),
    /// The far site took too long.
    #[error("the far site did not finish the handshake in time")]
    Slow,
    /// The far site's certificate cannot be read.
    #[error("the far site's seal certificate: {0}")]
    Certificate(#[from] FactsError),
    /// The far site showed none.
    #[error("the far site showed no certificate")]
    NoCertificate,
    /// The far site may not speak for the address.
    #[error("the seal certificate of site \"{0}\" does not name the address among what it serves")]
    DoesNotServe(String),
    /// The far site may not reach the address.
    #[error("the seal certificate of site \"{0}\" does not name the address among what it reaches")]
    DoesNotReach(String),
}

/// What went wrong, for an operator.
fn words(error: &HandshakeError) -> String {
    const ELSEWHERE: &str =
        "the ends do not mean the same address and client: altered on its way, or routers of other versions";
    match error {
        HandshakeError::Tls(rustls::Error::InvalidCertificate(reason)) => {
            certificate_reason(reason).to_owned()
        }
        HandshakeError::Tls(rustls::Error::NoApplicationProtocol) => ELSEWHERE.to_owned(),
        HandshakeError::Tls(rustls::Error::AlertReceived(
            rustls::AlertDescription::NoApplicationProtocol,
        )) => ELSEWHERE.to_owned(),
        HandshakeError::Tls(rustls::Error::AlertReceived(alert)) => {
            let reason = alert_reason(u8::from(*alert)).map_or_else(|| format!("{alert:?}"), str::to_owned);
            format!("refused there: {reason}")
        }
        other => other.to_string(),
    }
}

/// A sealed connection, ready to carry.
pub(crate) struct Sealed {
    pub(crate) send: SealedSend,
    pub(crate) receive: SealedReceive,
    /// The name of the site at the other end, as its certificate has it.
    pub(crate) site: String,
}

/// Seals a connection from here; the far site must speak for the address.
pub(crate) async fn connect(
    shared: &Arc<Shared>,
    material: &Material,
    stream: Stream,
    address: &Address,
    caller: &Caller,
) -> Result<Sealed, SealError> {
    let config = material.client(binding(address, caller));
    let name = ServerName::try_from(SEAL_SERVER_NAME).expect("a DNS name");
    let secured = timeout(LIMIT, handshake::client(stream, config, name)).await;
    let secured = secured.map_err(|_| SealError::Slow)??;
    let (site, scope) = far(secured.peer.as_ref())?;
    if !Patterns::name(&scope.serve, address) {
        return Err(SealError::DoesNotServe(site));
    }
    Ok(Sealed::new(shared, secured, address, site))
}

/// Seals a connection from a far site, which must be allowed to reach the address.
pub(crate) async fn accept(
    shared: &Arc<Shared>,
    material: &Material,
    stream: Stream,
    address: &Address,
    caller: &Caller,
) -> Result<Sealed, SealError> {
    let config = material.server(binding(address, caller));
    let secured = timeout(LIMIT, handshake::server(stream, config)).await;
    let secured = secured.map_err(|_| SealError::Slow)??;
    let (site, scope) = far(secured.peer.as_ref())?;
    let allowed = Patterns::name(&scope.reach, address);
    let mut sealed = Sealed::new(shared, secured, address, site);
    if !allowed {
        sealed.send.refuse().await;
        return Err(SealError::DoesNotReach(sealed.site));
    }
    Ok(sealed)
}

/// Who is at the other end, and what it may do. The handshake has verified the certificate.
fn far(leaf: Option<&CertificateDer<'static>>) -> Result<(String, Patterns), SealError> {
    let facts = CertificateFacts::from_der(leaf.ok_or(SealError::NoCertificate)?)?;
    let scope = Patterns::of(&facts);
    Ok((clean(&facts.common_name, 64), scope))
}

/// The name of the protocol for one connection: what both ends must mean.
pub(super) fn binding(address: &Address, caller: &Caller) -> Vec<u8> {
    let ends = caller
        .ends
        .map(|ends| (ends.source.to_string(), ends.destination.to_string()));
    let (source, destination) = ends.unwrap_or_default();
    let mut digest = Sha256::new();
    for part in [&address.name, &address.port.to_string(), &source, &destination] {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut name = b"karez-seal/1 ".to_vec();
    for byte in digest.finalize() {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name
}

impl Sealed {
    fn new(shared: &Arc<Shared>, secured: Secured<Stream>, address: &Address, site: String) -> Self {
        let Secured {
            pipe: Stream { send, receive },
            sealer,
            opener,
            early,
            ..
        } = secured;
        let about = About {
            shared: shared.clone(),
            address: address.clone(),
            site: site.clone(),
        };
        Self {
            send: SealedSend::new(send, sealer),
            receive: SealedReceive::new(receive, opener, &early, about),
            site,
        }
    }
}

impl Pipe for Stream {
    async fn read_more(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut chunk = [Bytes::new()];
        if self.receive.read_chunks(&mut chunk).await?.is_none() {
            return Ok(0);
        }
        into.extend_from_slice(&chunk[0]);
        Ok(chunk[0].len())
    }

    async fn write_everything(&mut self, bytes: &[u8]) -> io::Result<()> {
        Ok(self.send.write_all(bytes).await?)
    }

    async fn end(&mut self) {
        let _ = self.send.finish();
    }
}
