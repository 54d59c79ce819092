//! Extension `jaeger_storage`: named trace stores, in memory, or in memory and on disk.
//!
//! ```text
//! exporter jaeger_storage_exporter ─▶ (on disk: TraceStore::keep) ─▶ TraceStore::add ─▶ (bounded, oldest trace out first)
//! extension jaeger_query ◀─ search::{find, dependencies}, TraceStore::{trace, services, operations}
//! ```

mod component;
mod disk;
pub mod search;
mod store;
mod wire;

#[cfg(test)]
mod tests;

pub use component::JaegerStorageExtension;
pub use disk::DiskError;
pub use store::{Added, Limits, Operation, StoredSpan, StoredTrace, TraceId, TraceStore};
