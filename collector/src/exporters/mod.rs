//! Exporters: `Batch` → `Outcome`.

pub mod jaeger_storage;
