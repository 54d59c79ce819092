//! Exporters: `Batch` → `Outcome`.

pub mod debug;
pub mod jaeger;
pub mod jaeger_storage;
pub mod otlp;
pub mod otlp_http;
pub mod prometheus;
pub mod remote_write;
