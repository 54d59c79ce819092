//! An HTTP client as the document says it, for POST requests.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use karez_collector_config::common as config;
use karez_collector_config::values::Compression;
use url::Url;

use super::grpc::{chain, headers, server_name};
use super::{Dial, Proxy};
use crate::component::{ComponentContext, StartError};
use crate::extensions::auth::ClientAuth;
use crate::tls;

/// Largest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// A client of one endpoint.
pub struct HttpClient {
    client: legacy::Client<Dial, Full<Bytes>>,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    auth: Option<Arc<dyn ClientAuth>>,
    compression: Compression,
    level: Option<i32>,
    timeout: Duration,
}

/// Why a request failed without an answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// There are no credentials to send.
    #[error("no credentials to send: {0}")]
    Credentials(String),
    /// The body cannot be compressed.
    #[error("cannot compress the body: {0}")]
    Compression(std::io::Error),
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl HttpClient {
    /// Makes a client for a URL. Nothing is dialled yet.
    pub fn new(client: &config::HttpClient, url: Url, cx: &ComponentContext) -> Result<Self, StartError> {
        let host = url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let tls = match url.scheme() {
            "https" => {
                let config = tls::client(&client.tls, &[b"h2", b"http/1.1"], "tls")?;
                Some((config, server_name(&client.tls, &host)?))
            }
            _ => None,
        };
        let proxy = match client.proxy_url.as_str() {
            "" => None,
            url => Some(Proxy::parse(url).map_err(|wrong| {
                StartError::config("proxy_url", wrong, "write such as http://proxy:3128")
            })?),
        };
        let dial = Dial {
            net: cx.net.clone(),
            host,
            port,
            tls,
            proxy,
            reload: tls::Reloading::of(&client.tls, &[b"h2", b"http/1.1"]),
        };
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new());
        builder.pool_idle_timeout(Some(client.idle_conn_timeout).filter(|timeout| !timeout.is_zero()));
        if client.disable_keep_alives {
            builder.pool_max_idle_per_host(0);
        } else if let Some(most) = client.max_idle_conns_per_host {
            builder.pool_max_idle_per_host(most as usize);
        }
        Ok(HttpClient {
            client: builder.build(dial),
            url,
            headers: headers(&client.headers)?,
            auth: cx.client_auth(client.auth.as_ref())?,
            compression: client.compression,
            level: client
                .compression_params
                .as_ref()
                .and_then(config::CompressionParams::level),
            timeout: client.timeout,
        })
    }

    /// Where it sends.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Posts a body.
    pub async fn post(&self, content_type: &'static str, body: Bytes) -> Result<Answer, HttpError> {
        self.post_with(content_type, body, None).await
    }

    /// The same with one more header.
    pub async fn post_with(
        &self,
        content_type: &'static str,
        body: Bytes,
        more: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Answer, HttpError> {
        let (body, encoding) =
            compress(self.compression, self.level, body).map_err(HttpError::Compression)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.as_str())
            .header(header::CONTENT_TYPE, content_type)
            .header(header::USER_AGENT, concat!("karez/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| HttpError::Connection(error.to_string()))?;
        let sent = request.headers_mut();
        sent.extend(more.map(|(name, value)| (Some(name), value)));
        if let Some(encoding) = encoding {
            sent.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        for (name, value) in &self.headers {
            sent.insert(name.clone(), value.clone());
        }
        if let Some(auth) = &self.auth {
            auth.apply(sent, super::current().as_deref())
                .map_err(|error| HttpError::Credentials(error.to_string()))?;
        }
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|e| HttpError::Connection(chain(&e)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body
                .map_err(|error| HttpError::Connection(error.to_string()))?
                .to_bytes();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        match self.timeout.is_zero() {
            true => exchange.await,
            false => {
                let answered = tokio::time::timeout(self.timeout, exchange).await;
                answered.map_err(|_| HttpError::Timeout(self.timeout))?
            }
        }
    }
}

/// The level of gzip and zlib; fast unless the document says another.
fn deflate_level(level: Option<i32>) -> flate2::Compression {
    match level.and_then(|level| u32::try_from(level).ok()) {
        Some(level) => flate2::Compression::new(level.min(9)),
        None => flate2::Compression::fast(),
    }
}

fn compress(
    compression: Compression,
    level: Option<i32>,
    body: Bytes,
) -> std::io::Result<(Bytes, Option<&'static str>)> {
    match compression {
        Compression::None => Ok((body, None)),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), deflate_level(level));
            encoder.write_all(&body)?;
            Ok((encoder.finish()?.into(), Some("gzip")))
        }
        Compression::Zstd => Ok((
            zstd::bulk::compress(&body, level.unwrap_or(0))?.into(),
            Some("zstd"),
        )),
        Compression::Snappy => {
            let packed = snap::raw::Encoder::new().compress_vec(&body)?;
            Ok((packed.into(), Some("snappy")))
        }
        Compression::SnappyFramed => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(&body)?;
            let packed = encoder.into_inner().map_err(|error| error.into_error())?;
            Ok((packed.into(), Some("x-snappy-framed")))
        }
        Compression::Zlib => Ok((zlib(&body, level)?, Some("zlib"))),
        Compression::Deflate => Ok((zlib(&body, level)?, Some("deflate"))),
    }
}

fn zlib(body: &[u8], level: Option<i32>) -> std::io::Result<Bytes> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), deflate_level(level));
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}
