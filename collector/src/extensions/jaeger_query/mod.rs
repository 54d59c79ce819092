//! Extension `jaeger_query`: the traces of a store, as Jaeger's HTTP JSON API (port 16686).
//!
//! ```text
//! HTTP GET ─▶ [params] ─▶ jaeger_storage::search ─▶ [json] ─▶ envelope
//! ```

mod api;
mod component;
mod json;
mod params;
mod v3;

#[cfg(test)]
mod tests;

pub use api::router;
pub use component::JaegerQueryExtension;
