//! `zipkin`: spans of Zipkin's version 2, posted to `/api/v2/spans` as JSON or protobuf, and of version 1, posted to
//! `/api/v1/spans` as JSON; answered 202.
//!
//! ```text
//! POST ─▶ decompressed, bounded ─▶ model::Span ─▶ OTLP ─▶ Batch, whose fate is the answer
//! ```

#[cfg(test)]
mod tests;

use axum::extract::{Request, State};
use axum::routing::post;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use karez_collector_config::zipkin as config;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, TracesData};

use crate::batch::{Batch, Signal};
use crate::component::{ComponentContext, Consumer, Consumers, Receiver, Running, StartError};
use crate::receivers::otlp::http::read_body;
use crate::server::{Server, context};
use crate::zipkin::{Encoding, read, to_otlp};

/// The receiver.
pub struct ZipkinReceiver {
    config: config::ZipkinReceiver,
}

impl ZipkinReceiver {
    /// A receiver of this configuration.
    pub fn new(config: config::ZipkinReceiver) -> Self {
        ZipkinReceiver { config }
    }
}

#[derive(Clone)]
struct Taking {
    consumer: Consumer,
    max_body: usize,
    keep_headers: bool,
    typed: bool,
}

impl Receiver for ZipkinReceiver {
    fn start<'a>(
        &'a self,
        consumers: Consumers,
        cx: &'a ComponentContext,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move {
            let Some(consumer) = consumers.of(Signal::Traces, "http") else {
                return Ok(Running::none());
            };
            let server = &self.config.server;
            let taking = Taking {
                consumer,
                max_body: server.max_body(),
                keep_headers: server.include_metadata,
                typed: self.config.settings.parse_string_tags,
            };
            let router = axum::Router::new()
                .route("/api/v2/spans", post(new))
                .route("/api/v1/spans", post(old))
                .with_state(taking);
            Server::http(server, "localhost:9411", "").serve(router, cx).await
        })
    }
}

async fn new(taking: State<Taking>, request: Request) -> (StatusCode, String) {
    let encoding = match content_type(request.headers()) {
        "application/x-protobuf" => Encoding::Proto,
        _ => Encoding::Json,
    };
    take(taking, request, encoding).await
}

async fn old(taking: State<Taking>, request: Request) -> (StatusCode, String) {
    if content_type(request.headers()) == "application/x-thrift" {
        let text = "Thrift of Zipkin's version 1 is not taken; let the sender use JSON, or version 2 at /api/v2/spans\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text.to_owned());
    }
    take(taking, request, Encoding::JsonV1).await
}

fn content_type(headers: &HeaderMap) -> &str {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

async fn take(State(taking): State<Taking>, request: Request, encoding: Encoding) -> (StatusCode, String) {
    let headers = request.headers().clone();
    let context = context(request.extensions(), taking.keep_headers.then_some(&headers));
    let body = match read_body(request, taking.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let resource_spans = match decode(encoding, &body, taking.typed) {
        Ok(resources) => resources,
        Err(wrong) => return (StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    let spans = resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let items = spans.map(|scope| scope.spans.len()).sum();
    if items == 0 {
        return (StatusCode::ACCEPTED, String::new());
    }
    // `TracesData` and an export request have the same encoding.
    let batch = Batch::encode(Signal::Traces, &TracesData { resource_spans }, items);
    match taking.consumer.send(batch.with_context(context)).await {
        Ok(()) => (StatusCode::ACCEPTED, String::new()),
        Err(refusal) if refusal.retryable => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", refusal.reason))
        }
        Err(refusal) => (StatusCode::BAD_REQUEST, format!("{}\n", refusal.reason)),
    }
}

fn decode(encoding: Encoding, body: &[u8], typed: bool) -> Result<Vec<ResourceSpans>, String> {
    let spans = read(encoding, body).map_err(|error| error.to_string())?;
    to_otlp::resources(spans, typed).map_err(|error| error.to_string())
}
