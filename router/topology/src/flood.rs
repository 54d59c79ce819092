//! Records: told, taken, compared and passed on.
//!
//! ```text
//!  link up ───▶ Digests both ways ── differ ──▶ Have ──▶ Records that are missing
//!  change ────▶ a Record of ours ──▶ to every interior neighbour ──▶ onward, except to whom the sender tells it itself
//! ```

use std::sync::Arc;

use crate::database::Put;
use crate::message::{Digest, Flooded, Have, Message, Summary};
use crate::model::{Body, CORE, LinkId, LinkKind, Neighbour, Part, Record, RouterId, Version, epoch};
use crate::outbox::Outbox;
use crate::topology::{HOLD, Topology};

/// A record whose epoch is farther ahead of our clock than this is not believed: its router could not outdo it.
/// Milliseconds.
const AHEAD: u64 = 366 * 86_400_000;
/// No router makes more records than this in one life.
const SEQUENCES: u64 = 1 << 53;

impl Topology {
    /// Tells those parts of our state that changed and are due.
    pub(crate) fn tell(&mut self) {
        if self.local.site.edge {
            self.dirty.clear();
            return;
        }
        if let Some(epoch) = self.rebirth
            && self.now >= self.reborn + 1000
        {
            self.begin_life(epoch);
        }
        let due: Vec<Part> = self
            .dirty
            .iter()
            .copied()
            .filter(|part| self.told.get(part).is_none_or(|told| self.now >= told + HOLD))
            .collect();
        // Without its core no other part is understood.
        if !due.is_empty() && self.base.get(&self.local.router, CORE).is_none() {
            self.originate(CORE, true);
        }
        for part in due {
            self.originate(part, false);
        }
    }

    fn begin_life(&mut self, epoch: u64) {
        self.rebirth = None;
        self.reborn = self.now;
        (self.epoch, self.sequence) = (epoch, 0);
        let me = self.me();
        self.base.forget(&me);
        self.told.clear();
        self.dirty.extend(self.own.keys().copied());
    }

    /// Makes a record of a part of our state, when it differs from the last one or `always`.
    pub(crate) fn originate(&mut self, part: Part, always: bool) {
        self.dirty.remove(&part);
        if self.local.router.is_empty() {
            return;
        }
        let body = self.body(part);
        let known = self.base.get(&self.local.router, part).map(|record| &record.body);
        let same = match known {
            Some(known) => *known == body,
            None => body == Body::Gone,
        };
        if same && !always {
            return;
        }
        self.sequence += 1;
        let record = Arc::new(Record {
            origin: self.me(),
            epoch: self.epoch,
            sequence: self.sequence,
            mark: body.mark(),
            part,
            body,
        });
        if record.body == Body::Gone {
            self.told.remove(&part);
        } else {
            self.told.insert(part, self.now);
        }
        match self.base.put(record.clone(), 0, self.now) {
            Put::Taken(old) => {
                if part == CORE && !old.iter().any(|old| same_neighbours(old, &record)) {
                    self.paths_dirty = true;
                }
                self.pass_on(&record, None);
            }
            Put::TooMuch => self.outcome.dropped += 1,
            Put::Older | Put::Known => {}
        }
    }

    fn body(&self, part: Part) -> Body {
        match self.own.get(&part) {
            Some((_, has)) if part == CORE => {
                let mut neighbours: Vec<Neighbour> = self
                    .links
                    .values()
                    .filter(|link| link.kind == LinkKind::Interior)
                    .map(|link| Neighbour {
                        router: link.router.clone(),
                        cost: link.cost,
                    })
                    .collect();
                neighbours.sort_unstable();
                // Of several links to one router the cheapest counts.
                neighbours.dedup_by(|later, first| later.router == first.router);
                Body::Router {
                    neighbours,
                    has: has.clone(),
                }
            }
            Some((cost, has)) => match self.links.get(&LinkId(part)) {
                Some(link) => Body::Edge {
                    router: link.router.clone(),
                    cost: *cost,
                    has: has.clone(),
                },
                None => Body::Gone,
            },
            None => Body::Gone,
        }
    }

    /// Takes what a peer said; what does not fit the link's kind has no effect.
    pub(crate) fn hear(&mut self, id: LinkId, message: Message) {
        let Some(kind) = self.links.get(&id).map(|link| link.kind) else {
            return;
        };
        match (kind, message) {
            (LinkKind::Interior, Message::Digests(theirs)) => self.compare_digests(id, &theirs),
            (LinkKind::Interior, Message::Have(have)) => self.compare_parts(id, &have),
            (LinkKind::Interior, Message::Records(records)) => self.take(id, records),
            (LinkKind::Attached, Message::Announce(said)) => self.edge_said(id, said),
            (LinkKind::Uplink, Message::Summary(summary)) => self.take_summary(id, summary),
            _ => {}
        }
    }

    fn take(&mut self, id: LinkId, records: Vec<Flooded>) {
        let mut fresh = Vec::new();
        for Flooded { record, age } in records {
            let (first, at) = self.first_epoch;
            let ahead = first.saturating_add(epoch(self.now - at + AHEAD, 0));
            if record.epoch > ahead || record.sequence > SEQUENCES || record.origin.is_empty() {
                self.outcome.dropped += 1;
                continue;
            }
            if record.origin == self.local.router {
                self.own_record(id, record);
                continue;
            }
            let put = self.base.put(record.clone(), age, self.now);
            match put {
                Put::Taken(old) => {
                    self.apply(&record, &old);
                    fresh.push(record);
                }
                Put::Known => self.knows(id, &record),
                Put::Older => self.answer_older(id, &record),
                Put::TooMuch => self.outcome.dropped += 1,
            }
        }
        // Only now: what these records say about links decides to whom they go.
        for record in fresh {
            self.knows(id, &record);
            self.pass_on(&record, Some(id));
        }
    }

    fn knows(&mut self, id: LinkId, record: &Record) {
        if let Some(link) = self.links.get_mut(&id) {
            link.outbox.knows(&record.origin, record.part);
        }
    }

    /// Someone tells what is no longer so: tell it the newest.
    fn answer_older(&mut self, id: LinkId, record: &Record) {
        let newer = self.base.get(&record.origin, record.part).is_some();
        if let Some(link) = self.links.get_mut(&id)
            && newer
        {
            link.outbox.record(&record.origin, record.part);
            self.wake.insert(id);
        }
    }

    /// A record of our own from elsewhere: of another life, or made up. Ours must be the newest; where another life shares
    /// our epoch we begin a new one.
    fn own_record(&mut self, id: LinkId, record: Arc<Record>) {
        if record.epoch < self.epoch {
            return self.answer_older(id, &record);
        }
        let known = self.base.get(&self.local.router, record.part);
        // In this life there was none that is newer than the one we have.
        let another_life = record.epoch > self.epoch
            || record.sequence > self.sequence
            || known.is_some_and(|known| known.version() < record.version());
        if another_life {
            let next = record.epoch.max(self.rebirth.unwrap_or(0)) + 1;
            self.rebirth = Some(next);
            return;
        }
        match known {
            Some(known) if known.version() > record.version() => self.answer_older(id, &record),
            Some(_) => self.knows(id, &record),
            None if record.body != Body::Gone => {
                // An edge of ours that left, and someone missed it.
                let part = record.part;
                self.base.put(record, 0, self.now);
                self.dirty.insert(part);
            }
            None => {}
        }
    }

    /// Puts a record's meaning in the place of those that it replaces.
    fn apply(&mut self, record: &Arc<Record>, old: &[Arc<Record>]) {
        if record.part == CORE && !old.iter().any(|old| same_neighbours(old, record)) {
            self.paths_dirty = true;
        }
        // A refresh says nothing new.
        if let [old] = old
            && old.part == record.part
            && old.epoch == record.epoch
            && same_meaning(&old.body, &record.body)
        {
            return;
        }
        for old in old {
            self.unindex(old);
        }
        if let Some(has) = record.body.has() {
            let cost = edge_cost(&record.body);
            self.changed.note(has);
            self.index.add(&record.origin, record.part, cost, has);
        }
    }

    fn unindex(&mut self, record: &Record) {
        if let Some(has) = record.body.has() {
            self.changed.note(has);
            self.index.remove(&record.origin, record.part, has);
        }
    }

    /// A record whose router is not heard of any more.
    pub(crate) fn forget_record(&mut self, record: &Record) {
        self.unindex(record);
        self.paths_dirty |= record.part == CORE;
    }

    /// Tells a record to every interior neighbour that may not have it.
    fn pass_on(&mut self, record: &Record, from: Option<LinkId>) {
        let sender = from.and_then(|id| Some(self.links.get(&id)?.router.clone()));
        let base = &self.base;
        for (id, link) in &mut self.links {
            // Also its own router is told, so that it hears of what was made up in its name.
            if link.kind != LinkKind::Interior || Some(*id) == from {
                continue;
            }
            let told = sender
                .as_ref()
                .is_some_and(|sender| *sender == link.router || linked(base, sender, &link.router));
            if !told {
                link.outbox.record(&record.origin, record.part);
                self.wake.insert(*id);
            }
        }
    }

    /// Asks every neighbour to compare.
    pub(crate) fn compare(&mut self) {
        for (id, link) in &mut self.links {
            if link.kind == LinkKind::Interior {
                link.outbox.digest();
                self.wake.insert(*id);
            }
        }
    }

    fn compare_digests(&mut self, id: LinkId, theirs: &[Digest]) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        self.wake.insert(id);
        for digest in theirs {
            match self.base.digest(&digest.router) {
                Some(ours) if ours == (digest.epoch, digest.digest) => {}
                Some((epoch, _)) if epoch > digest.epoch => {
                    let records = self.base.records(&digest.router);
                    records.for_each(|record| link.outbox.record(&record.origin, record.part));
                }
                _ => link.outbox.have(&digest.router),
            }
        }
        let known: std::collections::HashSet<&RouterId> =
            theirs.iter().map(|digest| &digest.router).collect();
        for digest in self.base.digests() {
            if !known.contains(&digest.router) {
                let records = self.base.records(&digest.router);
                records.for_each(|record| link.outbox.record(&record.origin, record.part));
            }
        }
    }

    fn compare_parts(&mut self, id: LinkId, have: &Have) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        self.wake.insert(id);
        for part in self.base.missing(have) {
            link.outbox.record(&have.router, part);
        }
        let newer = |(part, version): &(Part, Version)| match self.base.get(&have.router, *part) {
            Some(record) => record.version() < *version,
            None => true,
        };
        let theirs_is_newer = match self.base.digest(&have.router) {
            Some((epoch, _)) if epoch == have.epoch => have.parts.iter().any(newer),
            Some((epoch, _)) => epoch < have.epoch,
            None => !have.parts.is_empty(),
        };
        if theirs_is_newer {
            link.outbox.have(&have.router);
        }
    }

    fn take_summary(&mut self, id: LinkId, summary: Summary) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if summary.first {
            self.changed
                .addresses
                .extend(std::mem::take(&mut link.reach).into_keys());
            link.sites.clear();
        }
        for address in summary.unreachable {
            link.reach.remove(&address);
            self.changed.addresses.insert(address);
        }
        for id in &summary.gone {
            link.sites.remove(id);
        }
        for route in summary.routes {
            if !link.filter.offer.allows(route.address.service()) {
                self.outcome.refused.push((id, route.address));
            } else if link.reach.len() < REACHABLE || link.reach.contains_key(&route.address) {
                self.changed.addresses.insert(route.address.clone());
                link.reach.insert(route.address.clone(), route);
            } else {
                self.outcome.dropped += 1;
            }
        }
        for (site, services) in summary.sites {
            if link.sites.len() < REACHABLE || link.sites.contains_key(&site.id) {
                link.sites.insert(site.id.clone(), (site, services));
            } else {
                self.outcome.dropped += 1;
            }
        }
    }

    /// The next message over a link, if there is anything to tell.
    pub fn next(&mut self, id: LinkId) -> Option<Message> {
        let now = self.now;
        let link = self.links.get_mut(&id)?;
        match &mut link.outbox {
            Outbox::Uplink { announce } => std::mem::take(announce).then(|| {
                Message::Announce(
                    self.own
                        .get(&CORE)
                        .map(|(_, has)| has.clone())
                        .unwrap_or_default(),
                )
            }),
            Outbox::Attached(_) => self.next_summary(id).map(Message::Summary),
            Outbox::Interior {
                digests,
                have,
                records,
            } => {
                if std::mem::take(digests) {
                    return Some(Message::Digests(self.base.digests()));
                }
                if let Some(router) = have.pop_first() {
                    let nothing = || Have {
                        router: router.clone(),
                        epoch: 0,
                        parts: Vec::new(),
                    };
                    return Some(Message::Have(self.base.have(&router).unwrap_or_else(nothing)));
                }
                let mut told = Vec::new();
                let mut bytes = 0;
                // What says that a link is gone comes before what is told because of it.
                let own = (self.local.router.clone(), CORE);
                let mut following = records.take(&own);
                while let Some((router, part)) = following.take().or_else(|| records.pop_first()) {
                    let Some(record) = self.base.get(&router, part) else {
                        continue;
                    };
                    bytes += record.size();
                    told.push(Flooded {
                        record: record.clone(),
                        age: self.base.age(&router, now),
                    });
                    if bytes >= MESSAGE || told.len() >= ENTRIES {
                        break;
                    }
                }
                (!told.is_empty()).then_some(Message::Records(told))
            }
        }
    }
}

/// Records beyond this size go into the next message. With the largest record it stays below what a peer reads.
const MESSAGE: usize = 64 * 1024;
/// Entries of one message.
pub(crate) const ENTRIES: usize = 1024;
/// Addresses, and sites, that an edge keeps of what an uplink says.
const REACHABLE: usize = 100_000;

fn same_neighbours(old: &Record, new: &Record) -> bool {
    match (&old.body, &new.body) {
        (Body::Router { neighbours: old, .. }, Body::Router { neighbours: new, .. }) => old == new,
        _ => false,
    }
}

fn same_meaning(old: &Body, new: &Body) -> bool {
    old.has() == new.has() && edge_cost(old) == edge_cost(new)
}

fn edge_cost(body: &Body) -> u32 {
    match body {
        Body::Edge { cost, .. } => *cost,
        Body::Router { .. } | Body::Gone => 0,
    }
}

/// Whether two routers both say that there is a link between them.
fn linked(base: &crate::database::Database, one: &RouterId, other: &RouterId) -> bool {
    let says = |from: &RouterId, to: &RouterId| {
        base.get(from, CORE).is_some_and(|core| match &core.body {
            Body::Router { neighbours, .. } => {
                neighbours.binary_search_by(|peer| peer.router.cmp(to)).is_ok()
            }
            _ => false,
        })
    };
    says(one, other) && says(other, one)
}
