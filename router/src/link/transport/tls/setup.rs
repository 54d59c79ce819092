//! What dialler and acceptor have in common: sockets made fit, greetings exchanged, tasks started.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::super::tcp::{self, Watch};
use super::super::{ConnectionError, Party, Settings};
use super::TlsConnection;
use super::connection::{IDLE, Parts, Shared, alerted, read};
use super::greeting::{Greeting, GreetingError, Purpose, Ticket};
use super::handshake::{HandshakeError, Secured};
use super::incoming::{Incoming, Opening};
use super::keeper::{LaneDialler, keep};
use super::lane::{LaneReceive, LaneSend};
use super::mux::{Limits, Mux, Side};
use super::record::{DATA, HEADER, Sealer, TRAILER};
use super::writer::{Writer, write};
use crate::buffer::Size;

/// What peers may send us without an answer: little for each stream at first, since it grows for those that need it,
/// and a bound for all together, which is the bound of a link's memory.
fn limits(settings: Settings) -> Limits {
    Limits {
        stream_window: 64 << 10,
        connection_window: 32 << 20,
        streams: settings.streams_taken(),
    }
}
/// What the kernel may hold unsent of a multiplexed connection: more would only make small messages wait.
const UNSENT: u32 = 256 << 10;
/// A silent lane's peer is asked whether it lives after this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Makes a socket fit for links. All of it is best effort: a kernel that refuses something still carries.
pub(super) fn prepare(socket: &TcpStream, settings: Settings) {
    let _ = socket.set_nodelay(true);
    let socket2 = SockRef::from(socket);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE / 4);
    let _ = socket2.set_tcp_keepalive(&keep_alive);
    tcp::begin(socket, settings.congestion);
}

/// A secured connection whose peer has not said yet what it is for.
pub(super) struct Greeter {
    pub(super) reader: OwnedReadHalf,
    pub(super) writer: OwnedWriteHalf,
    pub(super) sealer: Sealer,
    pub(super) incoming: Incoming,
    pub(super) remote: SocketAddr,
    pub(super) peer: Option<CertificateDer<'static>>,
    settings: Settings,
}

impl Greeter {
    pub(super) fn new(secured: Secured, size: Size, settings: Settings) -> Result<Self, ConnectionError> {
        let remote = secured.pipe.peer_addr().map_err(lost)?;
        let (reader, writer) = secured.pipe.into_split();
        Ok(Self {
            reader,
            writer,
            sealer: secured.sealer,
            incoming: Incoming::new(secured.opener, size, &secured.early),
            remote,
            peer: secured.peer,
            settings,
        })
    }

    /// A greeting, sealed.
    pub(super) fn seal(&mut self, purpose: Purpose) -> Result<Vec<u8>, ConnectionError> {
        let greeting = Greeting {
            limits: limits(self.settings),
            purpose,
        };
        let mut record = [&[0; HEADER][..], &greeting.encode(), &[0; TRAILER]].concat();
        self.sealer.seal(&mut record, DATA).map_err(lost)?;
        Ok(record)
    }

    pub(super) async fn say(&mut self, purpose: Purpose) -> Result<(), ConnectionError> {
        let record = self.seal(purpose)?;
        self.writer.write_all(&record).await.map_err(lost)
    }

    pub(super) async fn hear(&mut self) -> Result<Greeting, ConnectionError> {
        loop {
            // One record only: what follows is not for us.
            let opening = self.incoming.open_some(1).map_err(lost)?;
            let mut greeting = None;
            let taken = self.incoming.take(|record, _| {
                greeting = Some(Greeting::decode(record)?);
                Ok::<(), GreetingError>(())
            });
            match taken {
                Err(GreetingError::Version(_)) => return Err(ConnectionError::Version),
                Err(error) => return Err(lost(error)),
                Ok(()) => {}
            }
            if let Some(greeting) = greeting {
                return Ok(greeting);
            }
            if let Opening::Alert(alert) = opening {
                return Err(alerted(alert));
            }
            let (incoming, reader) = (&mut self.incoming, &mut self.reader);
            let filled = std::future::poll_fn(|context| incoming.poll_fill(reader, context));
            if filled.await.map_err(lost)? == 0 {
                return Err(ConnectionError::Lost("the peer is gone".to_owned()));
            }
        }
    }

    /// Makes a lane of it.
    pub(super) fn into_parts(self) -> Parts {
        let watch = Watch::new(self.settings.congestion);
        Parts {
            send: Some(LaneSend::new(self.writer, self.sealer, watch)),
            receive: Some(LaneReceive::new(self.reader, self.incoming)),
        }
    }

    /// Makes a multiplexed connection of it, which runs until it ends.
    pub(super) fn start(
        mut self,
        side: Side,
        theirs: Limits,
        ticket: Ticket,
        round_trip: Duration,
        dialler: Option<LaneDialler>,
    ) -> (TlsConnection, Arc<Shared>) {
        let socket = SockRef::from(self.writer.as_ref());
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
        // The peer always reads. A lane's may take its time, which this would not allow.
        let _ = socket.set_tcp_user_timeout(Some(IDLE));
        self.incoming.set_size(Size::Small);
        // The kernel has measured the handshake, which an acceptor cannot.
        let measured = tcp::round_trip(self.writer.as_ref());
        let round_trip = measured.unwrap_or(round_trip);
        let mut mux = Mux::new(side, limits(self.settings), theirs);
        mux.set_round_trip(round_trip);
        let watch = Watch::new(self.settings.congestion);
        let writer = Writer::new(self.writer, self.sealer, watch);
        let shared = Arc::new(Shared::new(
            mux,
            writer,
            self.remote,
            self.peer,
            ticket,
            round_trip,
        ));
        tokio::spawn(write(shared.clone()));
        tokio::spawn(read(shared.clone(), self.reader, self.incoming));
        tokio::spawn(keep(shared.clone(), dialler));
        (TlsConnection::new(shared.clone()), shared)
    }
}

fn lost(error: impl std::fmt::Display) -> ConnectionError {
    ConnectionError::Lost(error.to_string())
}

impl From<HandshakeError> for ConnectionError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error) => refused(&error),
            HandshakeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Lost("the peer ended the handshake".to_owned())
            }
            error => lost(error),
        }
    }
}

/// Who refused the handshake, and with which alert.
fn refused(error: &rustls::Error) -> ConnectionError {
    let (by, alert, detail) = match error {
        rustls::Error::AlertReceived(alert) => (Party::Peer, *alert, String::new()),
        rustls::Error::InvalidCertificate(reason) => (
            Party::Here,
            AlertDescription::from(reason.clone()),
            error.to_string(),
        ),
        rustls::Error::NoCertificatesPresented => (
            Party::Here,
            AlertDescription::CertificateRequired,
            error.to_string(),
        ),
        rustls::Error::NoApplicationProtocol => (
            Party::Here,
            AlertDescription::NoApplicationProtocol,
            error.to_string(),
        ),
        _ => (Party::Here, AlertDescription::HandshakeFailure, error.to_string()),
    };
    ConnectionError::Tls {
        by,
        alert: alert.into(),
        detail,
    }
}
