//! The dialling side.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use karez_identity::{LINK_SERVER_NAME, TlsError, TlsMaterial};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{Connection, ConnectionError, Settings};
use super::ALPN;
use super::connection::Parts;
use super::greeting::{Greeting, Purpose, Ticket};
use super::handshake::{self, LIMIT};
use super::keeper::LaneDialler;
use super::mux::Side;
use super::setup::{Greeter, prepare};
use crate::buffer::Size;

/// Makes another TCP connection to the peer, the way the first was made; lanes need it.
pub(crate) type Redial =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> + Send + Sync>;

/// Secures connections to peers with one profile.
#[derive(Clone, Debug)]
pub(crate) struct TlsDialler {
    /// Followed by lanes of links that are up.
    config: Arc<ArcSwap<ClientConfig>>,
    /// The server name that is sent.
    name: ServerName<'static>,
    settings: Settings,
}

fn config(profile: &TlsMaterial, sent: Option<&str>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = match sent {
        None => karez_identity::client_config(profile, &[ALPN])?,
        Some(_) => karez_identity::fronted_client_config(profile, &[ALPN])?,
    };
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

impl TlsDialler {
    /// Prepares a profile; an ingress may want another server name than a link's certificate has.
    pub(crate) fn new(
        profile: &TlsMaterial,
        sent: Option<&str>,
        settings: Settings,
    ) -> Result<Self, TlsError> {
        let name = ServerName::try_from(sent.unwrap_or(LINK_SERVER_NAME).to_owned());
        Ok(Self {
            config: Arc::new(ArcSwap::new(config(profile, sent)?)),
            name: name.map_err(|error| TlsError::Authority(error.to_string()))?,
            settings,
        })
    }

    /// Whether anybody else, a link's lanes, uses it.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.config) > 1
    }

    /// Takes over a renewed credential for connections and lanes to come.
    pub(crate) fn renew(&self, profile: &TlsMaterial, sent: Option<&str>) -> Result<(), TlsError> {
        self.config.store(config(profile, sent)?);
        Ok(())
    }

    /// Makes a link's connection of a TCP connection. With `redial`, bulk streams get lanes.
    pub(crate) async fn connect(
        &self,
        socket: TcpStream,
        redial: Option<Redial>,
    ) -> Result<Connection, ConnectionError> {
        let mut greeter = self.secure(socket, Size::Small).await?;
        let asked = Instant::now();
        greeter.say(Purpose::Link).await?;
        let heard = timeout(LIMIT, greeter.hear()).await;
        let greeting = heard.map_err(|_| ConnectionError::Lost("the peer does not greet".to_owned()))??;
        let Purpose::Welcome(ticket) = greeting.purpose else {
            return Err(ConnectionError::Lost(
                "the peer's greeting is no welcome".to_owned(),
            ));
        };
        let lanes = redial.map(|redial| LaneDialler {
            dialler: self.clone(),
            redial,
        });
        let (connection, _) = greeter.start(Side::Dialler, greeting.limits, ticket, asked.elapsed(), lanes);
        Ok(Connection::Tls(connection))
    }

    /// Makes a lane.
    pub(super) async fn lane(
        &self,
        socket: TcpStream,
        ticket: Ticket,
        number: u32,
    ) -> Result<Parts, ConnectionError> {
        let mut greeter = self.secure(socket, Size::Large).await?;
        greeter.say(Purpose::Lane(ticket, number)).await?;
        let heard = timeout(LIMIT, greeter.hear()).await;
        match heard.map_err(|_| ConnectionError::Lost("the peer does not greet".to_owned()))?? {
            Greeting {
                purpose: Purpose::Bound,
                ..
            } => Ok(greeter.into_parts()),
            _ => Err(ConnectionError::Lost(
                "the peer does not know the link".to_owned(),
            )),
        }
    }

    async fn secure(&self, socket: TcpStream, size: Size) -> Result<Greeter, ConnectionError> {
        prepare(&socket, self.settings);
        let secured = handshake::client(socket, self.config.load_full(), self.name.clone()).await?;
        Greeter::new(secured, size, self.settings)
    }
}
