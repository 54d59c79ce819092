//! Where scrape targets come from, and how they are asked: discovery and an HTTP client as scrape configurations say
//! them. What they say is in [`karez_scrape_config`], which is given on here.
//!
//! ```text
//! ScrapeConfig ─▶ discovery: a task a source ─▶ Change (provider, source, Group) ─▶ who assembles targets
//! Target ─▶ Client::get ─▶ Answer (body bounded, unpacked)
//! ```

pub mod client;
pub mod discovery;

pub use karez_scrape_config as config;
