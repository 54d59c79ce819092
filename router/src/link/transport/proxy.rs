//! HTTP proxies: which one is to be used, and a connection through it by `CONNECT`.
//!
//! ```text
//!  http://…   we ══ TCP ══ proxy ── TCP ── peer              the proxy's socket is handed on as it is
//!  https://…  we ══ TLS ══ proxy ── TCP ── peer              relayed, so that whoever uses it has a socket as well
//! ```
//!
//! The link's own TLS is inside: the proxy sees a host name, and bytes that it cannot read.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use karez_net::{ConnectError, Net};
use karez_router_config::ProxyChoice;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::wire::clean;

/// A proxy that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER: usize = 16 * 1024;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    tls: bool,
    /// What follows `Proxy-Authorization:`.
    authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// Why there is no connection through a proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// What names the proxy is no URL of one.
    #[error("{0} names no proxy: write http://HOST:PORT or https://HOST:PORT")]
    Url(&'static str),
    /// It cannot be reached.
    #[error("the proxy cannot be reached: {0}")]
    Unreachable(#[from] ConnectError),
    /// TLS with it failed.
    #[error("TLS with the proxy {host}: {reason}")]
    Tls {
        /// The proxy's host.
        host: String,
        /// What failed.
        reason: String,
    },
    /// It broke off.
    #[error("the proxy {host} broke off: {source}")]
    Io {
        /// The proxy's host.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It wants credentials, or other ones.
    #[error("the proxy {0} refuses the credentials (407): give user and password in its URL")]
    Credentials(String),
    /// It does not make the connection.
    #[error("the proxy {host} does not connect to {target}: {answer}")]
    Refused {
        /// The proxy's host.
        host: String,
        /// Where to.
        target: String,
        /// The first line of its answer.
        answer: String,
    },
    /// Its answer is no HTTP.
    #[error("the proxy {0} does not answer as an HTTP proxy")]
    NoHttp(String),
    /// It takes too long.
    #[error("the proxy {0} does not answer in time")]
    Slow(String),
}

/// A proxy's URL, the hosts that are reached without it, and what it answers. For fuzzing only.
pub(crate) async fn fuzz(url: &str, except: &str, host: &str, port: u16, answer: &[u8]) {
    let variable = |name: &str| match name {
        "HTTPS_PROXY" => Some(url.to_owned()),
        "NO_PROXY" => Some(except.to_owned()),
        _ => None,
    };
    if let Ok(Some(proxy)) = Proxy::choose(&ProxyChoice::Environment, host, port, variable) {
        let mut stream = tokio::io::join(answer, tokio::io::sink());
        let target = crate::listener::endpoint(host, port);
        // Whatever comes of it.
        let _ = proxy.ask(&mut stream, &target).await;
    }
}

impl Proxy {
    /// The proxy towards a peer, if there is one; variables are looked up with `variable`.
    pub(crate) fn choose(
        choice: &ProxyChoice,
        host: &str,
        port: u16,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyError> {
        let either = |upper: &str, lower: &str| {
            let found = variable(upper).filter(|value| !value.is_empty());
            found.or_else(|| variable(lower).filter(|value| !value.is_empty()))
        };
        match choice {
            ProxyChoice::None => Ok(None),
            ProxyChoice::Url(url) => Self::parse(url, "the link's proxy").map(Some),
            ProxyChoice::Environment => {
                let Some(url) = either("HTTPS_PROXY", "https_proxy") else {
                    return Ok(None);
                };
                let except = either("NO_PROXY", "no_proxy").unwrap_or_default();
                if is_local(host) || is_excepted(&except, host, port) {
                    return Ok(None);
                }
                Self::parse(&url, "HTTPS_PROXY").map(Some)
            }
        }
    }

    fn parse(text: &str, what: &'static str) -> Result<Self, ProxyError> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let url = Url::parse(&with_scheme).map_err(|_| ProxyError::Url(what))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(ProxyError::Url(what)),
        };
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(ProxyError::Url(what)),
        };
        let decoded = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
        let authorization = (!url.username().is_empty()).then(|| {
            let mut pair = decoded(url.username());
            pair.push(b':');
            pair.extend(decoded(url.password().unwrap_or_default()));
            format!("Basic {}", BASE64_STANDARD.encode(pair))
        });
        Ok(Self {
            host,
            port: url.port_or_known_default().ok_or(ProxyError::Url(what))?,
            tls,
            authorization,
        })
    }

    /// Connects to a peer through it.
    pub(crate) async fn connect(&self, net: &Net, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let connected = timeout(LIMIT, self.through(net, host, port)).await;
        connected.map_err(|_| ProxyError::Slow(self.host.clone()))?
    }

    async fn through(&self, net: &Net, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let mut socket = net.connect_tcp(&self.host, self.port).await?;
        let target = crate::listener::endpoint(host, port);
        if !self.tls {
            self.ask(&mut socket, &target).await?;
            return Ok(socket);
        }
        let mut secured = self.secure(socket, system_roots()).await?;
        self.ask(&mut secured, &target).await?;
        relayed(secured).await.map_err(|source| self.broken(source))
    }

    async fn secure(
        &self,
        socket: TcpStream,
        roots: RootCertStore,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ProxyError> {
        let failed = |reason: String| ProxyError::Tls {
            host: self.host.clone(),
            reason,
        };
        let config = ClientConfig::builder_with_provider(karez_identity::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(error.to_string()))?;
        let secured = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        secured.map_err(|error| failed(error.to_string()))
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &str,
    ) -> Result<(), ProxyError> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        let asked = stream.write_all(request.as_bytes()).await;
        asked.map_err(|source| self.broken(source))?;
        stream.flush().await.map_err(|source| self.broken(source))?;
        let head = self.head(stream).await?;
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut parts = line.split(' ');
        let is_http = parts.next().is_some_and(|version| version.starts_with("HTTP/1."));
        let status = parts.next().and_then(|status| status.parse::<u16>().ok());
        match status {
            Some(200..300) if is_http => Ok(()),
            Some(407) if is_http => Err(ProxyError::Credentials(self.host.clone())),
            Some(_) if is_http => Err(ProxyError::Refused {
                host: self.host.clone(),
                target: target.to_owned(),
                answer: clean(&line, 200),
            }),
            _ => Err(ProxyError::NoHttp(self.host.clone())),
        }
    }

    /// The head of the proxy's answer, and not a byte of what follows it.
    async fn head<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Result<Vec<u8>, ProxyError> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == ANSWER {
                return Err(ProxyError::NoHttp(self.host.clone()));
            }
            // One by one: there are few, and what follows is the peer's.
            let byte = stream.read_u8().await.map_err(|source| self.broken(source))?;
            head.push(byte);
        }
        Ok(head)
    }

    fn broken(&self, source: io::Error) -> ProxyError {
        ProxyError::Io {
            host: self.host.clone(),
            source,
        }
    }
}

/// Whom this system believes; `SSL_CERT_FILE` changes that.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Makes a socket of a stream that is none: a pair on loopback, and a task that relays.
async fn relayed<S>(mut stream: S) -> io::Result<TcpStream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let mut theirs = loop {
        let (theirs, from) = listener.accept().await?;
        // Anybody on this machine could connect; only our own end is taken.
        if from == ours.local_addr()? {
            break theirs;
        }
    };
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    tokio::spawn(async move {
        // Ends with either side; both notice by themselves.
        let _ = copy_bidirectional(&mut theirs, &mut stream).await;
    });
    Ok(ours)
}

/// What never goes through a proxy of the environment.
fn is_local(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether `NO_PROXY` names the host: `*`, names (with all below them), addresses, networks; each may have a port.
fn is_excepted(list: &str, host: &str, port: u16) -> bool {
    let address = host.parse::<IpAddr>().ok();
    list.split(',').map(str::trim).any(|entry| {
        let (entry, only) = match entry.rsplit_once(':') {
            Some((name, number)) if !name.contains(':') => (name, number.parse::<u16>().ok()),
            _ => (entry, None),
        };
        if entry.is_empty() || only.is_some_and(|only| only != port) {
            return false;
        }
        if entry == "*" {
            return true;
        }
        if let Some(address) = address {
            return within(entry, address);
        }
        let name = entry
            .trim_start_matches("*.")
            .trim_start_matches('.')
            .to_ascii_lowercase();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Whether an address is the one, or in the network, that an entry writes.
fn within(entry: &str, address: IpAddr) -> bool {
    let (network, length) = match entry.split_once('/') {
        None => return entry.parse() == Ok(address),
        Some((network, length)) => (network.parse::<IpAddr>(), length.parse::<u32>()),
    };
    let (Ok(network), Ok(length)) = (network, length) else {
        return false;
    };
    let prefix = |bits: u128, width: u32| {
        let rest = width.saturating_sub(length);
        bits.checked_shr(rest).unwrap_or(0)
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if length <= 32 => {
            prefix(network.to_bits().into(), 32) == prefix(address.to_bits().into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if length <= 128 => {
            prefix(network.to_bits(), 128) == prefix(address.to_bits(), 128)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
