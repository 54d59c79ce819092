//! Receiver `jaeger`: spans of Jaeger's own protocols.
//!
//! ```text
//! UDP 6831/6832 (thrift) ─▶ [udp]  ─┐
//! gRPC 14250 PostSpans   ─▶ [grpc] ─┼▶ jaeger::to_otlp ─▶ Batch ─▶ pipelines
//! HTTP 14268 (thrift)    ─▶ [http] ─┘
//! ```

mod component;
pub mod grpc;
pub mod http;
mod sink;
pub mod udp;

pub use component::JaegerReceiver;

#[cfg(test)]
mod component_tests;
#[cfg(test)]
mod tests;
