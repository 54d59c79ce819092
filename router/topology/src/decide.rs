//! Decide, then do: the forwarding table, and where a new connection goes.

use std::collections::BTreeMap;

use crate::model::{Address, LinkId, TargetId};

/// Where a connection can go next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// To a target on this site.
    Local(TargetId),
    /// Over a link.
    Link(LinkId),
}

/// A way to an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The cost of the whole way.
    pub cost: u32,
    /// Where it begins.
    pub next: NextHop,
}

/// Address → the ways to it, cheapest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub(crate) ways: BTreeMap<Address, Vec<Hop>>,
}

impl Table {
    /// The ways to an address, cheapest first.
    pub fn ways(&self, address: &Address) -> &[Hop] {
        self.ways.get(address).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the address can be reached at all.
    pub fn reaches(&self, address: &Address) -> bool {
        !self.ways(address).is_empty()
    }

    /// Every reachable address with its ways.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &[Hop])> {
        self.ways.iter().map(|(address, ways)| (address, ways.as_slice()))
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
    Link(LinkId),
    /// Nowhere.
    NoRoute,
}

impl Decision {
    /// Where it goes, if anywhere.
    pub fn next(self) -> Option<NextHop> {
        match self {
            Self::Local(target) => Some(NextHop::Local(target)),
            Self::Link(link) => Some(NextHop::Link(link)),
            Self::NoRoute => None,
        }
    }
}

/// Chooses among the ways to `address`: what has not failed lately, then what is not saturated, then the lowest
/// cost, then the fewest open connections.
///
/// With `hops_left` 0 only this site's own targets count: so a connection that came over a link goes no further.
pub fn decide(table: &Table, address: &Address, hops_left: u8, loads: impl Fn(&NextHop) -> Load) -> Decision {
    let allowed = |hop: &&Hop| hops_left > 0 || matches!(hop.next, NextHop::Local(_));
    let best = table.ways(address).iter().filter(allowed).min_by_key(|hop| {
        let load = loads(&hop.next);
        (load.set_aside, load.saturated, hop.cost, load.open)
    });
    match best.map(|hop| &hop.next) {
        Some(NextHop::Local(target)) => Decision::Local(target.clone()),
        Some(NextHop::Link(link)) => Decision::Link(*link),
        None => Decision::NoRoute,
    }
}
