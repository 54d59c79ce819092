//! Bodies: packed where the client takes it, tagged so that the same is not sent twice.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Shorter bodies are not worth packing.
const PACK_FROM: usize = 1024;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Html,
    Text,
    Metrics,
    Bytes,
}

impl Media {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Media::Json => "application/json",
            Media::Html => "text/html; charset=utf-8",
            Media::Text => "text/plain; charset=utf-8",
            Media::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Media::Bytes => "application/octet-stream",
        })
    }
}

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::with_capacity(text.len() / 8 + 64), Compression::fast());
    // Writing to memory does not fail.
    let _ = packer.write_all(text);
    packer.finish().unwrap_or_default()
}

/// Whether a client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut codings = accepted.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.all(|parameter| !matches!(parameter, "q=0" | "q=0.0"))
    })
}

/// A tag as a header has it.
pub(crate) fn tag(tag: u64) -> String {
    format!("\"{tag:016x}\"")
}

/// Whether the client has what has this tag.
pub(crate) fn has(headers: &HeaderMap, tag: &str) -> bool {
    let asked = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut tags = asked.flat_map(|value| value.split(','));
    tags.any(|other| other.trim().trim_start_matches("W/") == tag)
}

pub(crate) fn answer(status: StatusCode, media: Media, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, media.header());
    answer
}

/// A body, packed if it is worth it and the client takes it.
pub(crate) fn packed(headers: &HeaderMap, media: Media, text: Vec<u8>) -> Answer {
    if text.len() < PACK_FROM || !takes_gzip(headers) {
        return answer(StatusCode::OK, media, text);
    }
    let mut answer = answer(StatusCode::OK, media, gzip(&text));
    answer
        .headers_mut()
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// Names a body by its tag.
pub(crate) fn tagged(mut answer: Answer, tag: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(tag) {
        answer.headers_mut().insert(header::ETAG, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_takes_is_read() {
        let headers = |name: header::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        assert!(takes_gzip(&headers(
            header::ACCEPT_ENCODING,
            "deflate, gzip;q=0.5"
        )));
        assert!(!takes_gzip(&headers(header::ACCEPT_ENCODING, "gzip;q=0, br")));
        assert!(has(&headers(header::IF_NONE_MATCH, "\"a\", W/\"b\""), "\"b\""));
        assert!(!has(&headers(header::IF_NONE_MATCH, "\"a\""), "\"b\""));
    }
}
