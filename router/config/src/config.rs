//! What the document means: checked, with references resolved, keyed for comparison.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::SiteIdentity;
use crate::document::{Congestion, Mode, Protocol, ProxyProtocol, Role, Transport};
use crate::policy::{RenewalConfig, Sharing, Tokens};

/// What a router is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// The site it belongs to.
    pub site: SiteIdentity,
    /// The router's name, if the document gives one.
    pub router_id: Option<String>,
    /// Connections of clients carried at once, and connections that each peer may have over its link at once.
    pub max_connections: u32,
    /// How to link to the other routers of this site; the host has the address of each.
    pub peers: Option<LinkConfig>,
    /// TLS profiles by name.
    pub tls: BTreeMap<String, TlsSource>,
    /// Where peers may link, by name.
    pub accepts: BTreeMap<String, AcceptConfig>,
    /// Admitted client certificates.
    pub tokens: Tokens,
    /// Whether peers may offer what others have.
    pub sharing: Sharing,
    /// How long past the end of its certificate a peer may link to renew it.
    pub renew_expired: Duration,
    /// Answers to requests for renewed certificates, by token and the request's digest.
    pub renewals: BTreeMap<(String, String), RenewalConfig>,
    /// Authorities that peers are to believe, PEM, while one takes over from another.
    pub authorities: Option<String>,
    /// Links to make, by name.
    pub links: BTreeMap<String, LinkConfig>,
    /// The TLS profile for the ends of sealed connections.
    pub seal: Option<String>,
    /// The local API.
    pub local: Option<LocalConfig>,
    /// Metrics and health.
    pub admin: Option<AdminConfig>,
    /// Records of the access log a second; without it there is none.
    pub access_log: Option<u32>,
    /// Services to announce, by address.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Virtual addresses offered, by name.
    pub listeners: BTreeMap<String, ListenerConfig>,
    /// Targets, by name.
    pub connectors: BTreeMap<String, ConnectorConfig>,
}

impl RouterConfig {
    /// Interior or edge.
    pub fn mode(&self) -> Mode {
        self.site.mode
    }
}

/// Where a TLS profile's three PEM texts come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsSource {
    /// A Secret in the document's namespace.
    Secret(String),
    /// A directory.
    Directory(PathBuf),
}

/// A virtual address: a name and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The name.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// Where peers may link to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptConfig {
    /// Which kind of link it takes.
    pub role: Role,
    /// The address to bind.
    pub host: String,
    /// The port to bind.
    pub port: u16,
    /// The TLS profile.
    pub tls: String,
    /// Which transports it takes.
    pub transport: Transport,
    /// How senders find out what the path takes.
    pub congestion: Congestion,
}

/// A link to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Which kind of link.
    pub role: Role,
    /// The peer's host.
    pub host: String,
    /// The peer's port.
    pub port: u16,
    /// What a connection over it costs.
    pub cost: u32,
    /// The TLS profile.
    pub tls: String,
    /// Which transport carries it.
    pub transport: Transport,
    /// How senders find out what the path takes.
    pub congestion: Congestion,
    /// QUIC connections that it may have.
    pub connections: u16,
    /// The HTTP proxy that TLS goes through.
    pub proxy: ProxyChoice,
    /// The server name sent over TLS.
    pub server_name: Option<String>,
    /// A request for a renewed certificate, PEM, to be sent to the peer.
    pub renewal: Option<String>,
}

/// Which HTTP proxy to go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// What `HTTPS_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// None.
    None,
    /// This URL.
    Url(String),
}

/// The local API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// The address to bind.
    pub host: String,
    /// The port to bind.
    pub port: u16,
    /// The TLS profile.
    pub tls: String,
}

/// Metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address to bind.
    pub host: String,
    /// The port to bind.
    pub port: u16,
}

/// A service to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its protocol.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Names of what serves it.
    pub targets: Vec<String>,
    /// Whether connections to it are sealed.
    pub sealed: bool,
}

/// A virtual address offered on this site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The virtual address.
    pub address: Address,
    /// The address to bind.
    pub host: String,
    /// The port to bind.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Clients that it carries at once.
    pub max_connections: Option<u32>,
    /// Whether connections begin with a PROXY header that is believed.
    pub accept_proxy_protocol: bool,
    /// For how long a client of UDP may be silent.
    pub idle: Duration,
    /// Whether connections to other sites are sealed or refused.
    pub sealed: bool,
}

/// A target on this site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// The virtual address it serves.
    pub address: Address,
    /// The host to dial.
    pub host: String,
    /// The port to dial.
    pub port: u16,
    /// The service's target that it stands for.
    pub target: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How the target is told who the client is.
    pub send_proxy_protocol: Option<ProxyProtocol>,
    /// Connections after which others are preferred to it.
    pub capacity: Option<u32>,
    /// Whether it takes only sealed connections from other sites.
    pub sealed: bool,
}
