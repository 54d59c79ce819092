//! A connection and its requests in one task: the requests of HTTP/2 would each be a task of its own otherwise, and
//! waking another thread for a small request costs more than taking it.
//!
//! ```text
//! hyper ──execute──▶ Requests (new ones) ─▶ Together: polls the connection, then the requests that are awake
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
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
    pub(crate) fn new(connection: C, requests: Requests) -> Self {
        Together {
            connection: Box::pin(connection),
            new: requests,
            under_way: FuturesUnordered::new(),
        }
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
