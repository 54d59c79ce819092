//! The network's sites, as the status and edges see them: what all of a site's routers say, put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decide::{NextHop, To};
use crate::flood::ENTRIES;
use crate::message::Summary;
use crate::model::{Address, Announcement, LinkId, LinkKind, Part, Route, RouterId, Service};
use crate::outbox::{ForEdge, Outbox};
use crate::topology::Topology;

impl Topology {
    /// All sites that can be reached, this one first: with what they define and the links they made.
    pub fn sites(&self) -> Vec<Announcement> {
        let mut sites: BTreeMap<String, Announcement> = BTreeMap::new();
        for id in self.index.sites() {
            if let Some(site) = self.site(id) {
                sites.insert(id.clone(), site);
            }
        }
        let uplinks = self.links.values().filter(|link| link.kind == LinkKind::Uplink);
        for link in uplinks {
            let peer = (link.peer.clone(), Vec::new());
            for (site, services) in std::iter::once(&peer).chain(link.sites.values()) {
                let known = sites.entry(site.id.clone()).or_insert_with(|| Announcement {
                    site: site.clone(),
                    ..Announcement::default()
                });
                add_services(known, services.iter());
            }
        }
        let own = sites.remove(&self.local.site.id);
        let own = own.unwrap_or_else(|| self.announcement());
        std::iter::once(own).chain(sites.into_values()).collect()
    }

    /// Whether a site other than this one defines a service, as far as it can be reached.
    pub fn is_defined_elsewhere(&self, site: &str, service: &str) -> bool {
        let told = self.index.defined(service).any(|(router, part)| {
            let has = self.told_of(router, *part);
            has.is_some_and(|has| has.site.id != site)
        });
        let heard = || {
            self.links
                .values()
                .flat_map(|link| link.sites.values())
                .any(|(of, services)| of.id != site && services.iter().any(|known| known.address == service))
        };
        told || heard()
    }

    /// What is told of one site, when it can be reached. An interior router is believed before an edge that says it is the same.
    fn site(&self, id: &str) -> Option<Announcement> {
        let mut said: Vec<&Arc<Announcement>> = self
            .index
            .site(id)
            .filter_map(|(router, part)| self.told_of(router, *part))
            .collect();
        said.sort_by_key(|has| has.site.edge);
        let first = said.first()?;
        let mut site = Announcement {
            site: first.site.clone(),
            ..Announcement::default()
        };
        for has in said.iter().filter(|has| has.site.edge == first.site.edge) {
            add_services(&mut site, has.services.iter());
            site.links.extend(has.links.iter().cloned());
        }
        site.links.sort_unstable();
        site.links.dedup();
        Some(site)
    }

    fn told_of(&self, router: &RouterId, part: Part) -> Option<&Arc<Announcement>> {
        if *router == self.local.router {
            return self.own.get(&part).map(|(_, has)| has);
        }
        let reachable = self.paths.contains_key(router);
        self.base
            .get(router, part)
            .filter(|_| reachable)
            .and_then(|record| record.body.has())
    }

    /// What an edge can reach, as far as it has not been told.
    pub(crate) fn next_summary(&mut self, id: LinkId) -> Option<Summary> {
        let link = self.links.get_mut(&id)?;
        let Outbox::Attached(edge) = &mut link.outbox else {
            return None;
        };
        // Taken out for as long as the rest of the state is looked at.
        let mut edge = std::mem::replace(edge, Box::new(ForEdge::nothing()));
        let summary = self.summary(id, &mut edge);
        if let Some(link) = self.links.get_mut(&id) {
            link.outbox = Outbox::Attached(edge);
        }
        (!summary.is_empty()).then_some(summary)
    }

    fn summary(&self, id: LinkId, edge: &mut ForEdge) -> Summary {
        let mut summary = Summary {
            first: std::mem::take(&mut edge.first),
            ..Summary::default()
        };
        let Some(link) = self.links.get(&id) else {
            return summary;
        };
        let reach = &link.filter.reach;
        if let Some(last) = edge.catch_up.take() {
            if last.is_none() {
                edge.sites.extend(self.index.offering().cloned());
            }
            let mut come_to = last.as_ref();
            for address in self.index.addresses_after(last.as_ref(), reach) {
                if summary.entries() >= ENTRIES {
                    edge.catch_up = Some(come_to.cloned());
                    break;
                }
                summary.routes.extend(self.route(id, address));
                come_to = Some(address);
            }
        }
        while summary.entries() < ENTRIES
            && let Some(address) = edge.addresses.pop_first()
        {
            match self
                .route(id, &address)
                .filter(|_| reach.allows(address.service()))
            {
                Some(route) => summary.routes.push(route),
                None => summary.unreachable.push(address),
            }
        }
        while summary.entries() < ENTRIES
            && let Some(site) = edge.sites.pop_first()
        {
            self.tell_site(&site, id, edge, &mut summary);
        }
        summary
    }

    fn tell_site(&self, id: &str, to: LinkId, edge: &mut ForEdge, summary: &mut Summary) {
        let Some(link) = self.links.get(&to) else { return };
        // What the edge has itself it knows.
        let site = self.site(id).filter(|site| site.site.id != link.peer.id);
        let told = site.and_then(|mut site| {
            site.services
                .retain(|service| link.filter.reach.allows(&service.address));
            let own = site.site.id == self.local.site.id;
            (own || !site.services.is_empty()).then_some((site.site, site.services))
        });
        match told {
            Some(told) => {
                edge.told_sites.insert(id.to_owned());
                summary.sites.push(told);
            }
            None if edge.told_sites.remove(id) => summary.gone.push(id.to_owned()),
            None => {}
        }
    }

    /// The cheapest way to an address that does not lead back to the edge that asks.
    fn route(&self, asking: LinkId, address: &Address) -> Option<Route> {
        let ways = self.working().find(address)?;
        let cost = ways
            .hops
            .iter()
            .find(|hop| match &hop.next {
                NextHop::Local(_) => true,
                NextHop::Link(path) => path.link != asking && path.to != To::Uplink,
            })?
            .cost;
        Some(Route {
            address: address.clone(),
            cost,
            sealed: ways.sealed.clone(),
        })
    }
}

fn add_services<'a>(to: &mut Announcement, services: impl Iterator<Item = &'a Service>) {
    for service in services {
        match to
            .services
            .iter_mut()
            .find(|known| known.address == service.address)
        {
            Some(known) => {
                known.sealed |= service.sealed;
                let more = service
                    .targets
                    .iter()
                    .filter(|target| !known.targets.contains(target));
                let more: Vec<_> = more.cloned().collect();
                known.targets.extend(more);
                for port in &service.ports {
                    if !known.ports.contains(port) {
                        known.ports.push(*port);
                    }
                }
            }
            None => to.services.push(service.clone()),
        }
    }
}
