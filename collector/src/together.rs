//! A connection and its requests in one task: the requests of HTTP/2 would each be a task of its own otherwise, and
//! waking another thread for a small request costs more than taking it.
//!
//! ```text
//! hyper ──execute──▶ Requests (new ones) ─▶ Together: polls the connection, then the requests that are awake
//! ```
//!
//! A request that is answered wakes its connection, while the task of both runs. The runtime would put such a task at the
//! end of its queue and wake another thread to take it from there; [`AtOnce`] polls it again on the spot.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::task::AtomicWaker;
use hyper::rt::Executor;

/// The requests that a connection has begun and [`Together`] has not seen.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Requests {
    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Requests {
    fn execute(&self, request: F) {
        let mut new = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        new.push(Box::pin(request));
    }
}

/// A connection with its requests. It ends with the connection, which ends after its requests if it ends well.
pub(crate) struct Together<C> {
    connection: Pin<Box<C>>,
    new: Requests,
    under_way: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<C: Future> Together<C> {
    /// A connection that was given these requests to execute on.
    pub(crate) fn new(connection: C, requests: Requests) -> AtOnce<Self> {
        AtOnce::new(Together {
            connection: Box::pin(connection),
            new: requests,
            under_way: FuturesUnordered::new(),
        })
    }
}

impl<C: Future> Future for Together<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        let new = self.new.take();
        self.under_way.extend(new);
        // What a request answers wakes the connection, and so this task.
        while let Poll::Ready(Some(())) = self.under_way.poll_next_unpin(cx) {}
        Poll::Pending
    }
}

/// How often a future that wakes itself is polled before others have their turn.
const ROUNDS: usize = 8;

/// A future that is polled again at once when it was woken while it was polled.
pub(crate) struct AtOnce<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future> AtOnce<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::<Bell>::default();
        AtOnce {
            future: Box::pin(future),
            waker: Waker::from(bell.clone()),
            bell,
        }
    }
}

impl<F: Future> Future for AtOnce<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.bell.task.register(cx.waker());
        for _ in 0..ROUNDS {
            this.bell.state.swap(POLLED, Ordering::AcqRel);
            if let Poll::Ready(output) = this.future.as_mut().poll(&mut Context::from_waker(&this.waker)) {
                return Poll::Ready(output);
            }
            if this.bell.rests() {
                return Poll::Pending;
            }
        }
        this.bell.state.swap(RESTING, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Spawns tasks that are polled so: a connection whose flushes are put off wakes itself.
#[derive(Clone, Copy)]
pub(crate) struct SpawnAtOnce;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for SpawnAtOnce {
    fn execute(&self, future: F) {
        tokio::spawn(AtOnce::new(future));
    }
}

/// Nobody polls the future.
const RESTING: u8 = 0;
/// Somebody does.
const POLLED: u8 = 1;
/// It was woken since.
const RUNG: u8 = 2;

/// What wakes the future.
#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Bell {
    /// Whether the future that was just polled was not woken meanwhile; from here on its task is woken.
    fn rests(&self) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.state
            .compare_exchange(POLLED, RESTING, success, failure)
            .is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == RESTING {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes itself so many times, and tells how often it was polled.
    fn restless(times: usize, polled: Arc<AtomicUsize>) -> impl Future<Output = ()> {
        std::future::poll_fn(move |cx| {
            if polled.fetch_add(1, Ordering::Relaxed) < times {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
    }

    fn poll(times: usize) -> (usize, usize) {
        let (polled, woken) = (Arc::<AtomicUsize>::default(), Arc::<Woken>::default());
        let mut future = AtOnce::new(restless(times, polled.clone()));
        let waker = Waker::from(woken.clone());
        let _ = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
        (polled.load(Ordering::Relaxed), woken.0.load(Ordering::Relaxed))
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_on_the_spot_but_not_for_ever() {
        assert_eq!(poll(0), (1, 0));
        assert_eq!(poll(3), (4, 0));
        assert_eq!(poll(usize::MAX), (ROUNDS, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_missed() {
        for number in 0..2000u32 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let waiting = tokio::spawn(AtOnce::new(async move {
                tokio::task::yield_now().await;
                receiver.await
            }));
            tokio::spawn(async move { sender.send(number) });
            let heard = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await;
            assert_eq!(heard.unwrap().unwrap().unwrap(), number);
        }
    }
}
