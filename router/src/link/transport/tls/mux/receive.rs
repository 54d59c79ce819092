//! What comes from the peer.

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::frame::{Frame, Frames, ProtocolError};
use super::{Due, End, Mux, Receiving};

/// A reader that takes half a window in less than this, and two round trips, could take more.
const QUICK: Duration = Duration::from_millis(100);
/// No stream's window grows beyond this; what needs more moves to a lane.
const LARGEST_WINDOW: u32 = 4 << 20;

/// What became of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Read {
    /// So many chunks were filled.
    Filled(usize),
    /// Nothing is there; the waker is called when that changes.
    Blocked,
    /// The peer's half goes on over this lane.
    Moved(u32),
    /// The peer's half ended in order.
    Finished,
    /// It ended abruptly.
    Reset(u32),
    /// Nobody wanted more.
    Stopped,
    /// The connection is over.
    Over(End),
}

impl Mux {
    /// Takes in the frames of a record. `keep` turns a part of it into bytes that outlive it.
    pub(in super::super) fn receive(
        &mut self,
        record: &[u8],
        keep: impl Fn(&[u8]) -> Bytes,
    ) -> Result<(), ProtocolError> {
        for frame in Frames::new(record) {
            if self.end.is_some() {
                return Ok(());
            }
            match frame? {
                Frame::Data { stream, payload } => self.data(stream, payload, &keep)?,
                Frame::Credit { stream, bytes } => self.credited(stream, bytes)?,
                Frame::Open { stream } => self.opened(stream)?,
                Frame::Finish { stream } => self.ended(stream, Receiving::Finished)?,
                Frame::Reset { stream, code } => self.ended(stream, Receiving::Reset(code))?,
                Frame::Stop { stream, code } => {
                    self.known(stream)?;
                    self.stopped_by_peer(stream, code);
                }
                Frame::Ping { number } => self.pong = Some(number),
                Frame::Pong { number } => self.answered = Some(number),
                Frame::Streams { more } => self.streams_granted(more)?,
                Frame::Close { code, reason } => {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    self.finish(End::ByPeer { code, reason });
                }
                Frame::Want { stream } => self.wanted_by_peer(stream)?,
                Frame::Assign { stream, lane } => self.assigned_by_peer(stream, lane)?,
                Frame::Moved { stream, lane } => self.moved_by_peer(stream, lane)?,
                Frame::Returned { lane } => self.returned_by_peer(lane)?,
                Frame::Gone { lane } => self.gone_at_peer(lane),
            }
        }
        Ok(())
    }

    /// Fills chunks with what has come.
    pub(in super::super) fn read(
        &mut self,
        id: u32,
        chunks: &mut [Bytes],
        now: Instant,
        waker: &Waker,
    ) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Read::Stopped;
        };
        if let Receiving::Reset(code) = stream.receiving {
            return Read::Reset(code);
        }
        let filled = stream.queue.len().min(chunks.len());
        if filled == 0 {
            return match (stream.receiving, &self.end) {
                (Receiving::Moved, None) => match stream.lane {
                    Some(lane) => Read::Moved(lane),
                    None => Read::Stopped,
                },
                (Receiving::Finished, _) => Read::Finished,
                (Receiving::Stopped(_) | Receiving::Abandoned(_), _) => Read::Stopped,
                (_, Some(end)) => Read::Over(end.clone()),
                _ => {
                    stream.reader = Some(waker.clone());
                    Read::Blocked
                }
            };
        }
        let mut taken = 0;
        for (chunk, queued) in chunks.iter_mut().zip(stream.queue.drain(..filled)) {
            taken += queued.len();
            *chunk = queued;
        }
        if stream.queue.is_empty() && stream.queue.capacity() > 64 {
            stream.queue.shrink_to(8);
        }
        // What is queued was counted as it came, and fits into the window.
        self.consumed(id, taken as u32, now);
        Read::Filled(filled)
    }

    /// With which code the peer has reset the stream, if it has.
    pub(in super::super) fn reset_code(&self, id: u32) -> Option<u32> {
        match self.streams.get(&id)?.receiving {
            Receiving::Reset(code) => Some(code),
            _ => None,
        }
    }

    /// Whether nothing more comes, over a lane or else; if not, the waker is called when that changes.
    pub(in super::super) fn is_given_up(&mut self, id: u32, waker: &Waker) -> bool {
        if self.end.is_some() || self.reset_code(id).is_some() {
            return true;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.reader = Some(waker.clone());
        }
        false
    }

    /// Nobody here reads the stream any more.
    pub(in super::super) fn drop_receiver(&mut self, id: u32, code: u32) {
        self.stop_stream(id, code);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receiver = false;
            stream.reader = None;
        }
        self.remove_if_over(id);
    }

    fn consumed(&mut self, id: u32, bytes: u32, now: Instant) {
        self.buffered -= bytes;
        let free = self.ours.connection_window.saturating_sub(self.buffered);
        let quick = QUICK + self.round_trip * 2;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.buffered -= bytes;
        let due = stream.window.saturating_sub(stream.outstanding + stream.buffered);
        if due < stream.window / 2 || stream.due.has(Due::CREDIT) || stream.receiving != Receiving::Open {
            return;
        }
        // Windows grow for readers that keep up, never beyond a fair part of what the connection has left.
        let keeps_up = stream
            .credited
            .is_some_and(|last| now.duration_since(last) < quick);
        if keeps_up {
            let most = LARGEST_WINDOW.min(free / 8);
            stream.window = stream.window.saturating_mul(2).min(most).max(stream.window);
        }
        stream.credited = Some(now);
        self.set_due(id, Due::CREDIT);
    }

    pub(super) fn known(&self, id: u32) -> Result<(), ProtocolError> {
        if self.was_opened(id) {
            return Ok(());
        }
        Err(ProtocolError::UnknownStream(id))
    }

    fn opened(&mut self, id: u32) -> Result<(), ProtocolError> {
        if id != self.next_theirs {
            return Err(ProtocolError::OutOfOrder(id));
        }
        self.grants = self.grants.checked_sub(1).ok_or(ProtocolError::TooManyStreams)?;
        self.next_theirs = id.checked_add(2).ok_or(ProtocolError::OutOfOrder(id))?;
        self.streams.insert(id, self.stream());
        self.accepted.push_back(id);
        self.wakes.append(&mut self.accept_waiters);
        Ok(())
    }

    fn data(&mut self, id: u32, payload: &[u8], keep: &impl Fn(&[u8]) -> Bytes) -> Result<(), ProtocolError> {
        self.known(id)?;
        let overrun = ProtocolError::Overrun(id);
        // A frame's length was checked to be far below.
        let length = payload.len() as u32;
        let stream = self.streams.get_mut(&id).ok_or(ProtocolError::AfterEnd(id))?;
        stream.outstanding = stream.outstanding.checked_sub(length).ok_or(overrun)?;
        self.outstanding = self.outstanding.checked_sub(length).ok_or(overrun)?;
        match stream.receiving {
            Receiving::Open if length > 0 => {
                stream.queue.push_back(keep(payload));
                stream.buffered += length;
                self.buffered += length;
                self.wakes.extend(stream.reader.take());
            }
            Receiving::Open | Receiving::Stopped(_) => {}
            _ => return Err(ProtocolError::AfterEnd(id)),
        }
        Ok(())
    }

    fn credited(&mut self, id: u32, bytes: u32) -> Result<(), ProtocolError> {
        let add = |credit: u64| {
            let sum = credit + u64::from(bytes);
            // Nobody needs a window of more than 4 GiB.
            u32::try_from(sum).map_err(|_| ProtocolError::Overflow(id))?;
            Ok(sum)
        };
        if id == 0 {
            self.credit = add(self.credit)?;
            self.wake_blocked();
            return Ok(());
        }
        self.known(id)?;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.credit = add(stream.credit)?;
            self.wakes.extend(stream.writer.take());
        }
        Ok(())
    }

    fn ended(&mut self, id: u32, how: Receiving) -> Result<(), ProtocolError> {
        self.known(id)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        match (stream.receiving, how) {
            (Receiving::Open | Receiving::Stopped(_), _) => stream.receiving = how,
            // What went over to a lane ends there, or is reset.
            (Receiving::Moved, Receiving::Reset(_)) => stream.receiving = how,
            (Receiving::Abandoned(_), Receiving::Reset(_)) => return Ok(()),
            _ => return Err(ProtocolError::AfterEnd(id)),
        }
        if let Receiving::Reset(_) = how {
            stream.queue = Default::default();
            self.buffered -= std::mem::take(&mut stream.buffered);
        }
        self.wakes.extend(stream.reader.take());
        self.remove_if_over(id);
        Ok(())
    }

    fn streams_granted(&mut self, more: u32) -> Result<(), ProtocolError> {
        let sum = self.openable + u64::from(more);
        u32::try_from(sum).map_err(|_| ProtocolError::Overflow(0))?;
        self.openable = sum;
        self.wakes.append(&mut self.open_waiters);
        Ok(())
    }
}
