//! Receiver `jaeger`: spans of Jaeger's own protocols.
//!
//! ```text
//! UDP 6831/6832 (thrift) ─▶ [udp]  ─┐
//! gRPC 14250 PostSpans   ─▶ [grpc] ─┼▶ jaeger::to_otlp ─▶ Batch ─▶ pipelines
//! HTTP 14268 (thrift)    ─▶ [http] ─┘
//! ```

pub mod grpc;
pub mod http;
mod sink;
pub mod udp;

#[cfg(test)]
mod tests;
