//! Answers.

use crate::error::ApiError;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::Value;
use std::convert::Infallible;

/// A body that is there at once or grows.
pub(crate) type ApiBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> ApiBody {
    Full::new(bytes.into()).boxed_unsync()
}

pub(crate) fn with_type(code: StatusCode, content_type: &'static str, body: ApiBody) -> Response<ApiBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

pub(crate) fn json(code: StatusCode, value: &Value) -> Response<ApiBody> {
    with_type(
        code,
        "application/json",
        full(serde_json::to_vec(value).unwrap_or_default()),
    )
}

pub(crate) fn text(value: impl Into<Bytes>) -> Response<ApiBody> {
    with_type(StatusCode::OK, "text/plain", full(value))
}

pub(crate) fn error_response(error: &ApiError) -> Response<ApiBody> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(code, &error.status())
}

/// Puts warnings on an answer, as `Warning: 299 - "…"`.
pub(crate) fn warn(response: &mut Response<ApiBody>, warnings: &[String]) {
    for warning in warnings.iter().take(32) {
        let quoted: String = warning
            .chars()
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
