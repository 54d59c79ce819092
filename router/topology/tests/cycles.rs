//! Routers that are killed and started again, thousands of times: nothing is stuck and nothing is left of earlier lives.
//!
//! Each cycle kills one router, with what it was just saying on the wires; its neighbours notice later, each at a time of its
//! own, and it is back before, between or after that, sometimes with a clock that was set back or an epoch it had before.
//! `KAREZ_CYCLES` says how many; a failure names the cycle, and the same number fails again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod simulation;

use karez_topology::{Filter, LinkId};
use simulation::{Kind, Network, Wires, address, router};

const INTERIOR: usize = 6;
const EDGES: usize = 18;
/// How late a neighbour notices at most that a router is gone, milliseconds.
const NOTICED: u64 = 3_500;
/// How long a router is away at most.
const AWAY: u64 = 6_000;
/// How often everything is looked at.
const LOOK: usize = 50;
/// By then all is as it should be: a comparison of all neighbours, and a rebirth after it.
const QUIET: u64 = 70_000;

/// Who is linked to whom; the first dials.
fn wanted() -> Vec<(usize, usize, Kind)> {
    let ring = (0..INTERIOR).map(|n| (n, (n + 1) % INTERIOR, Kind::Interior));
    let chord = [(0, 3, Kind::Interior), (1, 4, Kind::Interior)];
    // Each edge holds links to two interior routers.
    let edges = (0..EDGES).flat_map(|n| {
        let edge = INTERIOR + n;
        [
            (edge, n % INTERIOR, Kind::Edge),
            (edge, (n + 2) % INTERIOR, Kind::Edge),
        ]
    });
    ring.chain(chord).chain(edges).collect()
}

struct World {
    network: Network,
    /// The links that are up, of those wanted.
    up: Vec<Option<(usize, LinkId)>>,
    epochs: Vec<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let wires = Wires {
            delay: 40,
            twice: 3,
            reorder: true,
        };
        let mut network = Network::new(seed, wires);
        for n in 0..INTERIOR + EDGES {
            network.add(n >= INTERIOR, &[address(&format!("at-{n}"))]);
        }
        let mut world = Self {
            epochs: vec![network.now; INTERIOR + EDGES],
            up: vec![None; wanted().len()],
            network,
        };
        world.link_all();
        world.network.run_until(world.network.now + QUIET);
        world
    }

    /// Makes the links that are missing.
    fn link_all(&mut self) {
        for (slot, (from, to, kind)) in self.up.iter_mut().zip(wanted()) {
            if slot.is_none() {
                let link = self.network.link(from, to, kind, 1, Filter::default());
                *slot = Some((from, link));
            }
        }
    }

    fn cycle(&mut self) {
        let node = self.below(INTERIOR + EDGES);
        let at = self.network.now;
        let back = at + self.network.random.below(AWAY);
        let mut notices = Vec::new();
        for (slot, (from, to, _)) in self.up.iter_mut().zip(wanted()) {
            if from == node || to == node {
                let (owner, link) = slot.take().unwrap();
                notices.push((at + self.network.random.below(NOTICED), owner, link));
            }
        }
        // It hears and says nothing from here on.
        let lost = self
            .network
            .kill(node, notices.iter().map(|(_, owner, link)| (*owner, *link)));
        for ((when, ..), (other, there)) in notices.iter().zip(lost) {
            self.network.notice(*when, other, there);
        }
        self.network.run_until(back);
        self.epochs[node] = match self.network.random.below(10) {
            0 => self.epochs[node],
            1 => self.network.now.saturating_sub(50_000),
            _ => self.network.now,
        };
        self.network.restart(node, self.epochs[node]);
        self.link_all();
        let pause = self.network.random.below(4_000);
        self.network.run_until(self.network.now + pause);
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.network.random.below(limit as u64)).unwrap()
    }

    /// Everybody reaches everybody, and keeps of nobody more than there is.
    fn look(&mut self, cycle: usize) {
        self.network.run_until(self.network.now + QUIET);
        for from in 0..INTERIOR + EDGES {
            let topology = &self.network.nodes[from].topology;
            let table = topology.table();
            for to in 0..INTERIOR + EDGES {
                let there = address(&format!("at-{to}"));
                assert!(table.reaches(&there), "cycle {cycle}: {from} does not reach {to}");
            }
            if from < INTERIOR {
                let routers = (0..INTERIOR).filter(|to| table.router(&router(*to)).is_some());
                assert_eq!(
                    routers.count(),
                    INTERIOR - 1,
                    "cycle {cycle}: routers known at {from}"
                );
            }
        }
        // What is remembered of edges that went is forgotten in the end.
        self.network.run_until(self.network.now + 800_000);
        let most = INTERIOR + 2 * EDGES;
        for (node, (records, _)) in self.network.sizes() {
            assert!(
                records <= most,
                "cycle {cycle}: {node} keeps {records} records of {most}"
            );
        }
        assert_eq!(self.network.links().len(), wanted().len(), "cycle {cycle}");
    }
}

#[test]
fn routers_killed_and_started_leave_nothing_stuck_and_nothing_behind() {
    let cycles = std::env::var("KAREZ_CYCLES").ok();
    let cycles: usize = cycles.and_then(|number| number.parse().ok()).unwrap_or(100);
    let mut world = World::new(5);
    for cycle in 1..=cycles {
        world.cycle();
        if cycle % LOOK == 0 {
            world.look(cycle);
        }
    }
    world.look(cycles);
}
