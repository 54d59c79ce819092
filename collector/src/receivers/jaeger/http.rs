//! Thrift over HTTP: `POST /api/traces` with a binary `Batch` as its body, answered 202.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;

use super::sink;
use crate::component::Consumer;
use crate::thrift::{self, Encoding};

/// Content types of Thrift bodies.
const TYPES: [&str; 2] = ["application/x-thrift", "application/vnd.apache.thrift.binary"];

/// The route, with bodies of at most `max_body` bytes.
pub fn router(consumer: Consumer, max_body: usize) -> Router {
    Router::new()
        .route("/api/traces", post(take))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(consumer)
}

async fn take(State(consumer): State<Consumer>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if !TYPES.contains(&media) {
        return (
            StatusCode::BAD_REQUEST,
            format!("Unsupported content type: {media}\n"),
        );
    }
    match thrift::decode_batch(Encoding::Binary, &body) {
        Err(error) => (
            StatusCode::BAD_REQUEST,
            format!("Unable to process request body: {error}\n"),
        ),
        Ok(batch) => match sink::take(&consumer, batch).await {
            Ok(()) => (StatusCode::ACCEPTED, String::new()),
            Err(refusal) => {
                let status = if refusal.retryable {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::BAD_REQUEST
                };
                (status, format!("{}\n", refusal.reason))
            }
        },
    }
}
