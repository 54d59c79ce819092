//! What is decided, and what a peer is believed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod simulation;

use std::sync::Arc;

use karez_topology::{
    Address, Announcement, Arrival, Body, CORE, Decision, Event, Filter, Flooded, LinkId, LinkKind, Load,
    Message, NextHop, Path, Record, Route, Scope, Service, Summary, To, Topology, decide, decide_onward,
};
use simulation::{Kind, Network, Wires, address, local, router};

const WIRES: Wires = Wires {
    delay: 5,
    twice: 0,
    reorder: false,
};

fn idle(_: &NextHop) -> Load {
    Load::default()
}

fn up(link: u64, kind: LinkKind, cost: u32, filter: Filter) -> Event {
    let peer = 100 + usize::try_from(link).unwrap();
    Event::LinkUp {
        link: LinkId(link),
        kind,
        cost,
        outgoing: kind != LinkKind::Attached,
        router: router(peer),
        peer: local(peer, kind == LinkKind::Attached, &[]).site,
        filter,
    }
}

fn says(link: u64, addresses: &[&str]) -> Event {
    let routes = addresses.iter().map(|name| Route {
        address: address(name),
        cost: 0,
        sealed: Vec::new(),
    });
    let services = addresses.iter().map(|name| Service {
        address: (*name).to_owned(),
        ..Service::default()
    });
    let said = Announcement {
        site: local(7, true, &[]).site,
        services: services.collect(),
        routes: routes.collect(),
        ..Announcement::default()
    };
    Event::Heard {
        link: LinkId(link),
        message: Message::Announce(Arc::new(said)),
    }
}

fn to_edge(link: u64) -> Decision {
    Decision::Link(Path {
        link: LinkId(link),
        to: To::Edge,
    })
}

/// Two targets here and one at an edge.
fn three() -> Topology {
    let mut topology = Topology::new(1, 0);
    let mut here = local(0, false, &[address("a"), address("a")]);
    here.services = vec![Service {
        address: "a".into(),
        ..Service::default()
    }];
    topology.handle(Event::Local(here), 0);
    topology.handle(up(1, LinkKind::Attached, 5, Filter::default()), 0);
    topology.handle(says(1, &["a"]), 0);
    topology
}

#[test]
fn local_targets_come_first_and_then_the_least_loaded() {
    let topology = three();
    let busy = |next: &NextHop| Load {
        open: if *next == NextHop::Local("t0".into()) {
            3
        } else {
            2
        },
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address("a"), busy);
    assert_eq!(decided, Decision::Local("t1".into()));
    let failed = |next: &NextHop| Load {
        set_aside: matches!(next, NextHop::Local(_)),
        ..Load::default()
    };
    assert_eq!(decide(&topology.table(), &address("a"), failed), to_edge(1));
    let all = |_: &NextHop| Load {
        set_aside: true,
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address("a"), all);
    assert_eq!(decided, Decision::Local("t0".into()));
}

#[test]
fn a_saturated_target_gives_way_to_a_dearer_one_but_not_to_one_that_failed() {
    let topology = three();
    let full = |next: &NextHop| Load {
        saturated: matches!(next, NextHop::Local(_)),
        ..Load::default()
    };
    assert_eq!(decide(&topology.table(), &address("a"), full), to_edge(1));
    let failed = |next: &NextHop| Load {
        saturated: matches!(next, NextHop::Local(_)),
        set_aside: matches!(next, NextHop::Link(_)),
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address("a"), failed);
    assert_eq!(decided, Decision::Local("t0".into()));
    let all = |_: &NextHop| Load {
        saturated: true,
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address("a"), all);
    let cheapest = Decision::Local("t0".into());
    assert_eq!(decided, cheapest, "the cheapest, when all are full");
}

#[test]
fn nothing_goes_back_where_it_came_from_or_on_when_no_hops_are_left() {
    let mut topology = three();
    topology.handle(up(2, LinkKind::Attached, 1, Filter::default()), 0);
    topology.handle(says(2, &["b"]), 0);
    let onward = |topology: &Topology, link: u64, hops_left: u8| {
        let arrival = Arrival {
            link: LinkId(link),
            to: None,
            hops_left,
        };
        decide_onward(&topology.table(), "r00000", &address("b"), &arrival, idle)
    };
    assert_eq!(onward(&topology, 1, 3), to_edge(2));
    assert_eq!(onward(&topology, 1, 0), Decision::NoRoute);
    assert_eq!(onward(&topology, 2, 3), Decision::NoRoute);
    topology.handle(Event::LinkDown(LinkId(2)), 0);
    assert_eq!(onward(&topology, 1, 3), Decision::NoRoute);
}

#[test]
fn an_edge_is_on_no_ones_way() {
    let mut topology = Topology::new(1, 0);
    topology.handle(Event::Local(local(0, true, &[address("own")])), 0);
    topology.handle(up(1, LinkKind::Uplink, 1, Filter::default()), 0);
    topology.handle(up(2, LinkKind::Uplink, 1, Filter::default()), 0);
    let summary = Summary {
        first: true,
        routes: vec![Route {
            address: address("far"),
            cost: 4,
            sealed: Vec::new(),
        }],
        ..Summary::default()
    };
    let outcome = topology.handle(
        Event::Heard {
            link: LinkId(1),
            message: Message::Summary(summary),
        },
        0,
    );
    assert!(outcome.wake.is_empty(), "nothing to tell the other uplink");
    assert_eq!(topology.table().ways(&address("far"))[0].cost, 5);
    let arrival = Arrival {
        link: LinkId(2),
        to: None,
        hops_left: 9,
    };
    let onward = |name: &str| decide_onward(&topology.table(), "r00000", &address(name), &arrival, idle);
    assert_eq!(onward("far"), Decision::NoRoute);
    assert_eq!(onward("own"), Decision::Local("t0".into()));
}

#[test]
fn an_edge_offers_only_what_it_may_and_speaks_only_for_itself() {
    let mut topology = Topology::new(1, 0);
    topology.handle(Event::Local(local(0, false, &[])), 0);
    let filter = Filter {
        offer: Scope::only(["mine"]),
        reach: Scope::Any,
    };
    topology.handle(up(1, LinkKind::Attached, 1, filter), 0);
    let outcome = topology.handle(says(1, &["mine", "yours"]), 0);
    assert_eq!(outcome.refused, [(LinkId(1), address("yours"))]);
    assert!(topology.table().reaches(&address("mine")));
    assert!(!topology.table().reaches(&address("yours")));
    let sites = topology.sites();
    let peer = local(101, true, &[]).site;
    assert_eq!(sites[1].site, peer, "not whom it said that it is");
    assert_eq!(sites[1].services.len(), 1);

    let filter = Filter {
        offer: Scope::only(["yours"]),
        reach: Scope::Any,
    };
    topology.handle(
        Event::LinkFilter {
            link: LinkId(1),
            filter,
        },
        0,
    );
    assert!(topology.table().reaches(&address("yours")));
    assert!(!topology.table().reaches(&address("mine")));
    // Records are no edge's business.
    let record = Record {
        origin: router(0),
        epoch: 9,
        sequence: 9,
        mark: 0,
        part: CORE,
        body: Body::Router {
            neighbours: Vec::new(),
            has: Arc::default(),
        },
    };
    let message = Message::Records(vec![Flooded {
        record: Arc::new(record),
        age: 0,
    }]);
    let outcome = topology.handle(
        Event::Heard {
            link: LinkId(1),
            message,
        },
        0,
    );
    assert!(outcome.table.is_none() && outcome.wake.is_empty());
}

/// What a network of interior routers in a line, with an edge at each end, has come to.
fn line(length: usize, filter: Filter) -> Network {
    let mut network = Network::new(1, WIRES);
    for _ in 0..length {
        network.add(false, &[]);
    }
    for n in 1..length {
        network.link(n - 1, n, Kind::Interior, 2, Filter::default());
    }
    for end in [0, length - 1] {
        let edge = network.add(true, &[address(&format!("at-{end}"))]);
        network.link(edge, end, Kind::Edge, 1, filter.clone());
    }
    network.run_until(3_000);
    network
}

fn cost(network: &Network, node: usize, name: &str) -> Option<u32> {
    let table = network.nodes[node].topology.table();
    table.ways(&address(name)).first().map(|hop| hop.cost)
}

#[test]
fn an_edge_reaches_the_other_end_of_a_line_and_is_told_when_it_is_gone() {
    let mut network = line(4, Filter::default());
    assert_eq!(cost(&network, 4, "at-3"), Some(1 + 6 + 1));
    assert_eq!(cost(&network, 5, "at-0"), Some(8));
    assert_eq!(
        network.nodes[4].topology.sites().len(),
        2,
        "itself and its uplink's site"
    );
    let (node, link, _) = network.links()[1];
    network.unlink(node, link);
    network.run_until(4_000);
    assert_eq!(cost(&network, 4, "at-3"), None);
}

#[test]
fn an_edge_is_told_only_what_it_may_reach() {
    let filter = Filter {
        offer: Scope::Any,
        reach: Scope::only(["at-0"]),
    };
    let network = line(3, filter);
    assert_eq!(cost(&network, 3, "at-2"), None);
    assert_eq!(cost(&network, 4, "at-0"), Some(6));
}

#[test]
fn a_record_of_our_own_from_elsewhere_is_outdone() {
    let mut network = line(3, Filter::default());
    // An interior peer makes up that router 0 has everything and no neighbours, in a life to come.
    let forged = Record {
        origin: router(0),
        epoch: network.now + 1_000_000,
        sequence: 7,
        mark: 0,
        part: CORE,
        body: Body::Router {
            neighbours: Vec::new(),
            has: Arc::default(),
        },
    };
    let message = Message::Records(vec![Flooded {
        record: Arc::new(forged),
        age: 0,
    }]);
    let (link, ..) = network
        .links()
        .into_iter()
        .find_map(|(node, link, other)| (node == 1 && other == 2).then_some((link, other)))
        .unwrap();
    network.handle(1, Event::Heard { link, message });
    assert_eq!(cost(&network, 1, "at-0"), None, "believed at first");
    network.run_until(network.now + 3_000);
    assert_eq!(cost(&network, 1, "at-0"), Some(3));
    assert_eq!(cost(&network, 4, "at-0"), Some(6));
}

#[test]
fn what_a_peer_floods_is_bounded() {
    let mut topology = Topology::new(1, 0);
    topology.handle(Event::Local(local(0, false, &[])), 0);
    topology.handle(up(1, LinkKind::Interior, 1, Filter::default()), 0);
    let mut dropped = 0;
    for n in 0..3_000usize {
        let record = Record {
            origin: router(n + 10),
            epoch: 1,
            sequence: 1,
            mark: 0,
            part: CORE,
            body: Body::Router {
                neighbours: Vec::new(),
                has: Arc::default(),
            },
        };
        let message = Message::Records(vec![Flooded {
            record: Arc::new(record),
            age: 0,
        }]);
        dropped += topology
            .handle(
                Event::Heard {
                    link: LinkId(1),
                    message,
                },
                0,
            )
            .dropped;
    }
    assert_eq!(topology.size().0, 1024);
    assert_eq!(dropped, 3_000 - 1023);
    let distant: Address = address("x");
    assert!(!topology.table().reaches(&distant));
    // Who is not heard of again is forgotten.
    for minute in 1..60 {
        topology.tick(minute * 60_000);
    }
    assert_eq!(topology.size().0, 1);
}

#[test]
fn a_service_is_defined_elsewhere_while_its_site_can_be_reached() {
    let mut topology = Topology::new(1, 0);
    topology.handle(Event::Local(local(0, false, &[])), 0);
    topology.handle(up(1, LinkKind::Attached, 1, Filter::default()), 0);
    let site = karez_topology::Site {
        edge: true,
        ..local(1, true, &[]).site
    };
    let said = karez_topology::Announcement {
        site: site.clone(),
        services: vec![karez_topology::Service {
            address: "otel".into(),
            ..karez_topology::Service::default()
        }],
        ..karez_topology::Announcement::default()
    };
    let heard = Event::Heard {
        link: LinkId(1),
        message: Message::Announce(Arc::new(said)),
    };
    topology.handle(heard, 0);
    let its_site = &topology.sites()[1].site.id;
    assert!(topology.is_defined_elsewhere("somebody", "otel"));
    assert!(!topology.is_defined_elsewhere(its_site, "otel"));
    assert!(!topology.is_defined_elsewhere("somebody", "else"));
    topology.handle(Event::LinkDown(LinkId(1)), 0);
    assert!(!topology.is_defined_elsewhere("somebody", "otel"));
}
