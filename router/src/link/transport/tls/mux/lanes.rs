//! Lanes: connections of their own for streams that turned out to be bulk.
//!
//! ```text
//!  acceptor: Want(stream) ──▶ dialler: takes a free lane ──Assign(stream, lane)──▶ acceptor
//!  either side: Moved(stream, lane); what follows of its half comes over the lane, up to an end in the lane
//!  acceptor, once both halves are over: Returned(lane) ──▶ dialler: the lane is free again
//! ```
//!
//! Only the dialler makes and gives lanes, so that the two sides never give the same one twice. Each half moves on
//! its own, or not at all. Here is only who uses which; the connections themselves are with the shell.

use std::collections::{HashMap, VecDeque};
use std::task::{Poll, Waker};

use super::super::frame::{Frame, Output, ProtocolError};
use super::{Due, Mux, Receiving, Sending, Side, wait};

/// What the shell has to do about lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum LaneEvent {
    /// A stream needs one (dialler only).
    Wanted { stream: u32 },
    /// Its stream is over here.
    Retired { lane: u32 },
    /// The peer has done with it (dialler only).
    Returned { lane: u32 },
    /// The peer has it no more.
    Gone { lane: u32 },
}

#[derive(Default)]
pub(super) struct Lanes {
    /// The stream that each lane serves.
    serves: HashMap<u32, Option<u32>>,
    events: VecDeque<LaneEvent>,
    keeper: Vec<Waker>,
    returned: Vec<u32>,
    gone: Vec<u32>,
}

impl Lanes {
    pub(super) fn has_returned(&self) -> bool {
        !self.returned.is_empty() || !self.gone.is_empty()
    }

    pub(super) fn pump(&mut self, out: &mut impl Output) {
        // As many as always fit beside what else is due.
        for lane in self.returned.drain(..self.returned.len().min(16)) {
            Frame::Returned { lane }.put(out);
        }
        for lane in self.gone.drain(..self.gone.len().min(16)) {
            Frame::Gone { lane }.put(out);
        }
    }

    pub(super) fn wake(&mut self, wakes: &mut Vec<Waker>) {
        wakes.append(&mut self.keeper);
    }

    pub(super) fn retire(&mut self, lane: u32, wakes: &mut Vec<Waker>) {
        self.say(LaneEvent::Retired { lane }, wakes);
    }

    /// Each event stands at most once: a peer that repeats itself fills nothing.
    fn say(&mut self, event: LaneEvent, wakes: &mut Vec<Waker>) {
        if !self.events.contains(&event) {
            self.events.push_back(event);
            wakes.append(&mut self.keeper);
        }
    }
}

impl Mux {
    /// What the keeper of the lanes has to do next; nothing after the connection's end.
    pub(in super::super) fn poll_lanes(&mut self, waker: &Waker) -> Poll<Option<LaneEvent>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        match self.lanes.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None => {
                wait(&mut self.lanes.keeper, waker);
                Poll::Pending
            }
        }
    }

    /// A lane is there and free.
    pub(in super::super) fn add_lane(&mut self, lane: u32) {
        self.lanes.serves.insert(lane, None);
    }

    /// A lane is gone, which the peer is told unless it said so itself.
    pub(in super::super) fn forget_lane(&mut self, lane: u32, tell: bool) {
        if self.lanes.serves.remove(&lane).is_some() && tell {
            self.lanes.gone.push(lane);
        }
    }

    /// Asks for a lane for a stream.
    pub(in super::super) fn want_lane(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.lane.is_some() || stream.lane_asked || stream.sending != Sending::Open {
            return;
        }
        stream.lane_asked = true;
        match self.side {
            Side::Dialler => {
                let wanted = LaneEvent::Wanted { stream: id };
                self.lanes.say(wanted, &mut self.wakes);
            }
            Side::Acceptor => self.set_due(id, Due::WANT),
        }
    }

    /// Whether a stream still waits for a lane (dialler only).
    pub(in super::super) fn waits_for_lane(&self, id: u32) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| stream.lane_asked && stream.lane.is_none())
    }

    /// Gives a stream a lane (dialler only). False when the stream is over or has one.
    pub(in super::super) fn assign_lane(&mut self, id: u32, lane: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        if stream.lane.is_some() {
            return false;
        }
        stream.lane = Some(lane);
        self.lanes.serves.insert(lane, Some(id));
        self.set_due(id, Due::ASSIGN);
        true
    }

    /// The lane that a stream may move to.
    pub(in super::super) fn lane_of(&self, id: u32) -> Option<u32> {
        let stream = self.streams.get(&id)?;
        stream.lane.filter(|_| stream.sending == Sending::Open)
    }

    /// This side's half goes on over the lane.
    pub(in super::super) fn move_stream(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.sending == Sending::Open && stream.lane.is_some() {
            stream.sending = Sending::Moved;
            self.set_due(id, Due::MOVED);
        }
    }

    /// This side's half is about to end in order on its lane.
    pub(in super::super) fn lane_ends(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.sending == Sending::Moved
        {
            stream.sending = Sending::Ending;
        }
    }

    /// This side's half has ended in order on its lane.
    pub(in super::super) fn lane_sent_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if matches!(stream.sending, Sending::Moved | Sending::Ending) {
            stream.sending = Sending::Finished;
            self.wakes.extend(stream.writer.take());
        }
        self.remove_if_over(id);
    }

    /// The peer's half ended in order on its lane.
    pub(in super::super) fn lane_got_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.receiving == Receiving::Moved {
            stream.receiving = Receiving::Finished;
        }
        self.remove_if_over(id);
    }

    /// A lane that is in order is free again: the acceptor tells the dialler.
    pub(in super::super) fn return_lane(&mut self, lane: u32) {
        self.lanes.serves.insert(lane, None);
        if self.side == Side::Acceptor && !self.lanes.returned.contains(&lane) {
            self.lanes.returned.push(lane);
        }
    }

    pub(super) fn wanted_by_peer(&mut self, id: u32) -> Result<(), ProtocolError> {
        if self.side != Side::Dialler {
            return Err(ProtocolError::Lane(0));
        }
        self.known(id)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.lane.is_none() && !stream.lane_asked {
            stream.lane_asked = true;
            let wanted = LaneEvent::Wanted { stream: id };
            self.lanes.say(wanted, &mut self.wakes);
        }
        Ok(())
    }

    pub(super) fn assigned_by_peer(&mut self, id: u32, lane: u32) -> Result<(), ProtocolError> {
        if self.side != Side::Acceptor {
            return Err(ProtocolError::Lane(lane));
        }
        self.known(id)?;
        match self.lanes.serves.get(&lane) {
            // It broke here, which the dialler will notice too.
            None => return Ok(()),
            Some(Some(_)) => return Err(ProtocolError::Lane(lane)),
            Some(None) => {}
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            // The stream ended meanwhile.
            self.return_lane(lane);
            return Ok(());
        };
        if stream.lane.is_some() {
            return Err(ProtocolError::Lane(lane));
        }
        stream.lane = Some(lane);
        self.wakes.extend(stream.writer.take());
        self.lanes.serves.insert(lane, Some(id));
        Ok(())
    }

    pub(super) fn moved_by_peer(&mut self, id: u32, lane: u32) -> Result<(), ProtocolError> {
        self.known(id)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.lane.is_none() && !self.lanes.serves.contains_key(&lane) {
            // The lane broke here just when it was given: the stream breaks with it.
            stream.receiving = Receiving::Reset(0);
            self.wakes.extend(stream.reader.take());
            self.set_due(id, Due::STOP);
            return Ok(());
        }
        if stream.lane != Some(lane) {
            return Err(ProtocolError::Lane(lane));
        }
        match stream.receiving {
            Receiving::Open => stream.receiving = Receiving::Moved,
            Receiving::Stopped(code) => stream.receiving = Receiving::Abandoned(code),
            _ => return Err(ProtocolError::AfterEnd(id)),
        }
        self.wakes.extend(stream.reader.take());
        self.remove_if_over(id);
        Ok(())
    }

    pub(super) fn returned_by_peer(&mut self, lane: u32) -> Result<(), ProtocolError> {
        if self.side != Side::Dialler {
            return Err(ProtocolError::Lane(lane));
        }
        // One that broke here meanwhile is of no interest.
        if self.lanes.serves.contains_key(&lane) {
            self.lanes.say(LaneEvent::Returned { lane }, &mut self.wakes);
        }
        Ok(())
    }

    pub(super) fn gone_at_peer(&mut self, lane: u32) {
        if self.lanes.serves.contains_key(&lane) {
            self.lanes.say(LaneEvent::Gone { lane }, &mut self.wakes);
        }
    }
}
