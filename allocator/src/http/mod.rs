//! The HTTP endpoints: connections here, what is answered in [`routes`].
//!
//! ```text
//! connection ─▶ (mutual TLS) ─▶ HTTP/1 or HTTP/2 ─▶ routes::answer ─▶ Allocation, read ─▶ JSON, packed, tagged
//! ```

pub(crate) mod body;
mod debug;
mod lists;
mod page;
mod passed;
mod routes;
pub(crate) mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use karez_lifecycle::Shutdown;
use karez_net::TcpListeners;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::shared::Shared;

/// Connections at once; further ones wait to be accepted. Each collector holds two.
const MAX_CONNECTIONS: usize = 4096;
/// A handshake or the head of a request may take this long.
const HEAD_LIMIT: Duration = Duration::from_secs(15);

/// Serves until the shutdown; with certificates only to those who prove who they are.
pub(crate) async fn serve(
    mut listener: TcpListeners,
    tls: Option<tls::Watched>,
    shared: Arc<Shared>,
    shutdown: Shutdown,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // They end with this.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.triggered() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (shared, shutdown) = (shared.clone(), shutdown.clone());
        let acceptor = tls.as_ref().map(tls::Watched::acceptor);
        connections.spawn(async move {
            match acceptor {
                None => connection(stream, false, shared, shutdown).await,
                Some(acceptor) => match timeout(HEAD_LIMIT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, true, shared, shutdown).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a client could not prove who it is"),
                    Err(_) => {}
                },
            }
            drop(slot);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    secure: bool,
    shared: Arc<Shared>,
    shutdown: Shutdown,
) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(routes::answer(&shared, request, secure).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended abruptly");
            }
            return;
        }
        () = shutdown.triggered() => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(Duration::from_secs(2), connection).await;
}
