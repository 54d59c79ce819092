//! Faults, chosen by a seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::collector::Collector;
use super::link::Link;
use super::sink::{Mode, Sink};
use crate::support::Outcome;

/// Numbers that a seed decides (xorshift).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

pub(super) struct Faults {
    random: Random,
    sink: Sink,
    link: Link,
    counted: BTreeMap<&'static str, u32>,
}

impl Faults {
    pub(super) fn new(random: Random, sink: &Sink, link: &Link) -> Self {
        Faults {
            random,
            sink: sink.clone(),
            link: link.clone(),
            counted: BTreeMap::new(),
        }
    }

    /// One fault, for a while, and a moment of peace, watching the memory.
    pub(super) fn next(&mut self, collector: &mut Collector, memory: &mut u64) -> Outcome {
        let lasts = self.random.millis(200, 1800);
        let kind = self.random.below(10);
        let name = match kind {
            0 => self.backend(Mode::Down, "backend down"),
            1 => self.backend(Mode::Slow, "backend slow"),
            2 => self.backend(Mode::Refusing, "backend refusing"),
            3 => self.backend(Mode::Forgetful, "backend without an answer"),
            4 => {
                self.link.cut();
                "link cut"
            }
            5 if collector.fill_disk()? => "disk full",
            // Up to an hour ahead or back.
            6 if collector.move_clock(self.random.below(7200) as i64 - 3600)? => "clock moved",
            // Killed twice as often as anything else happens.
            _ => {
                let pause = self.random.millis(0, 300);
                collector.kill()?;
                std::thread::sleep(pause);
                collector.start()?;
                "collector killed"
            }
        };
        *self.counted.entry(name).or_default() += 1;
        // Faults may meet: half of the time the collector is also killed in the middle of another.
        let meets = kind < 7 && self.random.below(2) == 0;
        watch(collector, memory, lasts / 2)?;
        if meets {
            collector.kill()?;
            collector.start()?;
            *self.counted.entry("collector killed").or_default() += 1;
        }
        watch(collector, memory, lasts / 2)?;
        self.mend(collector)?;
        let peace = self.random.millis(100, 900);
        watch(collector, memory, peace)
    }

    fn backend(&self, mode: Mode, name: &'static str) -> &'static str {
        self.sink.set(mode);
        name
    }

    /// All is well again.
    pub(super) fn mend(&mut self, collector: &mut Collector) -> Outcome {
        self.sink.set(Mode::Up);
        let forget = self.random.below(2) == 0;
        self.link.restore(forget);
        collector.move_clock(0)?;
        collector.empty_disk()
    }

    pub(super) fn summary(&self) -> String {
        let counted = self.counted.iter().map(|(name, count)| format!("{name} {count}"));
        counted.collect::<Vec<_>>().join(", ")
    }
}

/// Looks at the collector's memory and at its ledger, which balances at any time.
fn watch(collector: &Collector, memory: &mut u64, lasts: Duration) -> Outcome {
    let end = Instant::now() + lasts;
    loop {
        *memory = (*memory).max(collector.memory()?);
        for line in collector.ledger()? {
            anyhow::ensure!(line.balanced, "the ledger does not balance: {line:?}");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}
