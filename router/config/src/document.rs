//! What is written: the router's document, exactly as YAML has it. What it means is [`crate::RouterConfig`].

use serde::{Deserialize, Serialize};

use crate::policy::Sharing;

/// The name of the ConfigMap that holds the document.
pub const CONFIG_MAP: &str = "skupper-internal";
/// The key of the ConfigMap that holds the document.
pub const CONFIG_KEY: &str = "karez-router.yaml";
/// The version of the document's format.
pub const VERSION: u32 = 1;

/// The whole document. Unknown keys are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterDocument {
    /// The format's version: 1.
    pub version: u32,
    /// The site this router belongs to.
    pub site: SiteSection,
    /// The router itself.
    #[serde(default)]
    pub router: RouterSection,
    /// TLS profiles, referred to by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<TlsSection>,
    /// Where peers may link to us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<AcceptSection>,
    /// Client certificates that may link to us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenSection>,
    /// What all peers may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySection>,
    /// Answers to requests for renewed certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewals: Vec<RenewalSection>,
    /// Authorities that peers are to believe, PEM, while one takes over from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// Links that we make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkSection>,
    /// What this site proves itself with at the ends of connections that are encrypted from the first to the last site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealSection>,
    /// The local API: HTTP over mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalSection>,
    /// Metrics and health, plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminSection>,
    /// One log record a connection; none when absent.
    #[serde(default, rename = "accessLog", skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogSection>,
    /// Services of local origin, announced to linked sites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSection>,
    /// Virtual addresses offered on this site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerSection>,
    /// Targets on this site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connectors: Vec<ConnectorSection>,
}

impl RouterDocument {
    /// The document as YAML text, for the ConfigMap.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("the document has only string keys and plain scalars")
    }
}

/// A site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSection {
    /// The UID of its ConfigMap.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// The version it runs.
    #[serde(default)]
    pub version: String,
}

/// Whether a router forwards for others and accepts links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Accepts links.
    #[default]
    Interior,
    /// Only dials.
    Edge,
}

/// What kind of link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Between interior routers.
    #[default]
    InterRouter,
    /// From an edge router to an interior one.
    Edge,
}

impl Role {
    /// As the document spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InterRouter => "inter-router",
            Self::Edge => "edge",
        }
    }
}

impl Mode {
    /// As the document spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interior => "interior",
            Self::Edge => "edge",
        }
    }
}

/// The router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSection {
    /// Its name; `<site>-<hostname>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Interior or edge.
    #[serde(default)]
    pub mode: Mode,
    /// The other routers of this site, when it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersSection>,
    /// Connections of clients that it carries at once, and connections that each peer may have over its link at once;
    /// 32768 when absent.
    #[serde(default, rename = "maxConnections", skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

/// The other routers of a site: they link to each other, as interior routers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeersSection {
    /// A name that has the address of each, as a headless Service.
    pub host: String,
    /// The port on which each takes links between routers.
    pub port: u16,
    /// The TLS profile that all of them prove themselves with: the site's own server certificate.
    pub tls: String,
}

/// A TLS profile: exactly one of `secret` and `directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// What others call it.
    pub name: String,
    /// A Secret in the document's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A directory with `tls.crt`, `tls.key` and `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// Where peers may link to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptSection {
    /// Its name.
    pub name: String,
    /// Which kind of link it takes.
    pub role: Role,
    /// The address to bind.
    #[serde(default = "any_address")]
    pub host: String,
    /// The port to bind: UDP for QUIC, and TCP for TLS on the same number.
    pub port: u16,
    /// The TLS profile that it proves itself with.
    pub tls: String,
    /// Which transports it takes; both when absent.
    #[serde(default, skip_serializing_if = "Transport::is_auto")]
    pub transport: Transport,
    /// How senders find out what the path takes.
    #[serde(default, skip_serializing_if = "Congestion::is_auto")]
    pub congestion: Congestion,
}

/// Which transport carries a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Whichever comes up and does better.
    #[default]
    Auto,
    /// QUIC over UDP, nothing else.
    Quic,
    /// TLS over TCP, nothing else.
    Tls,
}

impl Transport {
    /// Whether the router chooses.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// How senders find out what the path takes, over QUIC and over TLS alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// By loss, as CUBIC, unless what is lost is lost at random.
    #[default]
    Auto,
    /// By loss, whatever the reason of it.
    Cubic,
    /// By measured bandwidth and round trip.
    Bbr,
}

impl Congestion {
    /// Whether the router chooses.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// A client certificate that may link to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSection {
    /// The token's name.
    pub name: String,
    /// The certificate's serial number, hex.
    pub serial: String,
    /// SHA-256 of the certificate's DER, hex.
    pub fingerprint: String,
    /// The only kind of link that it is for; both when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Addresses that its holder may reach (`NAME`, `NAME:PORT`, `*` at the end of the name); all that is exposed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Vec<String>>,
    /// Addresses that its holder may offer; when absent, what `policy.sharing` leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Vec<String>>,
    /// The end of the token, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How many sites may use it; any number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Ids of the sites that have used it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
}

/// What all peers may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// Whether a peer may offer an address that somebody else has.
    #[serde(default)]
    pub sharing: Sharing,
    /// For so many seconds past the end of its certificate a peer may link to have it renewed, and do nothing else; not at all when 0.
    #[serde(default, rename = "renewExpiredSeconds", skip_serializing_if = "is_zero")]
    pub renew_expired_seconds: u64,
}

/// The answer to a peer's request for a renewed certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalSection {
    /// The token's name.
    pub token: String,
    /// SHA-256 of the request, hex.
    pub request: String,
    /// The new certificate, PEM.
    pub certificate: String,
    /// The authorities to believe from now on, PEM.
    pub authorities: String,
}

/// A link that we make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSection {
    /// Its name: the token Secret's.
    pub name: String,
    /// Which kind of link.
    pub role: Role,
    /// The peer's host.
    pub host: String,
    /// The peer's port: UDP for QUIC, and TCP for TLS on the same number.
    pub port: u16,
    /// What a connection over it costs; at least 1.
    #[serde(default = "one")]
    pub cost: u32,
    /// The TLS profile with the token's credential.
    pub tls: String,
    /// Which transport carries it.
    #[serde(default, skip_serializing_if = "Transport::is_auto")]
    pub transport: Transport,
    /// How senders find out what the path takes.
    #[serde(default, skip_serializing_if = "Congestion::is_auto")]
    pub congestion: Congestion,
    /// QUIC connections, each on a socket of its own, so that several cores work; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u16>,
    /// The HTTP proxy that TLS goes through: a URL, or `none`. When absent, `HTTPS_PROXY` and `NO_PROXY` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The server name sent over TLS, for an ingress that goes by it. The certificate is checked against
    /// `skupper-router` whatever this is.
    #[serde(default, rename = "serverName", skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A request for a renewed certificate, PEM, to be sent to the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<String>,
}

/// What a site proves itself with at the ends of sealed connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealSection {
    /// The TLS profile with the seal certificate, which says what the site serves and reaches sealed.
    pub tls: String,
}

/// The local API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSection {
    /// The address to bind.
    #[serde(default = "any_address")]
    pub host: String,
    /// The TCP port to bind.
    pub port: u16,
    /// The TLS profile that it proves itself with.
    pub tls: String,
}

/// Metrics and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// The address to bind.
    #[serde(default = "any_address")]
    pub host: String,
    /// The TCP port to bind.
    pub port: u16,
}

/// A service of local origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSection {
    /// Its virtual address, without a port.
    pub address: String,
    /// `tcp` or `udp`; `http` and `http2` are carried as TCP.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Who defined it; empty for an explicit definition.
    #[serde(default)]
    pub origin: String,
    /// What serves it.
    #[serde(default)]
    pub targets: Vec<TargetSection>,
    /// Whether connections to it are encrypted from the first to the last site, and refused otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sealed: bool,
}

/// What serves a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSection {
    /// Its name.
    pub name: String,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The access log: one record a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSection {
    /// Records a second; further ones are counted only.
    #[serde(default = "thousand", rename = "perSecond")]
    pub per_second: u32,
}

/// What an address carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As the document spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Whether it is the default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_tcp(&self) -> bool {
        *self == Self::Tcp
    }
}

/// A virtual address offered on this site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSection {
    /// Its name.
    pub name: String,
    /// The virtual address, `name:port`.
    pub address: String,
    /// The address to bind.
    #[serde(default = "any_address")]
    pub host: String,
    /// The port to bind.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default, skip_serializing_if = "Protocol::is_tcp")]
    pub protocol: Protocol,
    /// Clients that it carries at once. More wait to be accepted; of UDP, where the number is 4096 without it, the one
    /// that was idle longest goes. TCP without it has the router's own limit only.
    #[serde(default, rename = "maxConnections", skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Whether every connection begins with a PROXY header (version 1 or 2), which is believed: only for listeners that
    /// nobody but a proxy can reach.
    #[serde(default, rename = "acceptProxyProtocol", skip_serializing_if = "is_false")]
    pub accept_proxy_protocol: bool,
    /// UDP: a client's session ends after so many seconds without a datagram; 60 without it, and 10 for port 53.
    #[serde(default, rename = "idleSeconds", skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u32>,
    /// Whether its connections go to other sites sealed or not at all, whatever the network says of the address.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sealed: bool,
}

/// A target on this site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorSection {
    /// Its name.
    pub name: String,
    /// The virtual address it serves, `name:port`.
    pub address: String,
    /// The host to dial.
    pub host: String,
    /// The port to dial.
    pub port: u16,
    /// The service's target that it stands for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// TCP or UDP.
    #[serde(default, skip_serializing_if = "Protocol::is_tcp")]
    pub protocol: Protocol,
    /// With which version of the PROXY protocol the target is told who the client is; not at all when absent.
    #[serde(
        default,
        rename = "sendProxyProtocol",
        skip_serializing_if = "Option::is_none"
    )]
    pub send_proxy_protocol: Option<ProxyProtocol>,
    /// Connections after which others are preferred to it, also dearer ones. Without it there is no such number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Whether it takes from other sites only connections that are encrypted from the first to the last site.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sealed: bool,
}

fn any_address() -> String {
    "0.0.0.0".to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn thousand() -> u32 {
    1000
}

fn one() -> u32 {
    1
}

fn tcp() -> String {
    "tcp".to_owned()
}
