//! Where peers link to us: a port, UDP and TCP alike, a handshake, an admission, a session.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use karez_identity::{CertificateFacts, TlsMaterial};
use karez_router_config::api::Direction;
use karez_router_config::{AcceptConfig, Role};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{addresses, bind};
use super::credential::note_refusal;
use super::data;
use super::failure::{CloseCode, Failure, close};
use super::live::LiveLink;
use super::places::Places;
use super::session::{self, Session, Side, greet};
use super::transport::listener::{Incoming, Listener};
use super::transport::{Connection, ConnectionError};
use crate::listener::BIND_AGAIN;
use crate::metrics::Fault;
use crate::policy::{self, Admission, Refusal};
use crate::profiles::{Profile, usable};
use crate::shared::{BoundState, Shared};
use crate::wire::Body;

/// Handshakes at once, over all transports of a port.
const HANDSHAKES: usize = 256;
/// A peer that takes longer for its handshake is dropped.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A refusal that goes on is told again after this.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// More refused peers than this are not told one by one.
const SAID_AT_ONCE: usize = 256;

/// What a port needs.
pub(crate) struct Accept {
    pub(crate) name: String,
    pub(crate) config: AcceptConfig,
    pub(crate) profile: watch::Receiver<Profile>,
}

/// Accepts links on one port until `stop`; links that are up go down with it.
pub(crate) async fn accept(shared: Arc<Shared>, mut accept: Accept, stop: CancellationToken) {
    shared.change(|all| all.accepts.insert(accept.name.clone(), BoundState::default()));
    let endpoints = tokio::select! {
        endpoints = open(&shared, &mut accept) => endpoints,
        () = stop.cancelled() => Vec::new(),
    };
    let handshakes = Places::new(HANDSHAKES);
    let (links, closing) = (TaskTracker::new(), CancellationToken::new());
    let running: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let port = Taking {
                shared: shared.clone(),
                listener: endpoint.clone(),
                config: accept.config.clone(),
                handshakes: handshakes.clone(),
                links: links.clone(),
                closing: closing.clone(),
            };
            tokio::spawn(port.take())
        })
        .collect();
    if !endpoints.is_empty() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow_profile(&shared, &mut accept, &endpoints) => {}
        }
    }
    for task in running {
        task.abort();
        // Aborted on purpose; what it held is let go of now.
        let _ = task.await;
    }
    closing.cancel();
    links.close();
    // Bounded, so that no link holds the others up.
    let _ = timeout(Duration::from_millis(500), links.wait()).await;
    for endpoint in &endpoints {
        endpoint.close(CloseCode::Leaving.number(), why(&shared));
    }
    for endpoint in &endpoints {
        // Bounded, so that a peer that does not hear the farewell holds nothing up.
        let _ = timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    }
    shared.change(|all| all.accepts.remove(&accept.name));
}

/// Binds the port on every address it is wanted on, as soon as the profile is there.
async fn open(shared: &Shared, accept: &mut Accept) -> Vec<Listener> {
    let mut said = None;
    loop {
        let profile = usable(&mut accept.profile).await;
        let error = match &profile {
            Profile::Waiting(reason) => format!("TLS profile \"{}\": {reason}", accept.config.tls),
            Profile::Ready(material) => {
                match bind(shared, &accept.config, &forgiving(shared, material)).await {
                    Ok(endpoints) => {
                        let addresses = addresses(&endpoints);
                        tracing::info!(accept = accept.name, ?addresses, "accepting links");
                        shared.change(|all| {
                            all.accepts.insert(
                                accept.name.clone(),
                                BoundState {
                                    addresses,
                                    error: None,
                                },
                            )
                        });
                        return endpoints;
                    }
                    Err(error) => error,
                }
            }
        };
        if said.as_ref() != Some(&error) {
            tracing::error!(accept = accept.name, error, "cannot accept links; trying again");
            let state = BoundState {
                addresses: Vec::new(),
                error: Some(error.clone()),
            };
            shared.change(|all| all.accepts.insert(accept.name.clone(), state));
            said = Some(error);
            if matches!(profile, Profile::Ready(_)) {
                shared.metrics.fault(Fault::Bind);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_AGAIN) => {}
            Ok(()) = accept.profile.changed() => {}
        }
    }
}

/// The profile, with what the policy says of peers whose certificate has ended.
fn forgiving(shared: &Shared, material: &TlsMaterial) -> TlsMaterial {
    TlsMaterial {
        grace: shared.grace.clone(),
        ..material.clone()
    }
}

/// Why links end when we stop taking them.
fn why(shared: &Shared) -> &'static str {
    if shared.shutdown.is_triggered() {
        "the router stops"
    } else {
        "the port was closed there"
    }
}

/// Takes over a renewed credential for handshakes to come; links that are up stay.
async fn follow_profile(shared: &Shared, accept: &mut Accept, endpoints: &[Listener]) {
    while accept.profile.changed().await.is_ok() {
        let Profile::Ready(material) = accept.profile.borrow_and_update().clone() else {
            continue;
        };
        let material = forgiving(shared, &material);
        for endpoint in endpoints {
            if let Err(error) = endpoint.renew(&material) {
                tracing::error!(
                    accept = accept.name,
                    %error,
                    "the renewed TLS profile is not usable"
                );
            }
        }
    }
    std::future::pending().await
}

/// What was said lately about peers that were not admitted, so that nobody can fill the log.
#[derive(Default)]
struct Refusals(Mutex<HashMap<(IpAddr, String), Instant>>);

impl Refusals {
    /// Whether this has not been said for a minute.
    fn is_news(&self, peer: IpAddr, reason: &str) -> bool {
        let mut said = self.0.lock().expect("nothing panics while it is held");
        said.retain(|_, at| at.elapsed() < SAID_AGAIN);
        if said.len() >= SAID_AT_ONCE {
            return false;
        }
        said.insert((peer, reason.to_owned()), Instant::now()).is_none()
    }
}

/// A port that takes links.
struct Taking {
    shared: Arc<Shared>,
    listener: Listener,
    config: AcceptConfig,
    handshakes: Places,
    /// The links' tasks.
    links: TaskTracker,
    /// Ends them.
    closing: CancellationToken,
}

impl Taking {
    async fn take(self) {
        let port = Arc::new((self, Refusals::default()));
        let taking = &port.0;
        loop {
            let Some(incoming) = taking.listener.accept().await else {
                return;
            };
            if taking.shared.shutdown.is_triggered() {
                incoming.refuse();
                continue;
            }
            // Under load a peer has to show first that its address is its own.
            let Some(incoming) = (if taking.handshakes.is_busy() {
                incoming.challenge()
            } else {
                Some(incoming)
            }) else {
                continue;
            };
            let port = port.clone();
            let place = taking.handshakes.take(incoming.remote_address().ip());
            taking.links.spawn(async move {
                let (taking, refusals) = &*port;
                let remote = incoming.remote_address();
                let met = tokio::select! {
                    met = meet(&taking.shared, incoming, &taking.config) => met,
                    () = place.lost() => Err(Failure::down(
                        "the handshake was not done in time: its address has more of them under way than others",
                    )),
                    () = taking.closing.cancelled() => return,
                };
                drop(place);
                match met {
                    Ok(Met::Link(session)) => taking.carry(*session).await,
                    Ok(Met::Further(link, connection)) => {
                        data::serve(&taking.shared, &link, connection).await;
                    }
                    Ok(Met::Nobody) => {}
                    Err(failure) => taking.refused(refusals, remote, &failure),
                }
            });
        }
    }

    fn refused(&self, refusals: &Refusals, remote: SocketAddr, failure: &Failure) {
        self.shared.metrics.fault(Fault::PeerRefused);
        note_refusal(&self.shared, remote.ip(), failure);
        if refusals.is_news(remote.ip(), &failure.text) {
            tracing::warn!(%remote, reason = failure.text, "a peer was not admitted");
        }
    }

    /// Runs a link until it ends, or the port is closed.
    async fn carry(&self, session: Session) {
        let link = session.link.clone();
        let (name, peer, remote) = (&link.name, &link.peer.name, link.remote);
        let transport = link.transport().as_str();
        tracing::info!(link = name, peer, %remote, transport, "a peer has linked");
        let failure = tokio::select! {
            failure = session.run(&self.shared) => failure,
            () = self.closing.cancelled() => {
                self.shared.link_down(link.id);
                link.close(CloseCode::Leaving, why(&self.shared));
                Failure::down("closed here")
            }
        };
        tracing::info!(link = name, peer, %remote, reason = failure.text, "a peer's link has ended");
    }
}

/// Who came.
enum Met {
    /// A link.
    Link(Box<Session>),
    /// A further connection of a link.
    Further(Arc<LiveLink>, Connection),
    /// Nobody who stays: it belongs to a connection that is up, or did without.
    Nobody,
}

/// Handshake, admission, hello.
async fn meet(shared: &Shared, incoming: Incoming, config: &AcceptConfig) -> Result<Met, Failure> {
    let connected = timeout(HANDSHAKE_LIMIT, incoming.handshake()).await;
    let connected = connected.map_err(|_| Failure::down("the handshake took too long"))??;
    let Some(connection) = connected else {
        return Ok(Met::Nobody);
    };
    let admission = match admit(shared, &connection, config.role) {
        Ok(admission) => admission,
        Err(reason) => {
            close(&connection, CloseCode::Refused, &reason);
            return Err(Failure::refused(reason));
        }
    };
    let mut first = match session::first(&connection).await {
        Ok(first) => first,
        Err(_) if has_left(&connection) => return Ok(Met::Nobody),
        Err(failure) => {
            close(&connection, CloseCode::Refused, &failure.text);
            return Err(failure);
        }
    };
    if let Body::Join(join) = &first.body {
        let Some(link) = data::link_of(shared, join, admission.as_ref()) else {
            close(&connection, CloseCode::Refused, "no link has this ticket");
            return Err(Failure::refused("a connection for a link that is not up"));
        };
        data::welcome(&mut first.stream.send).await?;
        return Ok(Met::Further(link, connection));
    }
    let side = Side {
        connection: connection.clone(),
        first: Some(first),
        direction: Direction::Incoming,
        role: config.role,
        name: admission
            .as_ref()
            .map_or_else(|| "peer".to_owned(), |admission| admission.token.name.clone()),
        cost: 1,
        admission: admission.clone(),
    };
    match greet(shared, side).await {
        Ok(session) => match admit_site(shared, admission.as_ref(), &session.link.peer.id) {
            Ok(()) => Ok(Met::Link(Box::new(session))),
            Err(refusal) => {
                let reason = refusal.to_string();
                session.link.close(CloseCode::Refused, &reason);
                Err(Failure::refused(reason))
            }
        },
        // Of several that a peer tries at once it keeps one.
        Err(_) if has_left(&connection) => Ok(Met::Nobody),
        Err(failure) => Err(failure),
    }
}

/// Whether the peer closed without a complaint.
fn has_left(connection: &Connection) -> bool {
    matches!(
        connection.close_reason(),
        Some(ConnectionError::Closed { code: 0, .. })
    )
}

/// Whether the certificate, which the handshake has verified, admits its holder; `None` for a router of this site.
fn admit(shared: &Shared, connection: &Connection, role: Role) -> Result<Option<Admission>, String> {
    let leaf = connection
        .peer_certificate()
        .ok_or("a client certificate is required")?;
    let facts = CertificateFacts::from_der(&leaf).map_err(|error| error.to_string())?;
    let config = shared
        .read(|state| state.config.clone())
        .ok_or("the router has no document yet")?;
    // The site's own certificate and key: another router of this site.
    let own = shared.own_certificate.load();
    if role == Role::InterRouter && own.as_ref().is_some_and(|own| **own == facts.fingerprint) {
        return Ok(None);
    }
    policy::admit(&config.tokens, &facts, role, Timestamp::now())
        .map(Some)
        .map_err(|refusal| refusal.to_string())
}

/// Whether the site that a peer says it is may use the token beside those that do.
fn admit_site(shared: &Shared, admission: Option<&Admission>, site: &str) -> Result<(), Refusal> {
    let Some(admission) = admission else { return Ok(()) };
    shared.read(|state| {
        let using = state
            .live
            .values()
            .filter(|link| link.direction == Direction::Incoming && link.name == admission.token.name)
            .map(|link| link.peer.id.as_str());
        policy::admit_site(&admission.token, site, using)
    })
}
