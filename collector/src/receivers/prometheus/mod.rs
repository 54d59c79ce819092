//! Receiver `prometheus`: scrapes targets as Prometheus does.
//!
//! ```text
//! config.scrape_configs ─▶ discovery ─┐
//! target_allocator ─▶ jobs, targets ──┴▶ targets ─▶ scrape, one task a target ─▶ convert ─▶ Batch ─▶ pipelines
//! ```

mod allocator;
mod component;
pub mod convert;
mod follow;
mod job;
mod scrape;
mod targets;

pub use component::PrometheusReceiver;
