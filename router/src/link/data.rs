//! A link's further connections, each on a socket of its own, so that several cores work on what it carries.
//!
//! ```text
//!  dialler   Hello ──▶ acceptor                 on the link's first connection
//!            ◀── Hello { ticket }
//!            Join { ticket } ──▶ acceptor       on another one: it must be the ticket of a link that is up, and
//!            ◀── Join                           prove itself with the certificate that the link was admitted by
//! ```
//!
//! New streams take the connections in turn. A connection that fails loses its own streams, no more, and is made again.
//! When it was the first, the link comes up anew, with connections of its own; those that are left of the old one take no
//! new streams and end when what they carry has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use karez_router_config::api::Direction;
use subtle::ConstantTimeEq;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::credential::{self, revoked};
use super::failure::{CloseCode, Failure, close, is_loss};
use super::live::LiveLink;
use super::reach::Reach;
use super::session::streams;
use super::transport::quic::ClientEndpoints;
use super::transport::{Connection, SendStream, Statistics, Stream, TransportKind, quic};
use crate::policy::Admission;
use crate::shared::Shared;
use crate::wire::{Body, Control, Join, read_control, write_control};

/// A ticket's length.
const TICKET: usize = 32;
/// More further connections no link has.
const MOST: usize = 16;
/// A connection that takes longer is tried again.
const LIMIT: Duration = Duration::from_secs(5);
/// A connection that failed is made again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// How often connections that outlive their link are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A ticket for a link that comes up.
pub(crate) fn new_ticket() -> Vec<u8> {
    rand::random::<[u8; TICKET]>().to_vec()
}

/// The connections that a link has beside its first.
#[derive(Default)]
pub(crate) struct Further {
    connections: ArcSwap<Vec<Arc<Connection>>>,
    turn: AtomicUsize,
}

impl Further {
    /// The connection for the next stream.
    pub(crate) fn next(&self, first: &Connection) -> Connection {
        let further = self.connections.load();
        let all = further.len() + 1;
        for _ in 1..all {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % all;
            let connection = further.get(turn).map_or(first, |connection| connection);
            if connection.close_reason().is_none() {
                return connection.clone();
            }
        }
        first.clone()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.load().len()
    }

    /// What they and the first one have carried together; the rest is the first one's.
    pub(crate) fn statistics(&self, first: Statistics) -> Statistics {
        let further = self.connections.load();
        further.iter().fold(first, |sum, connection| {
            let more = connection.statistics();
            Statistics {
                packets_sent: sum.packets_sent + more.packets_sent,
                packets_lost: sum.packets_lost + more.packets_lost,
                congestion_window: sum.congestion_window + more.congestion_window,
                bytes_sent: sum.bytes_sent + more.bytes_sent,
                bytes_received: sum.bytes_received + more.bytes_received,
                ..sum
            }
        })
    }

    fn add(&self, connection: &Arc<Connection>) {
        self.connections.rcu(|old| {
            let mut new = Vec::clone(old);
            new.push(connection.clone());
            new
        });
    }

    fn remove(&self, connection: &Arc<Connection>) {
        self.connections.rcu(|old| {
            let mut new = Vec::clone(old);
            new.retain(|other| !Arc::ptr_eq(other, connection));
            new
        });
    }

    /// Closes all of them.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        for connection in &**self.connections.load() {
            close(connection, code, reason);
        }
    }
}

/// Serves a further connection until it, or its link, ends.
pub(crate) async fn serve(shared: &Arc<Shared>, link: &Arc<LiveLink>, connection: Connection) {
    let connection = Arc::new(connection);
    link.further.add(&connection);
    shared.touch();
    tokio::select! {
        _ = streams(shared, link, &connection) => {}
        () = outlived(shared, link) => {}
    }
    link.further.remove(&connection);
    shared.touch();
    close(&connection, CloseCode::Leaving, "the link has ended");
}

/// Waits until a link is over, and nothing of it may go on: it was ended on purpose, or its first connection was lost and
/// nothing more is carried, or its peer is no longer admitted.
async fn outlived(shared: &Shared, link: &LiveLink) {
    if !is_loss(&link.connection.closed().await) {
        return;
    }
    let idle = async {
        while !link.is_idle() && !revoked(shared, link) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = idle => {}
        _ = credential::ended(link) => {}
    }
}

/// The link that a connection belongs to, by the ticket that it shows and the token that it was admitted by.
pub(crate) fn link_of(shared: &Shared, join: &Join, admission: Option<&Admission>) -> Option<Arc<LiveLink>> {
    let belongs = |link: &&Arc<LiveLink>| {
        let ticket: bool = link.ticket.ct_eq(&join.ticket).into();
        ticket
            && link.ticket.len() == TICKET
            && link.direction == Direction::Incoming
            && link.credential.is_of(admission)
            && link.further.len() < MOST
    };
    shared.read(|state| state.live.values().find(belongs).cloned())
}

/// Tells a peer that its connection belongs to a link now.
pub(crate) async fn welcome(send: &mut SendStream) -> Result<(), Failure> {
    say(send, Vec::new()).await
}

async fn say(send: &mut SendStream, ticket: Vec<u8>) -> Result<(), Failure> {
    let message = Control {
        body: Some(Body::Join(Join { ticket })),
    };
    let written = write_control(send, &message).await;
    written.map_err(|error| Failure::down(error.to_string()))
}

/// Keeps the further connections of a link that we made up until it ends.
pub(crate) async fn keep(reach: Arc<Reach>, link: Arc<LiveLink>) {
    if link.transport() != TransportKind::Quic || link.ticket.len() != TICKET {
        return;
    }
    let mut connections = JoinSet::new();
    for _ in 1..reach.config.connections {
        connections.spawn(keep_one(reach.clone(), link.clone()));
    }
    while connections.join_next().await.is_some() {}
}

async fn keep_one(reach: Arc<Reach>, link: Arc<LiveLink>) {
    while !link.is_dead() {
        match timeout(LIMIT, join(&reach, &link)).await {
            Ok(Ok(connection)) => serve(&reach.shared, &link, connection).await,
            Ok(Err(failure)) => {
                let reason = failure.text;
                tracing::debug!(link = link.name, reason, "a further connection does not come up");
            }
            Err(_) => tracing::debug!(link = link.name, "a further connection takes too long"),
        }
        sleep(AGAIN).await;
    }
}

async fn join(reach: &Reach, link: &LiveLink) -> Result<Connection, Failure> {
    let endpoint = ClientEndpoints::another_towards(link.remote);
    let endpoint = endpoint.map_err(|error| Failure::down(format!("cannot open a UDP socket: {error}")))?;
    let settings = reach.shared.settings(reach.config.congestion);
    let connection = quic::dial(&endpoint, &reach.material(), link.remote, settings).await?;
    let Stream {
        mut send,
        mut receive,
    } = connection.open().await?;
    say(&mut send, link.ticket.clone()).await?;
    match read_control(&mut receive).await {
        Ok(Some(Control {
            body: Some(Body::Join(_)),
        })) => Ok(connection),
        _ => Err(connection
            .close_reason()
            .map_or_else(|| Failure::down("the peer does not take it"), Failure::from)),
    }
}
