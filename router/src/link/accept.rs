//! Where peers link to us: a UDP port, a handshake, an admission, a session.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use karez_identity::{CertificateFacts, TlsMaterial};
use karez_router_config::AcceptConfig;
use karez_router_config::api::Direction;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failure::{CloseCode, Failure, close};
use super::session::{Side, TOKEN_REVOKED, greet};
use super::transport::Connection;
use super::transport::quic::{QuicIncoming, QuicListener, QuicSettings};
use crate::listener::{BIND_AGAIN, endpoint};
use crate::metrics::Fault;
use crate::profiles::{Profile, usable};
use crate::shared::{BoundState, Shared};

/// Handshakes at once; more wait in the endpoint's bounded queue.
const HANDSHAKES: usize = 64;
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
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let running: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let (shared, endpoint, handshakes) = (shared.clone(), endpoint.clone(), handshakes.clone());
            tokio::spawn(take(shared, endpoint, accept.config.clone(), handshakes))
        })
        .collect();
    if !endpoints.is_empty() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow_profile(&mut accept, &endpoints) => {}
        }
    }
    let stops = shared.shutdown.is_triggered();
    let why = if stops {
        "the router stops"
    } else {
        "the port was closed there"
    };
    for endpoint in &endpoints {
        endpoint.close(CloseCode::Leaving.number(), why);
    }
    for endpoint in &endpoints {
        // Bounded, so that a peer that does not hear the farewell holds nothing up.
        let _ = timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    }
    for task in running {
        task.abort();
    }
    shared.change(|all| all.accepts.remove(&accept.name));
}

/// Binds the port on every address it is wanted on, as soon as the profile is there.
async fn open(shared: &Shared, accept: &mut Accept) -> Vec<QuicListener> {
    let mut said = None;
    loop {
        let profile = usable(&mut accept.profile).await;
        let error = match &profile {
            Profile::Waiting(reason) => format!("TLS profile \"{}\": {reason}", accept.config.tls),
            Profile::Ready(material) => match bind(shared, &accept.config, material) {
                Ok(endpoints) => {
                    let addresses = endpoints
                        .iter()
                        .filter_map(|endpoint| endpoint.local_address().ok())
                        .collect();
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
            },
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

fn bind(shared: &Shared, config: &AcceptConfig, material: &TlsMaterial) -> Result<Vec<QuicListener>, String> {
    let wanted = endpoint(&config.host, config.port);
    let mut sockets = shared.net.bind_udp(&wanted).map_err(|error| error.to_string())?;
    let bound: Vec<SocketAddr> = sockets
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .collect();
    // On the local cluster peers come to the site's own address, not to the Pod's.
    if let (Some(pod), Some(external)) = (shared.net.pod_address(), shared.net.external_address())
        && external != pod
        && !bound
            .iter()
            .any(|address| address.ip() == external || address.ip().is_unspecified())
    {
        let port = bound.first().map_or(config.port, SocketAddr::port);
        let outside = shared.net.bind_udp_at(SocketAddr::new(external, port));
        sockets.push(outside.map_err(|error| error.to_string())?);
    }
    let settings = QuicSettings {
        congestion: config.congestion,
    };
    let made = sockets
        .into_iter()
        .map(|socket| QuicListener::new(socket, material, settings));
    made.collect::<Result<_, _>>()
        .map_err(|error| format!("{wanted}: {error}"))
}

/// Takes over a renewed credential for handshakes to come; links that are up stay.
async fn follow_profile(accept: &mut Accept, endpoints: &[QuicListener]) {
    while accept.profile.changed().await.is_ok() {
        let Profile::Ready(material) = accept.profile.borrow_and_update().clone() else {
            continue;
        };
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

async fn take(shared: Arc<Shared>, endpoint: QuicListener, config: AcceptConfig, handshakes: Arc<Semaphore>) {
    let refusals = Arc::new(Refusals::default());
    loop {
        let Ok(slot) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let Some(incoming) = endpoint.accept().await else {
            return;
        };
        if shared.shutdown.is_triggered() {
            incoming.refuse();
            continue;
        }
        // Under load a peer has to show first that its address is its own.
        let busy = handshakes.available_permits() < HANDSHAKES / 2;
        let Some(incoming) = (if busy {
            incoming.challenge()
        } else {
            Some(incoming)
        }) else {
            continue;
        };
        let (shared, config, refusals) = (shared.clone(), config.clone(), refusals.clone());
        tokio::spawn(async move {
            let remote = incoming.remote_address();
            let session = match meet(&shared, incoming, &config).await {
                Ok(session) => session,
                Err(failure) => {
                    shared.metrics.fault(Fault::PeerRefused);
                    if refusals.is_news(remote.ip(), &failure.text) {
                        tracing::warn!(%remote, reason = failure.text, "a peer was not admitted");
                    }
                    return;
                }
            };
            drop(slot);
            let (name, peer) = (session.link.name.clone(), session.link.peer.name.clone());
            tracing::info!(link = name, peer, %remote, "a peer has linked");
            let failure = session.run(&shared).await;
            tracing::info!(link = name, peer, %remote, reason = failure.text, "a peer's link has ended");
        });
    }
}

/// Handshake, admission, hello.
async fn meet(
    shared: &Shared,
    incoming: QuicIncoming,
    config: &AcceptConfig,
) -> Result<super::session::Session, Failure> {
    let connected = timeout(HANDSHAKE_LIMIT, incoming.handshake()).await;
    let connection = connected.map_err(|_| Failure::down("the handshake took too long"))??;
    let peer = match admit(shared, &connection) {
        Ok(peer) => peer,
        Err(reason) => {
            close(&connection, CloseCode::Refused, &reason);
            return Err(Failure::refused(reason));
        }
    };
    let side = Side {
        connection,
        direction: Direction::Incoming,
        role: config.role,
        name: peer.token,
        cost: 1,
        admitted_by: Some((peer.serial, peer.fingerprint)),
    };
    greet(shared, side).await
}

/// A peer whose certificate chains to our authority and is on the document's list; only [`admit`] makes one.
struct VerifiedPeer {
    token: String,
    serial: String,
    fingerprint: String,
}

fn admit(shared: &Shared, connection: &Connection) -> Result<VerifiedPeer, String> {
    let leaf = connection
        .peer_certificate()
        .ok_or("a client certificate is required")?;
    let facts = CertificateFacts::from_der(&leaf).map_err(|error| error.to_string())?;
    let config = shared
        .read(|state| state.config.clone())
        .ok_or("the router has no document yet")?;
    match config.tokens.admit(&facts.serial, &facts.fingerprint) {
        Some(token) => Ok(VerifiedPeer {
            token: token.to_owned(),
            serial: facts.serial,
            fingerprint: facts.fingerprint,
        }),
        None => {
            let name = crate::wire::clean(&facts.common_name, 64);
            Err(format!("{TOKEN_REVOKED} (certificate of \"{name}\")"))
        }
    }
}
