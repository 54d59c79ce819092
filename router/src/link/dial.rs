//! Links that we make: reach the peer, run, and reach it again, for as long as the document has them; and move them
//! to another transport where that does better.
//!
//! ```text
//!  reach.rs ──▶ the first connection ──▶ session ──▶ up ──▶ it ended: reach again
//!                                                    │
//!  prefer.rs ──▶ another transport ──▶ session ──────┤ up as well: new connections go there,
//!  silence ──▶ reach beside it ──▶ session, and still │ the old one ends when what it carries has
//!                                  silent ───────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use karez_router_config::api::LinkState;
use karez_router_config::{LinkConfig, Transport};
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::data;
use super::failure::{CloseCode, Failure};
use super::live::LiveLink;
use super::prefer::Preference;
use super::reach::Reach;
use super::session::Session;
use super::transport::TransportKind;
use crate::metrics::Fault;
use crate::profiles::{Profile, usable};
use crate::shared::{DialState, Shared};

/// The first wait after a link ended; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait for a peer whose links do not last.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for a peer that refuses: trying again alone will hardly help.
const LONGEST_WAIT_REFUSED: Duration = Duration::from_secs(15);
/// A link that lived this long starts again without waiting.
const STABLE: Duration = Duration::from_secs(5);
/// Another transport comes up in this time, or is left for later.
const MOVE_LIMIT: Duration = Duration::from_secs(5);
/// How often a transport that the link has left is looked at.
const LEFT: Duration = Duration::from_secs(1);

/// What the peer is told of a connection that the link has left.
pub(super) const MOVED: &str = "the link has moved to another transport";

/// What a link needs.
pub(crate) struct Dial {
    pub(crate) name: String,
    pub(crate) config: LinkConfig,
    /// The cost may change while the link is up.
    pub(crate) cost: watch::Receiver<u32>,
    pub(crate) profile: watch::Receiver<Profile>,
}

/// Keeps a link up until `stop`.
pub(crate) async fn dial(shared: Arc<Shared>, mut dial: Dial, stop: CancellationToken) {
    let state = DialState {
        state: LinkState::Connecting,
        error: None,
        peer: None,
        token: None,
        since: jiff::Timestamp::now(),
    };
    shared.change(|all| all.dialled.insert(dial.name.clone(), state));
    let mut preference = Preferred::new();
    let mut wait = Duration::ZERO;
    while !stop.is_cancelled() && !shared.shutdown.is_triggered() {
        let started = Instant::now();
        let failure = attempt(&shared, &mut dial, &mut preference, &stop).await;
        if stop.is_cancelled() || shared.shutdown.is_triggered() {
            break;
        }
        report(&shared, &dial, &failure);
        wait = next_wait(wait, started.elapsed(), failure.state);
        let mut profile = dial.profile.clone();
        profile.mark_unchanged();
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.shutdown.triggered() => break,
            () = sleep(wait.mul_f64(rand::rng().random_range(0.5..1.0))) => {}
            // A new credential is a reason to try at once.
            Ok(()) = profile.changed() => wait = Duration::ZERO,
        }
    }
    if stop.is_cancelled() {
        shared.change(|all| all.dialled.remove(&dial.name));
    }
}

fn next_wait(last: Duration, lived: Duration, state: LinkState) -> Duration {
    let longest = if state == LinkState::Refused {
        LONGEST_WAIT_REFUSED
    } else {
        LONGEST_WAIT
    };
    match lived {
        _ if last.is_zero() => FIRST_WAIT,
        lived if lived > STABLE => FIRST_WAIT,
        _ => (last * 2).min(longest),
    }
}

fn report(shared: &Shared, dial: &Dial, failure: &Failure) {
    let news = shared.set_dialled(&dial.name, failure.state, Some(failure.text.clone()), None);
    let (link, host, port) = (&dial.name, &dial.config.host, dial.config.port);
    let refused = failure.state == LinkState::Refused;
    shared.metrics.fault(if refused {
        Fault::RefusedByPeer
    } else {
        Fault::PeerDown
    });
    if news {
        tracing::warn!(
            link,
            host,
            port,
            state = failure.state.as_str(),
            reason = failure.text,
            "link is not active"
        );
    }
}

/// One attempt, and if it succeeds the whole life of the link. Always ends in a failure of some kind.
async fn attempt(
    shared: &Arc<Shared>,
    dial: &mut Dial,
    preference: &mut Preferred,
    stop: &CancellationToken,
) -> Failure {
    let profile = tokio::select! {
        profile = usable(&mut dial.profile) => profile,
        () = stop.cancelled() => return Failure::down("removed"),
        () = shared.shutdown.triggered() => return Failure::down("the router stops"),
    };
    let material = match profile {
        Profile::Ready(material) => material,
        Profile::Waiting(reason) => {
            return Failure::down(format!("TLS profile \"{}\": {reason}", dial.config.tls));
        }
    };
    let token = material
        .facts()
        .ok()
        .and_then(|facts| facts.token())
        .map(|token| token.token);
    if shared.read(|all| all.dialled.get(&dial.name).is_some_and(|old| old.token != token)) {
        shared.change(|all| all.dialled.get_mut(&dial.name).map(|old| old.token = token));
    }
    let reach = Arc::new(Reach::new(shared.clone(), dial, material));
    let mut renewed = dial.profile.clone();
    renewed.mark_unchanged();
    let told = |failure: &Failure| report(shared, dial, failure);
    let session = tokio::select! {
        reached = reach.first(told) => match reached {
            Ok(session) => session,
            Err(failure) => return failure,
        },
        () = stop.cancelled() => return Failure::down("removed"),
        () = shared.shutdown.triggered() => return Failure::down("the router stops"),
        Ok(()) = renewed.changed() => return Failure::down("dialling anew with another credential"),
    };
    keep(shared, dial, &reach, session, preference, stop).await
}

/// What the peer is told of a connection that is not needed any more.
const HEARD_AGAIN: &str = "the link is heard again";

/// A session that comes up beside the one there is.
type Coming = AbortOnDropHandle<Result<Session, Failure>>;

/// A link on one transport, running.
struct Up {
    link: Arc<LiveLink>,
    running: JoinHandle<Failure>,
}

impl Up {
    fn start(shared: &Arc<Shared>, dial: &Dial, reach: &Arc<Reach>, session: Session) -> Self {
        let link = session.link.clone();
        let (peer, remote) = (link.peer.clone(), link.remote);
        let transport = link.transport().as_str();
        tracing::info!(link = dial.name, peer = peer.name, %remote, transport, "link is active");
        shared.set_dialled(&dial.name, LinkState::Active, None, Some(peer));
        let running = tokio::spawn({
            let (shared, reach, link) = (shared.clone(), reach.clone(), link.clone());
            async move {
                tokio::spawn(data::keep(reach, link));
                session.run(&shared).await
            }
        });
        Self { link, running }
    }

    /// Closes it at once.
    fn close(&self, shared: &Shared) {
        shared.link_down(self.link.id);
        let stops = shared.shutdown.is_triggered();
        let why = if stops {
            "the router stops"
        } else {
            "the link was removed there"
        };
        self.link.close(CloseCode::Leaving, why);
    }

    /// Takes no new connections; closes it once those that it carries have ended.
    async fn leave(mut self, shared: Arc<Shared>, stop: CancellationToken) {
        shared.link_down(self.link.id);
        // The peer, too, takes the other one for what is new.
        self.link.leaving.cancel();
        let idle = async {
            loop {
                sleep(LEFT).await;
                if self.link.is_idle() {
                    break;
                }
            }
        };
        tokio::select! {
            _ = &mut self.running => return,
            () = idle => {}
            () = stop.cancelled() => {}
        }
        self.link.close(CloseCode::Leaving, MOVED);
    }
}

/// Looks for a connection to a peer of whom nothing arrives: its address, or ours, may have changed, or one transport may be
/// blocked. Whether the old one is gone shows later, and what it carries stays with it until then.
struct Relief {
    suspect: watch::Receiver<bool>,
    coming: Option<Coming>,
}

impl Relief {
    fn of(link: &LiveLink) -> Self {
        Self {
            suspect: link.suspect.subscribe(),
            coming: None,
        }
    }

    /// A session with a peer that is still silent. What is under way goes on when this is called again.
    async fn comes(&mut self, reach: &Arc<Reach>) -> Session {
        loop {
            if self.coming.is_none() {
                silent(&mut self.suspect).await;
                let reach = reach.clone();
                let coming = tokio::spawn(async move { reach.first(|_| {}).await });
                self.coming = Some(AbortOnDropHandle::new(coming));
            }
            let reached = joined(&mut self.coming).await;
            self.coming = None;
            match reached {
                Ok(session) if *self.suspect.borrow() => return session,
                Ok(session) => session.link.close(CloseCode::Leaving, HEARD_AGAIN),
                // It refuses us: the link's own end will say so.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

async fn silent(suspect: &mut watch::Receiver<bool>) {
    if suspect.wait_for(|suspect| *suspect).await.is_err() {
        std::future::pending().await
    }
}

/// What a link does while it is up; ends with it.
async fn keep(
    shared: &Arc<Shared>,
    dial: &mut Dial,
    reach: &Arc<Reach>,
    session: Session,
    preference: &mut Preferred,
    stop: &CancellationToken,
) -> Failure {
    let mut up = Up::start(shared, dial, reach, session);
    preference.up(up.link.transport());
    let moves = dial.config.transport == Transport::Auto;
    let mut other: Option<Coming> = None;
    let mut relief = Relief::of(&up.link);
    loop {
        let session = tokio::select! {
            ended = &mut up.running => {
                return ended.unwrap_or_else(|error| Failure::down(format!("the link's task failed: {error}")));
            }
            () = stop.cancelled() => {
                up.close(shared);
                return Failure::down("removed");
            }
            // Further connections, lanes and other transports prove themselves with what is there then.
            Ok(()) = dial.profile.changed() => {
                if let Profile::Ready(material) = &*dial.profile.borrow_and_update() {
                    reach.renew(material);
                }
                continue;
            }
            Ok(()) = dial.cost.changed() => {
                follow_cost(shared, &up.link, *dial.cost.borrow_and_update());
                continue;
            }
            () = sleep_until(preference.due()), if moves && other.is_none() => {
                if let Some(kind) = preference.look(&up.link) {
                    other = Some(AbortOnDropHandle::new(tokio::spawn(come_up(reach.clone(), kind))));
                }
                continue;
            }
            tried = joined(&mut other) => match tried {
                Ok(session) => {
                    preference.moved(&session.link);
                    session
                }
                Err(failure) => {
                    other = None;
                    preference.failed();
                    let reason = failure.text;
                    tracing::debug!(link = dial.name, reason, "the other transport does not come up");
                    continue;
                }
            },
            session = relief.comes(reach) => {
                let link = &dial.name;
                tracing::warn!(link, "nothing arrives from the peer; it answers on a new connection");
                preference.up(session.link.transport());
                session
            }
        };
        let left = std::mem::replace(&mut up, Up::start(shared, dial, reach, session));
        tokio::spawn(left.leave(shared.clone(), stop.clone()));
        (other, relief) = (None, Relief::of(&up.link));
    }
}

/// A session over another transport.
async fn come_up(reach: Arc<Reach>, kind: TransportKind) -> Result<Session, Failure> {
    let late = |_| Err(Failure::down("it takes too long"));
    timeout(MOVE_LIMIT, reach.session_over(kind))
        .await
        .unwrap_or_else(late)
}

/// What came of it; waits forever while nothing is coming up.
async fn joined(coming: &mut Option<Coming>) -> Result<Session, Failure> {
    match coming {
        Some(coming) => coming
            .await
            .unwrap_or_else(|error| Err(Failure::down(error.to_string()))),
        None => std::future::pending().await,
    }
}

fn follow_cost(shared: &Shared, link: &LiveLink, cost: u32) {
    link.cost.store(cost, Ordering::Relaxed);
    shared.event(karez_topology::Event::LinkCost { link: link.id, cost });
}

/// The preference, by the clock.
struct Preferred {
    core: Preference,
    start: Instant,
}

impl Preferred {
    fn new() -> Self {
        Self {
            core: Preference::new(),
            start: Instant::now(),
        }
    }

    fn up(&mut self, on: TransportKind) {
        self.core.up(self.start.elapsed(), on);
    }

    fn due(&self) -> Instant {
        let due = self.start.checked_add(self.core.due());
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }

    fn look(&mut self, link: &LiveLink) -> Option<TransportKind> {
        self.core.look(self.start.elapsed(), link.statistics())
    }

    fn moved(&mut self, link: &LiveLink) {
        self.core
            .moved(self.start.elapsed(), link.transport(), link.statistics());
    }

    fn failed(&mut self) {
        self.core.failed(self.start.elapsed());
    }
}
