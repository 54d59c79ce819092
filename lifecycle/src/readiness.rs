//! Readiness as guards: whoever is still starting holds one; when the last is dropped, the program is ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a program still waits for before it is ready. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    names: BTreeMap<u64, String>,
}

/// Keeps a program from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "the guard holds readiness back only while it lives"]
pub struct ReadyGuard {
    id: u64,
    readiness: Readiness,
}

impl Readiness {
    /// One that nobody holds back: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds readiness back until the guard is dropped; `name` says what is waited for.
    pub fn hold(&self, name: impl Into<String>) -> ReadyGuard {
        let mut held = self.lock();
        let id = held.next;
        held.next += 1;
        held.names.insert(id, name.into());
        ReadyGuard {
            id,
            readiness: self.clone(),
        }
    }

    /// Whether nobody holds readiness back.
    pub fn is_ready(&self) -> bool {
        self.lock().names.is_empty()
    }

    /// What is still waited for, in the order in which it was asked for.
    pub fn pending(&self) -> Vec<String> {
        self.lock().names.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadyGuard {
    fn drop(&mut self) {
        let mut held = self.readiness.lock();
        let name = held.names.remove(&self.id).unwrap_or_default();
        if held.names.is_empty() {
            tracing::info!(last = name, "ready");
        } else {
            let pending: Vec<&String> = held.names.values().collect();
            tracing::debug!(done = name, ?pending, "not ready yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_guard_dropped_makes_ready() {
        let readiness = Readiness::new();
        let one = readiness.hold("one");
        let two = readiness.hold(String::from("two"));
        drop(one);
        assert_eq!(readiness.pending(), ["two"]);
        assert!(!readiness.is_ready());
        drop(two);
        assert!(readiness.is_ready());
    }
}
