//! What each container of a Pod does now: written by the containers' runners, read by the Pod's worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::status::Observed;
use crate::observe::{Changes, Signal};

/// The board of one Pod. Clones share it.
#[derive(Clone)]
pub(crate) struct Board {
    containers: Arc<Mutex<BTreeMap<String, Observed>>>,
    signal: Signal,
}

impl Board {
    pub(crate) fn new(containers: BTreeMap<String, Observed>) -> Self {
        Self {
            containers: Arc::new(Mutex::new(containers)),
            signal: Signal::new(),
        }
    }

    /// Changes what a container does; rings when that is a difference.
    pub(crate) fn change(&self, container: &str, change: impl FnOnce(&mut Observed)) {
        let mut containers = self.lock();
        let Some(observed) = containers.get_mut(container) else {
            return;
        };
        let before = observed.clone();
        change(observed);
        let differs = *observed != before;
        drop(containers);
        if differs {
            self.signal.ring();
        }
    }

    /// What all containers do.
    pub(crate) fn containers(&self) -> BTreeMap<String, Observed> {
        self.lock().clone()
    }

    /// Wakes whoever listens, for a change that is not a container's.
    pub(crate) fn ring(&self) {
        self.signal.ring();
    }

    /// A listener to every change.
    pub(crate) fn listen(&self) -> Changes {
        self.signal.listen()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Observed>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
