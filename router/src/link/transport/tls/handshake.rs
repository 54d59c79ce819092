//! The handshake: rustls over a socket, up to the traffic keys.
//!
//! ```text
//!  TcpStream ◀──▶ rustls (unbuffered) ──▶ Secured { socket, Sealer, Opener, the peer's certificate, what came too early }
//! ```
//!
//! Records are given to rustls one by one, so that what the peer sends after its last handshake message is left alone.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ConnectionTrafficSecrets, ExtractedSecrets, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::record::{KeySchedule, Keys, Opener, RecordError, Sealer};

/// A peer that takes longer is not served.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// What both sides' handshake messages may take together in one direction.
const LONGEST: usize = 128 << 10;

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// One side refused the other, or did not understand it.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The records' keys cannot be used.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// The peer sent more than any handshake needs.
    #[error("the peer's handshake is too long")]
    TooLong,
    /// The peer took too long.
    #[error("the handshake took too long")]
    Slow,
}

/// A connection whose records are sealed from now on.
pub(super) struct Secured {
    pub(super) socket: TcpStream,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) peer: Option<CertificateDer<'static>>,
    /// Bytes that came after the handshake's last.
    pub(super) early: Vec<u8>,
}

/// Secures a connection as its client.
pub(super) async fn client(
    socket: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Secured, HandshakeError> {
    let connection = UnbufferedClientConnection::new(config, name)?;
    timeout(LIMIT, shake(socket, connection))
        .await
        .map_err(|_| HandshakeError::Slow)?
}

/// Secures a connection as its server.
pub(super) async fn server(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Secured, HandshakeError> {
    let connection = UnbufferedServerConnection::new(config)?;
    timeout(LIMIT, shake(socket, connection))
        .await
        .map_err(|_| HandshakeError::Slow)?
}

/// What both kinds of rustls' connections can do.
trait Hands: Send {
    type Data: Send + 'static;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    fn keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error>;
}

impl Hands for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Hands for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

struct Schedule<Data>(KernelConnection<Data>);

impl<Data: Send> KeySchedule for Schedule<Data> {
    fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
        self.0.update_tx_secret().map(|(_, secrets)| secrets)
    }

    fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
        self.0.update_rx_secret().map(|(_, secrets)| secrets)
    }
}

/// What has come and is to go.
#[derive(Default)]
struct Flight {
    incoming: Vec<u8>,
    /// Of it, what rustls may look at: whole records.
    shown: usize,
    outgoing: Vec<u8>,
}

/// What to do next.
enum Step {
    Again,
    Write,
    Read,
    Done,
}

async fn shake<H: Hands>(mut socket: TcpStream, mut hands: H) -> Result<Secured, HandshakeError> {
    let mut flight = Flight::default();
    loop {
        match flight.step(&mut hands) {
            Ok(Step::Again) => {}
            Ok(Step::Write) => flight.send(&mut socket).await?,
            Ok(Step::Read) => flight.more(&mut socket).await?,
            Ok(Step::Done) => break,
            Err(error) => {
                flight.excuse(&mut hands);
                // The peer should know why; whether it hears changes nothing here.
                let _ = flight.send(&mut socket).await;
                let _ = socket.shutdown().await;
                return Err(error.into());
            }
        }
    }
    flight.send(&mut socket).await?;
    let peer = hands.state().peer_certificates().and_then(|chain| chain.first());
    let peer = peer.map(|leaf| leaf.clone().into_owned());
    let (secrets, kernel) = hands.keys()?;
    let keys: Keys = Arc::new(Mutex::new(Schedule(kernel)));
    Ok(Secured {
        socket,
        sealer: Sealer::new(secrets.tx.0, &secrets.tx.1, keys.clone())?,
        opener: Opener::new(secrets.rx.0, &secrets.rx.1, keys)?,
        peer,
        early: flight.incoming,
    })
}

impl Flight {
    fn step<H: Hands>(&mut self, hands: &mut H) -> Result<Step, rustls::Error> {
        let UnbufferedStatus { discard, state, .. } = hands.process(&mut self.incoming[..self.shown]);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let filled = self.outgoing.len();
                let mut room = 1024;
                loop {
                    self.outgoing.resize(filled + room, 0);
                    match data.encode(&mut self.outgoing[filled..]) {
                        Ok(length) => {
                            self.outgoing.truncate(filled + length);
                            break Ok(Step::Again);
                        }
                        Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
                        Err(EncodeError::AlreadyEncoded) => break Ok(Step::Again),
                    }
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Write)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
            Ok(_) => Err(rustls::Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        self.incoming.drain(..discard);
        self.shown -= discard;
        match step {
            Ok(Step::Done) if hands.state().is_handshaking() => Ok(Step::Read),
            step => step,
        }
    }

    /// Shows rustls one record more, which may have to come first.
    async fn more(&mut self, socket: &mut TcpStream) -> Result<(), HandshakeError> {
        loop {
            let hidden = &self.incoming[self.shown..];
            if let Some(length) = Opener::length(hidden)?
                && hidden.len() >= length
            {
                self.shown += length;
                return Ok(());
            }
            if self.incoming.len() > LONGEST {
                return Err(HandshakeError::TooLong);
            }
            if socket.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn send(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        socket.write_all(&self.outgoing).await?;
        self.outgoing.clear();
        Ok(())
    }

    /// Takes the alert that rustls has for the peer.
    fn excuse<H: Hands>(&mut self, hands: &mut H) {
        // An alert is one message; more steps than that are not needed.
        for _ in 0..4 {
            match self.step(hands) {
                Ok(Step::Again) => {}
                _ => return,
            }
        }
    }
}
