//! Every router's records, the newest of each: bounded, aged, and comparable by digests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::{Digest, Have};
use crate::model::{Body, CORE, Part, Record, RouterId, Version};

/// More interior routers than any network has.
const ORIGINS: usize = 1024;
/// More edges than any one router takes.
const PARTS: usize = 32 * 1024;
/// The largest record.
pub(crate) const RECORD: usize = 512 * 1024;
/// All records of one router.
const ORIGIN_BYTES: usize = 32 << 20;
/// All records.
const BYTES: usize = 128 << 20;
/// A router that has not refreshed its core for this long is forgotten, milliseconds.
pub(crate) const LIFETIME: u64 = 1_800_000;
/// For how long it is remembered that a part is gone, milliseconds.
const GONE: u64 = 300_000;

/// What became of a record.
#[derive(Debug, PartialEq)]
pub(crate) enum Put {
    /// We have a newer one, or it makes no sense without others.
    Older,
    /// We have it.
    Known,
    /// It is new; what it replaces is returned.
    Taken(Vec<Arc<Record>>),
    /// It is new, and too much.
    TooMuch,
}

/// All records.
#[derive(Default)]
pub(crate) struct Database {
    origins: BTreeMap<RouterId, Origin>,
    bytes: usize,
}

struct Origin {
    epoch: u64,
    /// When its core was made, by our clock.
    made: u64,
    records: BTreeMap<Part, Stored>,
    digest: u64,
    bytes: usize,
}

struct Stored {
    record: Arc<Record>,
    at: u64,
}

/// A well-spread number for a part's version.
fn mix(part: Part, (sequence, mark): Version) -> u64 {
    let mut x = part
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(sequence)
        .wrapping_add(mark.rotate_left(32))
        .wrapping_add(0x1656_67b1_9e37_79f9);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn share(record: &Record) -> u64 {
    match record.body {
        Body::Gone => 0,
        _ => mix(record.part, record.version()),
    }
}

impl Database {
    /// Takes a record if it is news.
    pub(crate) fn put(&mut self, record: Arc<Record>, age: u64, now: u64) -> Put {
        let size = record.size();
        let core = matches!(record.body, Body::Router { .. });
        if core != (record.part == CORE) || age >= LIFETIME {
            return Put::Older;
        }
        let full = size > RECORD || self.bytes + size > BYTES;
        let known = self.origins.len();
        let mut replaced = Vec::new();
        match self.origins.get(&record.origin) {
            Some(origin) if record.epoch < origin.epoch => return Put::Older,
            Some(origin) if record.epoch == origin.epoch => {
                match origin.records.get(&record.part) {
                    Some(old) if old.record.version() > record.version() => return Put::Older,
                    Some(old) if old.record.version() == record.version() => return Put::Known,
                    None if record.body == Body::Gone => return Put::Known,
                    _ => {}
                }
                if full || origin.records.len() >= PARTS || origin.bytes + size > ORIGIN_BYTES {
                    return Put::TooMuch;
                }
            }
            // A part of a life of which the core is not known yet.
            _ if !core => return Put::Older,
            Some(_) => {
                if full {
                    return Put::TooMuch;
                }
                replaced = self.forget(&record.origin.clone());
            }
            None if full || known >= ORIGINS => return Put::TooMuch,
            None => {}
        }
        let origin = self
            .origins
            .entry(record.origin.clone())
            .or_insert_with(|| Origin {
                epoch: record.epoch,
                made: 0,
                records: BTreeMap::new(),
                digest: 0,
                bytes: 0,
            });
        if core {
            origin.made = now.saturating_sub(age);
        }
        origin.digest = origin.digest.wrapping_add(share(&record));
        origin.bytes += size;
        self.bytes += size;
        if let Some(old) = origin.records.insert(record.part, Stored { record, at: now }) {
            origin.digest = origin.digest.wrapping_sub(share(&old.record));
            let size = old.record.size();
            origin.bytes -= size;
            self.bytes -= size;
            replaced.push(old.record);
        }
        Put::Taken(replaced)
    }

    /// Forgets a router; its records are returned.
    pub(crate) fn forget(&mut self, router: &RouterId) -> Vec<Arc<Record>> {
        let Some(origin) = self.origins.remove(router) else {
            return Vec::new();
        };
        self.bytes -= origin.bytes;
        origin.records.into_values().map(|stored| stored.record).collect()
    }

    /// A record.
    pub(crate) fn get(&self, router: &RouterId, part: Part) -> Option<&Arc<Record>> {
        self.origins
            .get(router)?
            .records
            .get(&part)
            .map(|stored| &stored.record)
    }

    /// How old a router's core is.
    pub(crate) fn age(&self, router: &RouterId, now: u64) -> u64 {
        self.origins
            .get(router)
            .map_or(0, |origin| now.saturating_sub(origin.made))
    }

    /// All records of a router.
    pub(crate) fn records(&self, router: &RouterId) -> impl Iterator<Item = &Arc<Record>> {
        self.origins
            .get(router)
            .into_iter()
            .flat_map(|origin| origin.records.values().map(|stored| &stored.record))
    }

    /// Every router's core, by name.
    pub(crate) fn cores(&self) -> impl Iterator<Item = (&RouterId, &Arc<Record>)> {
        self.origins
            .iter()
            .filter_map(|(router, origin)| Some((router, &origin.records.get(&CORE)?.record)))
    }

    /// The digest of each router's records.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let digest = |(router, origin): (&RouterId, &Origin)| Digest {
            router: router.clone(),
            epoch: origin.epoch,
            digest: origin.digest,
        };
        self.origins.iter().map(digest).collect()
    }

    /// A router's epoch and digest.
    pub(crate) fn digest(&self, router: &RouterId) -> Option<(u64, u64)> {
        self.origins
            .get(router)
            .map(|origin| (origin.epoch, origin.digest))
    }

    /// What we have of a router.
    pub(crate) fn have(&self, router: &RouterId) -> Option<Have> {
        let origin = self.origins.get(router)?;
        Some(Have {
            router: router.clone(),
            epoch: origin.epoch,
            parts: origin
                .records
                .iter()
                .map(|(part, stored)| (*part, stored.record.version()))
                .collect(),
        })
    }

    /// Parts that someone who has this needs from us.
    pub(crate) fn missing(&self, have: &Have) -> Vec<Part> {
        let Some(origin) = self.origins.get(&have.router) else {
            return Vec::new();
        };
        if have.epoch > origin.epoch {
            return Vec::new();
        }
        let theirs: BTreeMap<Part, Version> = if have.epoch == origin.epoch {
            have.parts.iter().copied().collect()
        } else {
            BTreeMap::new()
        };
        origin
            .records
            .iter()
            .filter(|(part, stored)| {
                theirs
                    .get(part)
                    .map_or(stored.record.body != Body::Gone, |version| {
                        *version < stored.record.version()
                    })
            })
            .map(|(part, _)| *part)
            .collect()
    }

    /// Forgets routers that have not been heard of, except `own`, and parts long gone. The former's records are returned.
    pub(crate) fn expire(&mut self, own: &RouterId, now: u64) -> Vec<Arc<Record>> {
        let dead: Vec<RouterId> = self
            .origins
            .iter()
            .filter(|(router, origin)| *router != own && now.saturating_sub(origin.made) >= LIFETIME)
            .map(|(router, _)| router.clone())
            .collect();
        for origin in self.origins.values_mut() {
            let mut freed = 0;
            origin.records.retain(|_, stored| {
                let stays = stored.record.body != Body::Gone || now.saturating_sub(stored.at) < GONE;
                if !stays {
                    freed += stored.record.size();
                }
                stays
            });
            origin.bytes -= freed;
            self.bytes -= freed;
        }
        dead.iter().flat_map(|router| self.forget(router)).collect()
    }

    /// How many records there are, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let records = self.origins.values().map(|origin| origin.records.len()).sum();
        (records, self.bytes)
    }
}
