//! Decide, then do: the forwarding table, and where a new connection goes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::model::{Address, Fingerprint, LinkId, RouterId, TargetId};
use crate::paths::{Paths, Reach};

/// Where a connection can go next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// To a target on this site.
    Local(TargetId),
    /// Over a link.
    Link(Path),
}

/// A link, and what for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The link.
    pub link: LinkId,
    /// Who is to take the connection.
    pub to: To,
}

/// Who is to take a connection that goes over a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum To {
    /// The edge at its other end.
    Edge,
    /// The interior router at its other end decides: we are its edge.
    Uplink,
    /// This interior router, perhaps several links away.
    Router(RouterId),
}

/// A way to an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The cost of the whole way.
    pub cost: u32,
    /// Where it begins.
    pub next: NextHop,
}

/// All that is known about reaching an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The ways, cheapest first.
    pub hops: Vec<Hop>,
    /// Who vouches for those at the other end, when connections to it are encrypted end to end.
    pub sealed: Vec<Fingerprint>,
}

const SHARDS: usize = 128;

type Shard = Arc<BTreeMap<Address, Arc<Ways>>>;

/// Address → the ways to it, and router → the links towards it. Clones are cheap: a change copies only its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    shards: Vec<Shard>,
    routers: Arc<Paths>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            shards: vec![Shard::default(); SHARDS],
            routers: Arc::default(),
        }
    }
}

fn shard(address: &Address) -> usize {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
}

impl Table {
    /// All that is known about reaching an address.
    pub fn find(&self, address: &Address) -> Option<&Ways> {
        self.shards[shard(address)].get(address).map(|ways| &**ways)
    }

    /// The ways to an address, cheapest first.
    pub fn ways(&self, address: &Address) -> &[Hop] {
        self.find(address)
            .map(|ways| ways.hops.as_slice())
            .unwrap_or_default()
    }

    /// Whether the address can be reached at all.
    pub fn reaches(&self, address: &Address) -> bool {
        !self.ways(address).is_empty()
    }

    /// How an interior router is reached.
    pub fn router(&self, router: &str) -> Option<&Reach> {
        self.routers.get(router)
    }

    /// Every interior router that can be reached, in no order.
    pub fn routers(&self) -> impl Iterator<Item = (&RouterId, &Reach)> {
        self.routers.iter()
    }

    /// Every reachable address with its ways, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &[Hop])> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(address, ways)| (address, ways.hops.as_slice()))
    }

    /// Sets the ways to an address; says whether that is a change.
    pub(crate) fn set(&mut self, address: &Address, ways: Ways) -> bool {
        if self
            .find(address)
            .map_or(ways.hops.is_empty(), |old| *old == ways)
        {
            return false;
        }
        let shard = Arc::make_mut(&mut self.shards[shard(address)]);
        if ways.hops.is_empty() {
            shard.remove(address);
        } else {
            shard.insert(address.clone(), Arc::new(ways));
        }
        true
    }

    pub(crate) fn set_routers(&mut self, routers: Arc<Paths>) {
        self.routers = routers;
    }
}

/// How busy a way is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Open connections.
    pub open: u64,
    /// Failed lately: only taken when nothing else is left.
    pub set_aside: bool,
    /// Has as many connections as it should have: a dearer way is taken first.
    pub saturated: bool,
}

/// Where a new connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To a target on this site.
    Local(TargetId),
    /// Over a link.
    Link(Path),
    /// Nowhere.
    NoRoute,
}

impl Decision {
    /// Where it goes, if anywhere.
    pub fn next(self) -> Option<NextHop> {
        match self {
            Self::Local(target) => Some(NextHop::Local(target)),
            Self::Link(path) => Some(NextHop::Link(path)),
            Self::NoRoute => None,
        }
    }
}

impl From<&NextHop> for Decision {
    fn from(next: &NextHop) -> Self {
        match next {
            NextHop::Local(target) => Self::Local(target.clone()),
            NextHop::Link(path) => Self::Link(path.clone()),
        }
    }
}

/// A connection that came over a link.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Over which link: it never goes back there.
    pub link: LinkId,
    /// The interior router that is to take it: perhaps this one. With `None` this one decides.
    pub to: Option<RouterId>,
    /// Whether it may go on, over as many more links.
    pub hops_left: u8,
}

/// Chooses among the ways to `address` for a client of this site: what has not failed lately, then what is not
/// saturated, then the lowest cost, then the fewest open connections.
pub fn decide(table: &Table, address: &Address, loads: impl Fn(&NextHop) -> Load) -> Decision {
    best(table.ways(address).iter(), loads)
}

/// Chooses for a connection that came over a link to the router `own`.
///
/// A router that the first one chose is followed by shortest paths; so all routers whose tables agree forward without a
/// loop, and while they do not the hop limit ends it. The chosen router gives it to its own targets and edges only.
pub fn decide_onward(
    table: &Table,
    own: &str,
    address: &Address,
    arrival: &Arrival,
    loads: impl Fn(&NextHop) -> Load,
) -> Decision {
    let onward = |link: LinkId| arrival.hops_left > 0 && link != arrival.link;
    match &arrival.to {
        Some(router) if **router != *own => {
            let links = table.router(router).map(|reach| reach.links.as_slice());
            let hops: Vec<Hop> = links
                .unwrap_or_default()
                .iter()
                .filter(|link| onward(**link))
                .map(|link| Hop {
                    cost: 0,
                    next: NextHop::Link(Path {
                        link: *link,
                        to: To::Router(router.clone()),
                    }),
                })
                .collect();
            best(hops.iter(), loads)
        }
        taken => {
            let here = taken.is_some();
            let allowed = |hop: &&Hop| match &hop.next {
                NextHop::Local(_) => true,
                NextHop::Link(path) => {
                    onward(path.link)
                        && match path.to {
                            To::Edge => true,
                            To::Router(_) => !here,
                            // We are an edge there, and edges are on no one's way.
                            To::Uplink => false,
                        }
                }
            };
            best(table.ways(address).iter().filter(allowed), loads)
        }
    }
}

fn best<'a>(hops: impl Iterator<Item = &'a Hop>, loads: impl Fn(&NextHop) -> Load) -> Decision {
    let best = hops.min_by_key(|hop| {
        let load = loads(&hop.next);
        (load.set_aside, load.saturated, hop.cost, load.open)
    });
    best.map_or(Decision::NoRoute, |hop| Decision::from(&hop.next))
}
