//! The multiplexer: many streams over one ordered, reliable channel, without sockets, clock or cryptography.
//!
//! ```text
//!  write, finish, reset ──▶ Stream ──pump──▶ frames into an Output       (send.rs)
//!  read, stop           ◀── Stream ◀──────── frames of a record          (receive.rs)
//! ```
//!
//! A sender holds nothing back: what a stream writes goes straight into the records to come, as far as the peer's
//! credit for the stream and for the connection, and the room in the records, allow; the rest waits with its writer.
//! A receiver keeps what its reader has not taken yet: at most the stream's window, and all streams together the
//! connection's. So a slow reader holds back its own stream only, and memory is bounded on both sides.
//!
//! What is not data (opening, ends, credit) is remembered as something *due* of its stream and becomes a frame when
//! there is room for one: however fast a peer asks, at most one of each kind waits.
//!
//! Whoever waits leaves a waker; [`Mux::take_wakes`] gives those whose time has come, to be woken outside of any lock.

mod fuzz;
mod lanes;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::frame::{Frame, Output};

pub(super) use fuzz::fuzz;
pub(super) use lanes::LaneEvent;
pub(super) use receive::Read;
pub(super) use send::Write;

/// More than the frames that can be due of one stream, or of the connection, take together.
const SLACK: usize = 1024;
/// Writers that are woken when there is room again.
const WOKEN: usize = 64;

/// Which end of the connection this is; streams are odd when the dialler opened them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

/// What a side lets the other send, said in its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes in flight of a new stream.
    pub(super) stream_window: u32,
    /// Bytes in flight of all streams.
    pub(super) connection_window: u32,
    /// Streams open at once.
    pub(super) streams: u32,
}

/// Why the connection is over for the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it.
    ByPeer { code: u32, reason: String },
    /// This side closed it, or the channel broke.
    Here,
}

/// Stream numbers come one after the other, so that nobody can choose them to collide.
#[derive(Default)]
pub(super) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Streams = HashMap<u32, Stream, BuildHasherDefault<Numbers>>;

/// One end of a multiplexed connection.
pub(super) struct Mux {
    side: Side,
    ours: Limits,
    theirs: Limits,
    streams: Streams,
    /// The number of the next stream that this side opens.
    next: u32,
    /// How many more this side may open.
    openable: u64,
    open_waiters: Vec<Waker>,
    /// The number of the next stream that the peer opens.
    next_theirs: u32,
    /// How many more the peer may open.
    grants: u64,
    /// Streams of the peer that ended since it was last granted more.
    ended: u32,
    /// Opened by the peer, not yet taken.
    accepted: VecDeque<u32>,
    accept_waiters: Vec<Waker>,
    /// What may still be sent on all streams.
    credit: u64,
    /// What the peer may still send on all streams, and what waits here to be read.
    outstanding: u32,
    buffered: u32,
    /// How long credit takes to the peer, and what it sends for it to come.
    round_trip: Duration,
    /// Streams with something due, in order.
    due: VecDeque<u32>,
    /// Streams that wait for room or for the connection's credit, in order.
    blocked: VecDeque<u32>,
    ping: Option<u64>,
    pong: Option<u64>,
    answered: Option<u64>,
    closing: Option<(u32, String)>,
    close_sent: bool,
    lanes: lanes::Lanes,
    end: Option<End>,
    end_waiters: Vec<Waker>,
    wakes: Vec<Waker>,
}

/// Something due of a stream: a frame that waits for room.
#[derive(Clone, Copy)]
struct Due(u8);

impl Due {
    const OPEN: u8 = 1;
    const ASSIGN: u8 = 2;
    const MOVED: u8 = 4;
    const FINISH: u8 = 8;
    const RESET: u8 = 16;
    const STOP: u8 = 32;
    const CREDIT: u8 = 64;
    const WANT: u8 = 128;

    fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }
}

/// This side's half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// It goes on over the stream's lane.
    Moved,
    /// Its end is on the way into the lane.
    Ending,
    Finished,
    Reset(u32),
    /// The peer wants no more, and is answered with a reset.
    Stopped(u32),
}

/// The peer's half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Open,
    /// It goes on over the stream's lane, once what is queued was read.
    Moved,
    Finished,
    Reset(u32),
    /// Nobody here wants more; the peer's end is awaited.
    Stopped(u32),
    /// Nobody here wants more, and the end will not come this way.
    Abandoned(u32),
}

struct Stream {
    sending: Sending,
    credit: u64,
    writer: Option<Waker>,
    /// Whether it stands among the blocked.
    blocked: bool,
    /// Whether the peer said that it wants no more.
    unwanted: bool,
    receiving: Receiving,
    queue: VecDeque<Bytes>,
    buffered: u32,
    window: u32,
    outstanding: u32,
    credited: Option<Instant>,
    reader: Option<Waker>,
    due: Due,
    queued: bool,
    /// Whether somebody here may still send, and still read.
    sender: bool,
    receiver: bool,
    lane: Option<u32>,
    lane_asked: bool,
}

impl Stream {
    fn is_over(&self) -> bool {
        let sent = matches!(
            self.sending,
            Sending::Finished | Sending::Reset(_) | Sending::Stopped(_)
        );
        let received = matches!(
            self.receiving,
            Receiving::Finished | Receiving::Reset(_) | Receiving::Abandoned(_)
        );
        sent && received && !self.sender && !self.receiver && !self.queued
    }
}

impl Mux {
    pub(super) fn new(side: Side, ours: Limits, theirs: Limits) -> Self {
        let (next, next_theirs) = match side {
            Side::Dialler => (1, 2),
            Side::Acceptor => (2, 1),
        };
        Self {
            side,
            ours,
            theirs,
            streams: HashMap::default(),
            next,
            openable: theirs.streams.into(),
            open_waiters: Vec::new(),
            next_theirs,
            grants: ours.streams.into(),
            ended: 0,
            accepted: VecDeque::new(),
            accept_waiters: Vec::new(),
            credit: theirs.connection_window.into(),
            outstanding: ours.connection_window,
            buffered: 0,
            round_trip: Duration::ZERO,
            due: VecDeque::new(),
            blocked: VecDeque::new(),
            ping: None,
            pong: None,
            answered: None,
            closing: None,
            close_sent: false,
            lanes: lanes::Lanes::default(),
            end: None,
            end_waiters: Vec::new(),
            wakes: Vec::new(),
        }
    }

    /// The round trip has been measured.
    pub(super) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Opens a stream, when the peer lets us.
    pub(super) fn poll_open(&mut self, waker: &Waker) -> Poll<Result<u32, End>> {
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        if self.next > u32::MAX - 2 {
            // Numbers are used once; after two thousand million streams the link is made anew.
            self.close(0, "out of stream numbers");
            return Poll::Ready(Err(End::Here));
        }
        if self.openable == 0 {
            wait(&mut self.open_waiters, waker);
            return Poll::Pending;
        }
        self.openable -= 1;
        let id = self.next;
        self.next += 2;
        self.streams.insert(id, self.stream());
        self.set_due(id, Due::OPEN);
        Poll::Ready(Ok(id))
    }

    /// Takes a stream that the peer has opened.
    pub(super) fn poll_accept(&mut self, waker: &Waker) -> Poll<Result<u32, End>> {
        if let Some(id) = self.accepted.pop_front() {
            return Poll::Ready(Ok(id));
        }
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        wait(&mut self.accept_waiters, waker);
        Poll::Pending
    }

    /// Waits for the end of the connection.
    pub(super) fn poll_end(&mut self, waker: &Waker) -> Poll<End> {
        match &self.end {
            Some(end) => Poll::Ready(end.clone()),
            None => {
                wait(&mut self.end_waiters, waker);
                Poll::Pending
            }
        }
    }

    /// Why it is over, if it is.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Streams that are not over yet.
    #[cfg(test)]
    pub(super) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    fn stream(&self) -> Stream {
        Stream {
            sending: Sending::Open,
            credit: self.theirs.stream_window.into(),
            writer: None,
            blocked: false,
            unwanted: false,
            receiving: Receiving::Open,
            queue: VecDeque::new(),
            buffered: 0,
            window: self.ours.stream_window,
            outstanding: self.ours.stream_window,
            credited: None,
            reader: None,
            due: Due(0),
            queued: false,
            sender: true,
            receiver: true,
            lane: None,
            lane_asked: false,
        }
    }

    /// Asks the peer for a sign of life; the number comes back in [`Mux::take_answer`].
    pub(super) fn ping(&mut self, number: u64) {
        self.ping = Some(number);
    }

    /// The number of the last ping that was answered.
    pub(super) fn take_answer(&mut self) -> Option<u64> {
        self.answered.take()
    }

    /// Closes the connection; the peer is told once what waits is pumped.
    pub(super) fn close(&mut self, code: u32, reason: &str) {
        if self.end.is_none() {
            self.closing = Some((code, reason.to_owned()));
            self.finish(End::Here);
        }
    }

    /// Ends the connection without a word: its channel broke.
    pub(super) fn fail(&mut self) {
        self.finish(End::Here);
    }

    fn finish(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        for stream in self.streams.values_mut() {
            self.wakes.extend(stream.reader.take());
            self.wakes.extend(stream.writer.take());
        }
        self.wakes.append(&mut self.open_waiters);
        self.wakes.append(&mut self.accept_waiters);
        self.wakes.append(&mut self.end_waiters);
        self.lanes.wake(&mut self.wakes);
    }

    /// Wakers whose time has come, to be woken when no lock is held.
    pub(super) fn take_wakes(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakes)
    }

    /// There is room in the output again. Says whether somebody waited for it.
    pub(super) fn room_made(&mut self) -> bool {
        let waited = self.credit > 0 && !self.blocked.is_empty();
        if waited {
            self.wake_blocked();
        }
        waited
    }

    fn wake_blocked(&mut self) {
        for _ in 0..WOKEN {
            let Some(id) = self.blocked.pop_front() else {
                return;
            };
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.blocked = false;
                self.wakes.extend(stream.writer.take());
            }
        }
    }

    fn set_due(&mut self, id: u32, what: u8) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.due.0 |= what;
            if !stream.queued {
                stream.queued = true;
                self.due.push_back(id);
            }
        }
    }

    /// Whether [`Mux::pump`] has frames to put.
    pub(super) fn has_due(&self) -> bool {
        if self.end.is_some() {
            return self.closing.is_some() && !self.close_sent;
        }
        let connection = self.ping.is_some() || self.pong.is_some() || self.lanes.has_returned();
        connection || !self.due.is_empty() || self.credit_due() > 0 || self.streams_due()
    }

    /// Puts all frames that are due, as far as there is room.
    pub(super) fn pump(&mut self, out: &mut impl Output) {
        if out.room() < SLACK {
            return;
        }
        if self.end.is_some() {
            if let Some((code, reason)) = &self.closing
                && !self.close_sent
            {
                let reason = reason.as_bytes();
                Frame::Close { code: *code, reason }.put(out);
                self.close_sent = true;
            }
            return;
        }
        self.pump_connection(out);
        while out.room() >= SLACK {
            let Some(id) = self.due.pop_front() else { break };
            self.pump_stream(id, out);
        }
    }

    fn pump_connection(&mut self, out: &mut impl Output) {
        if let Some(number) = self.ping.take() {
            Frame::Ping { number }.put(out);
        }
        if let Some(number) = self.pong.take() {
            Frame::Pong { number }.put(out);
        }
        let bytes = self.credit_due();
        if bytes > 0 {
            self.outstanding += bytes;
            Frame::Credit { stream: 0, bytes }.put(out);
        }
        if self.streams_due() {
            let more = std::mem::take(&mut self.ended);
            self.grants += u64::from(more);
            Frame::Streams { more }.put(out);
        }
        self.lanes.pump(out);
    }

    fn pump_stream(&mut self, stream: u32, out: &mut impl Output) {
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        let due = std::mem::replace(&mut state.due, Due(0));
        state.queued = false;
        if due.has(Due::OPEN) {
            Frame::Open { stream }.put(out);
        }
        if let (true, Some(lane)) = (due.has(Due::ASSIGN), state.lane) {
            Frame::Assign { stream, lane }.put(out);
        }
        if let (true, Some(lane)) = (due.has(Due::MOVED), state.lane) {
            Frame::Moved { stream, lane }.put(out);
        }
        if due.has(Due::FINISH) {
            Frame::Finish { stream }.put(out);
            self.wakes.extend(state.writer.take());
        }
        if let (true, Sending::Reset(code) | Sending::Stopped(code)) = (due.has(Due::RESET), state.sending) {
            Frame::Reset { stream, code }.put(out);
        }
        if let (true, Receiving::Stopped(code) | Receiving::Abandoned(code) | Receiving::Reset(code)) =
            (due.has(Due::STOP), state.receiving)
        {
            Frame::Stop { stream, code }.put(out);
        }
        if due.has(Due::CREDIT) && state.receiving == Receiving::Open {
            let bytes = state.window.saturating_sub(state.outstanding + state.buffered);
            state.outstanding += bytes;
            Frame::Credit { stream, bytes }.put(out);
        }
        if due.has(Due::WANT) && state.sending == Sending::Open {
            Frame::Want { stream }.put(out);
        }
        self.remove_if_over(stream);
    }

    fn remove_if_over(&mut self, id: u32) {
        if !self.streams.get(&id).is_some_and(Stream::is_over) {
            return;
        }
        if let Some(stream) = self.streams.remove(&id) {
            self.buffered -= stream.buffered;
            if let Some(lane) = stream.lane {
                self.lanes.retire(lane, &mut self.wakes);
            }
        }
        if self.is_theirs(id) {
            self.ended += 1;
        }
        // A burst's table is given back.
        let (length, capacity) = (self.streams.len(), self.streams.capacity());
        if capacity > 512 && length < capacity / 8 {
            self.streams.shrink_to(length * 2);
        }
    }

    fn streams_due(&self) -> bool {
        self.ended > 0 && self.ended >= self.ours.streams / 8
    }

    /// What the peer may send more on all streams, when that is worth saying.
    fn credit_due(&self) -> u32 {
        let window = self.ours.connection_window;
        let free = window.saturating_sub(self.outstanding + self.buffered);
        if free >= window / 4 { free } else { 0 }
    }

    fn is_theirs(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Acceptor)
    }

    /// Whether a stream of this number was opened some time.
    fn was_opened(&self, id: u32) -> bool {
        let next = if self.is_theirs(id) {
            self.next_theirs
        } else {
            self.next
        };
        id < next
    }
}

fn wait(waiters: &mut Vec<Waker>, waker: &Waker) {
    if !waiters.iter().any(|other| other.will_wake(waker)) {
        waiters.push(waker.clone());
    }
}
