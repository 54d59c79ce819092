//! The control stream's messages, and their meaning for the topology.

use karez_router_config::api::SiteIdentity;
use karez_router_config::{Mode, Role};
use karez_topology as topology;
use prost::{Message, Oneof};

use super::clean;
use super::frame::WireError;

/// The version of the control messages that we speak; peers with another one are told so.
pub(crate) const PROTOCOL_VERSION: u32 = 1;
/// More entries in one announcement than any site has.
const ENTRIES: usize = 10_000;
/// Longer than any name.
const NAME: usize = 253;

/// One control message. An unknown body is skipped, so that later versions can add some.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Control {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5")]
    pub(crate) body: Option<Body>,
}

/// What a control message says.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Body {
    /// Who we are; the first message both ways.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// What we have; replaces the one before.
    #[prost(message, tag = "2")]
    Announce(Announce),
    /// Asks for a pong with the same number.
    #[prost(uint64, tag = "3")]
    Ping(u64),
    /// Answers a ping.
    #[prost(uint64, tag = "4")]
    Pong(u64),
    /// No new connections, please: we are leaving.
    #[prost(message, tag = "5")]
    Bye(Bye),
}

/// Who speaks.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) site: Option<Site>,
    #[prost(string, tag = "3")]
    pub(crate) role: String,
    #[prost(uint32, tag = "4")]
    pub(crate) cost: u32,
}

/// A site.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Site {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(string, tag = "4")]
    pub(crate) version: String,
    #[prost(bool, tag = "5")]
    pub(crate) edge: bool,
}

/// What a site has.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Announce {
    #[prost(message, optional, tag = "1")]
    pub(crate) site: Option<Site>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) services: Vec<Service>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) routes: Vec<Route>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) links: Vec<String>,
}

/// A service.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    #[prost(string, tag = "2")]
    pub(crate) protocol: String,
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) ports: Vec<u32>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) targets: Vec<String>,
}

/// An address that can be reached.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Route {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) cost: u32,
}

/// Why a site leaves.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bye {
    #[prost(string, tag = "1")]
    pub(crate) reason: String,
}

impl Hello {
    /// Our hello for a link of this role.
    pub(crate) fn of(site: &SiteIdentity, role: Role, cost: u32) -> Self {
        let site = Site {
            id: site.id.clone(),
            name: site.name.clone(),
            namespace: site.namespace.clone(),
            version: site.version.clone(),
            edge: site.mode == Mode::Edge,
        };
        Self {
            version: PROTOCOL_VERSION,
            site: Some(site),
            role: role.as_str().to_owned(),
            cost,
        }
    }

    /// The peer's site.
    pub(crate) fn peer(&self) -> Result<topology::Site, WireError> {
        self.site
            .as_ref()
            .ok_or(WireError::Content("a hello without a site"))?
            .checked()
    }
}

impl Site {
    fn checked(&self) -> Result<topology::Site, WireError> {
        if self.id.is_empty() || self.id.len() > NAME {
            return Err(WireError::Content("a site without a usable id"));
        }
        Ok(topology::Site {
            id: clean(&self.id, NAME),
            name: clean(&self.name, NAME),
            namespace: clean(&self.namespace, NAME),
            version: clean(&self.version, NAME),
            edge: self.edge,
        })
    }

    fn of(site: &topology::Site) -> Self {
        Self {
            id: site.id.clone(),
            name: site.name.clone(),
            namespace: site.namespace.clone(),
            version: site.version.clone(),
            edge: site.edge,
        }
    }
}

impl Announce {
    /// The message for an announcement.
    pub(crate) fn of(announcement: &topology::Announcement) -> Self {
        let services = announcement.services.iter().map(|service| Service {
            address: service.address.clone(),
            protocol: service.protocol.clone(),
            ports: service.ports.iter().map(|port| u32::from(*port)).collect(),
            targets: service.targets.clone(),
        });
        let routes = announcement.routes.iter().map(|route| Route {
            name: route.address.name.clone(),
            port: u32::from(route.address.port),
            cost: route.cost,
        });
        Self {
            site: Some(Site::of(&announcement.site)),
            services: services.collect(),
            routes: routes.collect(),
            links: announcement.links.clone(),
        }
    }

    /// What the peer said, checked. It can only speak for the site that its hello named.
    pub(crate) fn checked(&self, peer: &topology::Site) -> Result<topology::Announcement, WireError> {
        let site = self
            .site
            .as_ref()
            .map_or_else(|| Ok(peer.clone()), Site::checked)?;
        if site.id != peer.id {
            return Err(WireError::Content("an announcement for another site"));
        }
        if self.services.len().max(self.routes.len()).max(self.links.len()) > ENTRIES {
            return Err(WireError::Content("too many entries in an announcement"));
        }
        Ok(topology::Announcement {
            site,
            services: self
                .services
                .iter()
                .map(Service::checked)
                .collect::<Result<_, _>>()?,
            routes: self.routes.iter().map(Route::checked).collect::<Result<_, _>>()?,
            links: self.links.iter().map(|id| clean(id, NAME)).collect(),
        })
    }
}

impl Service {
    fn checked(&self) -> Result<topology::Service, WireError> {
        Ok(topology::Service {
            address: name(&self.address)?,
            protocol: clean(&self.protocol, 16),
            ports: self
                .ports
                .iter()
                .map(|number| port(*number))
                .collect::<Result<_, _>>()?,
            targets: self
                .targets
                .iter()
                .take(ENTRIES)
                .map(|target| clean(target, NAME))
                .collect(),
        })
    }
}

impl Route {
    fn checked(&self) -> Result<topology::Route, WireError> {
        let address = topology::Address {
            name: name(&self.name)?,
            port: port(self.port)?,
        };
        Ok(topology::Route {
            address,
            cost: self.cost,
        })
    }
}

/// A virtual address's name: not empty, not long, printable.
pub(super) fn name(text: &str) -> Result<String, WireError> {
    let fits = !text.is_empty() && text.len() <= NAME;
    if fits && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(text.to_owned());
    }
    Err(WireError::Content("an address that is none"))
}

/// A port that can be dialled.
pub(super) fn port(number: u32) -> Result<u16, WireError> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or(WireError::Content("a port that is none"))
}
