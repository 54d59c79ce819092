//! Zipkin's spans, version 2 in JSON and protobuf and version 1 in JSON, and what they are in OpenTelemetry.
//!
//! ```text
//! JSON ⇄ model::Span ⇄ OTLP        protobuf ⇄ proto::Span ⇄ model::Span        version 1 ─▶ v1::Span ─▶ model::Span
//! ```

use prost::Message;

pub mod from_otlp;
pub mod model;
pub mod proto;
pub mod to_otlp;
pub mod v1;

#[cfg(test)]
mod tests;

/// How spans are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Version 2, a JSON list.
    Json,
    /// Version 2, protobuf.
    Proto,
    /// Version 1, a JSON list.
    JsonV1,
}

/// A body that holds no spans.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or not a list of spans.
    #[error("not Zipkin's JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// Not a `ListOfSpans`.
    #[error("not Zipkin's protobuf: {0}")]
    Proto(#[source] prost::DecodeError),
}

/// Reads a body.
pub fn read(encoding: Encoding, body: &[u8]) -> Result<Vec<model::Span>, ReadError> {
    match encoding {
        Encoding::Json => serde_json::from_slice(body).map_err(ReadError::Json),
        Encoding::Proto => {
            let list = proto::ListOfSpans::decode(body).map_err(ReadError::Proto)?;
            Ok(list.spans.into_iter().map(Into::into).collect())
        }
        Encoding::JsonV1 => serde_json::from_slice(body)
            .map(v1::spans)
            .map_err(ReadError::Json),
    }
}
