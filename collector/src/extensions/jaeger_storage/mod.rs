//! Extension `jaeger_storage`: named trace stores, of which the one in memory exists.
//!
//! ```text
//! exporter jaeger_storage_exporter ─▶ TraceStore::add ─▶ (bounded, oldest trace out first)
//! extension jaeger_query ◀─ search::{find, dependencies}, TraceStore::{trace, services, operations}
//! ```

mod component;
pub mod search;
mod store;
mod wire;

#[cfg(test)]
mod tests;

pub use component::JaegerStorageExtension;
pub use store::{Added, Limits, Operation, StoredSpan, StoredTrace, TraceId, TraceStore};
