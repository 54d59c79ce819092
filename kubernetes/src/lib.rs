//! The vocabulary Karez shares with a Kubernetes API: custom resources, names, labels, the JSON documents
//! that ConfigMaps hold, and how a client is made.
//!
//! Data goes both ways through these types: a manifest or `kubectl` puts objects in, controllers read them
//! here and write objects named by the constants of [`names`] and [`labels`], and commands read those back.
//! Nothing here decides anything; no function except [`client()`] does input or output.

mod client;
mod collector;
mod crds;
mod jaeger;
pub mod labels;
pub mod names;
mod network_status;
mod service_definition;
mod target_allocator;

pub use client::{ClientError, ClientOptions, client};
pub use collector::{
    CollectorConfig, CollectorMode, CollectorStatus, OpenTelemetryCollector, OpenTelemetryCollectorSpec,
    ProbeTimings, ScaleStatus, ServiceAccountName,
};
pub use crds::{crds, crds_yaml};
pub use jaeger::{Jaeger, JaegerComponent, JaegerSpec, JaegerStatus, JaegerStorage};
pub use network_status::{
    AddressRecord, ConnectorRecord, LinkRecord, ListenerRecord, NetworkStatus, RouterRecord, RouterStatus,
    SiteRecord, SiteService, SiteStatus,
};
pub use service_definition::{
    DefinitionError, ORIGIN_ANNOTATION, PortSpecError, ServiceDefinition, ServiceTarget, parse_port_list,
};
pub use target_allocator::{TargetAllocator, TargetAllocatorSpec, TargetAllocatorStatus};

/// Field manager of everything the site-level controller applies.
pub const FIELD_MANAGER_SITE: &str = "karez-site-controller";
/// Field manager of everything the service-level controller applies.
pub const FIELD_MANAGER_SERVICE: &str = "karez-service-controller";
/// Field manager of what commands (`karez expose`, `karez token`) apply.
pub const FIELD_MANAGER_CLI: &str = "karez";

/// The image that generated workloads name: this very program, in this very version.
pub const IMAGE: &str = concat!("karez:", env!("CARGO_PKG_VERSION"));
/// The version that sites announce and that tokens carry.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The API group of what no peer has.
pub const GROUP: &str = "karez.dev";
