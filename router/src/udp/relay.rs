//! One session, until it is idle or one of its ends is gone: datagrams both ways between two ports.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::exchange::{Direct, DirectOutlet};
use super::table::Active;
use super::wire::{Frame, Frames, count, header};
use crate::connector::{Connector, Socket};
use crate::link::{RESET_CODE, RecvStream, SendStream, Stream};
use crate::metrics::{Dropped, Ending, Metrics};
use crate::record::{ConnectionRecord, Meter};
use crate::shared::Shared;
use crate::way::Far;

/// A session that came over a link ends by itself after this: the one who opened it ends it sooner.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How often the peer is told what went beside the stream.
const REPORT: Duration = Duration::from_secs(1);
/// What is on its way beside the stream may arrive that much later than the stream's end.
const LATE: Duration = Duration::from_millis(200);
/// Chunks taken from a stream at once.
const CHUNKS: usize = 16;

/// A datagram that waits for its session; what waits is bounded in bytes.
pub(super) struct Held {
    bytes: Bytes,
    budget: Arc<AtomicUsize>,
}

impl Held {
    /// Takes its length from the budget, if that much is left of it.
    pub(super) fn new(bytes: Bytes, budget: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = budget.fetch_add(bytes.len(), Ordering::Relaxed);
        let held = Self {
            bytes,
            budget: budget.clone(),
        };
        (before < most).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// When a session was last active.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    last: AtomicU64,
}

impl Activity {
    /// Counts from `began`: all sessions of a table have the same.
    pub(super) fn since(began: Instant) -> Self {
        let activity = Self {
            began,
            last: AtomicU64::new(0),
        };
        activity.now();
        activity
    }

    fn passed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) {
        self.last.store(self.passed(), Ordering::Relaxed);
    }

    /// Returns once nothing happened for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let idle = Duration::from_millis(self.passed().saturating_sub(self.last()));
            if idle >= limit {
                return;
            }
            sleep(limit - idle).await;
        }
    }
}

impl Active for Activity {
    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

/// One end of a session.
pub(crate) struct Port {
    inlet: Inlet,
    outlet: Outlet,
}

enum Inlet {
    Queue(mpsc::Receiver<Held>),
    Socket(Arc<UdpSocket>),
    Link(LinkInlet),
}

enum Outlet {
    Client(Arc<UdpSocket>, SocketAddr),
    Socket(Arc<UdpSocket>),
    Link(LinkOutlet),
}

struct LinkInlet {
    stream: RecvStream,
    frames: Frames,
    direct: Option<Direct>,
    /// How many the peer said that it had sent beside the stream, and how many of those were counted as lost.
    said: u64,
    lost: u64,
}

struct LinkOutlet {
    stream: SendStream,
    direct: Option<DirectOutlet>,
    scratch: BytesMut,
    reported: (u64, Instant),
    /// While something is being written: given up there, the stream makes no sense any more.
    writing: bool,
}

/// Why a session's direction ended.
enum Over {
    /// The other side ended it.
    Ended,
    /// It failed.
    Failed(String),
    /// The target's host says that nobody listens.
    Refused(String),
}

impl Port {
    /// A client of a listener.
    pub(super) fn client(queue: mpsc::Receiver<Held>, socket: Arc<UdpSocket>, from: SocketAddr) -> Self {
        Self {
            inlet: Inlet::Queue(queue),
            outlet: Outlet::Client(socket, from),
        }
    }

    /// A target on this site, or a peer.
    fn far(far: Far) -> Option<(Self, Option<Arc<Connector>>)> {
        match far {
            Far::Link(opened) => Some((Self::link(opened.stream, opened.direct), None)),
            Far::Target(Socket::Udp(socket), connector) => {
                let socket = Arc::new(socket);
                let port = Self {
                    inlet: Inlet::Socket(socket.clone()),
                    outlet: Outlet::Socket(socket),
                };
                Some((port, Some(connector)))
            }
            Far::Target(Socket::Tcp(_), _) | Far::Sealed(_) => None,
        }
    }

    /// A peer.
    pub(crate) fn link(stream: Stream, direct: Option<Direct>) -> Self {
        let outlet = LinkOutlet {
            stream: stream.send,
            direct: direct.as_ref().map(Direct::outlet),
            scratch: BytesMut::new(),
            reported: (0, Instant::now()),
            writing: false,
        };
        let inlet = LinkInlet {
            stream: stream.receive,
            frames: Frames::default(),
            direct,
            said: 0,
            lost: 0,
        };
        Self {
            inlet: Inlet::Link(inlet),
            outlet: Outlet::Link(outlet),
        }
    }
}

/// A session that came over a link, to a target of ours or over another link.
pub(crate) async fn serve(shared: &Arc<Shared>, near: Port, far: Far, record: ConnectionRecord) {
    let activity = Activity::since(Instant::now());
    relay(shared, near, far, &activity, FORGOTTEN, record).await;
}

/// Carries a session's datagrams; writes its record.
pub(super) async fn relay(
    shared: &Arc<Shared>,
    mut near: Port,
    far: Far,
    activity: &Activity,
    idle: Duration,
    record: ConnectionRecord,
) {
    // An address of UDP has no targets of TCP.
    let Some((mut far, target)) = Port::far(far) else {
        return;
    };
    let metrics = &shared.metrics;
    metrics.udp_sessions.inc();
    let never = CancellationToken::new();
    let removed = target.as_ref().map_or(&never, |target| &target.removed);
    let (sent, received) = (&record.sent, &record.received);
    let (ending, over) = tokio::select! {
        over = forward(&mut near.inlet, &mut far.outlet, metrics, sent, activity) => (Ending::Completed, Some(over)),
        over = forward(&mut far.inlet, &mut near.outlet, metrics, received, activity) => (Ending::Completed, Some(over)),
        () = activity.idle(idle) => (Ending::Idle, None),
        () = removed.cancelled() => (Ending::TargetRemoved, None),
        () = shared.force.cancelled() => (Ending::Shutdown, None),
    };
    metrics.udp_sessions.dec();
    for outlet in [&mut near.outlet, &mut far.outlet] {
        outlet.finish().await;
    }
    for inlet in [&mut near.inlet, &mut far.inlet] {
        inlet.close(metrics);
    }
    match over {
        None | Some(Over::Ended) => record.end(ending, None),
        Some(Over::Failed(error)) => record.end(Ending::TargetReset, Some(error)),
        Some(Over::Refused(error)) => {
            metrics.dropped(Dropped::TargetRefused);
            if let Some(target) = target {
                target.note(shared, Some(&error));
            }
            record.end(Ending::Refused, Some(error));
        }
    }
}

async fn forward(
    inlet: &mut Inlet,
    outlet: &mut Outlet,
    metrics: &Metrics,
    meter: &Meter,
    activity: &Activity,
) -> Over {
    loop {
        let datagram = match inlet.next(metrics).await {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Over::Ended,
            Err(over) => return over,
        };
        activity.now();
        let length = datagram.len() as u64;
        match outlet.send(datagram, metrics).await {
            Ok(true) => {
                meter.add(length);
                metrics.udp_datagrams.inc();
            }
            Ok(false) => {}
            Err(over) => return over,
        }
    }
}

impl Inlet {
    async fn next(&mut self, metrics: &Metrics) -> Result<Option<Bytes>, Over> {
        match self {
            Self::Queue(queue) => Ok(queue.recv().await.map(|held| held.bytes.clone())),
            Self::Socket(socket) => loop {
                socket.readable().await.map_err(Over::of)?;
                match super::read(|buffer| Ok((socket.try_recv(buffer)?, ()))) {
                    Ok((datagram, ())) => return Ok(Some(datagram)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(Over::of(error)),
                }
            },
            Self::Link(link) => link.next(metrics).await,
        }
    }

    /// What still waits is dropped, and counted.
    fn close(&mut self, metrics: &Metrics) {
        match self {
            Self::Queue(queue) => {
                queue.close();
                while queue.try_recv().is_ok() {
                    metrics.dropped(Dropped::SessionEnded);
                }
            }
            Self::Socket(_) => {}
            Self::Link(link) => link.stream.stop(RESET_CODE),
        }
    }
}

impl Over {
    fn of(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused(format!("the target's host refuses datagrams: {error}"))
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl LinkInlet {
    async fn next(&mut self, metrics: &Metrics) -> Result<Option<Bytes>, Over> {
        loop {
            match self.frames.next() {
                Some(Frame::Datagram(datagram)) => return Ok(Some(datagram)),
                Some(Frame::Sent(count)) => {
                    // What the last report told of has had the time to arrive.
                    self.settle(metrics);
                    self.said = count;
                    continue;
                }
                None => {}
            }
            let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
            let read = match &mut self.direct {
                // Both can be given up while they wait without a loss.
                Some(direct) => tokio::select! {
                    Some(datagram) = direct.inbox.recv() => return Ok(Some(datagram)),
                    read = self.stream.read_chunks(&mut chunks) => read,
                },
                None => self.stream.read_chunks(&mut chunks).await,
            };
            match read {
                Ok(Some(filled)) => chunks
                    .into_iter()
                    .take(filled)
                    .for_each(|chunk| self.frames.push(chunk)),
                Ok(None) => return Ok(self.late(metrics).await),
                Err(error) => return Err(Over::Failed(error.to_string())),
            }
        }
    }

    /// The stream has ended: what else comes beside it, until all is there or it is too late.
    async fn late(&mut self, metrics: &Metrics) -> Option<Bytes> {
        let missing = self.direct.as_ref().is_some_and(|direct| {
            direct.arrived.load(Ordering::Relaxed) + self.lost < self.said || !direct.inbox.is_empty()
        });
        if missing
            && let Some(direct) = &mut self.direct
            && let Ok(Some(datagram)) = timeout(LATE, direct.inbox.recv()).await
        {
            return Some(datagram);
        }
        self.settle(metrics);
        None
    }

    /// Counts as lost what the peer said that it had sent, and what did not come.
    fn settle(&mut self, metrics: &Metrics) {
        let Some(direct) = &self.direct else { return };
        let arrived = direct.arrived.load(Ordering::Relaxed);
        let lost = self.said.saturating_sub(arrived + self.lost);
        self.lost += lost;
        metrics.dropped_many(Dropped::LinkLost, lost);
    }
}

impl Outlet {
    /// Sends a datagram; `false` when it was dropped, and counted.
    async fn send(&mut self, datagram: Bytes, metrics: &Metrics) -> Result<bool, Over> {
        match self {
            Self::Client(socket, to) => match socket.send_to(&datagram, *to).await {
                Ok(_) => Ok(true),
                Err(_) => {
                    metrics.dropped(Dropped::ClientUnreachable);
                    Ok(false)
                }
            },
            Self::Socket(socket) => match socket.send(&datagram).await {
                Ok(_) => Ok(true),
                Err(error) if error.raw_os_error() == Some(TOO_LONG) => {
                    metrics.dropped(Dropped::TooLong);
                    Ok(false)
                }
                Err(error) => Err(Over::of(error)),
            },
            Self::Link(link) => link.send(datagram, metrics).await,
        }
    }

    /// Tells the other side that nothing more comes.
    async fn finish(&mut self) {
        if let Self::Link(link) = self {
            // Bounded: a peer that reads nothing does not hold the session.
            let told = !link.writing && timeout(LATE, link.report(Duration::ZERO)).await.is_ok();
            if told && !link.writing {
                let _ = link.stream.finish();
            } else {
                link.stream.reset(RESET_CODE);
            }
        }
    }
}

/// EMSGSIZE on Linux: the datagram is longer than the socket's protocol allows.
const TOO_LONG: i32 = 90;

impl LinkOutlet {
    async fn send(&mut self, datagram: Bytes, metrics: &Metrics) -> Result<bool, Over> {
        if self.direct.as_mut().is_some_and(|direct| direct.send(&datagram)) {
            self.report(REPORT).await?;
            return Ok(true);
        }
        let Some(header) = header(&mut self.scratch, &datagram) else {
            metrics.dropped(Dropped::TooLong);
            return Ok(false);
        };
        self.writing = true;
        let written = self.stream.write_chunks(&mut [header, datagram]).await;
        self.writing = written.is_err();
        written.map_err(|error| Over::Failed(error.to_string()))?;
        Ok(true)
    }

    /// Tells how many went beside the stream, unless that was done less than `every` ago.
    async fn report(&mut self, every: Duration) -> Result<(), Over> {
        let Some(direct) = &self.direct else { return Ok(()) };
        if direct.sent == self.reported.0 || self.reported.1.elapsed() < every {
            return Ok(());
        }
        self.reported = (direct.sent, Instant::now());
        self.writing = true;
        let written = self.stream.write_all(&count(direct.sent)).await;
        self.writing = written.is_err();
        written.map_err(|error| Over::Failed(error.to_string()))
    }
}
