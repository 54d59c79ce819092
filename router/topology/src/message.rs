//! What routers say to each other about the network.

use std::sync::Arc;

use crate::model::{Address, Announcement, Part, Record, Route, RouterId, Service, Site, Version};

/// One message over a link.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Between interior routers: what we know, so briefly that only differences are told further.
    Digests(Vec<Digest>),
    /// Between interior routers: which records of one router we have, since the digests differ.
    Have(Have),
    /// Between interior routers: records that the other may not have.
    Records(Vec<Flooded>),
    /// From an edge: all that it has; replaces the one before.
    Announce(Arc<Announcement>),
    /// To an edge: what changed of what it can reach.
    Summary(Summary),
}

/// Stands for all live records of one router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Which router.
    pub router: RouterId,
    /// Of which of its lives.
    pub epoch: u64,
    /// Over the parts, their sequence numbers and marks.
    pub digest: u64,
}

/// The records that one has of a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have {
    /// Which router.
    pub router: RouterId,
    /// Of which of its lives.
    pub epoch: u64,
    /// Parts with sequence numbers and marks.
    pub parts: Vec<(Part, Version)>,
}

/// A record on its way through the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Flooded {
    /// The record.
    pub record: Arc<Record>,
    /// For how long it has been on its way, milliseconds.
    pub age: u64,
}

/// What an edge can reach, as far as it changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The first one over a link: nothing told before counts.
    pub first: bool,
    /// Addresses that it can reach.
    pub routes: Vec<Route>,
    /// Addresses that it can no longer reach.
    pub unreachable: Vec<Address>,
    /// Sites with services for it.
    pub sites: Vec<(Site, Vec<Service>)>,
    /// Ids of sites that have none any more.
    pub gone: Vec<String>,
}

impl Summary {
    pub(crate) fn is_empty(&self) -> bool {
        !self.first
            && self.routes.is_empty()
            && self.unreachable.is_empty()
            && self.sites.is_empty()
            && self.gone.is_empty()
    }

    /// How many things it tells.
    pub fn entries(&self) -> usize {
        self.routes.len() + self.unreachable.len() + self.sites.len() + self.gone.len()
    }
}

impl Message {
    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        8 + match self {
            Self::Digests(list) => list.iter().map(|digest| digest.router.len() + 18).sum(),
            Self::Have(have) => have.router.len() + 10 + 16 * have.parts.len(),
            Self::Records(list) => list.iter().map(|flooded| flooded.record.size() + 4).sum(),
            Self::Announce(said) => said.size(),
            Self::Summary(summary) => {
                let site = |(site, services): &(Site, Vec<Service>)| {
                    let said = Announcement {
                        site: site.clone(),
                        services: services.clone(),
                        ..Announcement::default()
                    };
                    said.size()
                };
                summary.routes.iter().map(Route::size).sum::<usize>()
                    + summary
                        .unreachable
                        .iter()
                        .map(|address| address.name.len() + 6)
                        .sum::<usize>()
                    + summary.sites.iter().map(site).sum::<usize>()
                    + summary.gone.iter().map(|id| id.len() + 2).sum::<usize>()
            }
        }
    }
}
