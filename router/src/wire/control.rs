//! The control stream's messages: who speaks, whether it lives, and what it tells about the network.

use karez_router_config::api::SiteIdentity;
use karez_router_config::{Mode, Role};
use karez_topology as topology;
use prost::{Message, Oneof};

use super::clean;
use super::frame::WireError;
use super::renewal::Renewal;
use super::routing::{Announce, Digests, Have, Records, Summary, router};

/// The version of the control messages that we speak.
const PROTOCOL_VERSION: u32 = 2;
/// The oldest that we understand as well. Version 1 knew neighbours only.
const OLDEST_VERSION: u32 = 2;
/// Longer than any name.
const NAME: usize = 253;

/// One control message. An unknown body is skipped, so that later versions can add some.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Control {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 30")]
    pub(crate) body: Option<Body>,
}

/// What a control message says.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Body {
    /// Who we are; the first message both ways.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// What an edge has; replaces the one before.
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
    /// What each router's records amount to.
    #[prost(message, tag = "6")]
    Digests(Digests),
    /// Which of a router's records we have.
    #[prost(message, tag = "7")]
    Have(Have),
    /// Records that the peer may not have.
    #[prost(message, tag = "8")]
    Records(Records),
    /// What changed of what an edge can reach.
    #[prost(message, tag = "9")]
    Summary(Summary),
    /// The first message on a link's further connection.
    #[prost(message, tag = "20")]
    Join(Join),
    /// What a peer is admitted by is renewed.
    #[prost(message, tag = "30")]
    Renewal(Renewal),
}

/// This connection belongs to a link that is up; the peer answers with the same, without the ticket.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Join {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ticket: Vec<u8>,
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
    /// The router's name; a site may have several.
    #[prost(string, tag = "5")]
    pub(crate) router: String,
    /// The oldest version that it understands.
    #[prost(uint32, tag = "6")]
    pub(crate) oldest: u32,
    /// What further connections of the link are to show (from the acceptor).
    #[prost(bytes = "vec", tag = "20")]
    pub(crate) ticket: Vec<u8>,
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

/// Why a site leaves.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bye {
    #[prost(string, tag = "1")]
    pub(crate) reason: String,
}

impl Hello {
    /// Our hello for a link of this role.
    pub(crate) fn of(site: &SiteIdentity, router: &str, role: Role, cost: u32) -> Self {
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
            router: router.to_owned(),
            oldest: OLDEST_VERSION,
            ticket: Vec::new(),
        }
    }

    /// Whether both sides understand one version; else what to tell.
    pub(crate) fn version(&self) -> Result<(), String> {
        let oldest = if self.oldest == 0 {
            self.version
        } else {
            self.oldest
        };
        if oldest <= PROTOCOL_VERSION && self.version >= OLDEST_VERSION {
            return Ok(());
        }
        Err(format!(
            "link protocol version {} there and {PROTOCOL_VERSION} here: upgrade the older site",
            self.version
        ))
    }

    /// The peer's router.
    pub(crate) fn router(&self) -> Result<topology::RouterId, WireError> {
        router(&self.router)
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
    pub(super) fn checked(&self) -> Result<topology::Site, WireError> {
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

    pub(super) fn of(site: &topology::Site) -> Self {
        Self {
            id: site.id.clone(),
            name: site.name.clone(),
            namespace: site.namespace.clone(),
            version: site.version.clone(),
            edge: site.edge,
        }
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
