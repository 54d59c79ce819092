//! Receivers: what brings telemetry in.

pub mod jaeger;
pub mod otlp;
pub mod prometheus;
pub mod zipkin;
