//! The admin port: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::{Readiness, Shutdown};

/// More connections than this wait to be accepted; probes and scrapers need a handful.
const MAX_CONNECTIONS: usize = 64;
/// A client that does not send its request in this time is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

#[derive(Clone)]
struct Admin {
    registry: Arc<Registry>,
    readiness: Readiness,
    shutdown: Shutdown,
}

/// Serves `/metrics`, `/healthz` (200 while the process runs) and `/readyz` (200 when ready, else 503 with what is
/// waited for) until the shutdown.
///
/// # Errors
/// When the listener fails for good; a single connection's failure is only logged.
pub async fn serve_admin(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> io::Result<()> {
    let admin = Admin {
        registry,
        readiness,
        shutdown,
    };
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = admin.shutdown.triggered() => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            admin.serve(stream).await;
            drop(slot);
        });
    }
}

impl Admin {
    async fn serve(self, stream: TcpStream) {
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            result = connection => {
                if let Err(error) = result {
                    tracing::debug!(%error, "admin port: connection ended");
                }
            }
            () = shutdown.triggered() => {}
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are answered here\n".into(),
            );
        }
        match path {
            "/metrics" => self.metrics(),
            "/healthz" | "/livez" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => self.ready(),
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /metrics, /healthz and /readyz\n".into(),
            ),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        if prometheus_client::encoding::text::encode(&mut body, &self.registry).is_err() {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics cannot be written\n".into(),
            );
        }
        with_type(StatusCode::OK, METRICS_TYPE, body)
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.shutdown.is_triggered() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into());
        }
        let pending = self.readiness.pending();
        if pending.is_empty() {
            return text(StatusCode::OK, "ok\n".into());
        }
        let list: String = pending
            .iter()
            .map(|name| format!("waiting for {name}\n"))
            .collect();
        text(StatusCode::SERVICE_UNAVAILABLE, list)
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, TEXT_TYPE, body)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn says_what_readiness_waits_for_and_writes_metrics() {
        let mut registry = Registry::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("batches", "Batches seen", counter.clone());
        counter.inc();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        let guard = readiness.hold("the document");
        let served = tokio::spawn(serve_admin(
            listener,
            Arc::new(registry),
            readiness,
            shutdown.clone(),
        ));
        let waiting = ask(address, "/readyz").await;
        assert!(
            waiting.starts_with("HTTP/1.1 503") && waiting.ends_with("waiting for the document\n"),
            "{waiting}"
        );
        drop(guard);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/metrics").await.contains("batches_total 1"));
        assert!(ask(address, "/nothing").await.starts_with("HTTP/1.1 404"));
        shutdown.trigger();
        served.await.unwrap().unwrap();
    }
}
