//! Gives memory back to the system after many connections, or links, have ended.
//!
//! The system's allocator keeps what was freed between things that still live: after ten thousand connections it held a
//! quarter of a gigabyte for a router that carried nothing any more. It gives whole pages back when it is asked to,
//! which takes some milliseconds; so it is asked once the connections have fallen by half and their number stands still.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::shared::Shared;

/// How often the number of connections is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Fewer connections than these leave nothing that is worth it.
const MANY_CONNECTIONS: usize = 256;
/// Nor fewer links, which take several times as much each.
const MANY_LINKS: usize = 64;
/// How many looks after an ebb memory is given back: at once, and again when transports have let go of streams whose last
/// bytes the peer had still to confirm.
const AFTER: [u32; 3] = [0, 3, 15];

/// Watches how many connections are carried and how many links are up, for as long as the router runs.
pub(crate) async fn give_back(shared: Arc<Shared>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = Ebb::new(MANY_CONNECTIONS);
    let mut links = Ebb::new(MANY_LINKS);
    let mut since = u32::MAX;
    loop {
        look.tick().await;
        since = since.saturating_add(1);
        let fewer_connections = connections.look(shared.carried.len());
        let fewer_links = links.look(shared.view().links.len());
        if fewer_connections || fewer_links {
            since = 0;
        }
        if AFTER.contains(&since) {
            // Its only failure is that the runtime stops.
            let _ = tokio::task::spawn_blocking(trim).await;
        }
    }
}

/// Says when something has become much rarer.
#[derive(Debug)]
struct Ebb {
    /// A fall by less is none.
    many: usize,
    most: usize,
    before: usize,
}

impl Ebb {
    fn new(many: usize) -> Self {
        Self {
            many,
            most: 0,
            before: 0,
        }
    }

    /// So many are there now; whether they became much fewer since the last time that this said so, and still are.
    fn look(&mut self, now: usize) -> bool {
        let stands = now.abs_diff(self.before) <= now / 16;
        self.before = now;
        self.most = self.most.max(now);
        let fell = self.most >= now + self.many && self.most / 2 >= now;
        if fell && stands {
            self.most = now;
        }
        fell && stands
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it may be called at any time from any thread. There is no safe interface; what it gives back is measured by
    // the benchmark of routers.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_each_ebb() {
        let mut ebb = Ebb::new(MANY_CONNECTIONS);
        let seen = [
            0, 9_000, 10_000, 6_000, 1_000, 10, 0, 0, 0, 100, 0, 0, 400, 390, 0, 0,
        ];
        let given: Vec<usize> = seen
            .into_iter()
            .enumerate()
            .filter_map(|(at, now)| ebb.look(now).then_some(at))
            .collect();
        assert_eq!(given, [7, 15]);
    }
}
