//! What the controllers know when they plan: plain values, read from the caches of the watches.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karez_kubernetes::ServiceDefinition;
use karez_router_config::api::Status;
use karez_router_config::{Mode, RouterDocument};

use crate::object::ObjectRef;

/// A namespace as the site-level controller sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiteSnapshot {
    /// The namespace.
    pub(crate) namespace: String,
    /// Its `skupper-site`, if any.
    pub(crate) site: Option<ConfigMap>,
    /// Secrets of ours, and those with a `skupper.io/type`, by name.
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Services of ours, by name.
    pub(crate) services: BTreeMap<String, Service>,
    /// Objects of the site (label `karez.dev/managed: site`) that may be pruned.
    pub(crate) managed: Vec<ObjectRef>,
}

/// A site as its service-level controller sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceSnapshot {
    /// Who the site is.
    pub(crate) site: SiteFacts,
    /// Its `skupper-site`, for ownership and settings.
    pub(crate) config_map: Option<ConfigMap>,
    /// Secrets with a `skupper.io/type`.
    pub(crate) tokens: Vec<Secret>,
    /// Why records of claims were refused lately, by their name.
    pub(crate) denials: BTreeMap<String, String>,
    /// `skupper-services` as it is.
    pub(crate) services_map: Option<ConfigMap>,
    /// All Services of the namespace, by name.
    pub(crate) services: BTreeMap<String, Service>,
    /// Workloads that may be annotated.
    pub(crate) workloads: Vec<Workload>,
    /// Pods, for targets by selector.
    pub(crate) pods: Vec<Pod>,
    /// The router's Deployment: owner of address Services.
    pub(crate) router: Option<ObjectMeta>,
    /// The document the router has now; its listeners keep their ports.
    pub(crate) previous: Option<RouterDocument>,
    /// What the router says.
    pub(crate) status: Option<Status>,
    /// What other sites announce, by their id.
    pub(crate) remotes: BTreeMap<String, Vec<ServiceDefinition>>,
}

/// Who a site is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SiteFacts {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) mode: Mode,
    /// Whether definitions are exchanged with other sites.
    pub(crate) sync: bool,
    /// How long past its end a credential can still be renewed.
    pub(crate) renew_expired: Duration,
}

/// A Deployment, StatefulSet or DaemonSet, as far as exposing it needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workload {
    pub(crate) kind: &'static str,
    pub(crate) metadata: ObjectMeta,
    pub(crate) selector: BTreeMap<String, String>,
    /// Of TCP.
    pub(crate) container_ports: Vec<u16>,
    /// Of UDP.
    pub(crate) container_udp_ports: Vec<u16>,
}
