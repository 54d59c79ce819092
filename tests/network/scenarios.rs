//! Which networks, and what must hold in each.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use libtest_mimic::{Failed, Trial};

use crate::relay::Conditions;
use crate::table::{self, carried, seconds};
use crate::traffic;
use crate::world::{DEADLINE, World, takes};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Whatever the network is like, this much time is enough for what these tests carry.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a link is made.
#[derive(Clone, Copy)]
struct Transport {
    name: &'static str,
    /// What stands in the link's document.
    keys: &'static str,
}

const QUIC: Transport = Transport {
    name: "quic",
    keys: ", transport: quic",
};
const TLS: Transport = Transport {
    name: "tls",
    keys: ", transport: tls",
};
/// Whatever the router chooses.
const ANY: Transport = Transport {
    name: "any",
    keys: ", transport: auto",
};
/// A link is back this soon after the network is. Machines that run tests may be slow: it must hold in the long set only.
const BACK: Duration = Duration::from_secs(2);

type Check = fn(&str, Transport) -> anyhow::Result<()>;

/// All tests; each is ignored for the reason, if there is one.
pub(crate) fn trials(ignored: Option<String>) -> Vec<Trial> {
    // A version without a choice of transports has QUIC only.
    let choice = ignored.is_none() && takes(TLS.keys).unwrap_or(false);
    let quic = if choice {
        QUIC
    } else {
        Transport { keys: "", ..QUIC }
    };
    let mut trials = Vec::new();
    let mut add = |name: &'static str, transport: Transport, check: Check| {
        let ignored = ignored.clone();
        let title = format!("{} ({})", name, transport.name);
        trials.push(Trial::ignorable_test(title, move || {
            if let Some(reason) = ignored {
                return Ok(libtest_mimic::Completion::ignored_with(reason));
            }
            match check(name, transport) {
                Ok(()) => Ok(libtest_mimic::Completion::Completed),
                Err(error) => Err(Failed::from(format!("{error:#}"))),
            }
        }));
    };
    for (name, check) in EACH {
        add(name, quic, *check);
        if choice {
            add(name, TLS, *check);
        }
    }
    add("silently 1,280 bytes at most", quic, silent_mtu);
    add("TCP dropped", quic, no_tcp);
    add("the edge's address changes", quic, move_quic);
    if choice {
        add("the edge's address changes", TLS, move_any);
        add("the edge's address changes", ANY, move_any);
        add("UDP dropped from the start", ANY, no_udp_ever);
        add("UDP dropped while linked", ANY, no_udp);
        add("TCP dropped from the start", ANY, no_tcp_ever);
        add("TCP dropped", ANY, no_tcp);
        add("outages, one after the other", ANY, outages);
        add("100 flaps a minute", ANY, flaps);
    }
    trials
}

/// What is tried over every transport.
const EACH: &[(&str, Check)] = &[
    ("clean", clean),
    ("10 % loss each way, 20 % in the long set", loss),
    ("300 ms round trip", far_away),
    ("a third reordered, a tenth doubled", disorder),
    ("2 Mbit/s, 50 ms round trip", narrow),
    ("the MTU falls to 1,280", small_packets),
    ("100 flaps a minute", flaps),
    ("outage of 1 s", |name, transport| outage(name, transport, 1)),
    ("outage of 12 s", |name, transport| outage(name, transport, 12)),
    ("outages, one after the other", outages),
    ("longer outage", |name, transport| {
        outage(name, transport, if full() { 300 } else { 16 })
    }),
    ("the far router is killed and started", restart),
];

/// Whether the long set runs.
fn full() -> bool {
    std::env::var("KAREZ_NETWORK").is_ok_and(|value| value == "full")
}

/// Some bytes, more in the long set.
fn size(short: usize, long: usize) -> usize {
    if full() { long } else { short }
}

fn carry_and_tell(name: &str, transport: Transport, world: &World, bytes: usize) -> anyhow::Result<()> {
    let took = world.carry(bytes, PATIENCE)?;
    table::add(name, transport.name, carried(bytes, took));
    Ok(())
}

fn clean(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    carry_and_tell(name, transport, &world, size(8 * MIB, 256 * MIB))
}

fn loss(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    // At 20 % each way a link that is lucky everywhere else may be silent for so long that it is given up.
    world
        .relay
        .change(|conditions| conditions.loss = if full() { 20.0 } else { 10.0 });
    carry_and_tell(name, transport, &world, size(64 * KIB, MIB))
}

fn far_away(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::new(transport.keys, |relay| {
        relay.change(|conditions| conditions.delay = Duration::from_millis(150));
    })?;
    let linked = world.carries()?;
    let bytes = size(2 * MIB, 64 * MIB);
    let took = world.carry(bytes, PATIENCE)?;
    let what = format!(
        "{}, linked {} after the start",
        carried(bytes, took),
        seconds(linked)
    );
    table::add(name, transport.name, what);
    Ok(())
}

fn disorder(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    world.relay.change(|conditions| {
        conditions.reordered = 33.0;
        conditions.duplicated = 10.0;
    });
    carry_and_tell(name, transport, &world, size(MIB, 32 * MIB))
}

fn narrow(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    world.relay.change(|conditions| {
        conditions.rate = Some(2e6);
        conditions.delay = Duration::from_millis(25);
    });
    carry_and_tell(name, transport, &world, size(512 * KIB, 8 * MIB))
}

fn small_packets(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    world.shrink(1280)?;
    carry_and_tell(name, transport, &world, size(MIB, 32 * MIB))
}

/// Larger packets vanish and nobody says so: the link must find out.
fn silent_mtu(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::new(transport.keys, |relay| {
        relay.change(|conditions| conditions.largest = 1280)
    })?;
    world.carries()?;
    carry_and_tell(name, transport, &world, size(MIB, 32 * MIB))
}

/// Down 300 ms, up 300 ms.
fn flaps(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    let ends = Instant::now() + Duration::from_secs(if full() { 60 } else { 6 });
    let mut open = traffic::open(world.entrance, DEADLINE)?;
    let mut answered = 0;
    let mut asked = 0;
    while Instant::now() < ends {
        world.relay.change(|conditions| conditions.down = true);
        thread::sleep(Duration::from_millis(300));
        world.relay.change(|conditions| conditions.down = false);
        let up = Instant::now();
        asked += 1;
        answered += u32::from(traffic::open(world.entrance, Duration::from_millis(300)).is_ok());
        thread::sleep(Duration::from_millis(300).saturating_sub(up.elapsed()));
    }
    let back = world.carries()?;
    let kept = traffic::echoes(&mut open, PATIENCE).is_ok();
    let what = format!(
        "{answered} of {asked} new connections carried meanwhile, open one {}; back after {}",
        survived(kept),
        seconds(back)
    );
    table::add(name, transport.name, what);
    carry_exactly(&world)
}

/// Nothing passes for a while; a new connection must be carried soon after.
fn outage(name: &str, transport: Transport, lasts: u64) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    let mut open = traffic::open(world.entrance, DEADLINE)?;
    world.relay.change(|conditions| conditions.down = true);
    thread::sleep(Duration::from_secs(lasts));
    world.relay.change(|conditions| conditions.down = false);
    let back = soon(&world)?;
    let kept = traffic::echoes(&mut open, Duration::from_secs(3)).is_ok();
    let what = format!(
        "{lasts} s: back after {}, open connection {}",
        seconds(back),
        survived(kept)
    );
    table::add(name, transport.name, what);
    carry_exactly(&world)
}

/// Of lengths that end in any state of a link that is lost and made anew.
fn outages(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    let (lengths, step) = if full() { (32, 450) } else { (4, 1350) };
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for number in 1..=lengths {
        let lasts = Duration::from_millis(700 + number * step);
        world.relay.change(|conditions| conditions.down = true);
        thread::sleep(lasts);
        world.relay.change(|conditions| conditions.down = false);
        let back = soon(&world)?;
        slowest = slowest.max((back, lasts));
    }
    let (back, lasts) = slowest;
    let what = format!(
        "{lengths} outages of up to {}: back after {} at most, which was after one of {}",
        seconds(Duration::from_millis(700 + lengths * step)),
        seconds(back),
        seconds(lasts)
    );
    table::add(name, transport.name, what);
    carry_exactly(&world)
}

/// How long it takes until a new connection is carried; in the long set it must be soon.
fn soon(world: &World) -> anyhow::Result<Duration> {
    let back = world.carries()?;
    ensure!(!full() || back <= BACK, "back only after {}", seconds(back));
    Ok(back)
}

fn restart(name: &str, transport: Transport) -> anyhow::Result<()> {
    let mut world = World::linked(transport.keys)?;
    world.kill_far();
    world.start_far()?;
    let back = world.carries()?;
    table::add(name, transport.name, format!("back after {}", seconds(back)));
    carry_exactly(&world)
}

/// QUIC carries open connections over to the new address.
fn move_quic(name: &str, transport: Transport) -> anyhow::Result<()> {
    ensure!(
        moved(name, transport)?,
        "the open connection did not survive the change"
    );
    Ok(())
}

fn move_any(name: &str, transport: Transport) -> anyhow::Result<()> {
    moved(name, transport).map(drop)
}

/// Whether an open connection survived that the edge's address changed.
fn moved(name: &str, transport: Transport) -> anyhow::Result<bool> {
    let world = World::linked(transport.keys)?;
    let mut open = traffic::open(world.entrance, DEADLINE)?;
    world.move_near()?;
    let back = world.carries()?;
    let kept = traffic::echoes(&mut open, Duration::from_secs(10)).is_ok();
    let what = format!("back after {}, open connection {}", seconds(back), survived(kept));
    table::add(name, transport.name, what);
    carry_exactly(&world)?;
    Ok(kept)
}

fn no_tcp(name: &str, transport: Transport) -> anyhow::Result<()> {
    let world = World::linked(transport.keys)?;
    world.relay.change(|conditions| conditions.no_tcp = true);
    let back = world.carries()?;
    table::add(name, transport.name, format!("carries after {}", seconds(back)));
    carry_exactly(&world)
}

/// The link is made over TCP, soon.
fn no_udp_ever(name: &str, transport: Transport) -> anyhow::Result<()> {
    from_the_start(name, transport, |conditions| conditions.no_udp = true)
}

fn no_tcp_ever(name: &str, transport: Transport) -> anyhow::Result<()> {
    from_the_start(name, transport, |conditions| conditions.no_tcp = true)
}

fn from_the_start(
    name: &str,
    transport: Transport,
    change: impl FnOnce(&mut Conditions),
) -> anyhow::Result<()> {
    let world = World::new(transport.keys, |relay| relay.change(change))?;
    let linked = world.carries()?;
    let bytes = size(256 * KIB, 64 * MIB);
    let took = world.carry(bytes, PATIENCE)?;
    let what = format!(
        "linked {} after the start, {}",
        seconds(linked),
        carried(bytes, took)
    );
    table::add(name, transport.name, what);
    Ok(())
}

/// A firewall that is set up under a link over QUIC: the link moves to TCP, and stays there when UDP comes and goes.
fn no_udp(name: &str, transport: Transport) -> anyhow::Result<()> {
    // So that it is QUIC's.
    let world = World::new(transport.keys, |relay| {
        relay.change(|conditions| conditions.no_tcp = true)
    })?;
    world.carries()?;
    world.relay.change(|conditions| {
        conditions.no_tcp = false;
        conditions.no_udp = true;
    });
    let back = world.carries()?;
    table::add(name, transport.name, format!("carries after {}", seconds(back)));
    carry_exactly(&world)?;
    world.relay.change(|conditions| conditions.no_udp = false);
    carry_exactly(&world)
}

fn carry_exactly(world: &World) -> anyhow::Result<()> {
    world.carry(256 * KIB, PATIENCE).map(drop)
}

fn survived(kept: bool) -> &'static str {
    if kept { "survived" } else { "was reset" }
}
