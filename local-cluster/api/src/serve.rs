//! The API on a port: TLS, a client certificate or an issued token, a kubeconfig.

use crate::{
    cluster::LocalCluster,
    error::ApiError,
    files,
    http::{ApiBody, ApiService, error_response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use jiff::Timestamp;
use karez_identity::{Authority, IssueError, Subject, TlsMaterial, Usage};
use karez_lifecycle::Shutdown;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::Service;

const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long open requests may go on when the API stops; watches do not end by themselves.
const DRAIN: Duration = Duration::from_millis(500);

/// Why the API cannot be served on a port.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be had.
    #[error("cannot listen on {address} for the Kubernetes API: {source}; free the port or give another one")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate could be issued.
    #[error("cannot issue the API's certificates: {0}")]
    Issue(#[from] IssueError),
    /// The certificates cannot be used.
    #[error("the API's certificates cannot be used: {problem}; remove {} to have new ones made", folder.display())]
    Tls {
        /// What is wrong.
        problem: String,
        /// Where they are.
        folder: PathBuf,
    },
    /// A file in the state folder cannot be read or written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The API as it is served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Where it listens.
    pub address: SocketAddr,
    /// The kubeconfig that was written: `<state>/kubeconfig`, for its owner's eyes only.
    pub kubeconfig: PathBuf,
    /// The base URL.
    pub url: String,
    /// The authority that signed the server's certificate, as PEM.
    pub authority: String,
}

impl LocalCluster {
    /// Serves the API on `address` until `shutdown`, and writes the kubeconfig. The context has the state folder's name.
    pub async fn serve(
        self: &Arc<Self>,
        address: SocketAddr,
        shutdown: Shutdown,
    ) -> Result<Serving, ServeError> {
        let bind = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let folder = self.state().join("api");
        let authority = authority(&folder)?;
        let tls = Arc::new(server_tls(&authority, address, &folder)?);
        let kubeconfig = self.state().join("kubeconfig");
        let url = format!("https://{address}");
        let content = kubeconfig_text(&authority, &url, &context_name(self.state()))?;
        files::write_durably(&kubeconfig, content.as_bytes(), 0o600).map_err(|source| ServeError::Io {
            path: kubeconfig.clone(),
            source,
        })?;
        tokio::spawn(accept(listener, TlsAcceptor::from(tls), self.clone(), shutdown));
        Ok(Serving {
            address,
            kubeconfig,
            url,
            authority: authority.certificate_pem().to_owned(),
        })
    }
}

fn context_name(state: &Path) -> String {
    let name = state.file_name().and_then(|n| n.to_str()).unwrap_or("local");
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// The authority in the state folder, made when there is none that lasts.
fn authority(folder: &Path) -> Result<Authority, ServeError> {
    let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
    if let (Ok(c), Ok(k)) = (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
        match Authority::from_pem(&c, &k) {
            Ok(authority) if authority.facts().not_after > Timestamp::now() => return Ok(authority),
            Ok(_) => {
                tracing::warn!(folder = %folder.display(), "the API's authority has expired; a new one is made")
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the API's authority cannot be read; a new one is made")
            }
        }
    }
    let authority = Authority::new("karez-local-api", Timestamp::now(), LIFETIME)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Io { path, source }
    };
    files::make_folder(folder).map_err(io(folder))?;
    files::write_durably(&key, authority.key_pem().as_bytes(), 0o600).map_err(io(&key))?;
    files::write_durably(&certificate, authority.certificate_pem().as_bytes(), 0o600)
        .map_err(io(&certificate))?;
    Ok(authority)
}

fn server_tls(authority: &Authority, address: SocketAddr, folder: &Path) -> Result<ServerConfig, ServeError> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "kubernetes".to_owned(),
    ];
    names.extend(["kubernetes.default", "kubernetes.default.svc"].map(str::to_owned));
    names.push(address.ip().to_string());
    let subject = Subject {
        common_name: "karez-local-api".into(),
        dns_names: names,
        usage: Usage::Server,
        lifetime: LIFETIME,
        uri: None,
    };
    let issued = authority.issue(&subject, Timestamp::now())?;
    let material = TlsMaterial {
        cert: issued.certificate_pem.into_bytes(),
        key: issued.key_pem.into_bytes(),
        ca: authority.certificate_pem().as_bytes().to_vec(),
        grace: karez_identity::Grace::default(),
    };
    let unusable = |problem: String| ServeError::Tls {
        problem,
        folder: folder.to_owned(),
    };
    let read = |pem: &[u8]| CertificateDer::from_pem_slice(pem).map_err(|e| unusable(e.to_string()));
    let mut roots = RootCertStore::empty();
    roots
        .add(read(&material.ca)?)
        .map_err(|e| unusable(e.to_string()))?;
    let provider = karez_identity::provider();
    // Who has no certificate may have a token, and is told so with 401 otherwise.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| unusable(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|e| unusable(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![read(&material.cert)?], key)
        .map_err(|e| unusable(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn kubeconfig_text(authority: &Authority, url: &str, name: &str) -> Result<String, ServeError> {
    let subject = Subject {
        common_name: "karez-admin".into(),
        dns_names: Vec::new(),
        usage: Usage::Client,
        lifetime: LIFETIME,
        uri: None,
    };
    let client = authority.issue(&subject, Timestamp::now())?;
    let encode = |text: &str| STANDARD.encode(text);
    Ok(format!(
        "apiVersion: v1\nkind: Config\n\
         clusters:\n- name: {name}\n  cluster:\n    server: {url}\n    certificate-authority-data: {ca}\n\
         users:\n- name: {name}\n  user:\n    client-certificate-data: {cert}\n    client-key-data: {key}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n    namespace: default\n\
         current-context: {name}\n",
        ca = encode(authority.certificate_pem()),
        cert = encode(&client.certificate_pem),
        key = encode(&client.key_pem),
    ))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, cluster: Arc<LocalCluster>, shutdown: Shutdown) {
    loop {
        let stream = tokio::select! {
            () = shutdown.triggered() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: others may give some back.
                    tracing::warn!(%error, "the API could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        tokio::spawn(converse(stream, tls.clone(), cluster.clone(), shutdown.clone()));
    }
}

async fn converse(stream: TcpStream, tls: TlsAcceptor, cluster: Arc<LocalCluster>, shutdown: Shutdown) {
    // A lost option costs latency, not correctness.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake with the API failed"),
        Err(_) => return tracing::debug!("a TLS handshake with the API took too long"),
    };
    // The verifier let only certificates of our authority through.
    let certified = stream
        .get_ref()
        .1
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty());
    let service = hyper::service::service_fn(move |request| admit(cluster.clone(), certified, request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.triggered() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

async fn admit(
    cluster: Arc<LocalCluster>,
    certified: bool,
    request: Request<Incoming>,
) -> Result<Response<ApiBody>, Infallible> {
    let bearer = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    let token = bearer.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or("");
    if !certified && !cluster.knows_token(token.trim()) {
        let words = "Unauthorized: use the client certificate of the site's kubeconfig, or a token issued for a service account";
        return Ok(error_response(&ApiError::new(401, "Unauthorized", words)));
    }
    <ApiService as Service<Request<Incoming>>>::call(&mut ApiService::in_process(cluster), request).await
}
