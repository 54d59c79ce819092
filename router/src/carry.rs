//! Carries a connection: two pumps, one each way, between sockets and streams.
//!
//! ```text
//!  client ──Source──▶ pump ──▶ Sink── target        an end of input becomes an end of output (half-close),
//!  client ◀──Sink── pump ◀──Source── target         a reset becomes a reset of all four
//! ```
//!
//! Nothing is buffered beyond one read and what the transport's flow control allows.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::buffer::ReadBuffer;
use crate::link::{RESET_CODE, RecvStream, SendStream, Stream};
use crate::metrics::Ending;
use crate::record::ConnectionRecord;

/// Chunks taken from a stream at once: one system call writes them all.
const CHUNKS: usize = 32;

/// One end of a carried connection.
pub(crate) struct End {
    source: Source,
    sink: Sink,
}

enum Source {
    Socket {
        socket: OwnedReadHalf,
        buffer: ReadBuffer,
    },
    Stream(RecvStream),
}

enum Sink {
    Socket(OwnedWriteHalf),
    Stream(SendStream),
}

/// A silent socket is asked whether it lives after this.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> Self {
        let keep_alive = TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE / 4);
        // Best effort: without it a client that vanished is only noticed when something is sent to it.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
        let (read, write) = stream.into_split();
        Self {
            source: Source::Socket {
                socket: read,
                buffer: ReadBuffer::default(),
            },
            sink: Sink::Socket(write),
        }
    }
}

impl From<Stream> for End {
    fn from(stream: Stream) -> Self {
        Self {
            source: Source::Stream(stream.receive),
            sink: Sink::Stream(stream.send),
        }
    }
}

impl End {
    fn end(self, towards: Direction) {
        if towards == Direction::Unwanted {
            self.reset();
        }
    }

    /// Ends it abruptly: the other side sees a reset.
    pub(crate) fn reset(self) {
        if let Source::Stream(mut stream) = self.source {
            stream.stop(RESET_CODE);
        }
        match self.sink {
            Sink::Socket(socket) => {
                let _ = socket.as_ref().set_zero_linger();
                // Without this the half would say a graceful goodbye first.
                socket.forget();
            }
            Sink::Stream(mut stream) => stream.reset(RESET_CODE),
        }
    }
}

/// Why a pump stopped before the end of its input.
enum Broken {
    /// The side that is read from reset the connection.
    Source(String),
}

/// How a direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Everything was handed on.
    Finished,
    /// The receiving side wants no more.
    Unwanted,
}

/// Carries until both directions ended, one side reset, or `force`; writes the record.
pub(crate) async fn carry(
    mut client: End,
    mut target: End,
    record: ConnectionRecord,
    force: &CancellationToken,
) {
    let (sent, received) = (record.sent.clone(), record.received.clone());
    let up = async {
        let end = pump(&mut client.source, &mut target.sink, |n| sent.add(n)).await;
        end.map_err(|Broken::Source(error)| (Ending::ClientReset, error))
    };
    let down = async {
        let end = pump(&mut target.source, &mut client.sink, |n| received.add(n)).await;
        end.map_err(|Broken::Source(error)| (Ending::TargetReset, error))
    };
    let ended = tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended,
        () = force.cancelled() => Err((Ending::Shutdown, "the router stops".to_owned())),
    };
    match ended {
        Ok((up, down)) => {
            let (ending, error) = match (up, down) {
                (Direction::Finished, Direction::Finished) => (Ending::Completed, None),
                (Direction::Unwanted, _) => (Ending::TargetReset, Some(UNWANTED.to_owned())),
                (_, Direction::Unwanted) => (Ending::ClientReset, Some(UNWANTED.to_owned())),
            };
            record.end(ending, error);
            // A side that was given everything keeps it: a reset could still discard it.
            client.end(down);
            target.end(up);
        }
        Err((ending, error)) => {
            record.end(ending, Some(error));
            client.reset();
            target.reset();
        }
    }
}

const UNWANTED: &str = "closed before everything was handed on";

async fn pump(source: &mut Source, sink: &mut Sink, count: impl Fn(u64)) -> Result<Direction, Broken> {
    // Most connections never have more than a chunk at once; room for more would wait with them.
    let mut chunks = vec![Bytes::new(); 2];
    loop {
        let filled = match source.read(&mut chunks).await {
            Ok(0) => break,
            Ok(filled) => filled,
            Err(error) => return Err(Broken::Source(error.to_string())),
        };
        let bytes = chunks[..filled].iter().map(|chunk| chunk.len() as u64).sum();
        if sink.write(&mut chunks[..filled]).await.is_err() {
            source.refuse();
            return Ok(Direction::Unwanted);
        }
        count(bytes);
        if filled == chunks.len() && filled < CHUNKS {
            chunks.resize((filled * 8).min(CHUNKS), Bytes::new());
        }
    }
    match sink.finish().await {
        Ok(()) => Ok(Direction::Finished),
        Err(_) => Ok(Direction::Unwanted),
    }
}

impl Source {
    /// Fills some chunks; 0 at the end of input.
    async fn read(&mut self, chunks: &mut [Bytes]) -> io::Result<usize> {
        match self {
            Self::Socket { socket, buffer } => {
                chunks[0] = poll_fn(|context| buffer.poll_read(socket, context)).await?;
                Ok(usize::from(!chunks[0].is_empty()))
            }
            Self::Stream(stream) => Ok(stream.read_chunks(chunks).await?.unwrap_or(0)),
        }
    }

    /// Tells the sender that nobody reads on.
    fn refuse(&mut self) {
        if let Self::Stream(stream) = self {
            stream.stop(RESET_CODE);
        }
    }
}

impl Sink {
    async fn write(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => write_vectored(socket, chunks).await,
            Self::Stream(stream) => Ok(stream.write_chunks(chunks).await?),
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.shutdown().await,
            Self::Stream(stream) => Ok(stream.finish()?),
        }
    }
}

async fn write_vectored(socket: &mut OwnedWriteHalf, mut chunks: &mut [Bytes]) -> io::Result<()> {
    while let Some(first) = chunks.first() {
        if first.is_empty() {
            chunks = &mut chunks[1..];
            continue;
        }
        // The slices are made anew for each try, so that a connection that waits does not hold them.
        let write = poll_fn(|context| {
            let mut slices = [io::IoSlice::new(&[]); CHUNKS];
            for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
                *slice = io::IoSlice::new(chunk);
            }
            Pin::new(&mut *socket).poll_write_vectored(context, &slices[..chunks.len().min(CHUNKS)])
        });
        let mut written = write.await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for chunk in chunks.iter_mut() {
            let part = written.min(chunk.len());
            chunk.advance(part);
            written -= part;
        }
    }
    Ok(())
}

/// Resets a client's socket that is not carried.
pub(crate) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}
