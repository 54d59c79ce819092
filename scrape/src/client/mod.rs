//! An HTTP client as a scrape configuration says it: credentials (files are read for each request, so that they may
//! change), TLS, redirects, a bound on the answer.

mod answer;
mod credentials;
mod dial;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use karez_net::Net;
use karez_scrape_config::HttpConfig;
use url::Url;

pub use answer::Answer;
use credentials::Credentials;
use dial::Dial;

/// Redirects that are followed, as Go's client does.
const MAX_REDIRECTS: usize = 10;
/// What is read at once, and the largest head of an answer.
const READ: usize = 16 << 10;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(300);

/// Why a request has no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A certificate, key or other file.
    #[error("{file}: {reason}")]
    File {
        /// The file, or the key of what is given inline.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What is given cannot be sent.
    #[error("{0}")]
    Request(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// The answer is larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// The answer is packed wrongly.
    #[error("the body cannot be unpacked: {0}")]
    Packed(String),
    /// No token could be had.
    #[error("no OAuth2 token: {0}")]
    Token(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// A client. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    client: legacy::Client<Dial, Full<Bytes>>,
    credentials: Credentials,
    follow_redirects: bool,
}

impl Client {
    /// Makes a client. Nothing is dialled yet.
    pub fn new(config: &HttpConfig, net: &Net) -> Result<Self, ClientError> {
        let alpn: &[&[u8]] = match config.enable_http2 {
            true => &[b"h2", b"http/1.1"],
            false => &[b"http/1.1"],
        };
        let dial = Dial {
            net: net.clone(),
            tls: tls::client(&config.tls, alpn)?,
            server_name: config.tls.server_name.clone(),
        };
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new());
        builder.pool_idle_timeout(IDLE);
        builder.pool_max_idle_per_host(2);
        // Each target's connection keeps the buffer that it last read into.
        builder.http1_read_buf_exact_size(READ);
        Ok(Client {
            inner: Arc::new(Inner {
                client: builder.build(dial),
                credentials: Credentials::new(config, net)?,
                follow_redirects: config.follow_redirects,
            }),
        })
    }

    /// Asks for a URL. A body of more than `limit` bytes (0: 512 MiB) is not read; the whole takes no longer than
    /// `timeout`.
    pub async fn get(
        &self,
        url: &str,
        headers: &HeaderMap,
        limit: u64,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let asked = tokio::time::timeout(timeout, self.ask(url, headers, limit)).await;
        asked.unwrap_or(Err(ClientError::Timeout(timeout)))
    }

    /// Sends JSON, with the client's credentials. No redirect is followed, and no body of the answer read.
    pub async fn post_json(
        &self,
        url: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<StatusCode, ClientError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::USER_AGENT, concat!("karez/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| ClientError::Request(format!("{url}: {error}")))?;
        let sent = async {
            self.inner.credentials.add(request.headers_mut()).await?;
            let sent = self.inner.client.request(request).await;
            sent.map_err(|error| ClientError::Connection(chain(&error)))
        };
        let sent = tokio::time::timeout(timeout, sent).await;
        Ok(sent.unwrap_or(Err(ClientError::Timeout(timeout)))?.status())
    }

    async fn ask(&self, url: &str, headers: &HeaderMap, limit: u64) -> Result<Answer, ClientError> {
        let first = Url::parse(url).map_err(|error| ClientError::Request(format!("{url}: {error}")))?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            // Credentials go to the host that they were given for, not to where it sends us.
            let trusted = url.origin() == first.origin();
            let answer = self.send(&url, headers, trusted).await?;
            let location = answer.headers().get(header::LOCATION).cloned();
            match location.filter(|_| self.inner.follow_redirects && is_redirect(answer.status())) {
                None => return answer::read(answer, limit).await,
                Some(location) => url = follow(&url, &location)?,
            }
        }
        Err(ClientError::Connection(format!(
            "more than {MAX_REDIRECTS} redirects"
        )))
    }

    async fn send(
        &self,
        url: &Url,
        headers: &HeaderMap,
        trusted: bool,
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(url.as_str())
            .header(header::USER_AGENT, concat!("karez/", env!("CARGO_PKG_VERSION")))
            .body(Full::default())
            .map_err(|error| ClientError::Request(format!("{url}: {error}")))?;
        request.headers_mut().extend(headers.clone());
        if trusted {
            self.inner.credentials.add(request.headers_mut()).await?;
        }
        let sent = self.inner.client.request(request).await;
        sent.map_err(|error| ClientError::Connection(chain(&error)))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn follow(from: &Url, location: &HeaderValue) -> Result<Url, ClientError> {
    let wrong = || ClientError::Connection(format!("{from} redirects to where nobody can go"));
    let url = from
        .join(location.to_str().map_err(|_| wrong())?)
        .map_err(|_| wrong())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(wrong()),
    }
}

/// An error with what caused it, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
