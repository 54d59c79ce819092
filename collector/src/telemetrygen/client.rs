//! The sender's connection: the collector's own clients, configured by the command line's options.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use karez_collector_config::common as config;
use karez_collector_config::values::{Compression, Secret};
use karez_collector_config::{ComponentId, endpoint};
use karez_net::Net;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tonic::Code;
use url::Url;

use super::otlp::{TlsOptions, TracesOptions, Transport};
use crate::client::{CallError, GrpcClient, HttpClient, HttpError};
use crate::component::{ComponentContext, Extensions, StartError};
use crate::metrics::Metrics;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// What of a receiver's refusal is shown.
const SHOWN: usize = 300;

/// Why a request was not delivered. The texts follow the endpoint in a message.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The options do not make a client.
    #[error("cannot be used: {message}; {mend}")]
    Options {
        /// What is wrong.
        message: String,
        /// What to do.
        mend: String,
    },
    /// Nothing answers, or it is not available.
    #[error("is not available: {0}")]
    Unavailable(String),
    /// The receiver refused.
    #[error("refused the spans: {0}")]
    Refused(String),
    /// It took too long.
    #[error("did not answer within {0:?}")]
    TimedOut(Duration),
    /// Some spans were not taken.
    #[error("did not take {rejected} spans: {message}")]
    Partial {
        /// How many.
        rejected: i64,
        /// The receiver's words.
        message: String,
    },
}

impl From<StartError> for ClientError {
    fn from(error: StartError) -> Self {
        Self::Options {
            message: error.to_string(),
            mend: error.mend().to_owned(),
        }
    }
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Timeout(timeout) => Self::TimedOut(timeout),
            CallError::Status(status) if status.code() == Code::Unavailable => {
                Self::Unavailable(status.message().to_owned())
            }
            CallError::Status(status) => Self::Refused(format!("{:?}: {}", status.code(), status.message())),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<HttpError> for ClientError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Timeout(timeout) => Self::TimedOut(timeout),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A connection that is made when it is needed and made again when it broke.
pub(super) enum Client {
    Grpc(Box<GrpcClient>, Duration),
    Http(Box<HttpClient>),
}

impl Client {
    pub(super) fn new(options: &TracesOptions, net: &Net) -> Result<Self, ClientError> {
        let cx = context(net);
        let secret = |(name, value): (&String, &String)| (name.clone(), Secret::new(value));
        let headers = options.headers.iter().map(secret).collect();
        let tls = tls(&options.tls);
        match options.transport {
            Transport::Grpc => {
                let client = config::GrpcClient {
                    endpoint: options.endpoint.clone(),
                    compression: Compression::None,
                    tls,
                    headers,
                    ..config::GrpcClient::default()
                };
                Ok(Self::Grpc(
                    Box::new(GrpcClient::new(&client, &cx)?),
                    options.timeout,
                ))
            }
            Transport::Http => {
                let client = config::HttpClient {
                    compression: Compression::None,
                    tls,
                    headers,
                    timeout: options.timeout,
                    ..config::HttpClient::default()
                };
                Ok(Self::Http(Box::new(HttpClient::new(
                    &client,
                    url(options)?,
                    &cx,
                )?)))
            }
        }
    }

    pub(super) async fn export(&self, request: ExportTraceServiceRequest) -> Result<(), ClientError> {
        let message = Bytes::from(request.encode_to_vec());
        let answer = match self {
            Self::Grpc(client, timeout) => {
                client
                    .unary(PathAndQuery::from_static(EXPORT), message, *timeout)
                    .await?
            }
            Self::Http(client) => {
                let answer = client.post("application/x-protobuf", message).await?;
                if !answer.status.is_success() {
                    let text = String::from_utf8_lossy(&answer.body);
                    let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
                    return Err(ClientError::Refused(format!("{} {text}", answer.status)));
                }
                answer.body
            }
        };
        let answer = ExportTraceServiceResponse::decode(answer)
            .map_err(|error| ClientError::Refused(format!("its answer is not OTLP: {error}")))?;
        match answer.partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(ClientError::Partial {
                rejected: partial.rejected_spans,
                message: partial.error_message,
            }),
            _ => Ok(()),
        }
    }
}

/// The clients are components' parts; here no component is around them.
fn context(net: &Net) -> ComponentContext {
    ComponentContext {
        id: ComponentId {
            kind: "otlp".to_owned(),
            name: String::new(),
        },
        key: "telemetrygen".to_owned(),
        net: net.clone(),
        extensions: Extensions::default(),
        metrics: Metrics::new(),
    }
}

fn tls(options: &TlsOptions) -> config::ClientTls {
    let path = |path: &Option<PathBuf>| {
        path.as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    config::ClientTls {
        insecure: options.insecure,
        insecure_skip_verify: options.skip_verify,
        server_name_override: options.server_name.clone().unwrap_or_default(),
        ca_file: path(&options.ca_file),
        cert_file: path(&options.cert_file),
        key_file: path(&options.key_file),
        ..config::ClientTls::default()
    }
}

/// The URL of HTTP requests: a scheme in the endpoint decides about TLS, else the option does.
fn url(options: &TracesOptions) -> Result<Url, ClientError> {
    let target = endpoint::grpc_target(&options.endpoint).map_err(|wrong| {
        let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "write HOST:PORT"));
        ClientError::Options {
            message: message.to_owned(),
            mend: mend.to_owned(),
        }
    })?;
    let scheme = if target.tls.unwrap_or(!options.tls.insecure) {
        "https"
    } else {
        "http"
    };
    let host = if target.host.contains(':') {
        format!("[{}]", target.host)
    } else {
        target.host
    };
    let path = options.url_path.trim_start_matches('/');
    Url::parse(&format!("{scheme}://{host}:{}/{path}", target.port)).map_err(|error| ClientError::Options {
        message: error.to_string(),
        mend: "write HOST:PORT".to_owned(),
    })
}
