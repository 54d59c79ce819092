//! A QUIC connection and its streams, as [`super::super::Connection`] has them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use quinn::VarInt;
use rustls::pki_types::CertificateDer;

use super::driver::Driver;
use super::endpoint::FIRST_STREAMS;
use crate::link::transport::{
    ConnectionError, DatagramError, Party, ReadError, ReadExactError, RecvStream, SendStream, Settings,
    Statistics, Stream, WriteError,
};

/// QUIC's code of a server that takes no connection.
const CONNECTION_REFUSED: u64 = 0x2;
/// TLS alerts are QUIC's codes from here.
const CRYPTO_ERROR: u64 = 0x100;

/// A QUIC connection.
#[derive(Clone, Debug)]
pub(crate) struct QuicConnection(quinn::Connection, Arc<Room>, Option<Arc<Driver>>);

/// Streams that the peer may have open.
#[derive(Debug)]
struct Room {
    now: AtomicU32,
    most: u32,
}

/// The half of a QUIC stream that we write to.
#[derive(Debug)]
pub(crate) struct QuicSend(quinn::SendStream, Option<Arc<Driver>>);

/// The half of a QUIC stream that we read from.
#[derive(Debug)]
pub(crate) struct QuicReceive(quinn::RecvStream);

impl QuicConnection {
    /// `driver` is the task that sends what its streams say.
    pub(super) fn new(
        connection: quinn::Connection,
        driver: Option<Arc<Driver>>,
        settings: Settings,
    ) -> Self {
        let most = settings.streams_taken();
        let now = AtomicU32::new(most.min(FIRST_STREAMS));
        Self(connection, Arc::new(Room { now, most }), driver)
    }

    /// Doubles the room when half of it is taken. Only the task that accepts streams calls this.
    pub(crate) fn serves(&self, open: u64) {
        let now = self.1.now.load(Ordering::Relaxed);
        if open < u64::from(now / 2) || now == self.1.most {
            return;
        }
        let more = now.saturating_mul(2).min(self.1.most);
        self.1.now.store(more, Ordering::Relaxed);
        self.0.set_max_concurrent_bi_streams(VarInt::from_u32(more));
    }

    pub(crate) async fn open(&self) -> Result<Stream, ConnectionError> {
        Ok(self.stream(self.0.open_bi().await?))
    }

    pub(crate) async fn accept(&self) -> Result<Stream, ConnectionError> {
        Ok(self.stream(self.0.accept_bi().await?))
    }

    fn stream(&self, (send, receive): (quinn::SendStream, quinn::RecvStream)) -> Stream {
        Stream {
            send: SendStream::Quic(QuicSend(send, self.2.clone())),
            receive: RecvStream::Quic(QuicReceive(receive)),
        }
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.0.close(VarInt::from_u32(code), reason.as_bytes());
    }

    pub(crate) async fn closed(&self) -> ConnectionError {
        self.0.closed().await.into()
    }

    pub(crate) fn close_reason(&self) -> Option<ConnectionError> {
        self.0.close_reason().map(ConnectionError::from)
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = self.0.peer_identity()?;
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let stats = self.0.stats();
        Statistics {
            round_trip: stats.path.rtt,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            congestion_window: stats.path.cwnd,
            datagram_size: stats.path.current_mtu,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
        }
    }

    pub(crate) fn max_datagram_size(&self) -> Option<usize> {
        self.0.max_datagram_size()
    }

    pub(crate) fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        self.0.send_datagram(datagram).map_err(|error| match error {
            quinn::SendDatagramError::TooLarge => DatagramError::TooLarge,
            quinn::SendDatagramError::UnsupportedByPeer | quinn::SendDatagramError::Disabled => {
                DatagramError::Unsupported
            }
            quinn::SendDatagramError::ConnectionLost(error) => DatagramError::Lost(error.into()),
        })
    }

    pub(crate) async fn read_datagram(&self) -> Result<Bytes, ConnectionError> {
        Ok(self.0.read_datagram().await?)
    }
}

impl QuicSend {
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.0.write_all(bytes).await.map_err(written)
    }

    pub(crate) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.0.write_all_chunks(chunks).await.map_err(written)?;
        if let Some(driver) = &self.1 {
            driver.wrote();
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.0.finish().map_err(|_| WriteError::Closed)
    }

    pub(crate) fn reset(&mut self, code: u32) {
        // Already ended or reset: nothing is left to abandon.
        let _ = self.0.reset(VarInt::from_u32(code));
    }

    #[cfg(test)]
    pub(crate) async fn stopped(&mut self) {
        // However it came, nobody reads any more.
        let _ = self.0.stopped().await;
    }
}

impl QuicReceive {
    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadExactError> {
        self.0.read_exact(buffer).await.map_err(|error| match error {
            quinn::ReadExactError::FinishedEarly(read) => ReadExactError::Ended(read),
            quinn::ReadExactError::ReadError(error) => ReadExactError::Read(read(error)),
        })
    }

    pub(crate) async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        self.0.read_chunks(chunks).await.map_err(read)
    }

    pub(crate) fn stop(&mut self, code: u32) {
        // Already at its end: nothing is left to stop.
        let _ = self.0.stop(VarInt::from_u32(code));
    }
}

/// Our codes fit; a foreign one that does not is as good as the largest.
fn code(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

fn read(error: quinn::ReadError) -> ReadError {
    match error {
        quinn::ReadError::Reset(reset) => ReadError::Reset(code(reset)),
        quinn::ReadError::ConnectionLost(error) => ReadError::Lost(error.into()),
        quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => ReadError::Closed,
    }
}

fn written(error: quinn::WriteError) -> WriteError {
    match error {
        quinn::WriteError::Stopped(stopped) => WriteError::Stopped(code(stopped)),
        quinn::WriteError::ConnectionLost(error) => WriteError::Lost(error.into()),
        quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => WriteError::Closed,
    }
}

impl From<quinn::ConnectionError> for ConnectionError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        match error {
            Quic::TransportError(error) => transport(Party::Here, error.code.into(), error.reason),
            Quic::ConnectionClosed(frame) => transport(
                Party::Peer,
                frame.error_code.into(),
                String::from_utf8_lossy(&frame.reason).into_owned(),
            ),
            Quic::ApplicationClosed(frame) => Self::Closed {
                code: code(frame.error_code),
                reason: String::from_utf8_lossy(&frame.reason).into_owned(),
            },
            Quic::TimedOut => Self::Lost("the peer does not answer".to_owned()),
            Quic::Reset => Self::Lost("the peer was restarted".to_owned()),
            Quic::VersionMismatch => Self::Version,
            Quic::LocallyClosed => Self::Local,
            Quic::CidsExhausted => Self::Lost("out of connection ids".to_owned()),
        }
    }
}

fn transport(by: Party, code: u64, detail: String) -> ConnectionError {
    let alert = code.checked_sub(CRYPTO_ERROR).map(u8::try_from);
    if let Some(Ok(alert)) = alert {
        return ConnectionError::Tls { by, alert, detail };
    }
    let detail = crate::wire::clean(&detail, 256);
    ConnectionError::Lost(match by {
        Party::Peer if code == CONNECTION_REFUSED => "the peer accepts no links there now".to_owned(),
        Party::Peer => format!("the peer ended the connection: {detail} (code {code:#x})"),
        Party::Here => format!("the connection failed: {detail} (code {code:#x})"),
    })
}
