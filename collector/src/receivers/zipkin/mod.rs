//! `zipkin`: spans of Zipkin's version 2, posted to `/api/v2/spans` as JSON or protobuf; answered 202.
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
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;

use crate::batch::{Batch, Signal};
use crate::component::{ComponentContext, Consumer, Consumers, Receiver, Running, StartError};
use crate::receivers::otlp::http::read_body;
use crate::server::{Server, context};
use crate::zipkin::{model, proto, to_otlp};

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
                .route("/api/v2/spans", post(take))
                .route("/api/v1/spans", post(old))
                .with_state(taking);
            Server::http(server, "localhost:9411", "").serve(router, cx).await
        })
    }
}

async fn old() -> (StatusCode, &'static str) {
    let text = "spans of Zipkin's version 1 are not taken; let the sender use version 2 at /api/v2/spans\n";
    (StatusCode::NOT_IMPLEMENTED, text)
}

async fn take(State(taking): State<Taking>, request: Request) -> (StatusCode, String) {
    let headers = request.headers().clone();
    let context = context(request.extensions(), taking.keep_headers.then_some(&headers));
    let body = match read_body(request, taking.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let resource_spans = match decode(&headers, &body, taking.typed) {
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

fn decode(
    headers: &HeaderMap,
    body: &[u8],
    typed: bool,
) -> Result<Vec<opentelemetry_proto::tonic::trace::v1::ResourceSpans>, String> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let spans: Vec<model::Span> = match kind {
        "application/x-protobuf" => {
            let list = proto::ListOfSpans::decode(body)
                .map_err(|error| format!("not Zipkin's protobuf: {error}"))?;
            list.spans.into_iter().map(Into::into).collect()
        }
        _ => serde_json::from_slice(body).map_err(|error| format!("not Zipkin's JSON: {error}"))?,
    };
    to_otlp::resources(spans, typed).map_err(|error| error.to_string())
}
