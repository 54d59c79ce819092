//! What the protocols of the receiver have in common: a Jaeger batch becomes an encoded OTLP batch and is handed on.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;

use crate::jaeger::{model, to_otlp};

/// Why spans were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not now: the sender should try again.
    #[error("{0}")]
    Busy(String),
    /// Never.
    #[error("{0}")]
    Invalid(String),
}

type Handed = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Where a receiver's spans go: an encoded `TracesData` and how many spans it holds.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(Bytes, usize) -> Handed + Send + Sync>);

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Sink {
    /// Hands everything to a function.
    pub fn new<F>(take: impl Fn(Bytes, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        Self(Arc::new(move |bytes, spans| Box::pin(take(bytes, spans))))
    }

    /// Translates a batch and hands it on.
    pub(super) async fn take(&self, batch: model::Batch) -> Result<(), Refusal> {
        let (encoded, spans) = encode(batch);
        self.pass(encoded, spans).await
    }

    /// Hands an encoded batch on.
    pub(super) async fn pass(&self, encoded: Bytes, spans: usize) -> Result<(), Refusal> {
        match spans {
            0 => Ok(()),
            _ => (self.0)(encoded, spans).await,
        }
    }
}

/// An encoded batch and its spans' count.
pub(super) fn encode(batch: model::Batch) -> (Bytes, usize) {
    let spans = batch.spans.len();
    (
        TracesData {
            resource_spans: to_otlp::batch(batch),
        }
        .encode_to_vec()
        .into(),
        spans,
    )
}
