//! What a site, its links, its addresses and its network look like: values, and their text.
//!
//! Objects of the cluster go in ([`read`]), values come out ([`NetworkStatus`], [`ServiceStatus`],
//! [`LinkStatus`], [`SiteSummary`]), and pure renderers make text of them in the words of Skupper 1.0.x.

mod link;
mod network;
pub mod read;
mod service;
mod summary;
mod tree;

pub use link::{LinkStatus, render as render_links, render_verbose as render_links_verbose};
pub use network::{LinkedSite, NetworkService, NetworkStatus, NetworkTarget, SiteStatus};
pub use read::ReadError;
pub use service::{ServiceStatus, ServiceTarget, render as render_services};
pub use summary::{SiteSummary, UnservedPort};
pub use tree::Tree;
