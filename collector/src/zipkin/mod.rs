//! Zipkin's spans, version 2, in JSON and protobuf, and what they are in OpenTelemetry.
//!
//! ```text
//! JSON ⇄ model::Span ⇄ OTLP        protobuf ⇄ proto::Span ⇄ model::Span
//! ```

pub mod from_otlp;
pub mod model;
pub mod proto;
pub mod to_otlp;

#[cfg(test)]
mod tests;
