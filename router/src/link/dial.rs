//! Links that we make: dial, run, and dial again with jittered back-off, for as long as the document has them.

use std::sync::Arc;
use std::time::Duration;

use karez_identity::TlsMaterial;
use karez_router_config::LinkConfig;
use karez_router_config::api::{Direction, LinkState};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::failure::{CloseCode, Failure, close};
use super::session::{Side, greet};
use super::transport::{Connection, quic};
use crate::metrics::Fault;
use crate::profiles::{Profile, usable};
use crate::shared::{DialState, Shared};

/// An attempt that takes longer starts afresh.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The first wait; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait for a peer that is not reachable.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for a peer that refuses: trying again alone will hardly help.
const LONGEST_WAIT_REFUSED: Duration = Duration::from_secs(15);
/// A link that lived this long starts again without waiting.
const STABLE: Duration = Duration::from_secs(5);

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
    let mut wait = Duration::ZERO;
    while !stop.is_cancelled() && !shared.shutdown.is_triggered() {
        let started = Instant::now();
        let failure = attempt(&shared, &mut dial, &stop).await;
        if stop.is_cancelled() || shared.shutdown.is_triggered() {
            break;
        }
        let news = shared.set_dialled(&dial.name, failure.state, Some(failure.text.clone()), None);
        report(&shared, &dial, &failure, news);
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
        lived if lived > STABLE + HANDSHAKE_LIMIT => FIRST_WAIT,
        _ => (last * 2).min(longest),
    }
}

fn report(shared: &Shared, dial: &Dial, failure: &Failure, news: bool) {
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
async fn attempt(shared: &Arc<Shared>, dial: &mut Dial, stop: &CancellationToken) -> Failure {
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
    let connection = tokio::select! {
        connected = connect(shared, &dial.config, &material) => match connected {
            Ok(connection) => connection,
            Err(failure) => return failure,
        },
        () = stop.cancelled() => return Failure::down("removed"),
        () = shared.shutdown.triggered() => return Failure::down("the router stops"),
    };
    let side = Side {
        connection: connection.clone(),
        direction: Direction::Outgoing,
        role: dial.config.role,
        name: dial.name.clone(),
        cost: *dial.cost.borrow(),
        admitted_by: None,
    };
    let session = match greet(shared, side).await {
        Ok(session) => session,
        Err(failure) => return failure,
    };
    let peer = session.link.peer.clone();
    tracing::info!(link = dial.name, peer = peer.name, remote = %connection.remote_address(), "link is active");
    shared.set_dialled(&dial.name, LinkState::Active, None, Some(peer));
    let link = session.link.clone();
    let costs = follow_cost(shared, link.id, dial.cost.clone(), &link.cost);
    tokio::select! {
        failure = session.run(shared) => failure,
        () = stop.cancelled() => {
            shared.link_down(link.id);
            let why = if shared.shutdown.is_triggered() { "the router stops" } else { "the link was removed there" };
            close(&connection, CloseCode::Leaving, why);
            Failure::down("removed")
        }
        () = costs => Failure::down("removed"),
    }
}

async fn follow_cost(
    shared: &Shared,
    link: karez_topology::LinkId,
    mut cost: watch::Receiver<u32>,
    current: &std::sync::atomic::AtomicU32,
) {
    while cost.changed().await.is_ok() {
        let cost = *cost.borrow_and_update();
        current.store(cost, std::sync::atomic::Ordering::Relaxed);
        shared.event(karez_topology::Event::LinkCost { link, cost });
    }
    // The document no longer has the link; whoever removed it also says stop.
    std::future::pending().await
}

/// Tries each address of the peer.
async fn connect(
    shared: &Shared,
    config: &LinkConfig,
    material: &TlsMaterial,
) -> Result<Connection, Failure> {
    let resolved = shared.net.resolve(&config.host, config.port).await;
    let addresses = resolved.map_err(|error| Failure::down(error.to_string()))?;
    let mut last = Failure::down(format!("{} has no address", config.host));
    for address in addresses {
        let endpoint = shared.client_endpoints.towards(address);
        let endpoint =
            endpoint.map_err(|error| Failure::down(format!("cannot open a UDP socket: {error}")))?;
        let settings = quic::QuicSettings {
            congestion: config.congestion,
        };
        let dialled = quic::dial(&endpoint, material, address, settings);
        last = match timeout(HANDSHAKE_LIMIT, dialled).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::down(format!(
                "no answer from {address} (UDP): no router listens there, or UDP is blocked on the way"
            )),
        };
        if last.state == LinkState::Refused {
            break;
        }
    }
    Err(last)
}
