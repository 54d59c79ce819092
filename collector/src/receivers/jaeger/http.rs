//! Thrift over HTTP: `POST /api/traces` with a binary `Batch` as its body, compressed or not, answered 202.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::routing::post;

use super::sink;
use crate::component::Consumer;
use crate::receivers::otlp::http::read_body;
use crate::thrift::{self, Encoding};

/// Content types of Thrift bodies.
const TYPES: [&str; 2] = ["application/x-thrift", "application/vnd.apache.thrift.binary"];

/// The route, with bodies of at most `max_body` bytes, compressed and not.
pub fn router(consumer: Consumer, max_body: usize) -> Router {
    Router::new()
        .route("/api/traces", post(take))
        .with_state((consumer, max_body))
}

async fn take(
    State((consumer, max_body)): State<(Consumer, usize)>,
    request: Request,
) -> (StatusCode, String) {
    let given = request
        .headers()
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
    let body = match read_body(request, max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
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
