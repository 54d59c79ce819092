//! Processors: `Batch` → `Batch`, on views of the encoding.

pub mod batch;
pub mod edit;
pub mod filter;
pub mod k8sattributes;
pub mod memory_limiter;
pub mod metricstransform;
pub mod probabilistic_sampler;
mod stateless;
