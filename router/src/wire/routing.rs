//! What routers tell each other about the network, as bytes: records, what is compared, summaries for edges.
//!
//! Whoever reads checks everything: names, numbers, how many. What is left out of a message in a later version reads as
//! its default here, what is added is skipped.

use std::sync::Arc;

use karez_topology as topology;
use karez_topology::{Body as RecordBody, Fingerprint, Flooded, Message as Said};
use prost::{Message, Oneof};

use super::clean;
use super::control::{Body, Site, name, port};
use super::frame::WireError;

/// More entries in one list than any network has.
const ENTRIES: usize = 10_000;
/// More parts than any router has.
const PARTS: usize = 64 * 1024;
/// More routers than any network has.
const ROUTERS: usize = 2048;
/// More routers at the other end than anyone tries.
const SEALED: usize = 256;
/// Longer than any name.
const NAME: usize = 253;
/// Dearer than any link: sums stay far from overflow.
const COST: u32 = 1 << 20;

/// What a router or an edge has.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Announce {
    #[prost(message, optional, tag = "1")]
    pub(crate) site: Option<Site>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) services: Vec<Service>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) routes: Vec<Route>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) links: Vec<String>,
}

/// A service.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    #[prost(string, tag = "2")]
    pub(crate) protocol: String,
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) ports: Vec<u32>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) targets: Vec<String>,
    #[prost(bool, tag = "5")]
    pub(crate) sealed: bool,
}

/// An address that can be reached, or no longer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Route {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) cost: u32,
    /// SHA-256 of the authorities that vouch for the other end, when connections to it are encrypted end to end.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(crate) sealed: Vec<Vec<u8>>,
}

/// What each router's records amount to.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Digests {
    #[prost(message, repeated, tag = "1")]
    pub(crate) routers: Vec<Digest>,
}

/// What a router's records amount to.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Digest {
    #[prost(string, tag = "1")]
    pub(crate) router: String,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) digest: u64,
}

/// Which of a router's records one has.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Have {
    #[prost(string, tag = "1")]
    pub(crate) router: String,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) parts: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) sequences: Vec<u64>,
    #[prost(fixed64, repeated, tag = "5")]
    pub(crate) marks: Vec<u64>,
}

/// Records on their way.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Records {
    #[prost(message, repeated, tag = "1")]
    pub(crate) records: Vec<Record>,
}

/// A record.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Record {
    #[prost(string, tag = "1")]
    pub(crate) origin: String,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) sequence: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) part: u64,
    /// Milliseconds.
    #[prost(uint64, tag = "5")]
    pub(crate) age: u64,
    /// Absent: the part is gone.
    #[prost(oneof = "Part", tags = "6, 7")]
    pub(crate) tells: Option<Part>,
    /// What the origin says of what is told; nobody else reckons with more than whether it differs.
    #[prost(fixed64, tag = "8")]
    pub(crate) mark: u64,
}

/// What a record tells.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Part {
    /// The router itself.
    #[prost(message, tag = "6")]
    Router(RouterPart),
    /// An edge attached to it.
    #[prost(message, tag = "7")]
    Edge(EdgePart),
}

/// A router itself.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RouterPart {
    #[prost(message, optional, tag = "1")]
    pub(crate) has: Option<Announce>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) neighbours: Vec<Neighbour>,
}

/// An interior neighbour.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Neighbour {
    #[prost(string, tag = "1")]
    pub(crate) router: String,
    #[prost(uint32, tag = "2")]
    pub(crate) cost: u32,
}

/// An edge attached to a router.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EdgePart {
    #[prost(message, optional, tag = "1")]
    pub(crate) has: Option<Announce>,
    #[prost(string, tag = "2")]
    pub(crate) router: String,
    #[prost(uint32, tag = "3")]
    pub(crate) cost: u32,
}

/// What changed of what an edge can reach.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Summary {
    #[prost(bool, tag = "1")]
    pub(crate) first: bool,
    #[prost(message, repeated, tag = "2")]
    pub(crate) routes: Vec<Route>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) unreachable: Vec<Route>,
    /// Sites with their services.
    #[prost(message, repeated, tag = "4")]
    pub(crate) sites: Vec<Announce>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) gone: Vec<String>,
}

/// The control message that says this.
pub(crate) fn body(said: &Said) -> Body {
    match said {
        Said::Announce(announcement) => Body::Announce(Announce::of(announcement)),
        Said::Digests(list) => Body::Digests(Digests {
            routers: list
                .iter()
                .map(|digest| Digest {
                    router: digest.router.to_string(),
                    epoch: digest.epoch,
                    digest: digest.digest,
                })
                .collect(),
        }),
        Said::Have(have) => Body::Have(Have {
            router: have.router.to_string(),
            epoch: have.epoch,
            parts: have.parts.iter().map(|(part, _)| *part).collect(),
            sequences: have.parts.iter().map(|(_, (sequence, _))| *sequence).collect(),
            marks: have.parts.iter().map(|(_, (_, mark))| *mark).collect(),
        }),
        Said::Records(list) => Body::Records(Records {
            records: list.iter().map(Record::of).collect(),
        }),
        Said::Summary(summary) => Body::Summary(Summary::of(summary)),
    }
}

/// What a control message says about the network, checked; `None` when it says nothing about it.
pub(crate) fn said(body: &Body) -> Result<Option<Said>, WireError> {
    Ok(Some(match body {
        Body::Announce(announce) => Said::Announce(Arc::new(announce.checked()?)),
        Body::Digests(digests) => {
            few(digests.routers.len(), ROUTERS)?;
            Said::Digests(
                digests
                    .routers
                    .iter()
                    .map(Digest::checked)
                    .collect::<Result<_, _>>()?,
            )
        }
        Body::Have(have) => Said::Have(have.checked()?),
        Body::Records(records) => {
            few(records.records.len(), ENTRIES)?;
            Said::Records(
                records
                    .records
                    .iter()
                    .map(Record::checked)
                    .collect::<Result<_, _>>()?,
            )
        }
        Body::Summary(summary) => Said::Summary(summary.checked()?),
        _ => return Ok(None),
    }))
}

fn few(length: usize, limit: usize) -> Result<(), WireError> {
    if length > limit {
        return Err(WireError::Content("too many entries in a list"));
    }
    Ok(())
}

/// A router's name: not empty, not long, printable.
pub(super) fn router(text: &str) -> Result<topology::RouterId, WireError> {
    if text.is_empty() || text.len() > 2 * NAME || text.chars().any(char::is_control) {
        return Err(WireError::Content("a router without a usable name"));
    }
    Ok(text.into())
}

impl Announce {
    /// The message for an announcement.
    pub(crate) fn of(announcement: &topology::Announcement) -> Self {
        Self {
            site: Some(Site::of(&announcement.site)),
            services: announcement.services.iter().map(Service::of).collect(),
            routes: announcement.routes.iter().map(Route::of).collect(),
            links: announcement.links.clone(),
        }
    }

    /// What it says, checked.
    pub(crate) fn checked(&self) -> Result<topology::Announcement, WireError> {
        let site = self.site.as_ref();
        let site = site.ok_or(WireError::Content("an announcement without a site"))?;
        few(
            self.services.len().max(self.routes.len()).max(self.links.len()),
            ENTRIES,
        )?;
        Ok(topology::Announcement {
            site: site.checked()?,
            services: self
                .services
                .iter()
                .map(Service::checked)
                .collect::<Result<_, _>>()?,
            routes: self.routes.iter().map(Route::checked).collect::<Result<_, _>>()?,
            links: self.links.iter().map(|id| clean(id, NAME)).collect(),
        })
    }
}

impl Service {
    fn of(service: &topology::Service) -> Self {
        Self {
            address: service.address.clone(),
            protocol: service.protocol.clone(),
            ports: service.ports.iter().map(|port| u32::from(*port)).collect(),
            targets: service.targets.clone(),
            sealed: service.sealed,
        }
    }

    fn checked(&self) -> Result<topology::Service, WireError> {
        few(self.targets.len().max(self.ports.len()), ENTRIES)?;
        Ok(topology::Service {
            address: name(&self.address)?,
            protocol: clean(&self.protocol, 16),
            ports: self
                .ports
                .iter()
                .map(|number| port(*number))
                .collect::<Result<_, _>>()?,
            targets: self.targets.iter().map(|target| clean(target, NAME)).collect(),
            sealed: self.sealed,
        })
    }
}

impl Route {
    fn of(route: &topology::Route) -> Self {
        Self {
            cost: route.cost,
            sealed: route
                .sealed
                .iter()
                .take(SEALED)
                .map(|print| print.0.to_vec())
                .collect(),
            ..Self::gone(&route.address)
        }
    }

    fn gone(address: &topology::Address) -> Self {
        Self {
            name: address.name.clone(),
            port: u32::from(address.port),
            cost: 0,
            sealed: Vec::new(),
        }
    }

    fn address(&self) -> Result<topology::Address, WireError> {
        Ok(topology::Address {
            name: name(&self.name)?,
            port: port(self.port)?,
        })
    }

    fn checked(&self) -> Result<topology::Route, WireError> {
        few(self.sealed.len(), SEALED)?;
        let print = |bytes: &Vec<u8>| {
            let print = bytes.as_slice().try_into();
            print
                .map(Fingerprint)
                .map_err(|_| WireError::Content("a fingerprint that is none"))
        };
        Ok(topology::Route {
            address: self.address()?,
            cost: self.cost.min(COST * 1024),
            sealed: self.sealed.iter().map(print).collect::<Result<_, _>>()?,
        })
    }
}

impl Digest {
    fn checked(&self) -> Result<topology::Digest, WireError> {
        Ok(topology::Digest {
            router: router(&self.router)?,
            epoch: self.epoch,
            digest: self.digest,
        })
    }
}

impl Have {
    fn checked(&self) -> Result<topology::Have, WireError> {
        few(self.parts.len(), PARTS)?;
        if self.parts.len() != self.sequences.len() || self.parts.len() != self.marks.len() {
            return Err(WireError::Content(
                "parts, sequence numbers and marks that do not match",
            ));
        }
        let versions = self.sequences.iter().copied().zip(self.marks.iter().copied());
        let parts = self.parts.iter().copied().zip(versions);
        Ok(topology::Have {
            router: router(&self.router)?,
            epoch: self.epoch,
            parts: parts.collect(),
        })
    }
}

impl Record {
    fn of(flooded: &Flooded) -> Self {
        let record = &flooded.record;
        let tells = match &record.body {
            RecordBody::Router { neighbours, has } => Some(Part::Router(RouterPart {
                has: Some(Announce::of(has)),
                neighbours: neighbours
                    .iter()
                    .map(|peer| Neighbour {
                        router: peer.router.to_string(),
                        cost: peer.cost,
                    })
                    .collect(),
            })),
            RecordBody::Edge { router, cost, has } => Some(Part::Edge(EdgePart {
                has: Some(Announce::of(has)),
                router: router.to_string(),
                cost: *cost,
            })),
            RecordBody::Gone => None,
        };
        Self {
            origin: record.origin.to_string(),
            epoch: record.epoch,
            sequence: record.sequence,
            part: record.part,
            age: flooded.age,
            tells,
            mark: record.mark,
        }
    }

    fn checked(&self) -> Result<Flooded, WireError> {
        let has = |has: &Option<Announce>| {
            let has = has
                .as_ref()
                .ok_or(WireError::Content("a record that tells nothing"))?;
            has.checked().map(Arc::new)
        };
        let body = match &self.tells {
            Some(Part::Router(part)) => {
                few(part.neighbours.len(), ROUTERS)?;
                let mut neighbours = part
                    .neighbours
                    .iter()
                    .map(Neighbour::checked)
                    .collect::<Result<Vec<_>, _>>()?;
                neighbours.sort_unstable();
                neighbours.dedup_by(|later, first| later.router == first.router);
                RecordBody::Router {
                    neighbours,
                    has: has(&part.has)?,
                }
            }
            Some(Part::Edge(part)) => RecordBody::Edge {
                router: router(&part.router)?,
                cost: part.cost.min(COST),
                has: has(&part.has)?,
            },
            None => RecordBody::Gone,
        };
        let record = topology::Record {
            origin: router(&self.origin)?,
            epoch: self.epoch,
            sequence: self.sequence,
            mark: self.mark,
            part: self.part,
            body,
        };
        Ok(Flooded {
            record: Arc::new(record),
            age: self.age,
        })
    }
}

impl Neighbour {
    fn checked(&self) -> Result<topology::Neighbour, WireError> {
        Ok(topology::Neighbour {
            router: router(&self.router)?,
            cost: self.cost.clamp(1, COST),
        })
    }
}

impl Summary {
    fn of(summary: &topology::Summary) -> Self {
        let site = |(site, services): &(topology::Site, Vec<topology::Service>)| Announce {
            site: Some(Site::of(site)),
            services: services.iter().map(Service::of).collect(),
            ..Announce::default()
        };
        Self {
            first: summary.first,
            routes: summary.routes.iter().map(Route::of).collect(),
            unreachable: summary.unreachable.iter().map(Route::gone).collect(),
            sites: summary.sites.iter().map(site).collect(),
            gone: summary.gone.clone(),
        }
    }

    fn checked(&self) -> Result<topology::Summary, WireError> {
        few(self.routes.len().max(self.unreachable.len()), ENTRIES)?;
        few(self.sites.len().max(self.gone.len()), ENTRIES)?;
        let site = |said: &Announce| said.checked().map(|said| (said.site, said.services));
        Ok(topology::Summary {
            first: self.first,
            routes: self.routes.iter().map(Route::checked).collect::<Result<_, _>>()?,
            unreachable: self
                .unreachable
                .iter()
                .map(Route::address)
                .collect::<Result<_, _>>()?,
            sites: self.sites.iter().map(site).collect::<Result<_, _>>()?,
            gone: self.gone.iter().map(|id| clean(id, NAME)).collect(),
        })
    }
}
