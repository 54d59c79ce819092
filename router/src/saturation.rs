//! What is remembered of addresses whose targets at the other end of a link have all the connections that they should have.
//!
//! The peer says so when a connection comes that should rather go elsewhere. For a moment after that others are taken
//! first; then one connection asks again.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use karez_topology::{Address, NextHop};

/// For how long the peer is not asked again.
const HOLDS: Duration = Duration::from_secs(1);
/// More addresses than this are not remembered.
const ENTRIES: usize = 4096;

/// Ways over one link that are saturated.
pub(crate) struct Saturation {
    began: Instant,
    /// When the last of them ends, in milliseconds since it began: almost always there is nothing to look up.
    last: AtomicU64,
    until: RwLock<HashMap<(NextHop, Address), Instant>>,
}

impl Default for Saturation {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            until: RwLock::default(),
        }
    }
}

impl Saturation {
    /// Remembers it.
    pub(crate) fn note(&self, next: &NextHop, address: &Address) {
        let now = Instant::now();
        let mut until = self.until.write().expect("nothing panics while it is held");
        until.retain(|_, end| *end > now);
        if until.len() < ENTRIES {
            until.insert((next.clone(), address.clone()), now + HOLDS);
        }
        self.last.store(self.passed(now + HOLDS), Ordering::Relaxed);
    }

    /// Whether the peer said so a moment ago.
    pub(crate) fn holds(&self, next: &NextHop, address: &Address) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        if last == 0 {
            return false;
        }
        let now = Instant::now();
        if self.passed(now) > last {
            return false;
        }
        let until = self.until.read().expect("nothing panics while it is held");
        until
            .get(&(next.clone(), address.clone()))
            .is_some_and(|end| *end > now)
    }

    fn passed(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(name: &str) -> Address {
        Address {
            name: name.into(),
            port: 1,
        }
    }

    #[test]
    fn holds_for_the_way_and_the_address_that_it_was_said_of() {
        let saturation = Saturation::default();
        let (one, two) = (NextHop::Local("a".into()), NextHop::Local("b".into()));
        assert!(!saturation.holds(&one, &address("x")));
        saturation.note(&one, &address("x"));
        assert!(saturation.holds(&one, &address("x")));
        assert!(!saturation.holds(&two, &address("x")));
        assert!(!saturation.holds(&one, &address("y")));
    }
}
