//! The accepting side: a TCP port, its handshakes, and which lane belongs to which connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use karez_identity::{CertificateFacts, TlsError, TlsMaterial};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::{Connection, ConnectionError, Settings};
use super::ALPN;
use super::connection::Shared;
use super::greeting::{Purpose, Ticket};
use super::handshake::{self, HandshakeError, LIMIT};
use super::keeper::LANES;
use super::mux::Side;
use super::setup::{Greeter, prepare};
use crate::buffer::Size;

/// A listener that cannot accept (out of files, for one) tries again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// A bound TCP port that takes connections; clones are the same port.
#[derive(Clone)]
pub(crate) struct TlsListener(Arc<Port>);

struct Port {
    listener: TcpListener,
    config: ArcSwap<ServerConfig>,
    links: Mutex<HashMap<[u8; 16], Weak<Shared>>>,
    settings: Settings,
}

/// A peer that wants to connect.
pub(crate) struct TlsIncoming {
    port: Arc<Port>,
    socket: TcpStream,
    remote: SocketAddr,
}

impl Port {
    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 16], Weak<Shared>>> {
        self.links.lock().expect("nothing panics while it is held")
    }
}

fn config(profile: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = karez_identity::server_config(profile, &[ALPN])?;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

impl TlsListener {
    /// Takes connections on a bound socket.
    pub(crate) fn new(
        listener: TcpListener,
        profile: &TlsMaterial,
        settings: Settings,
    ) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Port {
            listener,
            config: ArcSwap::new(config(profile)?),
            links: Mutex::default(),
            settings,
        })))
    }

    /// Where it is bound.
    pub(crate) fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.0.listener.local_addr()
    }

    /// Takes over a renewed credential for handshakes to come; connections that are up stay.
    pub(crate) fn renew(&self, profile: &TlsMaterial) -> Result<(), TlsError> {
        self.0.config.store(config(profile)?);
        Ok(())
    }

    /// The next peer that wants to connect.
    pub(crate) async fn accept(&self) -> TlsIncoming {
        loop {
            match self.0.listener.accept().await {
                Ok((socket, remote)) => {
                    return TlsIncoming {
                        port: self.0.clone(),
                        socket,
                        remote,
                    };
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

impl TlsIncoming {
    /// Where it comes from.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// The handshake. `None`: it was a lane of a connection that is up, and is with it now; or the peer left without a
    /// word, as one that tried several ways at once, or only looked whether the port is open.
    pub(crate) async fn handshake(self) -> Result<Option<Connection>, ConnectionError> {
        let shaken = timeout(LIMIT, meet(&self.port, self.socket)).await;
        shaken.map_err(|_| ConnectionError::Lost("the handshake took too long".to_owned()))?
    }
}

async fn meet(port: &Arc<Port>, socket: TcpStream) -> Result<Option<Connection>, ConnectionError> {
    prepare(&socket, port.settings);
    let secured = match handshake::server(socket, port.config.load_full()).await {
        Err(HandshakeError::Io(error)) => {
            tracing::debug!(%error, "a peer left during the handshake");
            return Ok(None);
        }
        secured => secured?,
    };
    // Most connections are links or lanes of links with several; a lane's buffers are lent later.
    let mut greeter = Greeter::new(secured, Size::Large, port.settings)?;
    let greeting = greeter.hear().await?;
    match greeting.purpose {
        Purpose::Link => {
            let ticket = new_ticket()?;
            greeter.say(Purpose::Welcome(ticket)).await?;
            let (connection, shared) =
                greeter.start(Side::Acceptor, greeting.limits, ticket, Duration::ZERO, None);
            remember(port, ticket, &shared);
            Ok(Some(Connection::Tls(connection)))
        }
        Purpose::Lane(ticket, number) => {
            bind(port, greeter, ticket, number).await?;
            Ok(None)
        }
        _ => Err(ConnectionError::Lost(
            "the peer's greeting asks for nothing".to_owned(),
        )),
    }
}

fn new_ticket() -> Result<Ticket, ConnectionError> {
    let random = SystemRandom::new();
    let mut ticket = Ticket {
        link: [0; 16],
        secret: [0; 32],
    };
    let filled = random
        .fill(&mut ticket.link)
        .and_then(|()| random.fill(&mut ticket.secret));
    filled.map_err(|_| ConnectionError::Lost("the system gives no random numbers".to_owned()))?;
    Ok(ticket)
}

fn remember(port: &Arc<Port>, ticket: Ticket, shared: &Arc<Shared>) {
    port.links().insert(ticket.link, Arc::downgrade(shared));
    let (port, over) = (port.clone(), shared.over.clone());
    tokio::spawn(async move {
        over.cancelled().await;
        port.links().remove(&ticket.link);
    });
}

async fn bind(port: &Port, mut greeter: Greeter, ticket: Ticket, number: u32) -> Result<(), ConnectionError> {
    let link = port.links().get(&ticket.link).and_then(Weak::upgrade);
    let link = link.filter(|link| {
        let secret: bool = link.ticket.secret.ct_eq(&ticket.secret).into();
        secret && same_identity(link.peer.as_ref(), greeter.peer.as_ref())
    });
    let Some(link) = link else {
        greeter.say(Purpose::Unknown).await?;
        return Err(ConnectionError::Lost(
            "a lane for a connection that is not up".to_owned(),
        ));
    };
    let record = greeter.seal(Purpose::Bound)?;
    let remote = greeter.remote;
    // The lane is known here before the peer hears that it is, and may use it.
    let bound = link.with(|state| {
        if state.lanes.len() >= LANES || state.lanes.contains_key(&number) {
            return false;
        }
        let said = greeter.writer.try_write(&record);
        let parts = if said.is_ok_and(|length| length == record.len()) {
            greeter.into_parts()
        } else {
            return false;
        };
        state.lanes.insert(number, parts);
        state.mux.add_lane(number);
        true
    });
    if !bound {
        tracing::debug!(%remote, lane = number, "a lane too many");
    }
    Ok(())
}

/// Whether two certificates prove the same: they are the same, or one renews the other.
fn same_identity(one: Option<&CertificateDer<'static>>, other: Option<&CertificateDer<'static>>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return false;
    };
    if one == other {
        return true;
    }
    let facts = |der| CertificateFacts::from_der(der).ok();
    let (Some(one), Some(other)) = (facts(one), facts(other)) else {
        return false;
    };
    let same_token = one.token().is_some_and(|token| other.token() == Some(token));
    same_token && one.common_name == other.common_name
}
