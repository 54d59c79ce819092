//! Makes traces for trying a site out, in the shape of OpenTelemetry's `tracegen`: a client span `lets-go` with a server span
//! `okey-dokey` below it.
//!
//! ```text
//! [traces]:         OTLP ─▶ gRPC or HTTP, and waits for the answer
//! [jaeger_compact]: model::Batch ─▶ thrift ─▶ UDP datagrams
//! ```

mod client;
mod jaeger;
mod otlp;
mod shape;

pub use client::ClientError;
pub use jaeger::{SendError, SendOptions, jaeger_compact};
pub use otlp::{GenerateError, TlsOptions, TracesOptions, TracesReport, Transport, traces};

#[cfg(test)]
mod tests;
