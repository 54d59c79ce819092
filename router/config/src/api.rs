//! The router's local API: the JSON of `GET /v1/status`, shared by the router and those who ask it.

use serde::{Deserialize, Serialize};

use crate::{Mode, Protocol, Role};

/// The path of the status.
pub const STATUS_PATH: &str = "/v1/status";

/// Everything a router says about itself and what it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Grows with each change; `?since=<generation>` waits for the next.
    pub generation: u64,
    /// The document it runs.
    pub document: DocumentStatus,
    /// Its site; absent until a document was read.
    pub site: Option<SiteIdentity>,
    /// Links, both ways.
    pub links: Vec<LinkStatus>,
    /// Requests of peers for renewed certificates, not answered yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewals: Vec<RenewalStatus>,
    /// Peers that were not admitted lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalStatus>,
    /// Where peers may link to us.
    #[serde(default)]
    pub accepts: Vec<AcceptStatus>,
    /// Virtual addresses offered here.
    pub listeners: Vec<ListenerStatus>,
    /// Targets here.
    pub connectors: Vec<ConnectorStatus>,
    /// The local site first, then linked ones.
    pub sites: Vec<SiteStatus>,
}

/// The document a router runs, and what is wrong with a newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentStatus {
    /// Its source's version (a ConfigMap's resourceVersion).
    pub version: String,
    /// Why the newest document is not running; empty when it is.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// Who a site is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteIdentity {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// The version it runs.
    #[serde(default)]
    pub version: String,
    /// Interior or edge.
    #[serde(default)]
    pub mode: Mode,
}

/// Who made a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Being made.
    Connecting,
    /// Carrying.
    Active,
    /// One side refuses the other; `error` says why.
    Refused,
    /// Not reachable; being tried again.
    Down,
}

impl LinkState {
    /// As the JSON spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Refused => "refused",
            Self::Down => "down",
        }
    }
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// Its name: the document's for outgoing ones, the token's for incoming ones.
    pub name: String,
    /// Which kind of link.
    pub role: Role,
    /// The peer's host.
    pub host: String,
    /// The peer's port.
    pub port: u16,
    /// What a connection over it costs.
    pub cost: u32,
    /// Who made it.
    pub direction: Direction,
    /// The site at the other end, once it has said so.
    pub peer: Option<PeerStatus>,
    /// How it is.
    pub state: LinkState,
    /// Why it is not active.
    pub error: Option<String>,
    /// Since when it is so, RFC 3339.
    pub since: String,
    /// The token that admitted it (incoming) or that it uses (outgoing).
    pub token: Option<String>,
    /// What carries it while it is active: `quic` or `tls`.
    #[serde(default)]
    pub transport: Option<String>,
    /// How it does, while it is active.
    #[serde(default)]
    pub carries: Option<CarriesStatus>,
    /// SHA-256 of the certificate that it holds by (incoming), hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The renewed certificate that the peer sent (outgoing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<RenewedStatus>,
}

/// What a peer sent to go on being admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewedStatus {
    /// The certificate, PEM; empty when only the authorities are new.
    pub certificate: String,
    /// The authorities to believe, PEM.
    pub authorities: String,
}

/// A peer that was not admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// Why.
    pub reason: String,
    /// From where, without a port.
    pub from: String,
}

/// A peer's request for a renewed certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewalStatus {
    /// The token that it was admitted by.
    pub token: String,
    /// SHA-256 of the certificate that it holds by, hex.
    pub fingerprint: String,
    /// The request, PEM.
    pub request: String,
}

/// How an active link does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarriesStatus {
    /// The smoothed round trip, microseconds.
    pub round_trip_micros: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets of those that were lost.
    pub packets_lost: u64,
    /// Connections open on it.
    pub connections: u64,
    /// The transport's own connections that carry it.
    #[serde(default)]
    pub transport_connections: u64,
    /// When the peer's certificate ends, RFC 3339.
    #[serde(default)]
    pub certificate_expiry: Option<String>,
}

/// The site at the other end of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its id.
    pub site_id: String,
    /// Its name.
    pub site_name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
}

/// Where peers may link to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptStatus {
    /// Its name.
    pub name: String,
    /// The UDP addresses bound, `host:port`; empty while it is not.
    pub addresses: Vec<String>,
    /// Why it is not bound.
    pub error: Option<String>,
}

/// How an address's connections are encrypted from the first to the last site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedStatus {
    /// Why none can be; absent when they can. Connections are refused then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A virtual address offered here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The virtual address, `name:port`.
    pub address: String,
    /// The address bound.
    pub host: String,
    /// The port bound (the real one where the document says 0).
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// How its connections to other sites are sealed: absent when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedStatus>,
    /// `listening`, `unreachable` (listening, but nothing serves the address) or `failed`.
    pub state: String,
    /// Why it is not listening.
    pub error: Option<String>,
    /// Open connections.
    pub connections: u64,
}

/// A target here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorStatus {
    /// Its name.
    pub name: String,
    /// The virtual address it serves, `name:port`.
    pub address: String,
    /// The host it dials.
    pub host: String,
    /// The port it dials.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// The service's target that it stands for.
    pub target: String,
    /// How it takes sealed connections: absent when it takes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedStatus>,
    /// Why the last dial failed; absent after a good one.
    pub error: Option<String>,
    /// Open connections.
    pub connections: u64,
}

/// A site as the network knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Interior or edge.
    #[serde(default)]
    pub mode: Mode,
    /// Ids of the sites that it made active links to.
    #[serde(default)]
    pub links: Vec<String>,
    /// The services it offers or defines.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
}

/// A service of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its virtual address, without a port.
    pub address: String,
    /// Its protocol.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Whether connections to it are encrypted from the first to the last site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
    /// What serves it at that site.
    #[serde(default)]
    pub targets: Vec<TargetStatus>,
}

/// What serves a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
}
