//! How many connections are carried at once: a bound that the document sets and may change.
//!
//! A client of a listener takes a slot before it is accepted, so that beyond the bound clients wait in the kernel's queue.
//! The same number bounds what each peer may have open over its link; what is beyond that is refused with the reason,
//! since the peer may know another way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bound, and what is left of it.
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    limit: AtomicU32,
}

impl Slots {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(permits(limit))),
            limit: AtomicU32::new(limit),
        }
    }

    /// What the document says now. A lower bound holds as soon as enough connections have ended.
    pub(crate) fn set(&self, limit: u32) {
        let old = self.limit.swap(limit, Ordering::Relaxed);
        if limit >= old {
            return self.free.add_permits(permits(limit - old));
        }
        let free = self.free.clone();
        tokio::spawn(async move {
            // It is never closed.
            if let Ok(taken) = free.acquire_many_owned(old - limit).await {
                taken.forget();
            }
        });
    }

    /// The bound.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// A slot, as soon as one is free.
    pub(crate) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().acquire_owned().await.ok()
    }

    /// A slot, if one is free.
    pub(crate) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }
}

fn permits(number: u32) -> usize {
    usize::try_from(number).map_or(Semaphore::MAX_PERMITS, |number| {
        number.min(Semaphore::MAX_PERMITS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_follows_the_document_both_ways() {
        let slots = Slots::new(2);
        let (one, two) = (slots.try_take(), slots.try_take());
        assert!(one.is_some() && two.is_some() && slots.try_take().is_none());
        slots.set(3);
        let three = slots.try_take();
        assert!(three.is_some() && slots.try_take().is_none());
        slots.set(1);
        drop((one, two));
        // The lowered bound takes the two that are free.
        while slots.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(slots.try_take().is_none());
        drop(three);
        assert!(slots.take().await.is_some());
        assert_eq!(slots.limit(), 1);
    }
}
