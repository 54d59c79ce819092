//! TLS as the document's blocks say it, for servers and clients.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use karez_collector_config::common::{ClientTls, ServerTls};
use karez_collector_config::values::Secret;
use karez_lifecycle::volumes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::component::StartError;

/// The largest certificate or key file that is read.
const MAX_PEM: u64 = 4 << 20;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The TLS versions between two settings.
fn versions(min: &str, max: &str) -> Vec<&'static SupportedProtocolVersion> {
    let mut versions = vec![&rustls::version::TLS13, &rustls::version::TLS12];
    if min == "1.3" {
        versions.truncate(1);
    }
    if max == "1.2" {
        versions.remove(0);
    }
    versions
}

/// The text of a PEM, inline or of a file.
fn pem(inline: &Secret, file: &str, key: &str) -> Result<Option<Vec<u8>>, StartError> {
    if !inline.is_empty() {
        return Ok(Some(inline.expose().as_bytes().to_vec()));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = volumes::locate(Path::new(file));
    let fault = |error: String| {
        let message = format!("the file {file} cannot be read: {error}");
        StartError::config(key, message, "name a PEM file that the collector may read")
    };
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() > MAX_PEM => return Err(fault("it is too large".to_owned())),
        _ => {}
    }
    std::fs::read(&path)
        .map(Some)
        .map_err(|error| fault(error.to_string()))
}

fn certificates(pem: &[u8], key: &str) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(StartError::config(
            key,
            "holds no certificate in PEM",
            "name a file with `BEGIN CERTIFICATE`",
        )),
    }
}

fn private_key(pem: &[u8], key: &str) -> Result<PrivateKeyDer<'static>, StartError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        StartError::config(
            key,
            "holds no private key in PEM",
            "name a file with `BEGIN PRIVATE KEY`",
        )
    })
}

fn roots(pem: &[u8], key: &str) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, key)? {
        roots.add(certificate).map_err(|error| {
            StartError::config(
                key,
                format!("holds a certificate that is no authority: {error}"),
                "name the authority's",
            )
        })?;
    }
    Ok(roots)
}

fn unusable(key: &str, error: &rustls::Error) -> StartError {
    StartError::config(
        key,
        format!("cannot be used for TLS: {error}"),
        "check that certificate and key belong together",
    )
}

/// A server's TLS. `key` is the block's path below the component.
pub(crate) fn server(tls: &ServerTls, key: &str) -> Result<Arc<ServerConfig>, StartError> {
    let at = |name: &str| format!("{key}.{name}");
    let cert = pem(&tls.cert_pem, &tls.cert_file, &at("cert_file"))?
        .ok_or_else(|| StartError::config(at("cert_file"), "is missing", "a server needs a certificate"))?;
    let private = pem(&tls.key_pem, &tls.key_file, &at("key_file"))?.ok_or_else(|| {
        StartError::config(
            at("key_file"),
            "is missing",
            "a server needs its certificate's key",
        )
    })?;
    let chain = certificates(&cert, &at("cert_file"))?;
    let private = private_key(&private, &at("key_file"))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(&tls.min_version, &tls.max_version))
        .map_err(|error| unusable(key, &error))?;
    let builder = match pem(&Secret::default(), &tls.client_ca_file, &at("client_ca_file"))? {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let roots = Arc::new(roots(&authorities, &at("client_ca_file"))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier = verifier.map_err(|error| {
                StartError::config(
                    at("client_ca_file"),
                    format!("cannot be used: {error}"),
                    "name an authority's PEM",
                )
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| unusable(key, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client's TLS. `key` is the block's path below the component.
pub(crate) fn client(tls: &ClientTls, alpn: &[&[u8]], key: &str) -> Result<Arc<ClientConfig>, StartError> {
    let at = |name: &str| format!("{key}.{name}");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(&tls.min_version, &tls.max_version))
        .map_err(|error| unusable(key, &error))?;
    let builder = if tls.insecure_skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
    } else {
        builder.with_root_certificates(trusted(tls, &at("ca_file"))?)
    };
    let cert = pem(&tls.cert_pem, &tls.cert_file, &at("cert_file"))?;
    let private = pem(&tls.key_pem, &tls.key_file, &at("key_file"))?;
    let mut config = match cert.zip(private) {
        None => builder.with_no_client_auth(),
        Some((cert, private)) => {
            let chain = certificates(&cert, &at("cert_file"))?;
            let private = private_key(&private, &at("key_file"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| unusable(key, &error))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn trusted(tls: &ClientTls, key: &str) -> Result<RootCertStore, StartError> {
    let own = pem(&tls.ca_pem, &tls.ca_file, key)?;
    let mut store = match &own {
        Some(own) => roots(own, key)?,
        None => RootCertStore::empty(),
    };
    if own.is_none() || tls.include_system_ca_certs_pool {
        let system = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(system.certs);
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

/// A client's TLS whose files are read again after an interval, when a connection is made.
pub struct Reloading {
    source: ClientTls,
    protocols: &'static [&'static [u8]],
    /// When they were read, what of, and whether that failed.
    state: Mutex<State>,
}

struct State {
    read: Instant,
    config: Option<Arc<ClientConfig>>,
    failing: bool,
}

impl Reloading {
    /// Nothing if nothing is to be read again.
    pub(crate) fn of(source: &ClientTls, protocols: &'static [&'static [u8]]) -> Option<Arc<Self>> {
        let reloads = !source.reload_interval.is_zero();
        reloads.then(|| {
            Arc::new(Reloading {
                source: source.clone(),
                protocols,
                state: Mutex::new(State {
                    read: Instant::now(),
                    config: None,
                    failing: false,
                }),
            })
        })
    }

    /// The configuration as its files are, or were when they could last be used; `None` while the first holds.
    pub(crate) fn current(&self) -> Option<Arc<ClientConfig>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.read.elapsed() >= self.source.reload_interval {
            state.read = Instant::now();
            match client(&self.source, self.protocols, "tls") {
                Ok(config) => {
                    state.config = Some(config);
                    state.failing = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut state.failing, true) {
                        tracing::error!(%error, "the TLS files cannot be read again; the last ones are used");
                    }
                }
            }
        }
        state.config.clone()
    }
}
