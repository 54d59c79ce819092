//! Exporter `jaeger`: to a Jaeger collector by `PostSpans` (port 14250).
//!
//! A batch goes in one call, so that it is delivered whole or not at all: spans of several resources carry their process
//! each.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use karez_collector_config::exporters as config;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;

use crate::batch::Batch;
use crate::client::GrpcClient;
use crate::component::{ComponentContext, Exporter, Outcome, StartError};
use crate::jaeger::{from_otlp, model};
use crate::receivers::jaeger::grpc::POST_SPANS;

/// Sends spans to a Jaeger collector.
pub struct JaegerExporter {
    client: GrpcClient,
    timeout: Duration,
}

impl JaegerExporter {
    /// Makes the client; nothing is dialled yet.
    pub fn new(config: &config::GrpcExporter, cx: &ComponentContext) -> Result<Self, StartError> {
        Ok(Self {
            client: GrpcClient::new(&config.client, cx)?,
            timeout: config.sending.timeout,
        })
    }

    async fn post(&self, batch: Batch) -> Outcome {
        let Some(message) = encode(&batch) else {
            return Outcome::Refused {
                reason: "the batch is no valid OTLP encoding".to_owned(),
            };
        };
        match self
            .client
            .unary(PathAndQuery::from_static(POST_SPANS), message, self.timeout)
            .await
        {
            Ok(_) => Outcome::Delivered,
            Err(error) => error.outcome(self.client.endpoint()),
        }
    }
}

impl Exporter for JaegerExporter {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.post(batch))
    }
}

/// The batch as an encoded `PostSpansRequest`.
fn encode(batch: &Batch) -> Option<Bytes> {
    let data: TracesData = batch.decode().ok()?;
    let mut batches: Vec<_> = data
        .resource_spans
        .into_iter()
        .filter_map(from_otlp::batch)
        .collect();
    let one = match batches.len() {
        1 => batches.remove(0),
        _ => {
            let spans = batches.into_iter().flat_map(|batch| {
                let process = batch.process;
                batch.spans.into_iter().map(move |span| model::Span {
                    process: process.clone(),
                    ..span
                })
            });
            model::Batch {
                spans: spans.collect(),
                process: None,
            }
        }
    };
    Some(
        model::PostSpansRequest { batch: Some(one) }
            .encode_to_vec()
            .into(),
    )
}
