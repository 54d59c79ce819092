//! What holds after any sequence of events.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use karez_topology::{
    Address, Announcement, Decision, Event, LinkId, Load, Local, NextHop, Route, Service, Site, Topology,
    decide,
};
use proptest::prelude::*;

fn address(n: u8) -> Address {
    Address {
        name: format!("a{n}"),
        port: 80,
    }
}

fn site(n: u64) -> Site {
    Site {
        id: format!("s{n}"),
        name: format!("site{n}"),
        ..Site::default()
    }
}

fn local(targets: &[u8]) -> Event {
    let targets = targets
        .iter()
        .enumerate()
        .map(|(i, n)| (format!("t{i}").into(), address(*n)))
        .collect();
    let services = vec![Service {
        address: "a1".into(),
        ..Service::default()
    }];
    Event::Local(Local {
        site: site(0),
        services,
        targets,
    })
}

fn up(link: u64, cost: u32) -> Event {
    Event::LinkUp {
        link: LinkId(link),
        cost,
        outgoing: link.is_multiple_of(2),
        peer: site(link),
    }
}

fn announced(link: u64, addresses: &[u8]) -> Event {
    let routes = addresses
        .iter()
        .map(|n| Route {
            address: address(*n),
            cost: 0,
        })
        .collect();
    let announcement = Announcement {
        site: site(link),
        routes,
        ..Announcement::default()
    };
    Event::Announced {
        link: LinkId(link),
        announcement,
    }
}

fn event() -> impl Strategy<Value = Event> {
    let addresses = || proptest::collection::vec(0u8..4, 0..5);
    prop_oneof![
        addresses().prop_map(|list| local(&list)),
        (1u64..5, 1u32..5).prop_map(|(link, cost)| up(link, cost)),
        (1u64..5, 1u32..5).prop_map(|(link, cost)| Event::LinkCost {
            link: LinkId(link),
            cost
        }),
        (1u64..5).prop_map(|link| Event::LinkDown(LinkId(link))),
        (1u64..5, addresses()).prop_map(|(link, list)| announced(link, &list)),
    ]
}

fn idle(_: &NextHop) -> Load {
    Load::default()
}

#[test]
fn an_announced_service_is_reached_and_a_withdrawn_one_is_not() {
    let mut topology = Topology::default();
    topology.handle(local(&[]));
    assert_eq!(
        topology.handle(up(1, 1)).send.len(),
        1,
        "a new link is told at once"
    );
    topology.handle(announced(1, &[2]));
    assert_eq!(
        decide(&topology.table(), &address(2), 1, idle),
        Decision::Link(LinkId(1))
    );
    assert_eq!(
        decide(&topology.table(), &address(2), 0, idle),
        Decision::NoRoute,
        "no transit"
    );
    topology.handle(announced(1, &[]));
    assert_eq!(decide(&topology.table(), &address(2), 1, idle), Decision::NoRoute);
}

#[test]
fn local_targets_come_first_and_then_the_least_loaded() {
    let mut topology = Topology::default();
    topology.handle(local(&[1, 1]));
    topology.handle(up(1, 1));
    topology.handle(announced(1, &[1]));
    let busy = |next: &NextHop| match next {
        NextHop::Local(target) if **target == *"t0" => Load {
            open: 3,
            ..Load::default()
        },
        _ => Load {
            open: 2,
            ..Load::default()
        },
    };
    assert_eq!(
        decide(&topology.table(), &address(1), 1, busy),
        Decision::Local("t1".into())
    );
    let failed = |next: &NextHop| Load {
        open: 0,
        set_aside: matches!(next, NextHop::Local(_)),
        ..Load::default()
    };
    assert_eq!(
        decide(&topology.table(), &address(1), 1, failed),
        Decision::Link(LinkId(1))
    );
    let all = |_: &NextHop| Load {
        set_aside: true,
        ..Load::default()
    };
    assert_eq!(
        decide(&topology.table(), &address(1), 1, all),
        Decision::Local("t0".into())
    );
}

#[test]
fn a_saturated_target_gives_way_to_a_dearer_one_but_not_to_one_that_failed() {
    let mut topology = Topology::default();
    topology.handle(local(&[1]));
    topology.handle(up(1, 5));
    topology.handle(announced(1, &[1]));
    let full = |next: &NextHop| Load {
        saturated: matches!(next, NextHop::Local(_)),
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address(1), 1, full);
    assert_eq!(decided, Decision::Link(LinkId(1)));
    let failed = |next: &NextHop| Load {
        saturated: matches!(next, NextHop::Local(_)),
        set_aside: matches!(next, NextHop::Link(_)),
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address(1), 1, failed);
    assert_eq!(decided, Decision::Local("t0".into()));
    let all = |_: &NextHop| Load {
        saturated: true,
        ..Load::default()
    };
    let decided = decide(&topology.table(), &address(1), 1, all);
    assert_eq!(
        decided,
        Decision::Local("t0".into()),
        "the cheapest, when all are full"
    );
}

#[test]
fn says_something_only_when_it_changed() {
    let mut topology = Topology::default();
    topology.handle(local(&[1]));
    topology.handle(up(1, 1));
    topology.handle(up(3, 1));
    assert!(topology.handle(local(&[1])).send.is_empty());
    assert_eq!(topology.handle(local(&[1, 2])).send.len(), 2);
    let outcome = topology.handle(up(2, 1));
    assert_eq!(outcome.send.len(), 3, "all learn of a link that we made");
    assert_eq!(outcome.send[0].1.links, ["s2"]);
    assert!(
        topology.handle(announced(1, &[3])).send.is_empty(),
        "others' routes are not passed on"
    );
}

proptest! {
    #[test]
    fn the_table_follows_from_the_state_alone(events in proptest::collection::vec(event(), 0..40)) {
        let mut topology = Topology::default();
        let mut targets: Vec<Address> = Vec::new();
        let mut links: BTreeMap<LinkId, (u32, Vec<Address>)> = BTreeMap::new();
        for event in events {
            match &event {
                Event::Local(local) => targets = local.targets.values().cloned().collect(),
                Event::LinkUp { link, cost, .. } => drop(links.insert(*link, (*cost, Vec::new()))),
                Event::LinkCost { link, cost } => if let Some(entry) = links.get_mut(link) { entry.0 = *cost },
                Event::LinkDown(link) => drop(links.remove(link)),
                Event::Announced { link, announcement } => if let Some(entry) = links.get_mut(link) {
                    entry.1 = announcement.routes.iter().map(|route| route.address.clone()).collect();
                },
            }
            topology.handle(event);
        }
        let table = topology.table();
        for n in 0..4 {
            let address = address(n);
            let here = targets.iter().filter(|target| **target == address).count();
            let over: Vec<_> = links.iter().filter(|(_, (_, list))| list.contains(&address)).collect();
            prop_assert_eq!(table.ways(&address).len(), here + over.len());
            match decide(&table, &address, 1, idle) {
                Decision::Local(_) => prop_assert!(here > 0),
                Decision::Link(link) => {
                    prop_assert_eq!(here, 0);
                    let cheapest = over.iter().map(|(_, (cost, _))| *cost).min();
                    prop_assert_eq!(Some(links[&link].0), cheapest);
                }
                Decision::NoRoute => prop_assert_eq!(here + over.len(), 0),
            }
        }
    }

    #[test]
    fn every_link_has_heard_the_latest(events in proptest::collection::vec(event(), 0..40)) {
        let mut topology = Topology::default();
        let mut told: BTreeMap<LinkId, Announcement> = BTreeMap::new();
        for event in events {
            match &event {
                Event::LinkUp { link, .. } | Event::LinkDown(link) => drop(told.remove(link)),
                _ => {}
            }
            for (link, announcement) in topology.handle(event).send {
                told.insert(link, (*announcement).clone());
            }
        }
        for announcement in told.values() {
            prop_assert_eq!(announcement, &*topology.announcement());
        }
    }
}
