//! Who offers what, and which sites there are: kept beside the records, so that a change touches only what it concerns.

use std::collections::{BTreeMap, BTreeSet};

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
        // Edges without services are no one's business.
        if !has.services.is_empty() || !has.site.edge {
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
        if let Some(told) = self.sites.get_mut(&has.site.id) {
            told.remove(&(router.clone(), part));
            if told.is_empty() {
                self.sites.remove(&has.site.id);
            }
        }
    }

    /// The offers of an address, by router.
    pub(crate) fn offers(&self, address: &Address) -> impl Iterator<Item = (&RouterId, &Vec<Offer>)> {
        self.offers.get(address).into_iter().flatten()
    }

    /// Addresses after this one, in order.
    pub(crate) fn addresses_after(&self, last: Option<&Address>) -> impl Iterator<Item = &Address> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = last.map_or(Unbounded, Excluded);
        self.offers.range((from, Unbounded)).map(|(address, _)| address)
    }

    /// The ids of all sites.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &String> {
        self.sites.keys()
    }

    /// Where a site is told of.
    pub(crate) fn site(&self, id: &str) -> impl Iterator<Item = &(RouterId, Part)> {
        self.sites.get(id).into_iter().flatten()
    }
}
