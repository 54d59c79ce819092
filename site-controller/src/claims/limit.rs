//! How often somebody may be wrong: a failure in, yes or no for the next try out. No clock inside.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Failures in one window before further tries are refused unseen.
const FAILURES: u32 = 10;
/// The window.
const WINDOW: Duration = Duration::from_secs(60);
/// Keys remembered; when all of them failed lately, a new one is refused like a known one.
const KEYS: usize = 4096;

/// Counts failures by key.
#[derive(Debug)]
pub(crate) struct Limit<K> {
    failed: HashMap<K, (Instant, u32)>,
}

impl<K: Eq + Hash> Default for Limit<K> {
    fn default() -> Self {
        Self {
            failed: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Limit<K> {
    /// Whether a try of this key is to be looked at.
    pub(crate) fn allows(&mut self, key: &K, now: Instant) -> bool {
        match self.failed.get(key) {
            Some((since, failures)) if now.duration_since(*since) < WINDOW => *failures < FAILURES,
            Some(_) => true,
            None => self.has_room(now),
        }
    }

    /// A try of this key was wrong.
    pub(crate) fn failed(&mut self, key: K, now: Instant) {
        if !self.failed.contains_key(&key) && !self.has_room(now) {
            return;
        }
        let entry = self.failed.entry(key).or_insert((now, 0));
        if now.duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.failed.len() >= KEYS {
            self.failed
                .retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        self.failed.len() < KEYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_wrong_try_in_a_minute_is_not_looked_at() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for _ in 0..FAILURES {
            assert!(limit.allows(&"a", start));
            limit.failed("a", start);
        }
        assert!(!limit.allows(&"a", start));
        assert!(limit.allows(&"b", start), "others are not affected");
        assert!(limit.allows(&"a", start + WINDOW), "it is forgotten");
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for key in 0..2 * KEYS {
            limit.failed(key, start);
        }
        assert_eq!(limit.failed.len(), KEYS);
        assert!(!limit.allows(&(3 * KEYS), start));
        assert!(limit.allows(&(3 * KEYS), start + WINDOW));
    }
}
