//! A multiplexed connection: the core, two tasks that move its bytes, and one that keeps its lanes.
//!
//! ```text
//!  streams' tasks ──▶ State { Mux, Outgoing } ──writer task: seal, one write──▶ socket
//!  streams' tasks ◀── State { Mux }           ◀──reader task: one read, open─── socket
//! ```
//!
//! The state is locked for as long as it takes to copy frames into records or out of them, never while something is
//! sealed, opened, or in a system call. The writer writes what there is as soon as it is woken, and whatever has come
//! meanwhile next. Letting all ready tasks go first fills records better, but the peer's core waits meanwhile: 64
//! connections had a quarter fewer requests a second.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::error::{ConnectionError, Party};
use super::super::tcp::Watch;
use super::frame::ProtocolError;
use super::greeting::Ticket;
use super::incoming::{Incoming, Opening};
use super::lane::{LaneReceive, LaneSend};
use super::mux::{End, Mux};
use super::outgoing::Outgoing;
use super::record::{RecordError, Sealer};
use crate::buffer::Size;

/// A silent peer is gone after this.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// How often a quiet connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A closed connection may say why for this long.
const LINGER: Duration = Duration::from_secs(2);
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

/// A connection as its tasks see it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    to_write: Notify,
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
    started: Instant,
}

impl Shared {
    pub(super) fn new(
        mux: Mux,
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
            to_write: Notify::new(),
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
        let (result, wakes, write, over) = {
            let mut state = self.state.lock().expect("nothing panics while it is held");
            let result = action(&mut state);
            let write = !state.out.is_empty() || state.mux.has_due();
            (result, state.mux.take_wakes(), write, state.mux.end().is_some())
        };
        for waker in wakes {
            waker.wake();
        }
        if write {
            self.to_write.notify_one();
        }
        if over && !self.over.is_cancelled() {
            self.over.cancel();
        }
        result
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

    fn now(&self) -> u64 {
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

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Hands what is to be said to the socket, until the connection ends.
pub(super) async fn write(
    shared: Arc<Shared>,
    mut socket: OwnedWriteHalf,
    mut sealer: Sealer,
    mut watch: Watch,
) {
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            () = shared.to_write.notified() => {}
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
            flushed = flush(&shared, &mut socket, &mut sealer, &mut watch) => flushed,
            () = linger(&shared) => return,
        };
        if let Err(error) = flushed {
            shared.fail(ConnectionError::Lost(error));
        }
        if shared.over.is_cancelled() {
            let _ = socket.shutdown().await;
            return;
        }
    }
}

async fn linger(shared: &Shared) {
    shared.over.cancelled().await;
    tokio::time::sleep(LINGER).await;
}

/// Writes until nothing is left to write.
async fn flush(
    shared: &Shared,
    socket: &mut OwnedWriteHalf,
    sealer: &mut Sealer,
    watch: &mut Watch,
) -> Result<(), String> {
    loop {
        let (batch, waited) = shared.with(|state| {
            state.mux.pump(&mut state.out);
            let batch = state.out.take();
            (batch, state.mux.room_made())
        });
        let Some(mut batch) = batch else {
            if waited {
                // Whoever was woken has something to say, and is to say it before this sleeps.
                tokio::task::yield_now().await;
                continue;
            }
            return Ok(());
        };
        let place = batch.seal(sealer).map_err(|error| error.to_string())?;
        shared.sent.fetch_add(place.len() as u64, Ordering::Relaxed);
        let bytes = place.len();
        let written = socket.write_all(batch.bytes(place)).await;
        written.map_err(|error| error.to_string())?;
        watch.sent(socket.as_ref(), bytes);
    }
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
