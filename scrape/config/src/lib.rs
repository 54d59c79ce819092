//! Scrape configurations as Prometheus writes them, labels, relabelling and targets. Nothing here opens a socket or a
//! file: this is what the collector's document, the allocator and the scraping itself have in common.
//!
//! ```text
//! YAML ─▶ document::read ─▶ ScrapeConfig ─┐
//! discovery ─▶ Group ─────────────────────┴▶ Assembler ─▶ Fate: Target (identity: job + final labels), dropped, wrong
//! ```

pub mod discovery;
pub mod document;
pub mod http;
pub mod labels;
mod names;
pub mod relabel;
pub mod target;
pub mod values;
pub mod write;

pub use discovery::DiscoveryConfig;
pub use document::{Options, ScrapeConfig, read};
pub use http::HttpConfig;
pub use labels::Labels;
pub use target::{Assembler, Fate, Group, Target, defaults};
