//! Streams: first multiplexed, and over a lane once they turn out to be bulk.
//!
//! ```text
//!  write_chunks ──▶ Mux ─────────────────┐        ┌─▶ Mux ─────────▶ read_chunks
//!        │ bulk                          ├─ peer ─┤      │ moved
//!        └──▶ LaneSend (this task) ──────┘        └─▶ LaneReceive (this task) ──▶
//! ```

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::super::RESET_CODE;
use super::super::error::{ReadError, ReadExactError, WriteError};
use super::Handle;
use super::lane::{LaneError, LaneRead, LaneReceive, LaneSend};
use super::mux::{Read, Write};

/// A stream that carried so much lately is worth a lane, which is asked for at half of it.
const BULK: u64 = 512 << 10;
/// Over a long way a new connection starts slower than the one that is warm: there a lane is for more.
const BULK_FAR: u64 = 4 << 20;
/// What is a long way.
const FAR: Duration = Duration::from_millis(5);
/// Lately, and so many round trips: a stream that takes longer does well without.
const LATELY: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u32 = 20;

/// Measures whether a stream is bulk.
#[derive(Debug, Default)]
struct Meter {
    carried: u64,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Light,
    Growing,
    Bulk,
}

impl Meter {
    fn add(&mut self, bytes: u64, round_trip: Duration, now: Instant) -> Weight {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) > LATELY + round_trip * ROUND_TRIPS {
            self.carried = 0;
            self.since = Some(now);
        }
        self.carried += bytes;
        let bulk = if round_trip < FAR { BULK } else { BULK_FAR };
        if self.carried < bulk / 2 {
            Weight::Light
        } else if self.carried < bulk {
            Weight::Growing
        } else {
            Weight::Bulk
        }
    }
}

/// The half of a stream that we write to.
#[derive(Debug)]
pub(crate) struct TlsSend {
    handle: Arc<Handle>,
    id: u32,
    meter: Meter,
    lane: Option<(u32, Box<LaneSend>)>,
    ended: bool,
}

impl TlsSend {
    pub(super) fn new(handle: Arc<Handle>, id: u32) -> Self {
        Self {
            handle,
            id,
            meter: Meter::default(),
            lane: None,
            ended: false,
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_chunks(&mut [Bytes::copy_from_slice(bytes)]).await
    }

    /// Writes all chunks; they are empty afterwards.
    pub(crate) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        loop {
            if self.lane.is_some() {
                return self.write_lane(chunks).await;
            }
            if chunks.iter().all(Bytes::is_empty) {
                return Ok(());
            }
            let (wrote, now) = poll_fn(|context| self.poll_mux(chunks, context)).await?;
            let round_trip = self.handle.shared.round_trip();
            match self.meter.add(wrote as u64, round_trip, now) {
                Weight::Light => {}
                Weight::Growing => self.handle.shared.with(|state| state.mux.want_lane(self.id)),
                Weight::Bulk => self.take_lane(),
            }
        }
    }

    fn poll_mux(
        &self,
        chunks: &mut [Bytes],
        context: &mut Context<'_>,
    ) -> Poll<Result<(usize, Instant), WriteError>> {
        let now = Instant::now();
        let wrote = self.handle.shared.send(now, |state| {
            state.mux.write(self.id, chunks, &mut state.out, context.waker())
        });
        match wrote {
            Write::Wrote(wrote) => Poll::Ready(Ok((wrote, now))),
            Write::Blocked => Poll::Pending,
            refused => Poll::Ready(Err(self.error(&refused))),
        }
    }

    fn error(&self, refused: &Write) -> WriteError {
        match refused {
            Write::Stopped(code) => WriteError::Stopped(*code),
            Write::Over(end) => WriteError::Lost(self.handle.shared.reason(end)),
            _ => WriteError::Closed,
        }
    }

    /// Moves to the lane that this stream was given, if it was.
    fn take_lane(&mut self) {
        let id = self.id;
        self.lane = self.handle.shared.with(|state| {
            state.mux.want_lane(id);
            let lane = state.mux.lane_of(id)?;
            let send = state.lanes.get_mut(&lane)?.send.take()?;
            state.mux.move_stream(id);
            Some((lane, Box::new(send)))
        });
    }

    async fn write_lane(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        loop {
            let Some((_, lane)) = &mut self.lane else {
                return Err(WriteError::Closed);
            };
            let (id, shared) = (self.id, &self.handle.shared);
            if shared.over.is_cancelled() {
                return Err(self.lane_broke(None));
            }
            let flushed = poll_fn(|context| match lane.poll_flush(context) {
                Poll::Ready(flushed) => Poll::Ready(Some(flushed)),
                // The multiplexed connection says when nobody wants more.
                Poll::Pending if shared.with(|state| state.mux.is_unwanted(id, context.waker())) => {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            });
            let flushed = flushed.await;
            if let Some(Ok(())) = flushed {
                if chunks.iter().all(Bytes::is_empty) {
                    return Ok(());
                }
                if let Ok(taken) = lane.fill(id, chunks) {
                    shared.lanes_sent.fetch_add(taken as u64, Ordering::Relaxed);
                    continue;
                }
            }
            return Err(self.lane_broke(flushed));
        }
    }

    fn lane_broke(&mut self, flushed: Option<Result<(), LaneError>>) -> WriteError {
        self.lane = None;
        let refusal = self.handle.shared.with(|state| {
            let refusal = state.mux.refusal(self.id);
            state.mux.reset_stream(self.id, RESET_CODE);
            refusal
        });
        if let Some(Err(error)) = flushed {
            tracing::debug!(remote = %self.handle.shared.remote, %error, "a bulk stream's connection broke");
        }
        match refusal {
            Some(refusal) => self.error(&refusal),
            // Its other end went away before it could say why.
            None => WriteError::Stopped(RESET_CODE),
        }
    }

    /// Ends what we say; everything written still arrives.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        if self.ended {
            return Err(WriteError::Closed);
        }
        self.ended = true;
        let Some((lane, mut send)) = self.lane.take() else {
            let finished = self.handle.shared.with(|state| {
                let refusal = state.mux.refusal(self.id);
                state.mux.finish_stream(self.id);
                refusal
            });
            return finished.map_or(Ok(()), |refusal| Err(self.error(&refusal)));
        };
        let (handle, id) = (self.handle.clone(), self.id);
        handle.shared.with(|state| state.mux.lane_ends(id));
        if send.end(id).is_err() {
            handle.shared.with(|state| state.mux.reset_stream(id, RESET_CODE));
            return Err(WriteError::Closed);
        }
        let mut context = Context::from_waker(std::task::Waker::noop());
        match send.poll_flush(&mut context) {
            Poll::Ready(flushed) => end_on_lane(&handle, id, lane, *send, flushed),
            Poll::Pending => {
                tokio::spawn(async move {
                    let flushed = tokio::select! {
                        flushed = poll_fn(|context| send.poll_flush(context)) => flushed,
                        () = unwanted(&handle, id) => return,
                    };
                    end_on_lane(&handle, id, lane, *send, flushed);
                });
            }
        }
        Ok(())
    }

    /// Abandons what we say.
    pub(crate) fn reset(&mut self, code: u32) {
        self.ended = true;
        self.lane = None;
        self.handle
            .shared
            .with(|state| state.mux.reset_stream(self.id, code));
    }

    /// Waits until the peer wants no more, has everything, or the connection is gone.
    #[cfg(test)]
    pub(crate) async fn stopped(&mut self) {
        unwanted(&self.handle, self.id).await;
    }
}

#[cfg(test)]
impl TlsSend {
    pub(super) fn is_on_a_lane(&self) -> bool {
        self.lane.is_some()
    }
}

#[cfg(test)]
impl TlsReceive {
    pub(super) fn is_on_a_lane(&self) -> bool {
        self.lane.is_some()
    }
}

async fn unwanted(handle: &Handle, id: u32) {
    poll_fn(|context| {
        let unwanted = handle
            .shared
            .with(|state| state.mux.is_unwanted(id, context.waker()));
        if unwanted { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The lane goes back to where streams take lanes from, before the stream is over.
fn end_on_lane(handle: &Handle, id: u32, lane: u32, send: LaneSend, flushed: Result<(), LaneError>) {
    handle.shared.with(|state| match flushed {
        Ok(()) => {
            if let Some(parts) = state.lanes.get_mut(&lane) {
                parts.send = Some(send);
            }
            state.mux.lane_sent_end(id);
        }
        Err(_) => state.mux.reset_stream(id, RESET_CODE),
    });
}

impl Drop for TlsSend {
    fn drop(&mut self) {
        let lane = self.lane.take();
        self.handle
            .shared
            .with(|state| state.mux.drop_sender(self.id, RESET_CODE));
        drop(lane);
    }
}

/// The half of a stream that we read from.
#[derive(Debug)]
pub(crate) struct TlsReceive {
    handle: Arc<Handle>,
    id: u32,
    lane: Option<(u32, Box<LaneReceive>)>,
    /// What [`TlsReceive::read_exact`] took too much.
    rest: Bytes,
}

impl TlsReceive {
    pub(super) fn new(handle: Arc<Handle>, id: u32) -> Self {
        Self {
            handle,
            id,
            lane: None,
            rest: Bytes::new(),
        }
    }

    /// Fills the buffer.
    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadExactError> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.rest.is_empty() {
                let mut chunk = [Bytes::new()];
                if self.read_chunks(&mut chunk).await?.is_none() {
                    return Err(ReadExactError::Ended(filled));
                }
                [self.rest] = chunk;
            }
            let part = self.rest.len().min(buffer.len() - filled);
            self.rest.copy_to_slice(&mut buffer[filled..filled + part]);
            filled += part;
        }
        Ok(())
    }

    /// Takes what has arrived, at least something, into the first of the chunks; `None` at the end.
    pub(crate) async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        if !self.rest.is_empty()
            && let Some(chunk) = chunks.first_mut()
        {
            *chunk = std::mem::take(&mut self.rest);
            return Ok(Some(1));
        }
        poll_fn(|context| self.poll_chunks(chunks, context)).await
    }

    fn poll_chunks(
        &mut self,
        chunks: &mut [Bytes],
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, ReadError>> {
        if self.lane.is_some() {
            return self.poll_lane(chunks, context);
        }
        let shared = &self.handle.shared;
        let read = shared.with(|state| state.mux.read(self.id, chunks, Instant::now(), context.waker()));
        Poll::Ready(match read {
            Read::Filled(filled) => Ok(Some(filled)),
            Read::Blocked => return Poll::Pending,
            Read::Finished => Ok(None),
            Read::Reset(code) => Err(ReadError::Reset(code)),
            Read::Stopped => Err(ReadError::Closed),
            Read::Over(end) => Err(ReadError::Lost(shared.reason(&end))),
            Read::Moved(lane) => {
                let receive = shared.with(|state| state.lanes.get_mut(&lane)?.receive.take());
                let Some(receive) = receive else {
                    return self.lane_broke();
                };
                self.lane = Some((lane, Box::new(receive)));
                return self.poll_lane(chunks, context);
            }
        })
    }

    fn poll_lane(
        &mut self,
        chunks: &mut [Bytes],
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, ReadError>> {
        let Some((_, lane)) = &mut self.lane else {
            return Poll::Ready(Err(ReadError::Closed));
        };
        let (id, shared) = (self.id, &self.handle.shared);
        if shared.over.is_cancelled() {
            // A link that was closed, for a revoked token perhaps, carries nothing more.
            return self.lane_broke();
        }
        match lane.poll_read(id, chunks, context) {
            Poll::Ready(Ok(LaneRead::Filled(filled))) => {
                let received: usize = chunks.iter().take(filled).map(Bytes::len).sum();
                shared
                    .lanes_received
                    .fetch_add(received as u64, Ordering::Relaxed);
                Poll::Ready(Ok(Some(filled)))
            }
            Poll::Ready(Ok(LaneRead::Ended)) => {
                if let Some((lane, receive)) = self.lane.take() {
                    shared.with(|state| {
                        if let Some(parts) = state.lanes.get_mut(&lane) {
                            parts.receive = Some(*receive);
                        }
                        state.mux.lane_got_end(id);
                    });
                }
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(remote = %shared.remote, %error, "a bulk stream's connection broke");
                self.lane_broke()
            }
            // The multiplexed connection says when the peer has given up.
            Poll::Pending if shared.with(|state| state.mux.is_given_up(id, context.waker())) => {
                self.lane_broke()
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The stream ends with its lane; the peer is told, in case that it does not know.
    fn lane_broke(&mut self) -> Poll<Result<Option<usize>, ReadError>> {
        self.lane = None;
        let shared = &self.handle.shared;
        let (reset, end) = shared.with(|state| {
            let reset = state.mux.reset_code(self.id);
            state.mux.stop_stream(self.id, RESET_CODE);
            (reset, state.mux.end().cloned())
        });
        Poll::Ready(Err(match (reset, end) {
            (None, Some(end)) => ReadError::Lost(shared.reason(&end)),
            (reset, _) => ReadError::Reset(reset.unwrap_or(RESET_CODE)),
        }))
    }

    /// Tells the peer that nobody reads on.
    pub(crate) fn stop(&mut self, code: u32) {
        self.lane = None;
        self.rest = Bytes::new();
        self.handle
            .shared
            .with(|state| state.mux.stop_stream(self.id, code));
    }
}

impl Drop for TlsReceive {
    fn drop(&mut self) {
        let lane = self.lane.take();
        self.handle
            .shared
            .with(|state| state.mux.drop_receiver(self.id, RESET_CODE));
        drop(lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_much_in_little_time_and_more_over_a_long_way() {
        let (near, far) = (Duration::from_millis(1), Duration::from_millis(100));
        let start = Instant::now();
        let weigh = |round_trip, pause: Duration| {
            let mut meter = Meter::default();
            let adds = (0..10).map(|n| meter.add(100 << 10, round_trip, start + pause * n));
            adds.last().unwrap_or(Weight::Light)
        };
        assert_eq!(weigh(near, Duration::ZERO), Weight::Bulk);
        assert_eq!(weigh(far, Duration::ZERO), Weight::Light);
        assert_eq!(weigh(near, Duration::from_millis(600)), Weight::Light);
    }
}
