//! `memory_limiter`: refuses new data, retryably, while the process uses more memory than it may.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::processors as config;
use karez_lifecycle::Shutdown;

use crate::batch::Batch;
use crate::component::{ComponentContext, Consume, Consumer, Processor, Refusal, Running, StartError};
use crate::metrics::ProcessorMeter;

/// The processor.
pub struct MemoryLimiter {
    config: config::MemoryLimiter,
}

impl MemoryLimiter {
    /// A processor of this configuration.
    pub fn new(config: &config::MemoryLimiter) -> Self {
        MemoryLimiter {
            config: config.clone(),
        }
    }

    /// The use of memory from which data is refused, in bytes.
    fn soft_limit(&self, total: u64) -> u64 {
        const MIB: u64 = 1 << 20;
        let config = &self.config;
        let limit = match config.limit_mib {
            0 => total / 100 * u64::from(config.limit_percentage),
            mib => u64::from(mib) * MIB,
        };
        let spike = match (config.spike_limit_mib, config.spike_limit_percentage) {
            (0, 0) => limit / 5,
            (0, percentage) => total / 100 * u64::from(percentage),
            (mib, _) => u64::from(mib) * MIB,
        };
        limit.saturating_sub(spike)
    }
}

impl Processor for MemoryLimiter {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let soft = self.soft_limit(total_memory().unwrap_or(u64::MAX));
        let refusing = Arc::new(AtomicBool::new(false));
        let mut running = Running::none();
        let watch = Watch {
            soft,
            key: cx.key.clone(),
            refusing: refusing.clone(),
        };
        running.spawn(watch.run(self.config.check_interval, running.stopping()));
        let meters = Signal::ALL.map(|signal| cx.metrics.processor(&cx.id, signal));
        Ok((
            Consumer::new(Entrance {
                next,
                refusing,
                meters,
            }),
            running,
        ))
    }
}

struct Entrance {
    next: Consumer,
    refusing: Arc<AtomicBool>,
    meters: [ProcessorMeter; 3],
}

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let meter = &self.meters[batch.signal as usize];
            let items = batch.items as u64;
            meter.incoming.inc_by(items);
            if self.refusing.load(Ordering::Relaxed) {
                return Err(Refusal::later("data refused due to high memory usage"));
            }
            self.next.send(batch).await?;
            meter.outgoing.inc_by(items);
            Ok(())
        })
    }
}

struct Watch {
    soft: u64,
    key: String,
    refusing: Arc<AtomicBool>,
}

impl Watch {
    async fn run(self, interval: std::time::Duration, stop: Shutdown) {
        loop {
            if let Some(used) = used_memory() {
                self.look(used);
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.triggered() => return,
            }
        }
    }

    fn look(&self, used: u64) {
        let refuse = used > self.soft;
        if self.refusing.swap(refuse, Ordering::Relaxed) == refuse {
            return;
        }
        let (used_mib, soft_mib) = (used >> 20, self.soft >> 20);
        match refuse {
            true => tracing::warn!(
                component = self.key,
                used_mib,
                soft_mib,
                "memory is short: refusing data"
            ),
            false => tracing::info!(
                component = self.key,
                used_mib,
                soft_mib,
                "memory is back: taking data"
            ),
        }
    }
}

/// What the process has in memory.
fn used_memory() -> Option<u64> {
    kib_line(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What it may have: the container's limit, else the machine's memory.
fn total_memory() -> Option<u64> {
    let machine = kib_line(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let limit = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| {
        std::fs::read_to_string(Path::new(path))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}

fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_limit_less_the_spike() {
        let limiter = |config| MemoryLimiter { config };
        let by_mib = config::MemoryLimiter {
            limit_mib: 100,
            ..config::MemoryLimiter::default()
        };
        assert_eq!(limiter(by_mib).soft_limit(0), 80 << 20);
        let by_share = config::MemoryLimiter {
            limit_percentage: 50,
            spike_limit_percentage: 10,
            ..config::MemoryLimiter::default()
        };
        assert_eq!(limiter(by_share).soft_limit(1000), 400);
    }

    #[test]
    fn memory_can_be_measured_here() {
        assert!(used_memory().unwrap() > 1 << 20);
        assert!(total_memory().unwrap() > used_memory().unwrap());
    }

    #[test]
    fn refuses_above_the_limit_and_takes_below() {
        let refusing = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            soft: 10,
            key: "k".into(),
            refusing: refusing.clone(),
        };
        watch.look(11);
        assert!(refusing.load(Ordering::Relaxed));
        watch.look(10);
        assert!(!refusing.load(Ordering::Relaxed));
    }
}
