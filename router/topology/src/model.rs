//! The words: routers, sites, services, addresses, routes, and the records that routers keep of each other.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A virtual address: a name and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The name.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// What the names of addresses of protocol UDP end in: so they differ from those of TCP with the same name and port.
const UDP: &str = "/udp";

impl Address {
    /// The address of the same name and port for datagrams.
    #[must_use]
    pub fn over_udp(mut self) -> Self {
        if !self.is_udp() {
            self.name.push_str(UDP);
        }
        self
    }

    /// Whether it is for datagrams.
    pub fn is_udp(&self) -> bool {
        self.name.ends_with(UDP)
    }

    /// The name of its service.
    pub fn service(&self) -> &str {
        self.name.strip_suffix(UDP).unwrap_or(&self.name)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.is_udp() { UDP } else { "" };
        write!(f, "{}:{}{protocol}", self.service(), self.port)
    }
}

/// One live link, for as long as it is up. A router never uses a number twice while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A target on this site, by its connector's name.
pub type TargetId = Arc<str>;

/// A router: unique in the network, also among the routers of one site.
pub type RouterId = Arc<str>;

/// What a link is for, seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Between interior routers: both flood and forward.
    #[default]
    Interior,
    /// To an interior router, we are its edge.
    Uplink,
    /// From an edge router, we are its interior one.
    Attached,
}

/// SHA-256 of the authority's certificate that vouches for a router when a connection is encrypted end to end. It says whom
/// the far end asks to believe, and proves nothing by itself: the proof is in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Who a site is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The version it runs.
    pub version: String,
    /// Whether it is an edge: never on the way to others.
    pub edge: bool,
}

/// A service that a site defines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its virtual address, without a port.
    pub address: String,
    /// Its protocol.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Names of what serves it.
    pub targets: Vec<String>,
    /// Whether connections to it are encrypted from the first to the last site.
    pub sealed: bool,
}

/// An address that can be reached through the one who says so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The address.
    pub address: Address,
    /// The cost from there on; 0 for its own targets.
    pub cost: u32,
    /// Who vouches for the other end, when connections to it are encrypted end to end. Several routers may serve it.
    pub sealed: Vec<Fingerprint>,
}

/// What a router has itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Announcement {
    /// Who speaks.
    pub site: Site,
    /// The services it defines.
    pub services: Vec<Service>,
    /// What its own targets serve.
    pub routes: Vec<Route>,
    /// Ids of the sites that it made links to.
    pub links: Vec<String>,
}

/// An interior router that a router has a link to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Which.
    pub router: RouterId,
    /// What the cheapest link to it costs.
    pub cost: u32,
}

/// Which part of a router's state a record tells: [`CORE`], or the number of the link of an attached edge.
pub type Part = u64;

/// The part that tells of the router itself.
pub const CORE: Part = 0;

/// A record's sequence number and mark.
pub type Version = (u64, u64);

/// How many random bits an epoch ends in.
const EPOCH_BITS: u32 = 20;

/// A life's epoch: when it began, in milliseconds since 1970, and chance, so that no two lives share one, not even when a
/// clock was set back or shows nothing.
pub fn epoch(millis: u64, random: u64) -> u64 {
    (millis << EPOCH_BITS) | (random & ((1 << EPOCH_BITS) - 1))
}

/// One record of the network's state. Only its origin makes new ones; all interior routers keep the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The router that it is about and from.
    pub origin: RouterId,
    /// When that router started, of [`epoch`]: records of an earlier life do not count any more.
    pub epoch: u64,
    /// Grows with each record of this life.
    pub sequence: u64,
    /// What the origin says of the body, of [`Body::mark`]: two lives that share an epoch are told apart by it.
    pub mark: u64,
    /// Which part of the router's state.
    pub part: Part,
    /// What it tells.
    pub body: Body,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// The router itself, in [`CORE`].
    Router {
        /// Its interior neighbours, by name.
        neighbours: Vec<Neighbour>,
        /// What it has.
        has: Arc<Announcement>,
    },
    /// An edge that is attached to it.
    Edge {
        /// The edge's router.
        router: RouterId,
        /// What the link to it costs.
        cost: u32,
        /// What the edge has.
        has: Arc<Announcement>,
    },
    /// The edge is no longer attached.
    Gone,
}

impl Body {
    /// A number that differs when the body does. Only its origin computes it, so that it need not be the same elsewhere.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// What the router or edge has.
    pub fn has(&self) -> Option<&Arc<Announcement>> {
        match self {
            Self::Router { has, .. } | Self::Edge { has, .. } => Some(has),
            Self::Gone => None,
        }
    }
}

impl Record {
    /// Which of two records of one part and epoch is newer. Of two that only differ in what they tell, which only two lives
    /// of one epoch can make, all routers keep the same one: whichever it is, the origin hears of it.
    pub(crate) fn version(&self) -> Version {
        (self.sequence, self.mark)
    }

    /// About how many bytes it takes, on the wire and in memory.
    pub fn size(&self) -> usize {
        let body = match &self.body {
            Body::Router { neighbours, has } => {
                has.size() + neighbours.iter().map(|peer| peer.router.len() + 8).sum::<usize>()
            }
            Body::Edge { router, has, .. } => has.size() + router.len() + 8,
            Body::Gone => 0,
        };
        self.origin.len() + 32 + body
    }
}

impl Announcement {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let site = &self.site;
        let service = |service: &Service| {
            let targets = service.targets.iter().map(|name| name.len() + 2).sum::<usize>();
            service.address.len() + service.protocol.len() + 3 * service.ports.len() + targets + 8
        };
        site.id.len()
            + site.name.len()
            + site.namespace.len()
            + site.version.len()
            + 12
            + self.services.iter().map(service).sum::<usize>()
            + self.routes.iter().map(Route::size).sum::<usize>()
            + self.links.iter().map(|id| id.len() + 2).sum::<usize>()
    }
}

impl Route {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        self.address.name.len() + 12 + 34 * self.sealed.len()
    }
}
