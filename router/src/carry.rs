//! Carries a connection: two pumps, one each way, between sockets and streams.
//!
//! ```text
//!  client ──Source──▶ pump ──▶ Sink── target        an end of input becomes an end of output (half-close),
//!  client ◀──Sink── pump ◀──Source── target         a reset becomes a reset of all four
//! ```
//!
//! Nothing is buffered beyond one read and what the transport's flow control allows.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::buffer;
use crate::link::{RESET_CODE, RecvStream, SendStream, Stream};
use crate::metrics::Ending;
use crate::record::{ConnectionRecord, Meter};
use crate::seal::{Sealed, SealedReceive, SealedSend};

/// Chunks taken from a stream at once: one system call writes them all. Over QUIC each is a packet's.
const CHUNKS: usize = 64;
/// Chunks taken at once of a sealed connection: each is a record.
const RECORDS: usize = 16;

thread_local! {
    /// Where chunks lie between a read and the write that follows it.
    static SPARE: Cell<Option<Box<[Bytes; CHUNKS]>>> = const { Cell::new(None) };
}

/// One end of a carried connection.
pub(crate) struct End {
    source: Source,
    sink: Sink,
}

enum Source {
    Socket(OwnedReadHalf),
    Stream(RecvStream),
    Sealed(Box<SealedReceive>),
}

enum Sink {
    Socket(OwnedWriteHalf),
    Stream(SendStream),
    Sealed(Box<SealedSend>),
}

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            source: Source::Socket(read),
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

impl From<Sealed> for End {
    fn from(sealed: Sealed) -> Self {
        Self {
            source: Source::Sealed(Box::new(sealed.receive)),
            sink: Sink::Sealed(Box::new(sealed.send)),
        }
    }
}

impl End {
    fn end(self, towards: Direction) {
        match (towards, self.sink) {
            // Both halves are over: closing says goodbye by itself.
            (Direction::Finished, Sink::Socket(socket)) => socket.forget(),
            (Direction::Finished, Sink::Stream(_) | Sink::Sealed(_)) => {}
            (Direction::Unwanted, sink) => Self { sink, ..self }.reset(),
        }
    }

    /// Ends it abruptly: the other side sees a reset.
    pub(crate) fn reset(self) {
        let mut source = self.source;
        source.refuse();
        match self.sink {
            Sink::Socket(socket) => {
                let _ = socket.as_ref().set_zero_linger();
                // Without this the half would say a graceful goodbye first.
                socket.forget();
            }
            Sink::Stream(mut stream) => stream.reset(RESET_CODE),
            Sink::Sealed(mut half) => half.reset(RESET_CODE),
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
    let (mut up, mut down) = (Pump::default(), Pump::default());
    let mut forced = pin!(force.cancelled());
    let ended = poll_fn(|context| {
        let (sent, other) = (&record.sent, down.is_over());
        let polled = up.poll(&mut client.source, &mut target.sink, sent, other, context);
        if let Poll::Ready(Err(Broken::Source(error))) = polled {
            return Poll::Ready(Err((Ending::ClientReset, error)));
        }
        let (received, other) = (&record.received, up.is_over());
        let polled = down.poll(&mut target.source, &mut client.sink, received, other, context);
        if let Poll::Ready(Err(Broken::Source(error))) = polled {
            return Poll::Ready(Err((Ending::TargetReset, error)));
        }
        if let (Some(up), Some(down)) = (up.ended, down.ended) {
            return Poll::Ready(Ok((up, down)));
        }
        ready!(forced.as_mut().poll(context));
        Poll::Ready(Err((Ending::Shutdown, "the router stops".to_owned())))
    });
    match ended.await {
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

/// Carries one way.
#[derive(Default)]
struct Pump {
    /// What was read and could not be handed on yet.
    waiting: Option<Waiting>,
    /// Whether the input has ended.
    read: bool,
    /// How it ended.
    ended: Option<Direction>,
}

struct Waiting {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl Pump {
    /// Whether all of the input was handed on.
    fn is_over(&self) -> bool {
        self.read && self.ended.is_some()
    }

    /// Hands on what there is. `other` says that the other way is over.
    ///
    /// The futures are made anew for each poll: all progress is in the ends and in the chunks. So a connection's task
    /// is a few hundred bytes, which are allocated and moved with each new connection, and not several thousand.
    fn poll(
        &mut self,
        source: &mut Source,
        sink: &mut Sink,
        meter: &Meter,
        other: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while self.ended.is_none() {
            if let Some(Waiting { chunks, bytes }) = &mut self.waiting {
                match ready!(poll_now(sink.write(chunks), context)) {
                    Ok(()) => meter.add(*bytes),
                    Err(_) => self.refuse(source),
                }
                self.waiting = None;
            } else if self.read {
                let finished = ready!(poll_now(sink.finish(other), context));
                self.ended = Some(finished.map_or(Direction::Unwanted, |()| Direction::Finished));
            } else {
                let spare = SPARE.take();
                let mut chunks = spare.unwrap_or_else(|| Box::new(std::array::from_fn(|_| Bytes::new())));
                let polled = poll_now(source.read(&mut chunks[..]), context);
                if let Poll::Ready(Ok(filled @ 1..)) = polled {
                    let filled = &mut chunks[..filled];
                    self.hand_on(filled, source, sink, meter, context);
                    filled.fill(Bytes::new());
                }
                SPARE.set(Some(chunks));
                match ready!(polled) {
                    Ok(0) => self.read = true,
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(Broken::Source(error.to_string()))),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn hand_on(
        &mut self,
        chunks: &mut [Bytes],
        source: &mut Source,
        sink: &mut Sink,
        meter: &Meter,
        context: &mut Context<'_>,
    ) {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        match poll_now(sink.write(chunks), context) {
            Poll::Ready(Ok(())) => meter.add(bytes),
            Poll::Ready(Err(_)) => self.refuse(source),
            Poll::Pending => {
                let rest = chunks.iter_mut().map(std::mem::take);
                let chunks = rest.filter(|chunk| !chunk.is_empty()).collect();
                self.waiting = Some(Waiting { chunks, bytes });
            }
        }
    }

    fn refuse(&mut self, source: &mut Source) {
        source.refuse();
        self.ended = Some(Direction::Unwanted);
    }
}

fn poll_now<F: Future>(future: F, context: &mut Context<'_>) -> Poll<F::Output> {
    pin!(future).poll(context)
}

impl Source {
    /// Fills some chunks; 0 at the end of input.
    async fn read(&mut self, chunks: &mut [Bytes]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => {
                chunks[0] = poll_fn(|context| buffer::poll_read(socket, context)).await?;
                Ok(usize::from(!chunks[0].is_empty()))
            }
            Self::Stream(stream) => Ok(stream.read_chunks(chunks).await?.unwrap_or(0)),
            Self::Sealed(half) => half.read_chunks(&mut chunks[..RECORDS]).await,
        }
    }

    /// Tells the sender that nobody reads on.
    fn refuse(&mut self) {
        match self {
            Self::Socket { .. } => {}
            Self::Stream(stream) => stream.stop(RESET_CODE),
            Self::Sealed(half) => half.stop(RESET_CODE),
        }
    }
}

impl Sink {
    /// Writes all of the chunks, which are advanced.
    async fn write(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => write_vectored(socket, chunks).await,
            Self::Stream(stream) => Ok(stream.write_chunks(chunks).await?),
            Self::Sealed(half) => half.write_chunks(chunks).await,
        }
    }

    /// Ends it in order. A socket that is closed next because the `other` way is over needs no goodbye before.
    async fn finish(&mut self, other: bool) -> io::Result<()> {
        match self {
            Self::Socket(_) if other => Ok(()),
            Self::Socket(socket) => socket.shutdown().await,
            Self::Stream(stream) => Ok(stream.finish()?),
            Self::Sealed(half) => half.finish().await,
        }
    }
}

async fn write_vectored(socket: &mut OwnedWriteHalf, mut chunks: &mut [Bytes]) -> io::Result<()> {
    while let Some(first) = chunks.first() {
        if first.is_empty() {
            chunks = &mut chunks[1..];
            continue;
        }
        let mut written = match &*chunks {
            [chunk] => socket.write(chunk).await?,
            chunks => {
                let mut slices = [io::IoSlice::new(&[]); CHUNKS];
                for (slice, chunk) in slices.iter_mut().zip(chunks) {
                    *slice = io::IoSlice::new(chunk);
                }
                socket.write_vectored(&slices[..chunks.len().min(CHUNKS)]).await?
            }
        };
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
