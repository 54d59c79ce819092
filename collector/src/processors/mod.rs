//! Processors: `Batch` → `Batch`, on views of the encoding.

pub mod batch;
pub mod edit;
pub mod memory_limiter;
