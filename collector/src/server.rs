//! Servers: an `axum` router, for gRPC or HTTP, on the addresses or the socket that the document says, with its TLS and
//! its authenticator.
//!
//! A stop goes: no new connection, the requests under way are finished, then the connections end.

mod listen;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use karez_collector_config::common::{Auth, GrpcServer, HttpServer, ServerTls};
use karez_lifecycle::Shutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::batch::Context;
use crate::component::{ComponentContext, Running, StartError};
use crate::extensions::auth::{AuthError, Principal, ServerAuth};
use crate::tls;
use crate::together::{Requests, Together};
use listen::{Accepted, Listeners};

/// The largest frames of HTTP/2 that are taken: whoever asks for it sends fewer.
const MAX_FRAME: u32 = 64 << 10;
/// What a call may send without being asked for more, and all calls of a connection together: so much of what nobody has
/// read yet is held. Windows that fit themselves to the line ask it with a ping for every few messages.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// How often the authorities of clients are read again where only that is asked for.
const CLIENT_CA_RELOAD: Duration = Duration::from_secs(10);
/// Connections of one server at once.
const MAX_CONNECTIONS: usize = 4096;
/// For a TLS handshake and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A server as the document says it.
pub struct Server<'a> {
    /// The endpoint of the document.
    pub endpoint: &'a str,
    /// What an empty one stands for.
    pub default_endpoint: &'a str,
    /// `unix` for a socket in the file system; TCP else.
    pub transport: &'a str,
    /// Its TLS.
    pub tls: Option<&'a ServerTls>,
    /// Its authenticator.
    pub auth: Option<&'a Auth>,
    /// Calls at once on a connection; 0 for the library's own limit.
    pub max_streams: u32,
    /// A ping after so much silence, and how long its answer is waited for.
    pub keepalive: Option<(Duration, Duration)>,
    /// The block's path below the component: `protocols.grpc`; may be empty.
    pub key: &'a str,
}

impl<'a> Server<'a> {
    /// A gRPC server.
    pub fn grpc(server: &'a GrpcServer, default_endpoint: &'a str, key: &'a str) -> Self {
        let (tls, auth) = (server.tls.as_ref(), server.auth.as_ref());
        let max_streams = server.max_concurrent_streams;
        Server {
            endpoint: &server.endpoint,
            default_endpoint,
            transport: &server.transport,
            tls,
            auth,
            max_streams,
            keepalive: keepalive(server),
            key,
        }
    }

    /// An HTTP server.
    pub fn http(server: &'a HttpServer, default_endpoint: &'a str, key: &'a str) -> Self {
        let (tls, auth) = (server.tls.as_ref(), server.auth.as_ref());
        Server {
            endpoint: &server.endpoint,
            default_endpoint,
            transport: &server.transport,
            tls,
            auth,
            max_streams: 0,
            keepalive: None,
            key,
        }
    }

    fn key(&self, name: &str) -> String {
        match self.key.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.key),
        }
    }

    /// Binds and serves until the stop of what it gives.
    pub async fn serve(self, router: axum::Router, cx: &ComponentContext) -> Result<Running, StartError> {
        self.serve_directly(None, router, cx).await
    }

    /// The same; calls are first shown to who answers them without the router. Where callers are authenticated the router
    /// does that, and so all calls go there.
    pub(crate) async fn serve_directly(
        self,
        direct: Option<Arc<dyn Direct>>,
        router: axum::Router,
        cx: &ComponentContext,
    ) -> Result<Running, StartError> {
        let direct = direct.filter(|_| self.auth.is_none());
        let key = self.key("tls");
        let tls = match self.tls {
            Some(tls) => Some(Arc::new(ArcSwap::new(tls::server(tls, &key)?))),
            None => None,
        };
        let router = match cx.server_auth(self.auth)? {
            Some(auth) => router.layer(axum::middleware::from_fn(move |request, next| {
                authenticate(auth.clone(), request, next)
            })),
            None => router,
        };
        let endpoint = if self.endpoint.is_empty() {
            self.default_endpoint
        } else {
            self.endpoint
        };
        let listeners = Listeners::bind(self.transport, endpoint, self.key("endpoint"), cx).await?;
        let mut running = Running::none();
        running.bound(listeners.addresses());
        for address in running.addresses() {
            tracing::info!(component = cx.key, %address, tls = tls.is_some(), "listening");
        }
        let accepting = Accepting {
            listeners,
            direct,
            router,
            tls,
            max_streams: self.max_streams,
            keepalive: self.keepalive,
        };
        let stop = running.stopping();
        if let Some((config, current)) = self.tls.zip(accepting.tls.clone())
            && let Some(interval) = reloads(config)
        {
            let (config, component) = (config.clone(), cx.key.clone());
            running.spawn(async move {
                let read = || tls::server(&config, &key);
                read_again(interval, &current, read, &component, &stop).await;
            });
        }
        let stop = running.stopping();
        running.spawn(accepting.run(stop));
        Ok(running)
    }
}

/// What `server_parameters` says; a ping's answer is waited for 20 s unless written.
fn keepalive(server: &GrpcServer) -> Option<(Duration, Duration)> {
    let parameters = &server.keepalive.server_parameters;
    let timeout = match parameters.timeout.is_zero() {
        true => Duration::from_secs(20),
        false => parameters.timeout,
    };
    (!parameters.time.is_zero()).then_some((parameters.time.max(Duration::from_secs(1)), timeout))
}

/// How often a server's certificates are read again, if they are.
fn reloads(tls: &ServerTls) -> Option<Duration> {
    match (tls.reload_interval.is_zero(), tls.client_ca_file_reload) {
        (false, _) => Some(tls.reload_interval.max(Duration::from_millis(10))),
        (true, true) => Some(CLIENT_CA_RELOAD),
        (true, false) => None,
    }
}

/// Reads files again in an interval. What cannot be used leaves in place what there was.
async fn read_again(
    interval: Duration,
    current: &ArcSwap<ServerConfig>,
    read: impl Fn() -> Result<Arc<ServerConfig>, StartError>,
    component: &str,
    stop: &Shutdown,
) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.triggered() => return,
        }
        match read() {
            Ok(config) => {
                current.store(config);
                failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(component, %error, "the TLS files cannot be read again; the last ones are used");
                }
            }
        }
    }
}

struct Accepting {
    listeners: Listeners,
    direct: Option<Arc<dyn Direct>>,
    router: axum::Router,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    max_streams: u32,
    keepalive: Option<(Duration, Duration)>,
}

impl Accepting {
    async fn run(mut self, stop: Shutdown) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        // Held here so that ending this task ends the connections.
        let mut connections = JoinSet::new();
        loop {
            let slot = tokio::select! {
                slot = slots.clone().acquire_owned() => slot,
                () = stop.triggered() => break,
            };
            let accepted = tokio::select! {
                accepted = self.listeners.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next() => continue,
                () = stop.triggered() => break,
            };
            let peer = accepted.peer();
            let connection = Connection {
                calls: Calls {
                    direct: self.direct.clone(),
                    router: self.router.clone(),
                    peer: peer.map(Peer),
                    context: Arc::new(Context {
                        peer,
                        ..Context::default()
                    }),
                },
                limits: (self.max_streams, self.keepalive),
                tls: self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.load_full())),
                watcher: graceful.watcher(),
                // Never closed, so always there.
                _slot: slot.ok(),
            };
            match accepted {
                Accepted::Tcp(stream, _) => connections.spawn(connection.serve(stream)),
                Accepted::Unix(stream) => connections.spawn(connection.serve(stream)),
            };
        }
        drop(self.listeners);
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    }
}

/// What a connection is served with.
struct Connection {
    calls: Calls,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    watcher: hyper_util::server::graceful::Watcher,
    _slot: Option<OwnedSemaphorePermit>,
}

/// Calls at once, and pings.
type Limits = (u32, Option<(Duration, Duration)>);

impl Connection {
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.tls {
            None => serve(stream, self.calls, self.limits, self.watcher).await,
            Some(tls) => {
                if let Some(stream) = handshake(tls, stream).await {
                    serve(stream, self.calls, self.limits, self.watcher).await;
                }
            }
        }
    }
}

async fn handshake<S>(tls: TlsAcceptor, stream: S) -> Option<tokio_rustls::server::TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client's TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn serve<S>(
    stream: S,
    calls: Calls,
    (max_streams, keepalive): Limits,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Requests::default();
    let mut builder = auto::Builder::new(requests.clone());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME);
    if max_streams > 0 {
        builder.http2().max_concurrent_streams(max_streams);
    }
    if let Some((time, timeout)) = keepalive {
        builder
            .http2()
            .keep_alive_interval(time)
            .keep_alive_timeout(timeout);
    }
    let connection = builder.serve_connection(TokioIo::new(stream), calls).into_owned();
    let connection = Together::new(watcher.watch(connection), requests);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// What a call is answered with, some time.
pub(crate) type Answering = BoxFuture<'static, Result<Response, Infallible>>;

/// Answers calls without the router.
pub(crate) trait Direct: Send + Sync {
    /// Whether it answers this one.
    fn takes(&self, request: &http::Request<Incoming>) -> bool;

    /// Answers one that it takes; the context knows the caller's address.
    fn answer(&self, context: Arc<Context>, request: http::Request<Incoming>) -> Answering;
}

/// The calls of a connection.
struct Calls {
    direct: Option<Arc<dyn Direct>>,
    router: axum::Router,
    peer: Option<Peer>,
    /// What is known of all its calls.
    context: Arc<Context>,
}

impl hyper::service::Service<http::Request<Incoming>> for Calls {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<Incoming>) -> Answering {
        if let Some(direct) = self.direct.as_ref().filter(|direct| direct.takes(&request)) {
            return direct.answer(self.context.clone(), request);
        }
        let mut request = request.map(Body::new);
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        Box::pin(self.router.clone().oneshot(request))
    }
}

/// The caller's address, in a request's extensions; one through a socket of the file system has none.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

/// The request as later components may ask about it; its headers only where they are to be kept.
pub fn context(extensions: &http::Extensions, headers: Option<&http::HeaderMap>) -> Arc<Context> {
    Arc::new(Context {
        peer: extensions.get::<Peer>().map(|peer| peer.0),
        metadata: headers.cloned().unwrap_or_default(),
        principal: extensions.get::<Principal>().cloned(),
    })
}

async fn authenticate(
    auth: Arc<dyn ServerAuth>,
    mut request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    let challenge = format!("{} realm=\"karez\"", auth.scheme());
    let refused = match checked(auth, request.headers()).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            return Ok(next.run(request).await);
        }
        Err(refused) => refused,
    };
    if is_grpc(request.headers()) {
        return Ok(tonic::Status::unauthenticated(refused.to_string())
            .into_http::<Body>()
            .into_response());
    }
    let mut response = (StatusCode::UNAUTHORIZED, refused.to_string()).into_response();
    if let Ok(challenge) = HeaderValue::try_from(challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    Ok(response)
}

/// Checks a caller; slow hashes are computed aside, a few at once, so that wrong passwords cannot take all cores.
async fn checked(auth: Arc<dyn ServerAuth>, headers: &http::HeaderMap) -> Result<Principal, AuthError> {
    static SLOW: Semaphore = Semaphore::const_new(2);
    if let Some(done) = auth.authenticate_at_once(headers) {
        return done;
    }
    let slot = SLOW.acquire().await;
    let headers = headers.clone();
    let done = tokio::task::spawn_blocking(move || auth.authenticate(&headers)).await;
    drop(slot);
    done.unwrap_or(Err(AuthError::InvalidCredentials))
}

/// Whether a request is a gRPC call.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/grpc"))
}

/// A router with the answer that gRPC asks for to a method that is not there.
pub fn grpc_router() -> axum::Router {
    axum::Router::new().fallback(|| async {
        tonic::Status::unimplemented("this server has no such method")
            .into_http::<Body>()
            .into_response()
    })
}
