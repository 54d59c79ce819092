//! Many routers on virtual wires and a virtual clock: messages take time, may be repeated and overtake each other.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by tests and a benchmark; what cannot go on fails"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use karez_topology::{
    Address, Event, Filter, LinkId, LinkKind, Local, Message, Outcome, RouterId, Site, Topology,
};

/// A small generator of repeatable numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit.max(1)
    }
}

/// How the wires are.
#[derive(Clone, Copy)]
pub(crate) struct Wires {
    /// A message takes up to this many milliseconds, at least 1.
    pub(crate) delay: u64,
    /// Of 100 messages so many arrive twice.
    pub(crate) twice: u64,
    /// Whether messages of one link may overtake each other.
    pub(crate) reorder: bool,
}

/// One end of a link.
#[derive(Clone, Copy)]
struct End {
    other: usize,
    /// The link's name at the other end.
    there: LinkId,
}

pub(crate) struct Node {
    pub(crate) topology: Topology,
    pub(crate) local: Local,
    next_link: u64,
}

enum Due {
    Deliver {
        node: usize,
        link: LinkId,
        message: Message,
    },
    Tick(usize),
    /// A node notices that a link is gone.
    Gone {
        node: usize,
        link: LinkId,
    },
}

/// What went over the wires.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

pub(crate) struct Network {
    pub(crate) nodes: Vec<Node>,
    ends: HashMap<(usize, LinkId), End>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Due>,
    /// When the last message over a link arrives: the next one not before.
    last: HashMap<(usize, LinkId), u64>,
    ticks: Vec<u64>,
    count: u64,
    pub(crate) now: u64,
    pub(crate) random: Random,
    wires: Wires,
    pub(crate) traffic: Traffic,
    /// When any table changed last.
    pub(crate) changed: u64,
}

/// What a link between two nodes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Interior,
    /// From an edge to an interior router.
    Edge,
}

pub(crate) fn router(n: usize) -> RouterId {
    format!("r{n:05}").into()
}

pub(crate) fn address(name: &str) -> Address {
    Address {
        name: name.to_owned(),
        port: 80,
    }
}

pub(crate) fn local(n: usize, edge: bool, addresses: &[Address]) -> Local {
    Local {
        router: router(n),
        site: Site {
            id: format!("site{n:05}"),
            name: format!("site {n}"),
            edge,
            ..Site::default()
        },
        targets: addresses
            .iter()
            .enumerate()
            .map(|(i, address)| (format!("t{i}").into(), address.clone()))
            .collect(),
        ..Local::default()
    }
}

impl Network {
    pub(crate) fn new(seed: u64, wires: Wires) -> Self {
        Self {
            nodes: Vec::new(),
            ends: HashMap::new(),
            due: BinaryHeap::new(),
            events: HashMap::new(),
            last: HashMap::new(),
            ticks: Vec::new(),
            count: 0,
            now: 1_000,
            random: Random(seed),
            wires,
            traffic: Traffic::default(),
            changed: 0,
        }
    }

    pub(crate) fn add(&mut self, edge: bool, addresses: &[Address]) -> usize {
        let node = self.nodes.len();
        self.ticks.push(u64::MAX);
        self.nodes.push(Node {
            topology: Topology::new(self.now, self.now),
            local: local(node, edge, addresses),
            next_link: 0,
        });
        let local = self.nodes[node].local.clone();
        self.handle(node, Event::Local(local));
        node
    }

    pub(crate) fn set_addresses(&mut self, node: usize, addresses: &[Address]) {
        let edge = self.nodes[node].local.site.edge;
        self.nodes[node].local = local(node, edge, addresses);
        let local = self.nodes[node].local.clone();
        self.handle(node, Event::Local(local));
    }

    /// A router that has lost everything but its document. Its clock may go backward.
    pub(crate) fn restart(&mut self, node: usize, epoch: u64) {
        let links: Vec<_> = self
            .ends
            .keys()
            .filter(|(owner, _)| *owner == node)
            .copied()
            .collect();
        for (owner, link) in links {
            self.unlink(owner, link);
        }
        self.nodes[node].topology = Topology::new(epoch, self.now);
        let local = self.nodes[node].local.clone();
        self.handle(node, Event::Local(local));
    }

    /// Takes a node's links, each named by an owner, from under it: nothing passes any more, and nobody has noticed. Gives the
    /// other ends, which are to [`notice`](Self::notice) it.
    pub(crate) fn kill(
        &mut self,
        node: usize,
        links: impl Iterator<Item = (usize, LinkId)>,
    ) -> Vec<(usize, LinkId)> {
        let mut others = Vec::new();
        for (owner, link) in links {
            let end = self.ends.remove(&(owner, link)).unwrap();
            self.ends.remove(&(end.other, end.there));
            others.push(if owner == node {
                (end.other, end.there)
            } else {
                (owner, link)
            });
        }
        others
    }

    /// Lets a node notice later that a link is gone.
    pub(crate) fn notice(&mut self, at: u64, node: usize, link: LinkId) {
        self.schedule(at, Due::Gone { node, link });
    }

    /// Makes a link; the first node dials.
    pub(crate) fn link(&mut self, from: usize, to: usize, kind: Kind, cost: u32, filter: Filter) -> LinkId {
        let mut name = |node: usize| {
            self.nodes[node].next_link += 1;
            LinkId(self.nodes[node].next_link)
        };
        let (here, there) = (name(from), name(to));
        for (node, other, link, peer) in [(from, to, here, there), (to, from, there, here)] {
            self.ends.insert((node, link), End { other, there: peer });
        }
        for (node, other, link, dials) in [(from, to, here, true), (to, from, there, false)] {
            let kind = match (kind, dials) {
                (Kind::Interior, _) => LinkKind::Interior,
                (Kind::Edge, true) => LinkKind::Uplink,
                (Kind::Edge, false) => LinkKind::Attached,
            };
            let event = Event::LinkUp {
                link,
                kind,
                cost,
                outgoing: dials,
                router: router(other),
                peer: self.nodes[other].local.site.clone(),
                filter: if dials { Filter::default() } else { filter.clone() },
            };
            self.handle(node, event);
        }
        here
    }

    /// Takes a link away; what is on the wire is lost.
    pub(crate) fn unlink(&mut self, node: usize, link: LinkId) {
        let Some(end) = self.ends.remove(&(node, link)) else {
            return;
        };
        self.ends.remove(&(end.other, end.there));
        self.handle(node, Event::LinkDown(link));
        self.handle(end.other, Event::LinkDown(end.there));
    }

    pub(crate) fn cost(&mut self, node: usize, link: LinkId, cost: u32) {
        let Some(end) = self.ends.get(&(node, link)).copied() else {
            return;
        };
        self.handle(node, Event::LinkCost { link, cost });
        self.handle(
            end.other,
            Event::LinkCost {
                link: end.there,
                cost,
            },
        );
    }

    fn schedule(&mut self, at: u64, due: Due) {
        self.count += 1;
        self.due.push(Reverse((at, self.count)));
        self.events.insert(self.count, due);
    }

    pub(crate) fn handle(&mut self, node: usize, event: Event) {
        let outcome = self.nodes[node].topology.handle(event, self.now);
        self.follow(node, outcome);
    }

    fn follow(&mut self, node: usize, outcome: Outcome) {
        if outcome.table.is_some() {
            self.changed = self.now;
        }
        for link in outcome.wake {
            while let Some(message) = self.nodes[node].topology.next(link) {
                self.send(node, link, message);
            }
        }
        let deadline = self.nodes[node].topology.deadline().max(self.now + 1);
        if deadline < self.ticks[node] || self.ticks[node] <= self.now {
            self.ticks[node] = deadline;
            self.schedule(deadline, Due::Tick(node));
        }
    }

    fn send(&mut self, node: usize, link: LinkId, message: Message) {
        let Some(end) = self.ends.get(&(node, link)).copied() else {
            return;
        };
        self.traffic.messages += 1;
        self.traffic.bytes += message.size() as u64;
        // What edges are told are differences, which a link's stream keeps in order.
        let records = !matches!(message, Message::Announce(_) | Message::Summary(_));
        let copies = 1 + u64::from(records && self.random.below(100) < self.wires.twice);
        for _ in 0..copies {
            let mut at = self.now + 1 + self.random.below(self.wires.delay);
            if !(records && self.wires.reorder) {
                let last = self.last.entry((node, link)).or_default();
                at = at.max(*last);
                *last = at;
            }
            let message = message.clone();
            self.schedule(
                at,
                Due::Deliver {
                    node: end.other,
                    link: end.there,
                    message,
                },
            );
        }
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, number))) = self.due.peek().copied() {
            if at > end {
                break;
            }
            self.due.pop();
            self.now = self.now.max(at);
            let now = self.now;
            match self.events.remove(&number) {
                Some(Due::Deliver { node, link, message }) if self.ends.contains_key(&(node, link)) => {
                    self.handle(node, Event::Heard { link, message });
                }
                Some(Due::Gone { node, link }) => self.handle(node, Event::LinkDown(link)),
                Some(Due::Tick(node)) if self.ticks[node] <= now => {
                    self.ticks[node] = u64::MAX;
                    let outcome = self.nodes[node].topology.tick(now);
                    self.follow(node, outcome);
                }
                _ => {}
            }
        }
        self.now = self.now.max(end);
    }

    /// Where a link leads.
    pub(crate) fn other(&self, node: usize, link: LinkId) -> Option<usize> {
        self.ends.get(&(node, link)).map(|end| end.other)
    }

    /// What the other end calls a link.
    pub(crate) fn peer_name(&self, node: usize, link: LinkId) -> Option<LinkId> {
        self.ends.get(&(node, link)).map(|end| end.there)
    }

    /// All links, once each: the node, the name there, the other node.
    pub(crate) fn links(&self) -> Vec<(usize, LinkId, usize)> {
        let mut seen = HashSet::new();
        let mut links: Vec<_> = self
            .ends
            .iter()
            .map(|((node, link), end)| (*node, *link, end.other, end.there))
            .collect();
        links.sort_unstable();
        links.retain(|(node, link, other, there)| {
            seen.insert((*node, *link)) && !seen.contains(&(*other, *there))
        });
        links
            .into_iter()
            .map(|(node, link, other, _)| (node, link, other))
            .collect()
    }

    /// How many edges, routers and records every node knows of.
    pub(crate) fn sizes(&self) -> BTreeMap<usize, (usize, usize)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(n, node)| (n, node.topology.size()))
            .collect()
    }
}
