//! The claims server: HTTPS on 8081, open to strangers. Everything is bounded: connections, time, bodies, wrong tries.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use karez_document::{SecretData, watch_secret};
use karez_identity::{PASSWORD_LIMIT, TlsMaterial, untrusting_server_config, version_may_redeem};
use karez_kubernetes::{labels, names};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::honour::{Denials, honour};
use super::limit::Limit;
use crate::watch::Dirty;

/// Clients at once; further ones wait to be accepted.
const CLIENTS: usize = 64;
/// A client that takes longer for its handshake or its request's head is cut off.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A whole exchange.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Pause before a port that was taken is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(2);

/// What the server needs.
pub(crate) struct ClaimsServer {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) denials: Denials,
    /// To be marked when something is to be told.
    pub(crate) dirty: Dirty,
}

struct Server {
    to: ClaimsServer,
    by_address: Mutex<Limit<IpAddr>>,
    by_record: Mutex<Limit<String>>,
}

/// Serves claims until shutdown.
pub(crate) async fn serve(to: ClaimsServer, net: Net, shutdown: Shutdown) {
    let certificate = watch_secret(&to.namespace, names::CLAIMS_SERVER, to.client.clone()).await;
    let server = Arc::new(Server {
        to,
        by_address: Mutex::default(),
        by_record: Mutex::default(),
    });
    let mut endpoints = vec![format!("0.0.0.0:{}", names::CLAIMS_PORT)];
    // On the local cluster peers come to the site's own address, not to the Pod's.
    if let (Some(pod), Some(external)) = (net.pod_address(), net.external_address())
        && pod != external
    {
        endpoints.push(SocketAddr::new(external, names::CLAIMS_PORT).to_string());
    }
    let slots = Arc::new(Semaphore::new(CLIENTS));
    let listening = endpoints.into_iter().map(|endpoint| {
        let (server, certificate, slots) = (server.clone(), certificate.clone(), slots.clone());
        let net = net.clone();
        tokio::spawn(async move { listen(&server, &net, &endpoint, certificate, slots).await })
    });
    let listening: Vec<_> = listening.collect();
    shutdown.triggered().await;
    for task in listening {
        task.abort();
    }
}

async fn listen(
    server: &Arc<Server>,
    net: &Net,
    endpoint: &str,
    certificate: watch::Receiver<Option<SecretData>>,
    slots: Arc<Semaphore>,
) {
    let mut said = None;
    let mut listener = loop {
        match net.listen_tcp(endpoint).await {
            Ok(listener) => break listener,
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    tracing::warn!(endpoint, error, "claims cannot be served; trying again");
                    said = Some(error);
                }
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
    };
    tracing::info!(endpoint, "claims are served");
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "the claims server cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (server, acceptor) = (server.clone(), acceptor(certificate.borrow().as_ref()));
        tokio::spawn(async move {
            match acceptor {
                Ok(acceptor) => drop(timeout(EXCHANGE, server.client(acceptor, stream, from)).await),
                Err(error) => tracing::warn!(%from, error, "no claim can be redeemed"),
            }
            drop(slot);
        });
    }
}

fn acceptor(secret: Option<&SecretData>) -> Result<TlsAcceptor, String> {
    let data = secret.ok_or_else(|| format!("Secret {} is not there yet", names::CLAIMS_SERVER))?;
    let failed = |error: karez_identity::TlsError| format!("Secret {}: {error}", names::CLAIMS_SERVER);
    let material = TlsMaterial::from_secret(data).map_err(failed)?;
    let config = untrusting_server_config(&material, &[b"http/1.1"]).map_err(failed)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Server {
    async fn client(self: &Arc<Self>, acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr) {
        let stream = match timeout(HEAD_LIMIT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%from, %error, "TLS with the claims server failed"),
            Err(_) => return,
        };
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(from.ip(), request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(16 * 1024)
            .keep_alive(false);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%from, %error, "a client of the claims server ended abruptly");
        }
    }

    async fn answer(&self, from: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Only POST is supported");
        }
        let address = network(from);
        if !lock(&self.by_address).allows(&address, Instant::now()) {
            return text(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong tries: wait a minute",
            );
        }
        let (head, body) = request.into_parts();
        let name: String = head.uri.path().chars().filter(|c| *c != '/').collect();
        let version = query(head.uri.query().unwrap_or_default(), "site-version");
        let site = head
            .headers
            .get("skupper-site-name")
            .and_then(|value| value.to_str().ok());
        let Ok(password) = Limited::new(body, PASSWORD_LIMIT).collect().await else {
            return text(StatusCode::BAD_REQUEST, "The body must be the claim's password");
        };
        if !is_name(&name) {
            return self.deny(
                address,
                from,
                "",
                404,
                "No such claim",
                "not a claim's name",
                true,
            );
        }
        if !version_may_redeem(version) {
            return text(StatusCode::BAD_REQUEST, "minimum version required 0.8.0");
        }
        if !lock(&self.by_record).allows(&name, Instant::now()) {
            return text(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong tries: wait a minute",
            );
        }
        let site = site.filter(|site| is_name(site));
        match honour(
            &self.to.client,
            &self.to.namespace,
            &name,
            &password.to_bytes(),
            site,
        )
        .await
        {
            Ok(token) => {
                tracing::info!(claim = name, token = token.name_any(), site, %from, "a claim was redeemed");
                yaml(&token)
            }
            Err(denied) => {
                let (status, shown) = (denied.status(), denied.to_string());
                self.deny(
                    address,
                    from,
                    &name,
                    status,
                    &shown,
                    &denied.reason(),
                    denied.is_wrong_try(),
                )
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what each side is told of one denial")]
    fn deny(
        &self,
        address: IpAddr,
        from: IpAddr,
        record: &str,
        status: u16,
        shown: &str,
        reason: &str,
        wrong: bool,
    ) -> Response<Full<Bytes>> {
        tracing::warn!(claim = record, %from, reason, "a claim was refused");
        if wrong {
            lock(&self.by_address).failed(address, Instant::now());
        }
        // 404 is also said of names that nobody has: those are not worth remembering.
        if status == 403 {
            lock(&self.by_record).failed(record.to_owned(), Instant::now());
        }
        if !record.is_empty() {
            self.to
                .denials
                .add(record, &format!("{reason} (asked from {from})"), Timestamp::now());
            self.to.dirty.mark(&self.to.namespace);
        }
        text(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            shown,
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change is one entry of a map: a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who counts as one: an IPv4 address, an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = six.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other.to_canonical(),
    }
}

/// Whether this can be an object's name or a site's id.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(good)
}

fn query<'a>(query: &'a str, key: &str) -> &'a str {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .map_or("", |(_, value)| value)
}

/// The token as Skupper's sites expect it: without what the server added, and without our own bookkeeping.
fn yaml(token: &Secret) -> Response<Full<Bytes>> {
    let inner = [labels::CLAIM, labels::SUBJECT, karez_identity::ANNOTATION_USED_BY];
    let annotations: crate::object::Strings = token
        .annotations()
        .iter()
        .filter(|(key, _)| !inner.contains(&key.as_str()) && !key.starts_with("kubectl.kubernetes.io/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": token.name_any(), "labels": token.labels(), "annotations": annotations},
        "type": token.type_.as_deref().unwrap_or("Opaque"),
        "data": token.data,
    });
    match serde_saphyr::to_string(&object) {
        Ok(text) => response(StatusCode::OK, "application/yaml", text),
        Err(error) => {
            tracing::error!(%error, "a token cannot be written as YAML");
            text(StatusCode::INTERNAL_SERVER_ERROR, "Internal error")
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_an_ipv6_network_count_as_one() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }

    #[test]
    fn names_are_those_of_objects() {
        assert!(is_name("a-1.b"));
        for bad in ["", "..%2f", "a b", "a\n"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert_eq!(query("x=1&site-version=1.9.6", "site-version"), "1.9.6");
        assert_eq!(query("", "site-version"), "");
    }
}
