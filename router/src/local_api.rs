//! The local API: `GET /v1/status` over mutual TLS, for the service-controller and the command line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use karez_net::TcpListeners;
use karez_router_config::LocalConfig;
use karez_router_config::api::STATUS_PATH;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::listener::{BIND_AGAIN, endpoint};
use crate::metrics::Fault;
use crate::profiles::Profile;
use crate::shared::Shared;
use crate::status::status;

/// More clients than this wait to be accepted.
const CLIENTS: usize = 64;
/// A client that takes longer for its handshake or its request's head is cut off.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a long poll waits for the next generation.
const POLL: Duration = Duration::from_secs(30);

/// Serves until `stop`.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    config: LocalConfig,
    profile: watch::Receiver<Profile>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = run(&shared, &config, profile, &stop) => {}
    }
    shared.change(|all| all.local = None);
}

async fn run(
    shared: &Arc<Shared>,
    config: &LocalConfig,
    profile: watch::Receiver<Profile>,
    stop: &CancellationToken,
) {
    let mut listeners = bind(shared, config).await;
    let slots = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let (stream, from) = match listeners.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the local API cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let acceptor = acceptor(&profile.borrow());
        let (shared, stop) = (shared.clone(), stop.clone());
        tokio::spawn(async move {
            let served = async {
                match acceptor {
                    Ok(acceptor) => client(&shared, acceptor, stream, from).await,
                    Err(error) => tracing::warn!(%from, error, "the local API has no usable TLS profile"),
                }
            };
            tokio::select! {
                () = served => {}
                () = stop.cancelled() => {}
            }
            drop(slot);
        });
    }
}

async fn bind(shared: &Shared, config: &LocalConfig) -> TcpListeners {
    let wanted = endpoint(&config.host, config.port);
    let mut said = None;
    loop {
        match shared.net.listen_tcp(&wanted).await {
            Ok(listeners) => {
                let at = listeners.local_addrs().first().copied();
                tracing::info!(?at, "local API is served");
                shared.change(|all| all.local = at);
                return listeners;
            }
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    shared.metrics.fault(Fault::Bind);
                    tracing::error!(error, "the local API cannot be served; trying again");
                    said = Some(error);
                }
            }
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

fn acceptor(profile: &Profile) -> Result<TlsAcceptor, String> {
    match profile {
        Profile::Waiting(reason) => Err(reason.clone()),
        Profile::Ready(material) => karez_identity::server_config(material, &[b"http/1.1"])
            .map(|config| TlsAcceptor::from(Arc::new(config)))
            .map_err(|error| error.to_string()),
    }
}

async fn client(shared: &Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr) {
    let stream = match timeout(HEAD_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%from, %error, "a client of the local API was not admitted"),
        Err(_) => return,
    };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, &request).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(64 * 1024);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%from, %error, "a client of the local API ended abruptly");
    }
}

async fn answer<B>(shared: &Shared, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.uri().path() != STATUS_PATH {
        return problem(StatusCode::NOT_FOUND, "there is only /v1/status");
    }
    if request.method() != Method::GET {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "only GET");
    }
    match since(request.uri().query().unwrap_or_default()) {
        Ok(None) => {}
        Ok(Some(since)) => {
            let mut generation = shared.generation();
            tokio::select! {
                _ = timeout(POLL, generation.wait_for(|now| *now != since)) => {}
                () = shared.shutdown.triggered() => {}
            }
        }
        Err(()) => return problem(StatusCode::BAD_REQUEST, "since must be a generation's number"),
    }
    match serde_json::to_vec(&status(shared)) {
        Ok(body) => json(StatusCode::OK, body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn since(query: &str) -> Result<Option<u64>, ()> {
    match query.split('&').find_map(|pair| pair.strip_prefix("since=")) {
        None => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| ()),
    }
}

fn problem(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(
        status,
        serde_json::json!({ "error": text }).to_string().into_bytes(),
    )
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}
