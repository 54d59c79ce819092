//! OTLP/HTTP: protobuf and JSON, errors as `google.rpc.Status` in the request's encoding.

use std::io::Read;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use karez_collector_config::Signal;
use karez_collector_config::common::Cors;
use karez_collector_config::receivers::OtlpHttpServer;
use prost::Message;
use tonic::Code;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use super::{Failure, Taking, take};
use crate::batch_name;
use crate::json;
use crate::rpc::RpcStatus;
use crate::server::context;

/// The routes of the signals that are carried.
pub(super) fn router(taking: &Taking, http: &OtlpHttpServer) -> axum::Router {
    let (max_body, keep_headers) = (http.server.max_body(), http.server.include_metadata);
    let paths = &http.paths;
    let mut router = axum::Router::new();
    let routes = [
        (Signal::Traces, &paths.traces_url_path),
        (Signal::Metrics, &paths.metrics_url_path),
        (Signal::Logs, &paths.logs_url_path),
    ];
    let mut taken = Vec::new();
    for (signal, path) in routes {
        let path = format!("/{}", path.trim_start_matches('/'));
        // A path with braces would be a pattern; one that stands twice has its first meaning.
        if !taking.carries(signal) || path.contains(['{', '}']) || taken.contains(&path) {
            continue;
        }
        let taking = taking.clone();
        let handle = move |request: Request| {
            let taking = taking.clone();
            async move { handle(&taking, signal, max_body, keep_headers, request).await }
        };
        router = router.route(&path, any(handle));
        taken.push(path);
    }
    for (name, value) in &http.server.response_headers {
        let header = HeaderName::try_from(name.as_str())
            .ok()
            .zip(HeaderValue::try_from(value.as_str()).ok());
        if let Some((name, value)) = header {
            router = router.layer(axum::middleware::map_response(move |mut response: Response| {
                let (name, value) = (name.clone(), value.clone());
                async move {
                    response.headers_mut().insert(name, value);
                    response
                }
            }));
        }
    }
    match &http.server.cors {
        Some(cors) if !cors.allowed_origins.is_empty() => router.layer(cors_layer(cors)),
        _ => router,
    }
}

fn cors_layer(cors: &Cors) -> CorsLayer {
    let origins = cors.allowed_origins.clone();
    let allowed = move |origin: &HeaderValue, _: &http::request::Parts| {
        origin
            .to_str()
            .is_ok_and(|origin| origins.iter().any(|pattern| matches(pattern, origin)))
    };
    let headers = cors
        .allowed_headers
        .iter()
        .filter_map(|name| HeaderName::try_from(name.as_str()).ok());
    let mut headers: Vec<HeaderName> = headers.collect();
    headers.push(header::CONTENT_TYPE);
    let exposed: Vec<HeaderName> = cors
        .exposed_headers
        .iter()
        .filter_map(|name| HeaderName::try_from(name.as_str()).ok())
        .collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods(AllowMethods::list([Method::POST]))
        .allow_headers(if cors.allowed_headers.iter().any(|h| h == "*") {
            AllowHeaders::mirror_request()
        } else {
            AllowHeaders::list(headers)
        })
        .expose_headers(exposed)
        .max_age(std::time::Duration::from_secs(u64::from(cors.max_age)))
}

/// Whether an origin fits a pattern with at most one `*`.
fn matches(pattern: &str, origin: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == origin,
        Some((before, after)) => {
            origin.len() >= before.len() + after.len()
                && origin.starts_with(before)
                && origin.ends_with(after)
        }
    }
}

/// The encoding of a request, and so of its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/x-protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        })
    }
}

async fn handle(
    taking: &Taking,
    signal: Signal,
    max_body: usize,
    keep_headers: bool,
    request: Request,
) -> Response {
    if request.method() != Method::POST {
        let text = "405 method not allowed, supported: [POST]";
        return (StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    }
    let Some(encoding) = Encoding::of(request.headers()) else {
        let text = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    };
    let headers = keep_headers.then_some(request.headers());
    let context = context(request.extensions(), headers);
    let name = batch_name::of(request.headers());
    let payload = match read(request, max_body, signal, encoding).await {
        Ok(payload) => payload,
        Err((status, message)) => return failed(encoding, status, Code::InvalidArgument, message),
    };
    match take(taking, signal, payload, context, name).await {
        Ok(()) => taken(encoding),
        Err(Failure::Malformed(error)) => failed(
            encoding,
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            format!("not OTLP: {error}"),
        ),
        Err(Failure::NoPipeline(signal)) => failed(
            encoding,
            StatusCode::NOT_FOUND,
            Code::Unimplemented,
            format!("no pipeline carries {signal}"),
        ),
        Err(Failure::Refused(refusal)) if refusal.retryable => {
            let mut response = failed(
                encoding,
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                refusal.reason.clone(),
            );
            if let Some(after) = refusal.after {
                let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
        Err(Failure::Refused(refusal)) => failed(
            encoding,
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Internal,
            refusal.reason,
        ),
    }
}

/// The body as protobuf, or the status and words to refuse it with.
async fn read(
    request: Request,
    max_body: usize,
    signal: Signal,
    encoding: Encoding,
) -> Result<Bytes, (StatusCode, String)> {
    let body = read_body(request, max_body).await?;
    match encoding {
        Encoding::Protobuf => Ok(body),
        Encoding::Json => json::to_protobuf(signal, &body)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("not OTLP in JSON: {error}"))),
    }
}

/// A body, decompressed, or the status and words to refuse it with.
pub(crate) async fn read_body(request: Request, max_body: usize) -> Result<Bytes, (StatusCode, String)> {
    let (parts, body) = request.into_parts();
    let body =
        Limited::new(body, max_body)
            .collect()
            .await
            .map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
                true => (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {max_body} bytes"),
                ),
                false => (
                    StatusCode::BAD_REQUEST,
                    format!("the body cannot be read: {error}"),
                ),
            })?;
    decompress(&parts.headers, body.to_bytes(), max_body)
}

/// A body as it was before it was compressed, if that is at most so many bytes.
pub(crate) fn decompress(
    headers: &HeaderMap,
    body: Bytes,
    max_body: usize,
) -> Result<Bytes, (StatusCode, String)> {
    let name = headers
        .get(header::CONTENT_ENCODING)
        .map_or(Ok(""), |value| value.to_str())
        .unwrap_or("?");
    let reader: Box<dyn Read + '_> = match name.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => return Ok(body),
        "gzip" => Box::new(flate2::read::MultiGzDecoder::new(body.as_ref())),
        "zlib" | "deflate" => Box::new(flate2::read::ZlibDecoder::new(body.as_ref())),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(body.as_ref()).map_err(broken)?),
        // Older senders frame what they call snappy, and of nothing there are no frames.
        "snappy" if !(body.is_empty() || body.starts_with(SNAPPY_FRAMES)) => return unsnap(&body, max_body),
        "snappy" | "x-snappy-framed" => Box::new(snap::read::FrameDecoder::new(body.as_ref())),
        other => {
            let known = "supported: gzip, zstd, snappy, x-snappy-framed, deflate, zlib";
            return Err((
                StatusCode::BAD_REQUEST,
                format!("unsupported Content-Encoding: {other}; {known}"),
            ));
        }
    };
    let mut out = Vec::new();
    let read = reader
        .take(max_body as u64 + 1)
        .read_to_end(&mut out)
        .map_err(broken)?;
    match read > max_body {
        true => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {max_body} bytes"),
        )),
        false => Ok(out.into()),
    }
}

/// How a framed snappy stream begins.
const SNAPPY_FRAMES: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// A block of snappy, whose length is known before it is unpacked.
fn unsnap(body: &[u8], max_body: usize) -> Result<Bytes, (StatusCode, String)> {
    let length = snap::raw::decompress_len(body).map_err(|error| broken(error.into()))?;
    if length > max_body {
        let message = format!("the body is larger than {max_body} bytes");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let unpacked = snap::raw::Decoder::new().decompress_vec(body);
    unpacked.map(Bytes::from).map_err(|error| broken(error.into()))
}

fn broken(error: std::io::Error) -> (StatusCode, String) {
    (
        StatusCode::BAD_REQUEST,
        format!("the body cannot be decompressed: {error}"),
    )
}

fn taken(encoding: Encoding) -> Response {
    let body = match encoding {
        Encoding::Protobuf => "",
        Encoding::Json => r#"{"partialSuccess":{}}"#,
    };
    ([(header::CONTENT_TYPE, encoding.content_type())], body).into_response()
}

fn failed(encoding: Encoding, status: StatusCode, code: Code, message: String) -> Response {
    let body = match encoding {
        Encoding::Protobuf => Body::from(
            RpcStatus {
                code: code as i32,
                message,
                details: Vec::new(),
            }
            .encode_to_vec(),
        ),
        Encoding::Json => {
            Body::from(serde_json::json!({"code": code as i32, "message": message}).to_string())
        }
    };
    (status, [(header::CONTENT_TYPE, encoding.content_type())], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_with_a_wildcard() {
        assert!(matches("*", "http://a"));
        assert!(matches("https://*.example.com", "https://a.example.com"));
        assert!(!matches("https://*.example.com", "https://example.org"));
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn snappy_is_unpacked_as_a_block_and_framed_and_bounded() {
        use std::io::Write as _;
        let text = vec![7; 5000];
        let block = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        let mut frames = snap::write::FrameEncoder::new(Vec::new());
        frames.write_all(&text).unwrap();
        let frames = frames.into_inner().unwrap();
        for (name, body) in [
            ("snappy", block),
            ("snappy", frames.clone()),
            ("x-snappy-framed", frames),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            let unpacked = decompress(&headers, body.clone().into(), 5000).unwrap();
            assert_eq!(unpacked, text, "{name}");
            let (status, _) = decompress(&headers, body.into(), 4999).unwrap_err();
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{name}");
            assert!(
                decompress(&headers, Bytes::new(), 0).unwrap().is_empty(),
                "{name}"
            );
        }
        let headers = HeaderMap::from_iter([(
            header::CONTENT_ENCODING,
            HeaderValue::from_static("x-snappy-framed"),
        )]);
        let (_, said) = decompress(&headers, Bytes::from_static(b"no frames"), 5000).unwrap_err();
        assert!(said.contains("cannot be decompressed"), "{said}");
    }

    #[test]
    fn a_bomb_is_cut() {
        let mut encoder =
            flate2::read::GzEncoder::new(std::io::repeat(0).take(1 << 20), flate2::Compression::best());
        let mut body = Vec::new();
        encoder.read_to_end(&mut body).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let (status, _) = decompress(&headers, body.into(), 1 << 16).unwrap_err();
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
