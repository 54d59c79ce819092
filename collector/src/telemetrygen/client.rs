//! The sender's connection: gRPC or HTTP, with or without TLS, to names as [`Net`] knows them.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use karez_lifecycle::volumes;
use karez_net::Net;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::metadata::{MetadataKey, MetadataValue};

use super::otlp::{TlsOptions, TracesOptions, Transport};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// What a receiver's refusal is read of.
const MAX_ANSWER: usize = 64 << 10;

/// Why a request was not delivered. The texts follow the endpoint in a message.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is none.
    #[error("is no endpoint: {0}; write HOST:PORT or a URL")]
    Endpoint(String),
    /// TLS cannot be set up.
    #[error("cannot be reached over TLS: {0}")]
    Tls(String),
    /// A header is none.
    #[error("cannot be sent the header `{0}`: its name or value holds characters that no header may")]
    Header(String),
    /// Nothing answers.
    #[error("does not answer: {0}")]
    Unreachable(String),
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

/// A connection that is made when it is needed and made again when it broke.
pub(super) struct Client {
    transport: Kind,
    timeout: Duration,
    headers: Vec<(HeaderName, HeaderValue)>,
}

enum Kind {
    Grpc(tonic::transport::Channel),
    Http(Box<legacy::Client<Dial, Full<Bytes>>>, Uri),
}

impl Client {
    pub(super) async fn connect(options: &TracesOptions, net: &Net) -> Result<Self, ClientError> {
        let target = Target::parse(options)?;
        let tls = match target.tls {
            true => Some(tls(&options.tls, options.transport)?),
            false => None,
        };
        let name = options
            .tls
            .server_name
            .clone()
            .unwrap_or_else(|| target.host.clone());
        let dial = Dial {
            net: net.clone(),
            host: target.host,
            port: target.port,
            name,
            tls,
        };
        let transport = match options.transport {
            Transport::Grpc => {
                let endpoint = tonic::transport::Endpoint::from(target.uri).connect_timeout(options.timeout);
                Kind::Grpc(endpoint.connect_with_connector_lazy(dial))
            }
            Transport::Http => {
                let path = format!("/{}", options.url_path.trim_start_matches('/'));
                let uri = format!(
                    "http://{}{path}",
                    target.uri.authority().map_or("", |a| a.as_str())
                );
                let uri = uri.parse().map_err(|_| ClientError::Endpoint(path))?;
                Kind::Http(
                    Box::new(legacy::Client::builder(TokioExecutor::new()).build(dial)),
                    uri,
                )
            }
        };
        let header = |(name, value): (&String, &String)| match (
            HeaderName::try_from(name),
            HeaderValue::try_from(value),
        ) {
            (Ok(name), Ok(value)) => Ok((name, value)),
            _ => Err(ClientError::Header(name.clone())),
        };
        let headers = options.headers.iter().map(header).collect::<Result<_, _>>()?;
        Ok(Self {
            transport,
            timeout: options.timeout,
            headers,
        })
    }

    pub(super) async fn export(&self, request: ExportTraceServiceRequest) -> Result<(), ClientError> {
        let send = async {
            match &self.transport {
                Kind::Grpc(channel) => self.grpc(channel.clone(), request).await,
                Kind::Http(client, uri) => self.http(client, uri, request).await,
            }
        };
        let answer = tokio::time::timeout(self.timeout, send)
            .await
            .map_err(|_| ClientError::TimedOut(self.timeout))??;
        match answer.partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(ClientError::Partial {
                rejected: partial.rejected_spans,
                message: partial.error_message,
            }),
            _ => Ok(()),
        }
    }

    async fn grpc(
        &self,
        channel: tonic::transport::Channel,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, ClientError> {
        let mut request = tonic::Request::new(request);
        for (name, value) in &self.headers {
            let key = MetadataKey::from_bytes(name.as_str().as_bytes());
            let value = MetadataValue::try_from(value.as_bytes());
            let (Ok(key), Ok(value)) = (key, value) else {
                return Err(ClientError::Header(name.to_string()));
            };
            request.metadata_mut().insert(key, value);
        }
        let mut client = tonic::client::Grpc::new(channel);
        client
            .ready()
            .await
            .map_err(|error| ClientError::Unreachable(chain(&error)))?;
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(EXPORT);
        client
            .unary(request, path, codec)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| match (status.code(), status.source()) {
                (_, Some(source)) => ClientError::Unreachable(chain(source)),
                (code, None) => ClientError::Refused(format!("{code:?}: {}", status.message())),
            })
    }

    async fn http(
        &self,
        client: &legacy::Client<Dial, Full<Bytes>>,
        uri: &Uri,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, ClientError> {
        let mut sent = Request::post(uri.clone())
            .header(http::header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(request.encode_to_vec())))
            .map_err(|error| ClientError::Endpoint(error.to_string()))?;
        sent.headers_mut().extend(self.headers.iter().cloned());
        let answer = client
            .request(sent)
            .await
            .map_err(|error| ClientError::Unreachable(chain(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body
            .map_err(|error| ClientError::Unreachable(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body)
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect();
            return Err(ClientError::Refused(format!("{status} {text}")));
        }
        ExportTraceServiceResponse::decode(body).map_err(|error| ClientError::Refused(error.to_string()))
    }
}

/// An error with its causes, which tonic and hyper hide behind "transport error".
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.retain(|text| {
        !["transport error", "client error (Connect)", "tcp connect error"].contains(&text.as_str())
    });
    texts.join(": ")
}

struct Target {
    host: String,
    port: u16,
    tls: bool,
    uri: Uri,
}

impl Target {
    fn parse(options: &TracesOptions) -> Result<Self, ClientError> {
        let (tls, rest) = match options.endpoint.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(ClientError::Endpoint(format!("unknown scheme `{scheme}`"))),
            None => (!options.tls.insecure, options.endpoint.as_str()),
        };
        let address = rest.trim_end_matches('/');
        let (host, port) =
            karez_net::split_host_port(address).map_err(|e| ClientError::Endpoint(e.to_string()))?;
        let scheme = if tls { "https" } else { "http" };
        let uri = format!("{scheme}://{address}").parse();
        let uri = uri.map_err(|error: http::uri::InvalidUri| ClientError::Endpoint(error.to_string()))?;
        Ok(Self { host, port, tls, uri })
    }
}

/// Dials the one target, whatever address it is asked for.
#[derive(Clone)]
struct Dial {
    net: Net,
    host: String,
    port: u16,
    name: String,
    tls: Option<Arc<ClientConfig>>,
}

type Dialled = std::pin::Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Dialled;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Dialled {
        let dial = self.clone();
        Box::pin(async move {
            let tcp = dial
                .net
                .connect_tcp(&dial.host, dial.port)
                .await
                .map_err(io::Error::other)?;
            let Some(tls) = dial.tls else {
                return Ok(TokioIo::new(Stream(Box::new(tcp))));
            };
            let name = ServerName::try_from(dial.name.clone())
                .map_err(|_| io::Error::other(format!("{} is no name for a certificate", dial.name)))?;
            let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
            Ok(TokioIo::new(Stream(Box::new(stream))))
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A TCP stream, with TLS or without.
struct Stream(Box<dyn Io>);

impl legacy::connect::Connection for Stream {
    fn connected(&self) -> legacy::connect::Connected {
        legacy::connect::Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn tls(options: &TlsOptions, transport: Transport) -> Result<Arc<ClientConfig>, ClientError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let wrong = |what: &dyn std::fmt::Display| ClientError::Tls(what.to_string());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    let builder = match options.skip_verify {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        false => {
            let roots = Arc::new(roots(options)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            builder.with_webpki_verifier(verifier.map_err(|error| wrong(&error))?)
        }
    };
    let mut config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let path = volumes::locate(key);
            let key = PrivateKeyDer::from_pem_file(path)
                .map_err(|error| ClientError::Tls(format!("{}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong(&error))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => {
            return Err(ClientError::Tls(
                "a certificate and its key are given together or not at all".to_owned(),
            ));
        }
    };
    config.alpn_protocols = match transport {
        Transport::Grpc => vec![b"h2".to_vec()],
        Transport::Http => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

fn roots(options: &TlsOptions) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &options.ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| ClientError::Tls(format!("{}: {error}", path.display())))?;
    }
    Ok(roots)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let wrong = |error| ClientError::Tls(format!("{}: {error}", path.display()));
    let all = CertificateDer::pem_file_iter(volumes::locate(path)).map_err(wrong)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(wrong)?;
    match all.is_empty() {
        true => Err(ClientError::Tls(format!(
            "{} holds no certificate",
            path.display()
        ))),
        false => Ok(all),
    }
}

/// Takes any certificate, as the user asked for; the handshake's signature is still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
