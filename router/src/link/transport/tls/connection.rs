//! A multiplexed connection: the core, two tasks that move its bytes, and one that keeps its lanes.
//!
//! ```text
//!  streams' tasks ──▶ State { Mux, Outgoing } ──Writer: seal, one write (writer.rs)──▶ socket
//!  streams' tasks ◀── State { Mux }           ◀──reader task: one read, open───────── socket
//! ```
//!
//! The state is locked for as long as it takes to copy frames into records or out of them, never while something is
//! sealed, opened, or in a system call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::error::{ConnectionError, Party};
use super::frame::ProtocolError;
use super::greeting::Ticket;
use super::incoming::{Incoming, Opening};
use super::lane::{LaneReceive, LaneSend};
use super::mux::{End, Mux};
use super::outgoing::Outgoing;
use super::record::RecordError;
use super::writer::Writer;
use crate::buffer::Size;

/// A silent peer is gone after this.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// A closed connection may say why for this long.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// What a side that broke the protocol is told with.
const PROTOCOL: u32 = 3;

/// The two halves of a lane that no stream uses just now.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) send: Option<LaneSend>,
    pub(super) receive: Option<LaneReceive>,
}

/// What streams and tasks share.
pub(super) struct State {
    pub(super) mux: Mux,
    pub(super) out: Outgoing,
    pub(super) lanes: HashMap<u32, Parts>,
}

/// What waits to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    Nothing,
    /// So many frames are laid out, and more may be due.
    Frames(usize),
}

/// A connection as its tasks see it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The writing end, until the connection has ended.
    pub(super) writer: Mutex<Option<Writer>>,
    /// There is something to write.
    pub(super) to_write: Notify,
    /// When something was last written, in microseconds from the start.
    pub(super) written: AtomicU64,
    /// The connection has ended.
    pub(super) over: CancellationToken,
    error: OnceLock<ConnectionError>,
    pub(super) remote: SocketAddr,
    pub(super) peer: Option<CertificateDer<'static>>,
    pub(super) ticket: Ticket,
    round_trip: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    /// What lanes carried, apart: the connection itself may be silent meanwhile.
    pub(super) lanes_sent: AtomicU64,
    pub(super) lanes_received: AtomicU64,
    pub(super) started: Instant,
}

impl Shared {
    pub(super) fn new(
        mux: Mux,
        writer: Writer,
        remote: SocketAddr,
        peer: Option<CertificateDer<'static>>,
        ticket: Ticket,
        round_trip: Duration,
    ) -> Self {
        let state = State {
            mux,
            out: Outgoing::new(Size::Small),
            lanes: HashMap::new(),
        };
        Self {
            state: Mutex::new(state),
            writer: Mutex::new(Some(writer)),
            to_write: Notify::new(),
            written: AtomicU64::new(0),
            over: CancellationToken::new(),
            error: OnceLock::new(),
            remote,
            peer,
            ticket,
            round_trip: AtomicU64::new(micros(round_trip)),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            lanes_sent: AtomicU64::new(0),
            lanes_received: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Does something with the state, then wakes whom that concerns.
    pub(super) fn with<R>(&self, action: impl FnOnce(&mut State) -> R) -> R {
        let (result, write) = self.act(action);
        if write != Unwritten::Nothing {
            self.to_write.notify_one();
        }
        result
    }

    /// Does something with the state, wakes whom that concerns, and says what is to be written now.
    pub(super) fn act<R>(&self, action: impl FnOnce(&mut State) -> R) -> (R, Unwritten) {
        let (result, wakes, write, over) = {
            let mut state = self.state.lock().expect("nothing panics while it is held");
            let result = action(&mut state);
            let write = match state.out.frames() {
                0 if !state.mux.has_due() => Unwritten::Nothing,
                frames => Unwritten::Frames(frames),
            };
            (result, state.mux.take_wakes(), write, state.mux.end().is_some())
        };
        for waker in wakes {
            waker.wake();
        }
        if over && !self.over.is_cancelled() {
            self.over.cancel();
        }
        (result, write)
    }

    /// Why the connection is over.
    pub(super) fn reason(&self, end: &End) -> ConnectionError {
        match (self.error.get(), end) {
            (Some(error), _) => error.clone(),
            (None, End::ByPeer { code, reason }) => ConnectionError::Closed {
                code: *code,
                reason: reason.clone(),
            },
            (None, End::Here) => ConnectionError::Local,
        }
    }

    /// Ends it for a reason, without a word.
    pub(super) fn fail(&self, error: ConnectionError) {
        self.with(|state| {
            // What ended it first is the reason.
            if state.mux.end().is_none() {
                let _ = self.error.set(error);
                state.mux.fail();
            }
        });
    }

    /// Ends it and tells the peer.
    pub(super) fn close(&self, code: u32, reason: &str) {
        self.with(|state| state.mux.close(code, reason));
    }

    fn refuse(&self, error: ProtocolError) {
        let reason = format!("the peer broke the protocol: {error}");
        self.with(|state| {
            if state.mux.end().is_none() {
                let _ = self.error.set(ConnectionError::Lost(reason.clone()));
                state.mux.close(PROTOCOL, &reason);
            }
        });
    }

    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }

    pub(super) fn now(&self) -> u64 {
        micros(self.started.elapsed())
    }

    /// The answer to a ping, whose number is when it was asked.
    fn answered(&self, asked: u64) {
        let sample = self.now().saturating_sub(asked);
        let old = self.round_trip.load(Ordering::Relaxed);
        let new = old - old / 8 + sample / 8;
        self.round_trip.store(new, Ordering::Relaxed);
        self.with(|state| state.mux.set_round_trip(Duration::from_micros(new)));
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Why nothing more is read.
enum Unreadable {
    Record(RecordError),
    Protocol(ProtocolError),
}

impl From<RecordError> for Unreadable {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// Takes in what the peer says, until the connection ends.
pub(super) async fn read(shared: Arc<Shared>, mut socket: OwnedReadHalf, mut incoming: Incoming) {
    let over = shared.over.clone();
    let over = over.cancelled();
    let silence = tokio::time::sleep(IDLE);
    tokio::pin!(over, silence);
    let mut heard = Instant::now();
    loop {
        if let Err(unreadable) = take_in(&shared, &mut incoming) {
            return match unreadable {
                Unreadable::Record(error) => shared.fail(ConnectionError::Lost(error.to_string())),
                Unreadable::Protocol(error) => shared.refuse(error),
            };
        }
        let filled = std::future::poll_fn(|context| incoming.poll_fill(&mut socket, context));
        tokio::select! {
            biased;
            filled = filled => match filled {
                Ok(0) => return shared.fail(ConnectionError::Lost("the peer is gone".to_owned())),
                Ok(read) => {
                    heard = Instant::now();
                    shared.received.fetch_add(read as u64, Ordering::Relaxed);
                }
                Err(error) => return shared.fail(ConnectionError::Lost(error.to_string())),
            },
            () = &mut over => return drain(socket).await,
            () = &mut silence => {
                if heard.elapsed() >= IDLE {
                    return shared.fail(ConnectionError::Lost("the peer does not answer".to_owned()));
                }
                silence.as_mut().reset((heard + IDLE).into());
            }
        }
    }
}

fn take_in(shared: &Shared, incoming: &mut Incoming) -> Result<(), Unreadable> {
    let opening = incoming.open()?;
    if incoming.has_opened() {
        let answered = shared.with(|state| {
            let taken = incoming.take(|record, keep| state.mux.receive(record, keep));
            taken.map(|()| state.mux.take_answer())
        });
        if let Some(asked) = answered.map_err(Unreadable::Protocol)? {
            shared.answered(asked);
        }
    }
    if let Opening::Alert(alert) = opening {
        shared.fail(alerted(alert));
    }
    Ok(())
}

/// Reads on for a while, so that what was said last is not lost with bytes that nobody took.
async fn drain(mut socket: OwnedReadHalf) {
    let mut space = [0; 1024];
    let rest = async { while socket.read(&mut space).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// What the peer's alert means.
pub(super) fn alerted(alert: u8) -> ConnectionError {
    match alert {
        0 => ConnectionError::Lost("the peer is gone".to_owned()),
        alert => ConnectionError::Tls {
            by: Party::Peer,
            alert,
            detail: String::new(),
        },
    }
}
