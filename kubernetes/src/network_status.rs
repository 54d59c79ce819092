//! What a site knows of its network: the JSON under `NetworkStatus` in ConfigMap `skupper-network-status`.
//!
//! Written by the service-level controller from the router's status, read by `network status` and `link status`.
//! The shape is Skupper's 1.4+; the fields that the older tree needs besides (`mode`, `url`, `linkedSites`,
//! `services`, a link's `state`) are additions that other readers skip.

use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStatus {
    /// Every address known in the network.
    pub addresses: Vec<AddressRecord>,
    /// Every site known; the local one first.
    pub site_status: Vec<SiteStatus>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddressRecord {
    /// Always `ADDRESS`.
    pub rec_type: String,
    /// Unique within the document.
    pub identity: String,
    /// `<address>:<port>`.
    pub name: String,
    /// Microseconds since the epoch.
    pub start_time: u64,
    /// 0 while it lives.
    pub end_time: u64,
    /// `tcp`, `http`, `http2`.
    pub protocol: String,
    /// Sites that offer it.
    pub listener_count: usize,
    /// Targets that serve it.
    pub connector_count: usize,
}

/// A site and its routers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SiteStatus {
    /// The site.
    pub site: SiteRecord,
    /// Its routers.
    pub router_status: Vec<RouterStatus>,
}

/// A site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SiteRecord {
    /// The site's id.
    pub identity: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(alias = "namespace")]
    pub name_space: String,
    /// `kubernetes`.
    pub platform: String,
    /// Its version.
    pub site_version: String,
    /// The oldest version it links to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub minimum_version: String,
    /// `disabled`: there is no policy.
    pub policy: String,
    /// `interior` or `edge`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// `host:port` for incoming links, empty where there are none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Ids of the sites it is linked to, in either direction.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub linked_sites: Vec<String>,
    /// What it serves itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<SiteService>,
}

/// An address with the targets that one site has for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SiteService {
    /// The address.
    pub address: String,
    /// `tcp`, `http`, `http2`.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Names of the targets.
    pub targets: Vec<String>,
}

/// A router with its links, listeners and connectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouterStatus {
    /// The router.
    pub router: RouterRecord,
    /// Its links; only the local site's are known in full.
    pub links: Vec<LinkRecord>,
    /// Addresses it offers.
    pub listeners: Vec<ListenerRecord>,
    /// Targets it reaches.
    pub connectors: Vec<ConnectorRecord>,
}

/// A router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouterRecord {
    /// `0/<router id>`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `interior` or `edge`.
    pub mode: String,
    /// Its image.
    pub image_name: String,
    /// The image's tag.
    pub image_version: String,
    /// Its host.
    pub hostname: String,
    /// Its version.
    pub build_version: String,
}

/// A link of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkRecord {
    /// `interior` or `edge`.
    pub mode: String,
    /// The link's name: its token's.
    pub name: String,
    /// Its cost.
    pub link_cost: u64,
    /// `incoming` or `outgoing`.
    pub direction: String,
    /// `active`, `connecting`, `refused`, `down`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// Why it is not active.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Id of the site at the other end, when known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_site: String,
    /// `quic` or `tls`, while it is active.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// The round trip, roughly: `2ms`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub round_trip: String,
    /// Packets that are lost, roughly: `0.1%`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub loss: String,
    /// When the peer's certificate ends, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_expiry: String,
}

/// An address that a router offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerRecord {
    /// `<address>:<port>`.
    pub name: String,
    /// Host it is bound to.
    pub dest_host: String,
    /// Port it is bound to.
    pub dest_port: String,
    /// `tcp`, `http`, `http2`.
    pub protocol: String,
    /// `<address>:<port>`.
    pub address: String,
}

/// A target that a router reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectorRecord {
    /// The target's host.
    pub dest_host: String,
    /// The target's port.
    pub dest_port: String,
    /// `tcp`, `http`, `http2`.
    pub protocol: String,
    /// `<address>:<port>`.
    pub address: String,
    /// Always empty: processes are not tracked.
    pub process: String,
    /// The target's name.
    pub target: String,
}
