//! The writing end of a multiplexed connection: seals what was laid out, and hands it to the socket.
//!
//! ```text
//!  a stream's task ──laid out──▶ quiet until now, or enough together? ──yes──▶ seal, one write: here, at once
//!                                             └─no──▶ writer task, behind all that are ready ──▶ seal, one write
//! ```
//!
//! A system call costs more than all else that a small frame needs, so frames that come together go together: with 64
//! busy connections that is a third more requests a second. Not all of them together: while this side gathers, the
//! peer's core waits.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;

use super::super::error::ConnectionError;
use super::super::tcp::Watch;
use super::connection::{LINGER, Shared, State, Unwritten, micros};
use super::outgoing::Batch;
use super::record::Sealer;

/// How often a quiet connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// So many frames together are worth a system call.
const ENOUGH: usize = 8;
/// After so many microseconds without a write nothing is gained by waiting for company.
const QUIET: u64 = 50;

/// What writes to the socket.
pub(super) struct Writer {
    socket: OwnedWriteHalf,
    sealer: Sealer,
    watch: Watch,
    /// Sealed, on its way into the socket.
    batch: Option<(Batch, Range<usize>)>,
}

impl Writer {
    pub(super) fn new(socket: OwnedWriteHalf, sealer: Sealer, watch: Watch) -> Self {
        Self {
            socket,
            sealer,
            watch,
            batch: None,
        }
    }

    /// Writes until nothing is left to write, or the socket takes no more; without a context nobody is woken then. Says
    /// whether somebody was woken who has more.
    fn poll_flush(
        &mut self,
        shared: &Shared,
        mut context: Option<&mut Context<'_>>,
    ) -> Poll<Result<bool, String>> {
        loop {
            while let Some((batch, place)) = &mut self.batch {
                let bytes = batch.bytes(place.clone());
                let written = ready!(poll_write(&mut self.socket, bytes, context.as_deref_mut()));
                let written = written.map_err(|error| error.to_string())?;
                self.watch.sent(self.socket.as_ref(), written);
                place.start += written;
                if place.start >= place.end {
                    self.batch = None;
                }
            }
            let ((batch, waited), _) = shared.act(|state| {
                state.mux.pump(&mut state.out);
                let batch = state.out.take();
                (batch, state.mux.room_made())
            });
            let Some(mut batch) = batch else {
                return Poll::Ready(Ok(waited));
            };
            let place = batch.seal(&mut self.sealer).map_err(|error| error.to_string())?;
            shared.sent.fetch_add(place.len() as u64, Ordering::Relaxed);
            self.batch = Some((batch, place));
        }
    }
}

fn poll_write(
    socket: &mut OwnedWriteHalf,
    bytes: &[u8],
    context: Option<&mut Context<'_>>,
) -> Poll<io::Result<usize>> {
    let written = match context {
        Some(context) => ready!(Pin::new(socket).poll_write(context, bytes)),
        None => socket.try_write(bytes),
    };
    match written {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        written => Poll::Ready(written),
    }
}

impl Shared {
    /// Lets a stream lay out what it has, and sees that it is written soon.
    pub(super) fn send<R>(&self, now: Instant, action: impl FnOnce(&mut State) -> R) -> R {
        let (result, unwritten) = self.act(action);
        if let Unwritten::Frames(frames) = unwritten {
            let now = micros(now.saturating_duration_since(self.started));
            let last = self.written.load(Ordering::Relaxed);
            if frames >= ENOUGH || now.saturating_sub(last) >= QUIET {
                self.written.store(now, Ordering::Relaxed);
                self.flush();
            } else {
                self.to_write.notify_one();
            }
        }
        result
    }

    /// Writes what there is, as far as the socket takes it.
    fn flush(&self) {
        let flushed = match self.writer.try_lock().as_deref_mut() {
            Ok(Some(writer)) => writer.poll_flush(self, None),
            Ok(None) => return,
            // Whoever writes just now may have looked already.
            Err(_) => Poll::Pending,
        };
        match flushed {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => self.fail(ConnectionError::Lost(error)),
            Poll::Pending => self.to_write.notify_one(),
        }
    }

    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<Result<bool, String>> {
        let mut writer = self.writer.lock().expect("nothing panics while it is held");
        match &mut *writer {
            Some(writer) => writer.poll_flush(self, Some(context)),
            None => Poll::Ready(Ok(false)),
        }
    }
}

/// Hands to the socket what nobody else does, until the connection ends.
pub(super) async fn write(shared: Arc<Shared>) {
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            () = shared.to_write.notified() => behind_all_ready().await,
            () = shared.over.cancelled() => {}
            _ = alive.tick() => {
                let now = shared.sent.load(Ordering::Relaxed);
                if sent == now {
                    shared.with(|state| state.mux.ping(shared.now()));
                }
                sent = now;
            }
        }
        let flushed = tokio::select! {
            biased;
            flushed = flush(&shared) => flushed,
            () = linger(&shared) => break,
        };
        if let Err(error) = flushed {
            shared.fail(ConnectionError::Lost(error));
        }
        if shared.over.is_cancelled() {
            break;
        }
    }
    let writer = shared
        .writer
        .lock()
        .expect("nothing panics while it is held")
        .take();
    if let Some(mut writer) = writer {
        let _ = writer.socket.shutdown().await;
    }
}

async fn linger(shared: &Shared) {
    shared.over.cancelled().await;
    tokio::time::sleep(LINGER).await;
}

async fn flush(shared: &Shared) -> Result<(), String> {
    while poll_fn(|context| shared.poll_flush(context)).await? {
        // Whoever was woken has something to say, and is to say it before this sleeps.
        tokio::task::yield_now().await;
    }
    shared.written.store(shared.now(), Ordering::Relaxed);
    Ok(())
}

/// Goes to the end of the line of tasks that are ready; unlike `yield_now`, before the next look at the sockets.
async fn behind_all_ready() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
