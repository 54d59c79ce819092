//! Small HTTP servers of the tests' own: a backend that keeps what it is sent, and pages that do not change.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::Outcome;
use super::cluster::runtime;

/// A server on a free port of loopback.
#[derive(Clone)]
pub(crate) struct Backend {
    shared: Arc<Mutex<Shared>>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shared {
    /// Bodies by path, in the order in which they came.
    came: HashMap<String, Vec<Bytes>>,
    /// What `GET` of a path gives: content type and body.
    pages: HashMap<String, (String, Bytes)>,
}

impl Backend {
    /// Starts it. It serves until the tests' process ends.
    pub(crate) fn start() -> Outcome<Self> {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0"))?;
        let backend = Backend {
            shared: Arc::default(),
            address: listener.local_addr()?,
        };
        let serving = backend.clone();
        runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let backend = serving.clone();
                runtime().spawn(async move {
                    let service = service_fn(move |request| answer(backend.clone(), request));
                    // A connection that ends badly is the other side's to mend.
                    let _ = Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(backend)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a page.
    pub(crate) fn page(&self, path: &str, content_type: &str, body: impl Into<Bytes>) {
        let page = (content_type.to_owned(), body.into());
        self.lock().pages.insert(path.to_owned(), page);
    }

    /// What was sent to a path.
    pub(crate) fn came(&self, path: &str) -> Vec<Bytes> {
        self.lock().came.get(path).cloned().unwrap_or_default()
    }
}

async fn answer(backend: Backend, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let page = backend.lock().pages.get(&path).cloned();
    if let Some((content_type, body)) = page {
        let response = Response::builder()
            .header("content-type", content_type)
            .body(Full::new(body));
        return Ok(response.unwrap_or_default());
    }
    let body = request.into_body().collect().await?.to_bytes();
    backend.lock().came.entry(path).or_default().push(body);
    let response = Response::builder()
        .header("content-type", "application/x-protobuf")
        .body(Full::default());
    Ok(response.unwrap_or_default())
}

/// `POST` as HTTP/1.0: status and body of the answer.
pub(crate) fn post(to: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Outcome<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
        .with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {length}\r\n{headers}\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(16 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("POST {path} to {to}: not HTTP: {answer:?}"))?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.with_context(|| head.to_owned())?, body.to_owned()))
}
