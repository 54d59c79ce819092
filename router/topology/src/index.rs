//! Who offers what, and which sites there are: kept beside the records, so that a change touches only what it concerns.

use std::collections::{BTreeMap, BTreeSet};

use crate::filter::Scope;
use crate::model::{Address, Announcement, Fingerprint, Part, RouterId};

/// One offer of an address by a router, from itself or from an edge attached to it.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) part: Part,
    /// From the router on.
    pub(crate) cost: u32,
    pub(crate) sealed: Vec<Fingerprint>,
}

/// Address → router → its offers, and site → where it is told of.
#[derive(Default)]
pub(crate) struct Index {
    offers: BTreeMap<Address, BTreeMap<RouterId, Vec<Offer>>>,
    sites: BTreeMap<String, BTreeSet<(RouterId, Part)>>,
    /// Those of the sites that edges may have to know of.
    offering: BTreeMap<String, BTreeSet<(RouterId, Part)>>,
    /// Service → where it is told that a site defines it.
    defined: BTreeMap<String, BTreeSet<(RouterId, Part)>>,
}

/// Whether edges may have to know of a site that says this: edges without services are no one's business.
fn concerns_edges(has: &Announcement) -> bool {
    !has.services.is_empty() || !has.site.edge
}

fn remove(from: &mut BTreeMap<String, BTreeSet<(RouterId, Part)>>, id: &str, place: &(RouterId, Part)) {
    if let Some(places) = from.get_mut(id) {
        places.remove(place);
        if places.is_empty() {
            from.remove(id);
        }
    }
}

/// What has to be looked at again.
#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) addresses: BTreeSet<Address>,
    pub(crate) sites: BTreeSet<String>,
}

impl Changed {
    /// Everything that an announcement speaks of.
    pub(crate) fn note(&mut self, has: &Announcement) {
        self.addresses
            .extend(has.routes.iter().map(|route| route.address.clone()));
        if concerns_edges(has) {
            self.sites.insert(has.site.id.clone());
        }
    }
}

impl Index {
    pub(crate) fn add(&mut self, router: &RouterId, part: Part, cost: u32, has: &Announcement) {
        for route in &has.routes {
            let offers = self.offers.entry(route.address.clone()).or_default();
            offers.entry(router.clone()).or_default().push(Offer {
                part,
                cost: cost.saturating_add(route.cost),
                sealed: route.sealed.clone(),
            });
        }
        let told = self.sites.entry(has.site.id.clone()).or_default();
        told.insert((router.clone(), part));
        if concerns_edges(has) {
            let offering = self.offering.entry(has.site.id.clone()).or_default();
            offering.insert((router.clone(), part));
        }
        for service in &has.services {
            let defined = self.defined.entry(service.address.clone()).or_default();
            defined.insert((router.clone(), part));
        }
    }

    pub(crate) fn remove(&mut self, router: &RouterId, part: Part, has: &Announcement) {
        for route in &has.routes {
            let Some(routers) = self.offers.get_mut(&route.address) else {
                continue;
            };
            if let Some(offers) = routers.get_mut(router) {
                offers.retain(|offer| offer.part != part);
                if offers.is_empty() {
                    routers.remove(router);
                }
            }
            if routers.is_empty() {
                self.offers.remove(&route.address);
            }
        }
        let place = (router.clone(), part);
        remove(&mut self.sites, &has.site.id, &place);
        remove(&mut self.offering, &has.site.id, &place);
        for service in &has.services {
            remove(&mut self.defined, &service.address, &place);
        }
    }

    /// The offers of an address, by router.
    pub(crate) fn offers(&self, address: &Address) -> impl Iterator<Item = (&RouterId, &Vec<Offer>)> {
        self.offers.get(address).into_iter().flatten()
    }

    /// The addresses of a scope after this one, in order.
    pub(crate) fn addresses_after<'a>(
        &'a self,
        last: Option<&Address>,
        scope: &'a Scope,
    ) -> Box<dyn Iterator<Item = &'a Address> + 'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = last.map_or(Unbounded, Excluded);
        let names = match scope {
            Scope::Any | Scope::Except(_) => {
                let all = self.offers.range::<Address, _>((after, Unbounded));
                let all = all.map(|(address, _)| address);
                return Box::new(all.filter(|address| scope.allows(address.service())));
            }
            Scope::Only(names) => names,
        };
        // Only what begins as one of the names is looked at: a token's scope is small, the network may be large.
        let mut matching: Vec<&Address> = names
            .iter()
            .flat_map(|name| {
                let start = name.strip_suffix('*').unwrap_or(name);
                let first = Address {
                    name: start.to_owned(),
                    port: 0,
                };
                let from_there = self.offers.range(first..).map(|(address, _)| address);
                from_there.take_while(move |address| address.name.starts_with(start))
            })
            .filter(|address| scope.allows(&address.name) && last.is_none_or(|last| *address > last))
            .collect();
        matching.sort_unstable();
        matching.dedup();
        Box::new(matching.into_iter())
    }

    /// The ids of all sites that edges may have to know of.
    pub(crate) fn offering(&self) -> impl Iterator<Item = &String> {
        self.offering.keys()
    }

    /// The ids of all sites.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &String> {
        self.sites.keys()
    }

    /// Where it is told that a site defines a service.
    pub(crate) fn defined(&self, service: &str) -> impl Iterator<Item = &(RouterId, Part)> {
        self.defined.get(service).into_iter().flatten()
    }

    /// Where a site is told of.
    pub(crate) fn site(&self, id: &str) -> impl Iterator<Item = &(RouterId, Part)> {
        self.sites.get(id).into_iter().flatten()
    }
}
