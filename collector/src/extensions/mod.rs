//! Extensions: what a collector has beside its pipelines.

pub mod auth;
pub mod file_storage;
pub mod health_check;
pub mod jaeger_query;
pub mod jaeger_storage;
pub mod zpages;
