//! Processors: `Batch` → `Batch`, on views of the encoding.

pub mod batch;
pub mod edit;
pub mod k8sattributes;
pub mod memory_limiter;
