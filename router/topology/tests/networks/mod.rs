//! The networks that are measured: many edges at a few interior routers, and a mesh of interior routers.

#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests and a benchmark")]

use std::collections::BTreeSet;

use karez_topology::{Filter, Scope};

use crate::simulation::{Kind, Network, Random, Traffic, Wires, address};

/// Messages over a link take up to this long, virtual milliseconds.
const DELAY: u64 = 20;

/// How large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) interior: usize,
    pub(crate) edges: usize,
    /// About how many interior links each interior router has.
    pub(crate) degree: usize,
}

/// What it took.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) links: usize,
    /// From the last link on until no table changed any more, virtual milliseconds.
    pub(crate) converged: u64,
    pub(crate) traffic: Traffic,
    /// In one virtual hour in which nothing happens.
    pub(crate) at_rest: Traffic,
    /// One edge goes and comes back.
    pub(crate) edge_flap: Traffic,
    /// From the death of an interior link on until no table changed any more, virtual milliseconds.
    pub(crate) after_loss: u64,
    pub(crate) loss: Traffic,
    /// The largest router's records, and about their bytes.
    pub(crate) records: (usize, usize),
    pub(crate) all_reached: bool,
}

const WIRES: Wires = Wires {
    delay: DELAY,
    twice: 0,
    reorder: false,
};

fn interior(network: &mut Network, size: Size, serves: bool) -> usize {
    for n in 0..size.interior {
        let address = address(&format!("router-{n}"));
        network.add(
            false,
            if serves {
                std::slice::from_ref(&address)
            } else {
                &[]
            },
        );
    }
    let mut random = Random(7);
    let mut links = BTreeSet::new();
    // A ring, so that all are connected, and chords.
    for n in 0..size.interior {
        links.insert((n, (n + 1) % size.interior));
    }
    while links.len() < size.interior * size.degree / 2 {
        let (from, to) = (
            random.below(size.interior as u64),
            random.below(size.interior as u64),
        );
        let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        if from != to && !links.contains(&(to, from)) {
            links.insert((from, to));
        }
        if size.degree + 1 >= size.interior && links.len() >= size.interior * (size.interior - 1) / 2 {
            break;
        }
    }
    let count = links.len();
    for (from, to) in links {
        let cost = 1 + u32::try_from(random.below(3)).unwrap();
        network.link(from, to, Kind::Interior, cost, Filter::default());
        // All start within a second or so.
        network.run_until(network.now + random.below(2));
    }
    count
}

/// Runs until no table has changed for a while; gives the time from now to the last change.
fn quiet(network: &mut Network) -> u64 {
    let from = network.now;
    loop {
        network.run_until(network.now + 500);
        if network.now > network.changed + 2_000 {
            return network.changed.saturating_sub(from);
        }
    }
}

fn since(network: &Network, before: Traffic) -> Traffic {
    Traffic {
        messages: network.traffic.messages - before.messages,
        bytes: network.traffic.bytes - before.bytes,
    }
}

/// Edges that each offer an address of their own and may reach what the interior routers collect.
pub(crate) fn edges(size: Size) -> Measured {
    let mut network = Network::new(1, WIRES);
    let mut links = interior(&mut network, size, true);
    let filter = Filter {
        offer: Scope::Any,
        reach: Scope::only(["router-*"]),
    };
    let mut random = Random(3);
    let mut attached = Vec::new();
    for n in 0..size.edges {
        let edge = network.add(true, &[address(&format!("edge-{n}"))]);
        let link = network.link(edge, n % size.interior, Kind::Edge, 1, filter.clone());
        attached.push((edge, link));
        if random.below(20) == 0 {
            network.run_until(network.now + 1);
        }
    }
    links += size.edges;
    let converged = quiet(&mut network);
    let traffic = network.traffic;
    let reached = |network: &Network| {
        let routers = (0..size.interior).all(|n| {
            let table = network.nodes[n].topology.table();
            (0..size.edges).all(|edge| table.reaches(&address(&format!("edge-{edge}"))))
        });
        let edges = attached.iter().all(|(edge, _)| {
            let table = network.nodes[*edge].topology.table();
            (0..size.interior).all(|n| table.reaches(&address(&format!("router-{n}"))))
        });
        routers && edges
    };
    let all_reached = reached(&network);

    let before = network.traffic;
    network.run_until(network.now + 3_600_000);
    let at_rest = since(&network, before);

    // Beside the comparisons of the minute.
    let before = network.traffic;
    let (edge, link) = attached[0];
    network.unlink(edge, link);
    network.run_until(network.now + 1_000);
    network.link(edge, 0, Kind::Edge, 1, filter);
    network.run_until(network.now + 1_000);
    let edge_flap = since(&network, before);
    let (loss, after_loss) = lose(&mut network);
    finish(
        &network,
        links,
        converged,
        traffic,
        at_rest,
        edge_flap,
        loss,
        after_loss,
        all_reached,
    )
}

/// Interior routers that each serve an address.
pub(crate) fn mesh(size: Size) -> Measured {
    let mut network = Network::new(2, WIRES);
    let links = interior(&mut network, size, true);
    let converged = quiet(&mut network);
    let traffic = network.traffic;
    let all_reached = (0..size.interior).all(|n| {
        let table = network.nodes[n].topology.table();
        (0..size.interior).all(|to| table.reaches(&address(&format!("router-{to}"))))
    });
    let before = network.traffic;
    network.run_until(network.now + 3_600_000);
    let at_rest = since(&network, before);
    let (loss, after_loss) = lose(&mut network);
    let none = Traffic::default();
    finish(
        &network,
        links,
        converged,
        traffic,
        at_rest,
        none,
        loss,
        after_loss,
        all_reached,
    )
}

fn lose(network: &mut Network) -> (Traffic, u64) {
    let before = network.traffic;
    let (node, link, _) = network.links()[0];
    network.unlink(node, link);
    let after = quiet(network);
    (since(network, before), after)
}

#[allow(clippy::too_many_arguments, reason = "puts a record together")]
fn finish(
    network: &Network,
    links: usize,
    converged: u64,
    traffic: Traffic,
    at_rest: Traffic,
    edge_flap: Traffic,
    loss: Traffic,
    after_loss: u64,
    all_reached: bool,
) -> Measured {
    Measured {
        links,
        converged,
        traffic,
        at_rest,
        edge_flap,
        after_loss,
        loss,
        records: network.sizes().values().copied().max().unwrap(),
        all_reached,
    }
}
