//! Turns what a user declares into objects that run, and answers what sites ask of each other.
//!
//! ```text
//!  skupper-site, token requests, ─watch─▶ SiteSnapshot ─plan (pure)─▶ SitePlan ─apply─▶ Deployments, Services,
//!  OpenTelemetryCollector, Jaeger                                                       Secrets, ConfigMaps, Events
//!
//!  annotations, skupper-services, ─watch─▶ ServiceSnapshot ─plan (pure)─▶ Plan ─apply─▶ the router's document,
//!  tokens, the router's /v1/status ─long poll─▶                                         address Services, status
//! ```
//!
//! Two programs: the site-level controller, one for a cluster or a namespace, and the service-level controller,
//! one for each site. Both read through caches kept by watches, decide in pure functions (`plan`), and write in one
//! place (`apply`), by server-side apply. Keys are made in one place (`issue`).

mod apply;
mod claims;
mod inject;
mod issue;
mod object;
mod options;
mod plan;
mod remotes;
mod router_client;
mod service_controller;
mod sidecar_notes;
mod site_config;
mod site_controller;
mod snapshot;
mod unserved;
mod watch;
mod webhook;

pub use inject::inject;
pub use options::{OptionsError, RunError, ServiceControllerOptions, SiteControllerOptions, WebhookOptions};
pub use service_controller::run_service_controller;
pub use site_controller::run_site_controller;
pub use unserved::{UnservedPort, unserved_ports};
pub use webhook::WebhookError;
