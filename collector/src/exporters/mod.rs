//! Exporters: `Batch` → `Outcome`.

pub mod debug;
pub mod file;
pub mod jaeger;
pub mod jaeger_storage;
pub mod load_balancing;
pub mod otlp;
pub mod otlp_http;
pub mod prometheus;
pub mod remote_write;
pub mod zipkin;
