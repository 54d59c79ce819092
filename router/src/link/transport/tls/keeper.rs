//! Keeps a connection's lanes: makes them ready, gives them to streams, takes them back, lets idle ones go.
//!
//! ```text
//!  Wanted(stream) ──▶ a free lane, or one is dialled ──▶ assigned ──▶ Retired here, Returned by the peer ──▶ free again
//! ```
//!
//! With the first stream that needs a lane one more is made, so that the next stream finds it ready. A link without
//! bulk has no lane at all.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::ConnectionError;
use super::connect::{Redial, TlsDialler};
use super::connection::{Parts, Shared};
use super::handshake::LIMIT;
use super::mux::LaneEvent;

/// Lanes of a connection: more bulk streams than that stay multiplexed.
pub(super) const LANES: usize = 32;
/// Ready for the next stream.
const SPARE: usize = 1;
/// A lane that nobody needed for so long is let go.
const IDLE: Duration = Duration::from_secs(60);
/// After a lane could not be made, none is tried for this long.
const PAUSE: Duration = Duration::from_secs(30);

/// How lanes are made.
pub(super) struct LaneDialler {
    pub(super) dialler: TlsDialler,
    pub(super) redial: Redial,
}

/// How far a lane's return is: both sides have to be done with its stream.
#[derive(Default)]
struct Return {
    here: bool,
    there: bool,
}

struct Keeper {
    shared: Arc<Shared>,
    dialler: Option<Arc<LaneDialler>>,
    making: JoinSet<(u32, Result<Parts, ConnectionError>)>,
    next: u32,
    wanting: VecDeque<u32>,
    free: Vec<(u32, Instant)>,
    used: HashMap<u32, Return>,
    not_before: Option<Instant>,
}

/// Keeps lanes until the connection ends.
pub(super) async fn keep(shared: Arc<Shared>, dialler: Option<LaneDialler>) {
    let mut keeper = Keeper {
        shared: shared.clone(),
        dialler: dialler.map(Arc::new),
        making: JoinSet::new(),
        next: 0,
        wanting: VecDeque::new(),
        free: Vec::new(),
        used: HashMap::new(),
        not_before: None,
    };
    loop {
        let event = poll_fn(|context| shared.with(|state| state.mux.poll_lanes(context.waker())));
        let rest = keeper.free.iter().map(|(_, since)| *since + IDLE).min();
        tokio::select! {
            event = event => match event {
                Some(event) => keeper.take(event),
                None => break,
            },
            Some(made) = keeper.making.join_next() => {
                if let Ok((lane, made)) = made {
                    keeper.made(lane, made);
                }
            }
            () = until(rest) => keeper.let_go(),
        }
    }
    // Their sockets close with them.
    shared.with(|state| std::mem::take(&mut state.lanes));
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

impl Keeper {
    fn take(&mut self, event: LaneEvent) {
        match event {
            LaneEvent::Wanted { stream } => {
                self.wanting.push_back(stream);
                self.serve();
                self.make();
            }
            LaneEvent::Retired { lane } => self.retired(lane),
            LaneEvent::Returned { lane } => {
                self.used.entry(lane).or_default().there = true;
                self.freed(lane);
            }
            LaneEvent::Gone { lane } => self.forget(lane, false),
        }
    }

    /// The stream is over here: the lane goes on only when both halves came back whole.
    fn retired(&mut self, lane: u32) {
        let whole = self.shared.with(|state| {
            let parts = state.lanes.get(&lane);
            parts.is_some_and(|parts| parts.send.is_some() && parts.receive.is_some())
        });
        if !whole {
            self.forget(lane, true);
        } else if self.dialler.is_some() {
            self.used.entry(lane).or_default().here = true;
            self.freed(lane);
        } else {
            self.shared.with(|state| state.mux.return_lane(lane));
        }
    }

    fn freed(&mut self, lane: u32) {
        if self.used.get(&lane).is_some_and(|used| used.here && used.there) {
            self.used.remove(&lane);
            self.shared.with(|state| state.mux.return_lane(lane));
            self.free.push((lane, Instant::now()));
            self.serve();
        }
    }

    fn forget(&mut self, lane: u32, tell: bool) {
        self.used.remove(&lane);
        self.free.retain(|(free, _)| *free != lane);
        let parts = self.shared.with(|state| {
            state.mux.forget_lane(lane, tell);
            state.lanes.remove(&lane)
        });
        if let Some(send) = parts.and_then(|parts| parts.send) {
            tokio::spawn(send.close());
        }
    }

    /// Gives free lanes to streams that want one.
    fn serve(&mut self) {
        while let Some(stream) = self.wanting.front().copied() {
            if !self.shared.with(|state| state.mux.waits_for_lane(stream)) {
                self.wanting.pop_front();
                continue;
            }
            let Some((lane, _)) = self.free.pop() else { return };
            let alive = self.shared.with(|state| {
                let receive = state
                    .lanes
                    .get_mut(&lane)
                    .and_then(|parts| parts.receive.as_mut());
                receive.is_some_and(|receive| receive.is_alive())
            });
            if !alive {
                self.forget(lane, true);
                continue;
            }
            self.wanting.pop_front();
            self.used.insert(lane, Return::default());
            self.shared.with(|state| state.mux.assign_lane(stream, lane));
        }
    }

    /// Makes what is wanted, and one to spare.
    fn make(&mut self) {
        let Some(dialler) = &self.dialler else { return };
        if self.not_before.is_some_and(|moment| Instant::now() < moment) {
            // What cannot have a lane goes on as it is.
            self.wanting.clear();
            return;
        }
        let there = self.shared.with(|state| state.lanes.len());
        let wanted = (self.wanting.len() + SPARE).saturating_sub(self.free.len());
        while self.making.len() < wanted && there + self.making.len() < LANES {
            let (number, ticket) = (self.next, self.shared.ticket);
            self.next += 1;
            let dialler = dialler.clone();
            self.making.spawn(async move {
                let made = async {
                    let dialled = timeout(LIMIT, (dialler.redial)()).await;
                    let slow = |_| ConnectionError::Lost("no answer in time".to_owned());
                    let socket = dialled
                        .map_err(slow)?
                        .map_err(|error| ConnectionError::Lost(error.to_string()))?;
                    dialler.dialler.lane(socket, ticket, number).await
                };
                (number, made.await)
            });
        }
    }

    fn made(&mut self, lane: u32, made: Result<Parts, ConnectionError>) {
        match made {
            Ok(parts) => {
                self.shared.with(|state| {
                    state.lanes.insert(lane, parts);
                    state.mux.add_lane(lane);
                });
                self.free.push((lane, Instant::now()));
                self.serve();
            }
            Err(error) => {
                tracing::debug!(remote = %self.shared.remote, %error, "no connection for bulk could be made");
                self.not_before = Some(Instant::now() + PAUSE);
                self.wanting.clear();
            }
        }
    }

    /// Closes lanes that nobody needed.
    fn let_go(&mut self) {
        let old = |since: &Instant| since.elapsed() >= IDLE;
        let idle: Vec<u32> = self
            .free
            .iter()
            .filter(|(_, since)| old(since))
            .map(|(lane, _)| *lane)
            .collect();
        for lane in idle {
            self.forget(lane, true);
        }
    }
}
