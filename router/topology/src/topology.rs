//! The state machine: events in, the table and announcements out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decide::{Hop, NextHop, Table};
use crate::model::{Address, Announcement, LinkId, Route, Service, Site, TargetId};

/// What this site is and has: its document, as far as routing is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Who we are.
    pub site: Site,
    /// What we define.
    pub services: Vec<Service>,
    /// What we can reach ourselves.
    pub targets: BTreeMap<TargetId, Address>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Our document changed.
    Local(Local),
    /// A link is up; its peer has said who it is.
    LinkUp {
        /// Which link.
        link: LinkId,
        /// What it costs.
        cost: u32,
        /// Whether we made it.
        outgoing: bool,
        /// Who is at the other end.
        peer: Site,
    },
    /// A link's cost changed.
    LinkCost {
        /// Which link.
        link: LinkId,
        /// What it costs now.
        cost: u32,
    },
    /// A link is gone.
    LinkDown(LinkId),
    /// A peer told what it has.
    Announced {
        /// Over which link.
        link: LinkId,
        /// What it said.
        announcement: Announcement,
    },
}

/// What follows from an event.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The new table, when it changed.
    pub table: Option<Arc<Table>>,
    /// What to send; an announcement replaces an earlier one to the same link that has not been sent yet.
    pub send: Vec<(LinkId, Arc<Announcement>)>,
}

struct Link {
    cost: u32,
    outgoing: bool,
    heard: Announcement,
}

/// The state machine.
#[derive(Default)]
pub struct Topology {
    local: Local,
    links: BTreeMap<LinkId, Link>,
    table: Arc<Table>,
    said: Arc<Announcement>,
}

impl Topology {
    /// Takes an event and says what follows from it. Events about links that are not up have no effect.
    pub fn handle(&mut self, event: Event) -> Outcome {
        let mut fresh = None;
        match event {
            Event::Local(local) => self.local = local,
            Event::LinkUp {
                link,
                cost,
                outgoing,
                peer,
            } => {
                let heard = Announcement {
                    site: peer,
                    ..Announcement::default()
                };
                self.links.insert(
                    link,
                    Link {
                        cost,
                        outgoing,
                        heard,
                    },
                );
                fresh = Some(link);
            }
            Event::LinkCost { link, cost } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.cost = cost;
                }
            }
            Event::LinkDown(link) => {
                self.links.remove(&link);
            }
            Event::Announced { link, announcement } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.heard = announcement;
                }
            }
        }
        Outcome {
            table: self.rebuild(),
            send: self.announce(fresh),
        }
    }

    /// The table as it stands.
    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    /// What we say to our peers.
    pub fn announcement(&self) -> Arc<Announcement> {
        self.said.clone()
    }

    /// What the peer at the other end of a link said.
    pub fn heard(&self, link: LinkId) -> Option<&Announcement> {
        self.links.get(&link).map(|link| &link.heard)
    }

    /// Every neighbour once, by its site's id, with what it said last.
    pub fn neighbours(&self) -> impl Iterator<Item = &Announcement> {
        let heard = self
            .links
            .values()
            .map(|link| (link.heard.site.id.as_str(), &link.heard));
        // A newer link to the same site replaces an older one.
        heard.collect::<BTreeMap<_, _>>().into_values()
    }

    fn rebuild(&mut self) -> Option<Arc<Table>> {
        let mut ways: BTreeMap<Address, Vec<Hop>> = BTreeMap::new();
        for (target, address) in &self.local.targets {
            let hop = Hop {
                cost: 0,
                next: NextHop::Local(target.clone()),
            };
            ways.entry(address.clone()).or_default().push(hop);
        }
        for (id, link) in &self.links {
            for route in &link.heard.routes {
                let hop = Hop {
                    cost: link.cost.saturating_add(route.cost),
                    next: NextHop::Link(*id),
                };
                ways.entry(route.address.clone()).or_default().push(hop);
            }
        }
        for hops in ways.values_mut() {
            hops.sort_unstable();
            // A peer that names an address twice does not get twice the connections.
            let mut seen = BTreeSet::new();
            hops.retain(|hop| seen.insert(hop.next.clone()));
        }
        let table = Table { ways };
        if table == *self.table {
            return None;
        }
        self.table = Arc::new(table);
        Some(self.table.clone())
    }

    fn announce(&mut self, fresh: Option<LinkId>) -> Vec<(LinkId, Arc<Announcement>)> {
        let say = self.say();
        if say != *self.said {
            self.said = Arc::new(say);
            return self.links.keys().map(|link| (*link, self.said.clone())).collect();
        }
        fresh.map(|link| (link, self.said.clone())).into_iter().collect()
    }

    fn say(&self) -> Announcement {
        let mut addresses: Vec<_> = self.local.targets.values().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut links: Vec<_> = self
            .links
            .values()
            .filter(|link| link.outgoing)
            .map(|link| link.heard.site.id.clone())
            .collect();
        links.sort_unstable();
        links.dedup();
        Announcement {
            site: self.local.site.clone(),
            services: self.local.services.clone(),
            routes: addresses
                .into_iter()
                .map(|address| Route {
                    address: address.clone(),
                    cost: 0,
                })
                .collect(),
            links,
        }
    }
}
