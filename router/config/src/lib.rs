//! The router's document: what is written, what it means, what is wrong with it; and the JSON of its local API.
//!
//! ```text
//!  ConfigMap skupper-internal ──text──▶ RouterDocument ──validate──▶ RouterConfig ──Difference──▶ the router
//!                                            ▲                           or every problem, with its line
//!  service-controller ──────to_yaml──────────┘
//!  the router ──api::Status (JSON)──▶ service-controller, command line
//! ```

pub mod api;
mod check;
mod config;
mod difference;
mod document;
mod policy;
mod validate;

pub use check::check;
pub use config::{
    AcceptConfig, Address, AdminConfig, ConnectorConfig, LinkConfig, ListenerConfig, LocalConfig,
    ProxyChoice, RouterConfig, ServiceConfig, TlsSource,
};
pub use difference::Difference;
pub use document::{
    AcceptSection, AccessLogSection, AdminSection, CONFIG_KEY, CONFIG_MAP, Congestion, ConnectorSection,
    LinkSection, ListenerSection, LocalSection, Mode, PeersSection, PolicySection, Protocol, ProxyProtocol,
    RenewalSection, Role, RouterDocument, RouterSection, SealSection, ServiceSection, SiteSection,
    TargetSection, TlsSection, TokenSection, Transport, VERSION,
};
pub use policy::{AddressPattern, RenewalConfig, Sharing, TokenConfig, Tokens};
pub use validate::{Problem, parse_address, validate};
