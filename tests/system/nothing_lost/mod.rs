//! Nothing that was acknowledged is lost, whatever happens: numbered items go at a steady rate through a real
//! `karez collector` process with a queue on disk, while faults come at random.
//!
//! `KAREZ_NOTHING_LOST_SECONDS` says for how long (20 without it; 3600 for an hour), `KAREZ_SEED` repeats the faults of
//! a run (the seed is printed). `cargo test -p karez --test system -- nothing_lost --nocapture` shows the figures.

mod clock;
mod collector;
mod faults;
mod link;
mod sender;
mod sink;
mod wire;

use std::env;
use std::time::{Duration, Instant};

use anyhow::ensure;
use libtest_mimic::Trial;

use crate::support::Outcome;
use crate::support::stage::Stage;
use crate::support::wait::wait_for;
use crate::trial;
use clock::Clock;
use collector::{Collector, Line};
use faults::{Faults, Random};
use link::Link;
use sender::{Load, STEADY, Sender};
use sink::{Mode, Sink};

/// What the collector may take: what it needs at rest, the queue's 32 MiB of fresh data, what is under way, and slack.
const MEMORY_LIMIT_MIB: u64 = 320;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "nothing_lost::whatever_happens_to_the_collector_its_backend_its_link_its_disk_and_its_clock",
            &[],
            whatever_happens,
        ),
        trial(
            "nothing_lost::corrupted_bytes_cost_what_they_hit_and_the_ledger_says_so",
            &[],
            corrupted_bytes,
        ),
        trial(
            "nothing_lost::far_too_much_is_refused_and_memory_stays_bounded",
            &[],
            too_much,
        ),
    ]
}

fn seconds() -> u64 {
    let given = env::var("KAREZ_NOTHING_LOST_SECONDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let given = env::var("KAREZ_SEED").ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| now.map_or(1, |now| u64::from(now.subsec_nanos())))
}

fn whatever_happens(stage: &Stage) -> Outcome {
    let (seconds, seed) = (seconds(), seed());
    println!("nothing lost: {seconds} s with KAREZ_SEED={seed}");
    let sink = Sink::start()?;
    let link = Link::start(sink.address())?;
    let mut collector = Collector::new(stage, link.address(), "128")?;
    match Clock::new(stage)? {
        Some(clock) => collector.run_by(clock)?,
        None => collector.start()?,
    }
    let sender = Sender::start(collector.receiver(), STEADY);
    let mut faults = Faults::new(Random::new(seed), &sink, &link);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut memory = 0;
    while Instant::now() < end {
        faults.next(&mut collector, &mut memory)?;
    }
    faults.mend(&mut collector)?;
    let sent = sender.stop();
    let lines = settle(&collector, &sink, &sent.acknowledged, 90)?;
    let duplicates = sink.duplicates();
    println!(
        "nothing lost: {} items acknowledged, all arrived; {} of {} arrivals were duplicates; {} refused sends; \
         faults: {}; memory at most {memory} MiB; ledger {lines:?}",
        sent.acknowledged.len(),
        duplicates,
        sink.arrivals(),
        sent.refused,
        faults.summary(),
    );
    ensure!(!sent.acknowledged.is_empty(), "nothing was sent");
    ensure!(memory <= MEMORY_LIMIT_MIB, "{memory} MiB of memory");
    for line in &lines {
        ensure!(line.dropped.is_empty() && line.refused == 0, "lost: {line:?}");
        let acknowledged = sent.acknowledged.len() as u64;
        ensure!(
            line.accepted >= acknowledged,
            "{acknowledged} were acknowledged: {line:?}"
        );
        let arrived = sink.arrivals();
        ensure!(line.delivered <= arrived, "{arrived} arrived: {line:?}");
    }
    collector.stop()
}

/// Waits until all that was acknowledged has arrived and the ledger has nothing queued; every ledger seen balances.
fn settle(collector: &Collector, sink: &Sink, acknowledged: &[u64], seconds: u64) -> Outcome<Vec<Line>> {
    wait_for("all that was acknowledged", seconds, || {
        let missing = sink.missing(acknowledged);
        let lines = collector.ledger()?;
        Ok(
            match (missing.first(), lines.iter().all(|line| line.queued == 0)) {
                (None, true) => Ok(lines),
                (first, _) => Err(format!(
                    "{} of {} have not arrived, the first is {first:?}; ledger {lines:?}",
                    missing.len(),
                    acknowledged.len()
                )),
            },
        )
    })
}

fn corrupted_bytes(stage: &Stage) -> Outcome {
    let sink = Sink::start()?;
    sink.set(Mode::Refusing);
    let mut collector = Collector::new(stage, sink.address(), "16")?;
    collector.start()?;
    let sender = Sender::start(collector.receiver(), STEADY);
    wait_for("some segments", 60, || {
        let segments = collector.segments()?;
        Ok(if segments.len() >= 3 {
            Ok(())
        } else {
            Err(format!("{segments:?}"))
        })
    })?;
    let sent = sender.stop();
    collector.kill()?;
    let segments = collector.segments()?;
    let victim = &segments[1];
    let mut bytes = std::fs::read(victim)?;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0x5a);
    std::fs::write(victim, bytes)?;
    sink.set(Mode::Up);
    collector.start()?;
    let lines = wait_for("an empty queue", 60, || {
        let lines = collector.ledger()?;
        let idle = lines.iter().all(|line| line.queued == 0);
        Ok(if idle && !lines.is_empty() {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        })
    })?;
    let missing = sink.missing(&sent.acknowledged).len() as u64;
    let lost: u64 = lines.iter().flat_map(|line| line.dropped.values()).sum();
    ensure!(missing > 0, "the damage hit nothing");
    ensure!(
        missing == lost,
        "{missing} are missing, the ledger says {lost}: {lines:?}"
    );
    ensure!(
        missing < sent.acknowledged.len() as u64 / 10,
        "{missing} of {}",
        sent.acknowledged.len()
    );
    ensure!(
        collector.quarantined()? == 1,
        "the damaged segment is not set aside"
    );
    collector.stop()
}

fn too_much(stage: &Stage) -> Outcome {
    let sink = Sink::start()?;
    sink.set(Mode::Refusing);
    let mut collector = Collector::new(stage, sink.address(), "16")?;
    collector.start()?;
    // The backend takes nothing meanwhile, and the queue on disk is full within seconds.
    let load = Load {
        rate: 2000,
        batch: 200,
        connections: 32,
    };
    let sender = Sender::start(collector.receiver(), load);
    let end = Instant::now() + Duration::from_secs(seconds().min(60) / 3);
    let mut memory = 0;
    while Instant::now() < end {
        memory = memory.max(collector.memory()?);
        std::thread::sleep(Duration::from_millis(100));
    }
    sink.set(Mode::Up);
    let sent = sender.stop();
    settle(&collector, &sink, &sent.acknowledged, 120)?;
    println!(
        "too much: {} items acknowledged, {} refused sends, memory at most {memory} MiB",
        sent.acknowledged.len(),
        sent.refused
    );
    ensure!(sent.refused > 0, "it was not too much");
    ensure!(memory <= MEMORY_LIMIT_MIB, "{memory} MiB of memory");
    collector.stop()
}
