//! `otlp`: to another collector over gRPC. The payload is sent as it is.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use karez_collector_config::Signal;
use karez_collector_config::exporters::GrpcExporter;
use prost::Message;

use crate::batch::Batch;
use crate::batch_name;
use crate::client::GrpcClient;
use crate::component::{BatchName, ComponentContext, Exporter, Outcome, StartError};
use crate::receivers::otlp::method;
use crate::registry::BuiltExporter;

/// The exporter.
pub struct Otlp {
    client: GrpcClient,
    timeout: Duration,
    key: String,
}

/// Makes the exporter.
pub fn build(config: &GrpcExporter, cx: &ComponentContext) -> Result<BuiltExporter, StartError> {
    let client = GrpcClient::new(&config.client, cx)?;
    let exporter = Otlp {
        client,
        timeout: config.sending.timeout,
        key: cx.key.clone(),
    };
    Ok(BuiltExporter {
        exporter: std::sync::Arc::new(exporter),
        sending: Some(config.sending.clone()),
    })
}

impl Exporter for Otlp {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        self.send(batch, None)
    }

    fn export_named(&self, batch: Batch, name: BatchName) -> BoxFuture<'_, Outcome> {
        self.send(batch, Some(name))
    }
}

impl Otlp {
    fn send(&self, batch: Batch, name: Option<BatchName>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let path = PathAndQuery::from_static(method(batch.signal));
            let named = name.and_then(|name| batch_name::header(&name));
            let called = self
                .client
                .unary_with(path, batch.payload, self.timeout, named)
                .await;
            match called {
                Ok(answer) => {
                    report_partial_success(&self.key, batch.signal, &answer);
                    Outcome::Delivered
                }
                Err(error) => error.outcome(self.client.endpoint()),
            }
        })
    }
}

/// `Export…ServiceResponse`, the same for all signals.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// What the other side took but not wholly is not to be sent again, only told.
pub(super) fn report_partial_success(key: &str, signal: Signal, answer: &Bytes) {
    let Some(partial) = Answer::decode(answer.clone())
        .ok()
        .and_then(|answer| answer.partial_success)
    else {
        return;
    };
    if partial.rejected > 0 || !partial.error_message.is_empty() {
        let (rejected, message) = (partial.rejected, partial.error_message);
        tracing::warn!(component = key, %signal, rejected, message, "the other side took a part only");
    }
}
