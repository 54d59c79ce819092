//! What the protocols of the receiver have in common: a Jaeger batch becomes an encoded OTLP batch and is handed on.

use opentelemetry_proto::tonic::trace::v1::TracesData;

use crate::batch::{Batch, Signal};
use crate::component::{Consumer, Refusal};
use crate::jaeger::{model, to_otlp};

/// Translates a batch.
pub(super) fn encode(batch: model::Batch) -> Batch {
    let spans = batch.spans.len();
    // `TracesData` and an export request have the same encoding.
    Batch::encode(
        Signal::Traces,
        &TracesData {
            resource_spans: to_otlp::batch(batch),
        },
        spans,
    )
}

/// Translates a batch and hands it on, unless it is empty.
pub(super) async fn take(consumer: &Consumer, batch: model::Batch) -> Result<(), Refusal> {
    match batch.spans.is_empty() {
        true => Ok(()),
        false => consumer.send(encode(batch)).await,
    }
}
