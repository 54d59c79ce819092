//! The state machine: events in, the table and links to wake out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::database::{Database, LIFETIME};
use crate::decide::{Hop, NextHop, Path, Table, To, Ways};
use crate::filter::Filter;
use crate::index::{Changed, Index};
use crate::message::Message;
use crate::model::{
    Address, Announcement, CORE, Fingerprint, LinkId, LinkKind, Part, Route, RouterId, Service, Site,
    TargetId,
};
use crate::outbox::Outbox;
use crate::paths::{Paths, shortest};

/// How often a router says that it is there, when nothing changes: well within [`LIFETIME`]. Milliseconds, as all times.
pub(crate) const REFRESH: u64 = LIFETIME / 5;
/// How often neighbours compare what they know.
pub(crate) const COMPARE: u64 = 30_000;
/// A part of our state is not told again sooner than this.
pub(crate) const HOLD: u64 = 100;
/// In a large network paths are not computed again sooner than this.
const HOLD_PATHS: u64 = 50;
/// Interior links from which on a network is large.
const LARGE: usize = 4_000;
/// Edges are not told of changes again sooner than this, and later where there are many: by so many edges a millisecond,
/// up to the most. Telling each of a thousand edges of each other that comes is what a thousand edges cost.
const HOLD_EDGES: u64 = 50;
const EDGES_A_MILLISECOND: u64 = 4;
const HOLD_EDGES_MOST: u64 = 500;

/// What this router is and has: its document, as far as routing is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// This router's name; the first one stays for as long as the router runs.
    pub router: RouterId,
    /// Whose router it is.
    pub site: Site,
    /// What we define.
    pub services: Vec<Service>,
    /// What we can reach ourselves.
    pub targets: BTreeMap<TargetId, Address>,
    /// Those of the addresses to which connections are encrypted end to end.
    pub sealed: BTreeSet<Address>,
    /// Who vouches for us at the end of such connections.
    pub fingerprint: Option<Fingerprint>,
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
        /// What it is for.
        kind: LinkKind,
        /// What it costs.
        cost: u32,
        /// Whether we made it.
        outgoing: bool,
        /// The router at the other end.
        router: RouterId,
        /// Its site.
        peer: Site,
        /// What it may offer and reach.
        filter: Filter,
    },
    /// A link's cost changed.
    LinkCost {
        /// Which link.
        link: LinkId,
        /// What it costs now.
        cost: u32,
    },
    /// What a link's peer may do changed.
    LinkFilter {
        /// Which link.
        link: LinkId,
        /// What it may offer and reach now.
        filter: Filter,
    },
    /// A link is gone.
    LinkDown(LinkId),
    /// A peer told something.
    Heard {
        /// Over which link.
        link: LinkId,
        /// What it said.
        message: Message,
    },
}

/// What follows from an event.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The new table, when it changed.
    pub table: Option<Arc<Table>>,
    /// Links over which there is something to tell: ask [`Topology::next`] until there is nothing more.
    pub wake: Vec<LinkId>,
    /// Addresses that peers offered and may not.
    pub refused: Vec<(LinkId, Address)>,
    /// Records that were not kept since there are too many.
    pub dropped: usize,
}

pub(crate) struct Link {
    pub(crate) kind: LinkKind,
    pub(crate) cost: u32,
    outgoing: bool,
    pub(crate) router: RouterId,
    pub(crate) peer: Site,
    pub(crate) filter: Filter,
    pub(crate) outbox: Outbox,
    /// All that an edge has said, before the filter.
    heard: Arc<Announcement>,
    /// What an uplink has said.
    pub(crate) reach: BTreeMap<Address, Route>,
    pub(crate) sites: BTreeMap<String, (Site, Vec<Service>)>,
}

/// The state machine of one router.
pub struct Topology {
    pub(crate) local: Local,
    targets: BTreeMap<Address, Vec<TargetId>>,
    /// What we and our edges have, as far as it is believed: what our records tell.
    pub(crate) own: BTreeMap<Part, (u32, Arc<Announcement>)>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) base: Database,
    pub(crate) index: Index,
    pub(crate) paths: Arc<Paths>,
    table: Table,
    published: Arc<Table>,
    pub(crate) epoch: u64,
    pub(crate) first_epoch: (u64, u64),
    pub(crate) sequence: u64,
    /// An earlier life of ours, or someone else, is newer: begin a new life with this epoch when `reborn` allows.
    pub(crate) rebirth: Option<u64>,
    pub(crate) reborn: u64,
    /// Parts of our state to tell, and when each was told last.
    pub(crate) dirty: BTreeSet<Part>,
    pub(crate) told: BTreeMap<Part, u64>,
    pub(crate) changed: Changed,
    for_edges: Changed,
    pub(crate) paths_dirty: bool,
    paths_at: u64,
    edges_at: u64,
    /// How many edges there are.
    attached: u64,
    pub(crate) refresh_at: u64,
    pub(crate) compare_at: u64,
    pub(crate) wake: BTreeSet<LinkId>,
    pub(crate) outcome: Outcome,
    pub(crate) now: u64,
}

impl Topology {
    /// The state machine of a router that starts now. `epoch` is of [`epoch`](crate::epoch): more than at any earlier start,
    /// best. A clock that was set back is got over, and so is an epoch that an earlier start had, too.
    /// `now`, here and everywhere, are milliseconds of a clock that only goes forward.
    pub fn new(epoch: u64, now: u64) -> Self {
        Self {
            local: Local::default(),
            targets: BTreeMap::new(),
            own: BTreeMap::new(),
            links: BTreeMap::new(),
            base: Database::default(),
            index: Index::default(),
            paths: Arc::default(),
            table: Table::default(),
            published: Arc::default(),
            epoch,
            first_epoch: (epoch, now),
            sequence: 0,
            rebirth: None,
            reborn: 0,
            dirty: BTreeSet::new(),
            told: BTreeMap::new(),
            changed: Changed::default(),
            for_edges: Changed::default(),
            paths_dirty: false,
            paths_at: 0,
            edges_at: 0,
            attached: 0,
            refresh_at: now.saturating_add(REFRESH),
            // Not when refreshes are on their way, which would look like differences.
            compare_at: now.saturating_add(COMPARE / 2),
            wake: BTreeSet::new(),
            outcome: Outcome::default(),
            now,
        }
    }

    /// Takes an event and says what follows from it. Events about links that are not up have no effect.
    pub fn handle(&mut self, event: Event, now: u64) -> Outcome {
        self.now = self.now.max(now);
        match event {
            Event::Local(local) => self.set_local(local),
            Event::LinkUp {
                link,
                kind,
                cost,
                outgoing,
                router,
                peer,
                filter,
            } => {
                self.link_down(link);
                let up = Link {
                    kind,
                    cost: cost.max(1),
                    outgoing,
                    router,
                    peer,
                    filter,
                    outbox: Outbox::new(kind),
                    heard: Arc::default(),
                    reach: BTreeMap::new(),
                    sites: BTreeMap::new(),
                };
                self.link_up(link, up);
            }
            Event::LinkCost { link, cost } => self.link_cost(link, cost.max(1)),
            Event::LinkFilter { link, filter } => self.link_filter(link, filter),
            Event::LinkDown(link) => self.link_down(link),
            Event::Heard { link, message } => self.hear(link, message),
        }
        self.settle()
    }

    /// Does what is due by now: refreshes, ages, and tells what was held back.
    pub fn tick(&mut self, now: u64) -> Outcome {
        self.now = self.now.max(now);
        let now = self.now;
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            let me = self.me();
            for record in self.base.expire(&me, now) {
                self.forget_record(&record);
            }
            if !self.local.site.edge {
                self.told.remove(&CORE);
                self.originate(CORE, true);
            }
        }
        if now >= self.compare_at {
            self.compare_at = now + COMPARE;
            self.compare();
        }
        self.settle()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> u64 {
        let mut at = self.refresh_at.min(self.compare_at);
        for part in &self.dirty {
            at = at.min(self.told.get(part).map_or(0, |told| told + HOLD));
        }
        if self.rebirth.is_some() {
            at = at.min(self.reborn + 1000);
        }
        if self.paths_dirty {
            at = at.min(self.paths_at + HOLD_PATHS);
        }
        if !self.for_edges.addresses.is_empty() || !self.for_edges.sites.is_empty() {
            at = at.min(self.edges_at + self.hold_edges());
        }
        at
    }

    /// The table as it stands.
    pub fn table(&self) -> Arc<Table> {
        self.published.clone()
    }

    /// This router's name; empty until the first document.
    pub fn router(&self) -> RouterId {
        self.me()
    }

    /// How many records of the network are kept, and about how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        self.base.size()
    }

    pub(crate) fn working(&self) -> &Table {
        &self.table
    }

    pub(crate) fn me(&self) -> RouterId {
        self.local.router.clone()
    }

    fn set_local(&mut self, mut local: Local) {
        if !self.own.is_empty() {
            local.router = self.me();
        }
        if local == self.local && !self.own.is_empty() {
            return;
        }
        let addresses = |local: &Local| local.targets.values().cloned().collect::<Vec<_>>();
        self.changed.addresses.extend(addresses(&self.local));
        self.changed.addresses.extend(addresses(&local));
        self.targets = BTreeMap::new();
        for (target, address) in &local.targets {
            let targets = self.targets.entry(address.clone()).or_default();
            targets.push(target.clone());
        }
        self.local = local;
        self.tell_own();
    }

    /// Our own part, after the document or our outgoing links changed.
    pub(crate) fn tell_own(&mut self) {
        let said = Arc::new(self.announcement());
        if self.own.get(&CORE).is_some_and(|(_, old)| *old == said) {
            return;
        }
        self.set_own(CORE, Some((0, said)));
        for (id, link) in &mut self.links {
            if let Outbox::Uplink { announce } = &mut link.outbox {
                *announce = true;
                self.wake.insert(*id);
            }
        }
    }

    /// What we say of ourselves.
    pub fn announcement(&self) -> Announcement {
        let routes = self.targets.keys().map(|address| Route {
            address: address.clone(),
            cost: 0,
            sealed: self
                .local
                .fingerprint
                .filter(|_| self.local.sealed.contains(address))
                .into_iter()
                .collect(),
        });
        let links: BTreeSet<_> = self
            .links
            .values()
            .filter(|link| link.outgoing && link.peer.id != self.local.site.id)
            .map(|link| link.peer.id.clone())
            .collect();
        Announcement {
            site: self.local.site.clone(),
            services: self.local.services.clone(),
            routes: routes.collect(),
            links: links.into_iter().collect(),
        }
    }

    /// Sets what we or an edge of ours have, as far as it is believed.
    fn set_own(&mut self, part: Part, has: Option<(u32, Arc<Announcement>)>) {
        if self.own.get(&part) == has.as_ref() {
            return;
        }
        let me = self.me();
        if let Some((_, old)) = self.own.remove(&part) {
            self.changed.note(&old);
            self.index.remove(&me, part, &old);
        }
        if let Some((cost, has)) = has {
            self.changed.note(&has);
            self.index.add(&me, part, cost, &has);
            self.own.insert(part, (cost, has));
        }
        self.dirty.insert(part);
    }

    fn link_up(&mut self, id: LinkId, link: Link) {
        let (kind, cost) = (link.kind, link.cost);
        let has = Arc::new(Announcement {
            site: link.peer.clone(),
            ..Announcement::default()
        });
        self.links.insert(id, link);
        self.wake.insert(id);
        match kind {
            LinkKind::Interior => self.interior_changed(),
            LinkKind::Attached => {
                self.attached += 1;
                self.set_own(id.0, Some((cost, has)));
            }
            LinkKind::Uplink => {}
        }
        self.tell_own();
    }

    fn link_down(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.wake.remove(&id);
        match link.kind {
            LinkKind::Interior => {
                self.interior_changed();
                // Others may have left it to the lost neighbour to tell us something.
                self.compare();
            }
            LinkKind::Attached => {
                self.attached -= 1;
                self.set_own(id.0, None);
            }
            LinkKind::Uplink => self.changed.addresses.extend(link.reach.into_keys()),
        }
        self.tell_own();
    }

    fn interior_changed(&mut self) {
        self.paths_dirty = true;
        self.paths_at = 0;
        self.dirty.insert(CORE);
    }

    fn link_cost(&mut self, id: LinkId, cost: u32) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.cost != cost) else {
            return;
        };
        link.cost = cost;
        match link.kind {
            LinkKind::Interior => self.interior_changed(),
            LinkKind::Uplink => self.changed.addresses.extend(link.reach.keys().cloned()),
            LinkKind::Attached => self.believe(id),
        }
    }

    fn link_filter(&mut self, id: LinkId, filter: Filter) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.filter != filter) else {
            return;
        };
        link.filter = filter;
        match (&mut link.outbox, link.kind) {
            // Told anew: what it may no longer reach is not told again.
            (Outbox::Attached(edge), _) => {
                edge.first = true;
                edge.catch_up = Some(None);
                edge.told_sites.clear();
                self.wake.insert(id);
                self.believe(id);
            }
            (_, LinkKind::Interior) => {
                let through: Vec<_> = self
                    .paths
                    .iter()
                    .filter(|(_, reach)| reach.links.contains(&id))
                    .map(|(router, _)| router.clone())
                    .collect();
                through.iter().for_each(|router| self.touch(router));
            }
            _ => {}
        }
    }

    /// Takes what an edge said: all that it may offer.
    pub(crate) fn edge_said(&mut self, id: LinkId, said: Arc<Announcement>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.heard = said;
            self.believe(id);
        }
    }

    fn believe(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let allowed = |name: &str| link.filter.offer.allows(name);
        let mut said = (*link.heard).clone();
        // Only for itself, whoever it says that it is.
        said.site = link.peer.clone();
        said.services.retain(|service| allowed(&service.address));
        let (routes, refused): (Vec<_>, Vec<_>) = said
            .routes
            .drain(..)
            .partition(|route| allowed(route.address.service()));
        said.routes = routes;
        let refused = refused.into_iter().map(|route| (id, route.address));
        self.outcome.refused.extend(refused);
        let has = Some((link.cost, Arc::new(said)));
        self.set_own(id.0, has);
    }

    /// Everything that is reached through a router has to be looked at again.
    pub(crate) fn touch(&mut self, router: &RouterId) {
        for record in self.base.records(router) {
            if let Some(has) = record.body.has() {
                self.changed.note(has);
            }
        }
    }

    /// Draws all conclusions that are due.
    fn settle(&mut self) -> Outcome {
        self.tell();
        self.find_paths();
        self.fill_table();
        self.tell_edges();
        let mut outcome = std::mem::take(&mut self.outcome);
        if self.table != *self.published {
            self.published = Arc::new(self.table.clone());
            outcome.table = Some(self.published.clone());
        }
        outcome.wake = std::mem::take(&mut self.wake).into_iter().collect();
        outcome
    }

    fn find_paths(&mut self) {
        let large = || {
            let degree = |(_, core): (_, &Arc<crate::model::Record>)| match &core.body {
                crate::model::Body::Router { neighbours, .. } => neighbours.len(),
                _ => 0,
            };
            self.base.cores().map(degree).sum::<usize>() > LARGE
        };
        if !self.paths_dirty || (self.now < self.paths_at + HOLD_PATHS && large()) {
            return;
        }
        self.paths_dirty = false;
        self.paths_at = self.now;
        let links: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.kind == LinkKind::Interior)
            .map(|(id, link)| (link.router.clone(), link.cost, *id))
            .collect();
        let me = self.me();
        let paths = shortest(&me, &links, &self.base);
        let old = std::mem::replace(&mut self.paths, Arc::new(paths));
        let new = self.paths.clone();
        let lost = old.keys().filter(|router| !new.contains_key(*router));
        let moved = new
            .iter()
            .filter(|(router, reach)| old.get(*router) != Some(reach))
            .map(|(router, _)| router);
        lost.chain(moved).for_each(|router| self.touch(router));
        if *old != *new {
            self.table.set_routers(new);
        }
    }

    fn fill_table(&mut self) {
        for address in std::mem::take(&mut self.changed.addresses) {
            let ways = self.ways(&address);
            if self.table.set(&address, ways) {
                self.for_edges.addresses.insert(address);
            }
        }
        let sites = std::mem::take(&mut self.changed.sites);
        self.for_edges.sites.extend(sites);
    }

    fn ways(&self, address: &Address) -> Ways {
        let mut ways = Ways::default();
        let targets = self.targets.get(address).into_iter().flatten();
        ways.hops.extend(targets.map(|target| Hop {
            cost: 0,
            next: NextHop::Local(target.clone()),
        }));
        for (router, offers) in self.index.offers(address) {
            if *router == self.local.router {
                for offer in offers {
                    ways.sealed.extend(&offer.sealed);
                    if offer.part != CORE {
                        ways.hops.push(over(LinkId(offer.part), To::Edge, offer.cost));
                    }
                }
                continue;
            }
            let Some(reach) = self.paths.get(router) else {
                continue;
            };
            let cost = offers.iter().map(|offer| offer.cost).min().unwrap_or(0);
            let allowed = |id: &&LinkId| {
                let link = self.links.get(id);
                link.is_some_and(|link| link.filter.offer.allows(address.service()))
            };
            let before = ways.hops.len();
            ways.hops.extend(reach.links.iter().filter(allowed).map(|link| {
                let cost = reach.cost.saturating_add(cost);
                over(*link, To::Router(router.clone()), cost)
            }));
            if ways.hops.len() > before {
                ways.sealed.extend(offers.iter().flat_map(|offer| &offer.sealed));
            }
        }
        for (id, link) in &self.links {
            if let Some(route) = link.reach.get(address) {
                ways.sealed.extend(&route.sealed);
                ways.hops
                    .push(over(*id, To::Uplink, link.cost.saturating_add(route.cost)));
            }
        }
        ways.hops.sort_unstable();
        ways.sealed.sort_unstable();
        ways.sealed.dedup();
        ways
    }

    /// How long after telling edges they are told again.
    fn hold_edges(&self) -> u64 {
        (HOLD_EDGES + self.attached / EDGES_A_MILLISECOND).min(HOLD_EDGES_MOST)
    }

    /// Notes for each edge what changed for it.
    fn tell_edges(&mut self) {
        let nothing = self.for_edges.addresses.is_empty() && self.for_edges.sites.is_empty();
        if nothing || self.now < self.edges_at + self.hold_edges() {
            return;
        }
        self.edges_at = self.now;
        let changed = std::mem::take(&mut self.for_edges);
        for (id, link) in &mut self.links {
            let Outbox::Attached(edge) = &mut link.outbox else {
                continue;
            };
            let reach = &link.filter.reach;
            let seen = changed
                .addresses
                .iter()
                .filter(|address| reach.allows(address.service()));
            let before = edge.addresses.len() + edge.sites.len();
            edge.addresses.extend(seen.cloned());
            edge.sites.extend(changed.sites.iter().cloned());
            if edge.addresses.len() + edge.sites.len() > before {
                self.wake.insert(*id);
            }
        }
    }
}

fn over(link: LinkId, to: To, cost: u32) -> Hop {
    Hop {
        cost,
        next: NextHop::Link(Path { link, to }),
    }
}
