//! The handshake: rustls over a socket or a stream of a link, up to the traffic keys.
//!
//! ```text
//!  a Pipe ◀──▶ rustls (unbuffered) ──▶ Secured { pipe, Sealer, Opener, the peer's certificate, what came too early }
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
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// What both sides' handshake messages may take together in one direction.
const LONGEST: usize = 128 << 10;

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
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
pub(crate) struct Secured<P = TcpStream> {
    pub(crate) pipe: P,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) peer: Option<CertificateDer<'static>>,
    /// Bytes that came after the handshake's last.
    pub(crate) early: Vec<u8>,
}

/// What a handshake goes over.
pub(crate) trait Pipe: Send {
    /// Adds what has come, at least something; 0 at the end.
    fn read_more(&mut self, into: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> + Send;
    /// Hands everything on.
    fn write_everything(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
    /// Ends what we say, after a failure.
    fn end(&mut self) -> impl Future<Output = ()> + Send;
}

impl Pipe for TcpStream {
    async fn read_more(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        self.read_buf(into).await
    }

    async fn write_everything(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await
    }

    async fn end(&mut self) {
        let _ = self.shutdown().await;
    }
}

/// Secures a connection as its client.
pub(crate) async fn client<P: Pipe>(
    pipe: P,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Secured<P>, HandshakeError> {
    let connection = UnbufferedClientConnection::new(config, name)?;
    timeout(LIMIT, shake(pipe, connection))
        .await
        .map_err(|_| HandshakeError::Slow)?
}

/// Secures a connection as its server.
pub(crate) async fn server<P: Pipe>(
    pipe: P,
    config: Arc<ServerConfig>,
) -> Result<Secured<P>, HandshakeError> {
    let connection = UnbufferedServerConnection::new(config)?;
    timeout(LIMIT, shake(pipe, connection))
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

async fn shake<P: Pipe, H: Hands>(mut pipe: P, mut hands: H) -> Result<Secured<P>, HandshakeError> {
    let mut flight = Flight::default();
    loop {
        match flight.step(&mut hands) {
            Ok(Step::Again) => {}
            Ok(Step::Write) => flight.send(&mut pipe).await?,
            Ok(Step::Read) => flight.more(&mut pipe).await?,
            Ok(Step::Done) => break,
            Err(error) => {
                flight.excuse(&mut hands);
                // The peer should know why; whether it hears changes nothing here.
                let _ = flight.send(&mut pipe).await;
                pipe.end().await;
                return Err(error.into());
            }
        }
    }
    flight.send(&mut pipe).await?;
    let peer = hands.state().peer_certificates().and_then(|chain| chain.first());
    let peer = peer.map(|leaf| leaf.clone().into_owned());
    let (secrets, kernel) = hands.keys()?;
    let keys: Keys = Arc::new(Mutex::new(Schedule(kernel)));
    Ok(Secured {
        pipe,
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
    async fn more(&mut self, pipe: &mut impl Pipe) -> Result<(), HandshakeError> {
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
            if pipe.read_more(&mut self.incoming).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn send(&mut self, pipe: &mut impl Pipe) -> io::Result<()> {
        pipe.write_everything(&self.outgoing).await?;
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
