//! Attempts that overlap: a fresh one begins every moment, whatever became of those before, until one succeeds.
//!
//! ```text
//!  0 s      0.7       1.4       …
//!  ├─ round ─┼─────────┼──── …      the first that succeeds ends all
//!            ├─ round ─┼──── …
//!                      ├──── …
//! ```
//!
//! A handshake that began while the network was gone waits longer and longer between its packets: only a fresh one is
//! through at once when the network is back. Nothing holds the next round up, so that a link is back within [`AGAIN`] and
//! what a handshake takes, after an outage of any length.

use std::collections::VecDeque;
use std::time::Duration;

use karez_router_config::api::LinkState;
use rand::Rng;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;

/// A new round begins this long after the last one.
const AGAIN: Duration = Duration::from_millis(800);
/// After a round that failed at once, the next begins this long after, then later and later.
const SOON: Duration = Duration::from_millis(100);
/// Rounds that are under way at once; a new one takes the place of the oldest, whose time is up anyway.
const ROUNDS: usize = 10;

/// Begins rounds until one succeeds, or is refused; each that failed is told. `answered` puts the next round off once: the
/// peer is there, and what is under way needs a moment.
pub(super) async fn first<T, F>(
    mut round: impl FnMut() -> F,
    answered: &Notify,
    told: impl Fn(&Failure),
) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut rounds: JoinSet<Result<T, Failure>> = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::new();
    let mut soon = SOON;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            Some(ended) = rounds.join_next() => match ended {
                Ok(Ok(reached)) => return Ok(reached),
                Ok(Err(failure)) if failure.state == LinkState::Refused => return Err(failure),
                Ok(Err(failure)) => {
                    told(&failure);
                    next = next.min(Instant::now() + jittered(soon));
                    soon = (soon * 2).min(AGAIN);
                }
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "an attempt to link ended badly"),
            },
            () = answered.notified() => next = next.max(Instant::now() + AGAIN),
            () = sleep_until(next) => {
                order.retain(|round| !round.is_finished());
                if order.len() >= ROUNDS && let Some(oldest) = order.pop_front() {
                    oldest.abort();
                    told(&Failure::down("no answer: nothing came back from any of the peer's addresses"));
                }
                order.push_back(rounds.spawn(round()));
                next = Instant::now() + jittered(AGAIN);
            }
        }
    }
}

/// So that peers that lost the same network do not come back in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.75..1.0))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// A handshake of this round trip, of which each packet is sent again later and later while the network is gone.
    async fn handshake(back: Instant, round_trip: Duration) {
        let mut wait = Duration::from_millis(360);
        while Instant::now() < back {
            sleep(wait).await;
            wait *= 2;
        }
        sleep(round_trip).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_back_in_time_after_an_outage_of_any_length() {
        let outages = (0..60).map(|n| Duration::from_millis(n * n * 100 + n * 13));
        for outage in outages {
            let back = Instant::now() + outage;
            let attempt = || async move {
                // What no answer ends, a limit does.
                let reached = timeout(
                    Duration::from_secs(5),
                    handshake(back, Duration::from_millis(300)),
                );
                reached.await.map_err(|_| Failure::down("no answer"))
            };
            first(attempt, &Notify::new(), |_| ()).await.unwrap();
            let took = Instant::now() - back;
            assert!(
                took <= AGAIN + Duration::from_millis(301),
                "{took:?} after {outage:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_that_never_end_hold_no_fresh_one_up() {
        let begun = Cell::new(0);
        let attempt = || {
            begun.set(begun.get() + 1);
            let last = begun.get() == 100;
            async move {
                if !last {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        };
        let (started, told) = (Instant::now(), Cell::new(0));
        first(attempt, &Notify::new(), |_| told.set(told.get() + 1))
            .await
            .unwrap();
        assert!(started.elapsed() <= AGAIN * 100);
        assert_eq!(told.get(), 100 - ROUNDS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answered_is_given_a_moment_and_a_refusal_ends_it() {
        let begun = Cell::new(0);
        let answered = Notify::new();
        let attempt = || {
            begun.set(begun.get() + 1);
            answered.notify_one();
            async {
                sleep(AGAIN - Duration::from_millis(1)).await;
                Err::<(), _>(Failure::refused("no"))
            }
        };
        assert!(first(attempt, &answered, |_| ()).await.is_err());
        assert_eq!(begun.get(), 1);
    }
}
