//! A gRPC client as the document says it, for unary calls with payloads as bytes.

use std::sync::Arc;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use ::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use bytes::Bytes;
use karez_collector_config::common as config;
use karez_collector_config::endpoint::grpc_target;
use karez_collector_config::uses_tls;
use karez_collector_config::values::Compression;
use rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::Dial;
use super::gather::Gathered;
use crate::component::{ComponentContext, Outcome, StartError};
use crate::extensions::auth::ClientAuth;
use crate::rpc::retry_delay;
use crate::tls;
use crate::together::SpawnAtOnce;
use crate::unary::{self, ACCEPTED, ENCODING, ENCODINGS, Packing, Sent};

/// Largest answer that is read: an export's is small.
const MAX_ANSWER: usize = 4 << 20;
/// Messages from this size on are compressed on a thread for such work.
const PACK_ASIDE: usize = 64 << 10;

/// A client, which connects when it is first used and again after a connection broke.
#[derive(Clone)]
pub struct GrpcClient {
    channel: Channel,
    origin: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    auth: Option<Arc<dyn ClientAuth>>,
    packing: Option<Packing>,
    endpoint: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server, or the way there, said so.
    #[error("{0}")]
    Status(Status),
    /// There are no credentials to send.
    #[error("no credentials to send: {0}")]
    Credentials(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl GrpcClient {
    /// Makes a client of the component that `cx` is of. Nothing is dialled yet.
    pub fn new(client: &config::GrpcClient, cx: &ComponentContext) -> Result<Self, StartError> {
        let target = grpc_target(&client.endpoint).map_err(|wrong| {
            let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
            StartError::config("endpoint", message, mend)
        })?;
        let packing = packing(client.compression)?;
        let secure = uses_tls(client, target.tls);
        let auth = cx.client_auth(client.auth.as_ref())?;
        if !secure && auth.as_ref().is_some_and(|auth| auth.needs_secure_transport()) {
            let message = "these credentials would travel in the clear";
            return Err(StartError::config(
                "auth",
                message,
                "use TLS, or an authenticator that does not need it",
            ));
        }
        let tls = match secure {
            true => Some((
                tls::client(&client.tls, &[b"h2"], "tls")?,
                server_name(&client.tls, &target.host)?,
            )),
            false => None,
        };
        let scheme = if secure { "https" } else { "http" };
        let host = if target.host.contains(':') {
            format!("[{}]", target.host)
        } else {
            target.host.clone()
        };
        let authority = match client.authority.is_empty() {
            true => format!("{host}:{}", target.port),
            false => client.authority.clone(),
        };
        let origin: Uri = format!("{scheme}://{authority}").parse().map_err(|_| {
            StartError::config(
                "endpoint",
                format!("`{authority}` cannot be an authority"),
                "write HOST:PORT",
            )
        })?;
        let dial = Dial {
            net: cx.net.clone(),
            host: target.host,
            port: target.port,
            tls,
            proxy: None,
            reload: tls::Reloading::of(&client.tls, &[b"h2"]),
        };
        let mut endpoint = Endpoint::from_static("http://exporter")
            .origin(origin.clone())
            .executor(SpawnAtOnce);
        if let Some(keepalive) = &client.keepalive {
            endpoint = endpoint
                .http2_keep_alive_interval(keepalive.time)
                .keep_alive_timeout(keepalive.timeout)
                .keep_alive_while_idle(keepalive.permit_without_stream);
        }
        let agent = match client.user_agent.is_empty() {
            true => concat!("karez/", env!("CARGO_PKG_VERSION")).to_owned(),
            false => client.user_agent.clone(),
        };
        let endpoint = endpoint.user_agent(agent).map_err(|_| {
            StartError::config("user_agent", "cannot be sent as a header", "use plain characters")
        })?;
        Ok(GrpcClient {
            channel: endpoint.connect_with_connector_lazy(Gathered(dial)),
            origin,
            headers: headers(&client.headers)?,
            auth,
            packing,
            endpoint: client.endpoint.clone(),
        })
    }

    /// Where it connects, as the document says it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls a method with an encoded message and gives the answer's encoding.
    pub async fn unary(
        &self,
        path: PathAndQuery,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        self.unary_with(path, message, timeout, None).await
    }

    /// The same with one more header.
    pub async fn unary_with(
        &self,
        path: PathAndQuery,
        message: Bytes,
        timeout: Duration,
        more: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Bytes, CallError> {
        let request = self.request(path, message, more).await?;
        let mut channel = self.channel.clone();
        let call = async {
            let failed = |error: tonic::transport::Error| Status::from_error(error.into());
            let ready = channel
                .ready()
                .await
                .map_err(|error| Status::unavailable(chain(&error)))?;
            let answer = ready.call(request).await.map_err(failed)?;
            unary::read_answer(answer, MAX_ANSWER).await
        };
        let called = match timeout.is_zero() {
            true => call.await,
            false => tokio::time::timeout(timeout, call)
                .await
                .map_err(|_| CallError::Timeout(timeout))?,
        };
        called.map_err(CallError::Status)
    }

    async fn request(
        &self,
        path: PathAndQuery,
        message: Bytes,
        more: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Request<Body>, CallError> {
        let message = match self.packing {
            None => message,
            Some(packing) => pack(packing, message).await?,
        };
        let body = Sent::new(message, self.packing.is_some())
            .ok_or_else(|| CallError::Status(Status::resource_exhausted("the message is too large")))?;
        let mut request = Request::new(Body::new(body));
        *request.method_mut() = Method::POST;
        let mut uri = self.origin.clone().into_parts();
        uri.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(uri)
            .map_err(|error| CallError::Status(Status::internal(format!("no address: {error}"))))?;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(ACCEPTED, HeaderValue::from_static(ENCODINGS));
        if let Some(packing) = self.packing {
            headers.insert(ENCODING, HeaderValue::from_static(packing.name()));
        }
        headers.extend(more.map(|(name, value)| (Some(name), value)));
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        if let Some(auth) = &self.auth {
            auth.apply(headers, super::current().as_deref())
                .map_err(|error| CallError::Credentials(error.to_string()))?;
        }
        Ok(request)
    }
}

/// How the document says that messages are compressed.
fn packing(compression: Compression) -> Result<Option<Packing>, StartError> {
    match compression {
        Compression::None => Ok(None),
        Compression::Gzip => Ok(Some(Packing::Gzip)),
        Compression::Zstd => Ok(Some(Packing::Zstd)),
        Compression::Snappy => Ok(Some(Packing::Snappy)),
        Compression::SnappyFramed | Compression::Zlib | Compression::Deflate => Err(StartError::config(
            "compression",
            "gRPC is compressed with gzip, zstd or snappy, or not at all",
            "write gzip, zstd, snappy or none",
        )),
    }
}

/// Packs a message: a large one aside, so that nothing else waits for it.
async fn pack(packing: Packing, message: Bytes) -> Result<Bytes, CallError> {
    let packed = match message.len() < PACK_ASIDE {
        true => packing.pack(&message),
        false => tokio::task::spawn_blocking(move || packing.pack(&message))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error))),
    };
    packed.map_err(|error| {
        let message = format!("the message cannot be compressed: {error}");
        CallError::Status(Status::internal(message))
    })
}

impl CallError {
    /// What became of the export, by the codes that OTLP says are worth another try.
    pub fn outcome(self, endpoint: &str) -> Outcome {
        let status = match self {
            CallError::Status(status) => status,
            other => {
                return Outcome::Retry {
                    after: None,
                    reason: format!("{endpoint}: {other}"),
                };
            }
        };
        let after = retry_delay(&status);
        let source = std::error::Error::source(&status).map(chain).unwrap_or_default();
        let code = status.code();
        let mut reason = format!("{endpoint}: {}: {}", name(code), status.message());
        if !source.is_empty() && !reason.contains(&source) {
            reason = format!("{reason}: {source}");
        }
        match code {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Outcome::Retry { after, reason },
            Code::ResourceExhausted if after.is_some() => Outcome::Retry { after, reason },
            // A connection that could not be made is told as `Unknown` by the transport itself.
            Code::Unknown if std::error::Error::source(&status).is_some() => Outcome::Retry { after, reason },
            _ => Outcome::Refused { reason },
        }
    }
}

fn name(code: Code) -> String {
    format!("{code:?}")
}

/// An error with what caused it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
    }
    text
}

pub(super) fn server_name(tls: &config::ClientTls, host: &str) -> Result<ServerName<'static>, StartError> {
    let (name, key) = match tls.server_name_override.is_empty() {
        true => (host, "endpoint"),
        false => (tls.server_name_override.as_str(), "tls.server_name_override"),
    };
    ServerName::try_from(name.to_owned()).map_err(|_| {
        StartError::config(
            key,
            format!("`{name}` cannot be the name in a certificate"),
            "set tls.server_name_override",
        )
    })
}

pub(super) fn headers(
    headers: &indexmap::IndexMap<String, karez_collector_config::values::Secret>,
) -> Result<Vec<(HeaderName, HeaderValue)>, StartError> {
    let read = headers.iter().map(|(name, value)| {
        let header = HeaderName::try_from(name.to_ascii_lowercase()).ok();
        let value = HeaderValue::try_from(value.expose()).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        header.zip(value).ok_or_else(|| {
            let message = "the header's name or value holds characters that a header cannot carry";
            StartError::config(
                format!("headers.{name}"),
                message,
                "check it for line breaks and spaces",
            )
        })
    });
    read.collect()
}
