//! What holds after any sequence of events, once it is quiet: tables agree, are free of loops, and shortest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod simulation;

use std::collections::BTreeMap;

use karez_topology::{Address, Arrival, Decision, Filter, LinkId, Load, NextHop, To, decide, decide_onward};
use proptest::prelude::*;
use simulation::{Kind, Network, Wires, address, router};

const INTERIOR: usize = 6;
const EDGES: usize = 4;
/// Everything that is repaired by comparing is repaired by then, and all ages have passed that matter.
const QUIET: u64 = 100_000;

#[derive(Clone, Debug)]
enum Step {
    Link {
        from: usize,
        to: usize,
        cost: u32,
    },
    Attach {
        edge: usize,
        to: usize,
        cost: u32,
    },
    Unlink(usize),
    Cost {
        link: usize,
        cost: u32,
    },
    Serve {
        node: usize,
        addresses: Vec<u8>,
    },
    /// With a clock that was set back so far, or none: then with the epoch of the life before.
    Restart {
        node: usize,
        back: Option<u64>,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..INTERIOR + EDGES;
    let addresses = proptest::collection::vec(0u8..4, 0..3);
    let back = proptest::option::of(0u64..100_000);
    prop_oneof![
        6 => (0..INTERIOR, 0..INTERIOR, 1u32..5).prop_map(|(from, to, cost)| Step::Link { from, to, cost }),
        3 => (0..EDGES, 0..INTERIOR, 1u32..5).prop_map(|(edge, to, cost)| Step::Attach { edge, to, cost }),
        3 => (0usize..32).prop_map(Step::Unlink),
        2 => (0usize..32, 1u32..6).prop_map(|(link, cost)| Step::Cost { link, cost }),
        4 => (node.clone(), addresses).prop_map(|(node, addresses)| Step::Serve { node, addresses }),
        2 => (node, back).prop_map(|(node, back)| Step::Restart { node, back }),
        4 => (0u64..400).prop_map(Step::Wait),
    ]
}

fn named(n: u8) -> Address {
    address(&format!("a{n}"))
}

/// What is really there, beside the network that has to find out.
struct Truth {
    links: BTreeMap<(usize, LinkId), (usize, Kind, u32)>,
    serves: Vec<Vec<Address>>,
}

const FAR: u64 = u64::MAX / 4;

impl Truth {
    /// Floyd and Warshall's distances between interior routers.
    fn distances(&self) -> Vec<Vec<u64>> {
        let mut far = vec![vec![FAR; INTERIOR]; INTERIOR];
        for (n, row) in far.iter_mut().enumerate() {
            row[n] = 0;
        }
        for ((from, _), (to, kind, cost)) in &self.links {
            if *kind == Kind::Interior {
                for (a, b) in [(*from, *to), (*to, *from)] {
                    far[a][b] = far[a][b].min(u64::from(*cost));
                }
            }
        }
        for over in 0..INTERIOR {
            for from in 0..INTERIOR {
                for to in 0..INTERIOR {
                    far[from][to] = far[from][to].min(far[from][over] + far[over][to]);
                }
            }
        }
        far
    }

    /// The cheapest way from a node to an address.
    fn cheapest(&self, far: &[Vec<u64>], node: usize, address: &Address) -> Option<u64> {
        if self.serves[node].contains(address) {
            return Some(0);
        }
        let uplinks = |edge: usize| {
            self.links
                .iter()
                .filter(move |((from, _), (_, kind, _))| *from == edge && *kind == Kind::Edge)
                .map(|(_, (to, _, cost))| (*to, u64::from(*cost)))
        };
        let starts: Vec<(usize, u64)> = if node < INTERIOR {
            vec![(node, 0)]
        } else {
            uplinks(node).collect()
        };
        let mut best = FAR;
        for (start, before) in starts {
            for serving in 0..self.serves.len() {
                if !self.serves[serving].contains(address) {
                    continue;
                }
                if serving < INTERIOR {
                    best = best.min(before + far[start][serving]);
                } else {
                    for (at, cost) in uplinks(serving) {
                        best = best.min(before + far[start][at] + cost);
                    }
                }
            }
        }
        (best < FAR).then_some(best)
    }
}

fn run(steps: Vec<Step>, seed: u64, wires: Wires) -> (Network, Truth) {
    let mut network = Network::new(seed, wires);
    let mut truth = Truth {
        links: BTreeMap::new(),
        serves: vec![Vec::new(); INTERIOR + EDGES],
    };
    for n in 0..INTERIOR + EDGES {
        network.add(n >= INTERIOR, &[]);
    }
    let mut epochs = [network.now; INTERIOR + EDGES];
    for step in steps {
        match step {
            Step::Link { from, to, cost } if from != to => {
                let link = network.link(from, to, Kind::Interior, cost, Filter::default());
                truth.links.insert((from, link), (to, Kind::Interior, cost));
            }
            Step::Link { .. } => {}
            Step::Attach { edge, to, cost } => {
                let link = network.link(INTERIOR + edge, to, Kind::Edge, cost, Filter::default());
                truth
                    .links
                    .insert((INTERIOR + edge, link), (to, Kind::Edge, cost));
            }
            Step::Unlink(n) => {
                if let Some((node, link)) = truth.links.keys().nth(n).copied() {
                    truth.links.remove(&(node, link));
                    network.unlink(node, link);
                }
            }
            Step::Cost { link, cost } => {
                if let Some((node, link)) = truth.links.keys().nth(link).copied() {
                    truth.links.get_mut(&(node, link)).unwrap().2 = cost;
                    network.cost(node, link, cost);
                }
            }
            Step::Serve { node, addresses } => {
                truth.serves[node] = addresses.into_iter().map(named).collect();
                network.set_addresses(node, &truth.serves[node].clone());
            }
            Step::Restart { node, back } => {
                if let Some(back) = back {
                    epochs[node] = network.now.saturating_sub(back);
                }
                network.restart(node, epochs[node]);
                truth
                    .links
                    .retain(|(from, _), (to, ..)| *from != node && *to != node);
            }
            Step::Wait(time) => network.run_until(network.now + time),
        }
    }
    network.run_until(network.now + QUIET);
    (network, truth)
}

fn idle(_: &NextHop) -> Load {
    Load::default()
}

/// Follows a connection from a node; gives what the way cost, or where it ended.
fn follow(network: &Network, truth: &Truth, from: usize, address: &Address) -> Result<Option<u64>, String> {
    let cost = |node: usize, link: LinkId| {
        let other = network.other(node, link).unwrap();
        let here = truth.links.get(&(node, link)).map(|(.., cost)| *cost);
        here.or_else(|| {
            let there = truth.links.iter().find(|((owner, name), (to, ..))| {
                *owner == other && *to == node && network.peer_name(*owner, *name) == Some(link)
            });
            there.map(|(_, (.., cost))| *cost)
        })
        .map(u64::from)
        .ok_or(format!("{node}: a link that is gone"))
    };
    let mut total = 0;
    let mut at = from;
    let mut decision = decide(&network.nodes[at].topology.table(), address, idle);
    for hops_left in (0..=12u8).rev() {
        match decision {
            Decision::NoRoute if at == from => return Ok(None),
            Decision::NoRoute => return Err(format!("{address} from {from}: nowhere to go at {at}")),
            Decision::Local(_) if truth.serves[at].contains(address) => return Ok(Some(total)),
            Decision::Local(_) => return Err(format!("{at} does not serve {address}")),
            Decision::Link(path) => {
                total += cost(at, path.link)?;
                let next = network.other(at, path.link).ok_or("a link that is gone")?;
                let arrival = Arrival {
                    link: network.peer_name(at, path.link).unwrap(),
                    to: match path.to {
                        To::Router(router) => Some(router),
                        To::Edge | To::Uplink => None,
                    },
                    hops_left: if next < INTERIOR { hops_left } else { 0 },
                };
                at = next;
                let table = network.nodes[at].topology.table();
                decision = decide_onward(&table, &router(at), address, &arrival, idle);
            }
        }
    }
    Err(format!("{address} from {from}: a loop"))
}

fn holds(network: &Network, truth: &Truth) -> Result<(), TestCaseError> {
    let far = truth.distances();
    for from in 0..INTERIOR + EDGES {
        let table = network.nodes[from].topology.table();
        if from < INTERIOR {
            for (to, far) in far[from].iter().enumerate() {
                let known = table.router(&router(to)).map(|reach| u64::from(reach.cost));
                let expected = (*far < FAR && from != to).then_some(*far);
                prop_assert_eq!(known, expected, "{} to {}", from, to);
            }
        }
        for n in 0..4 {
            let address = named(n);
            let expected = truth.cheapest(&far, from, &address);
            let known = table.ways(&address).first().map(|hop| u64::from(hop.cost));
            prop_assert_eq!(known, expected, "{} to {}", from, address);
            let went = follow(network, truth, from, &address).map_err(TestCaseError::fail)?;
            prop_assert_eq!(went, expected, "{} to {}", from, address);
        }
    }
    Ok(())
}

/// Steps after which a router lives several lives of one epoch, with a little else in between.
fn lives() -> impl Strategy<Value = Vec<Step>> {
    let again = (0..INTERIOR + EDGES).prop_map(|node| Step::Restart { node, back: None });
    proptest::collection::vec(prop_oneof![3 => step(), 1 => again], 20..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn once_quiet_all_tables_agree_and_are_shortest(
        steps in proptest::collection::vec(step(), 0..60),
        seed in any::<u64>(),
    ) {
        let wires = Wires { delay: 20, twice: 0, reorder: false };
        let (network, truth) = run(steps, seed, wires);
        holds(&network, &truth)?;
    }

    #[test]
    fn so_they_are_when_messages_are_late_repeated_and_overtake_each_other(
        steps in proptest::collection::vec(step(), 0..60),
        seed in any::<u64>(),
    ) {
        let wires = Wires { delay: 300, twice: 20, reorder: true };
        let (network, truth) = run(steps, seed, wires);
        holds(&network, &truth)?;
    }

    #[test]
    fn so_they_are_when_lives_share_an_epoch(steps in lives(), seed in any::<u64>()) {
        let wires = Wires { delay: 100, twice: 10, reorder: true };
        let (network, truth) = run(steps, seed, wires);
        holds(&network, &truth)?;
    }
}
