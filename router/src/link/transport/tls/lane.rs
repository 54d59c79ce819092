//! A lane: a TLS connection that carries one stream at a time, as fast as one core can.
//!
//! ```text
//!  chunks ──▶ LaneSend: records of 16 KiB, sealed as they are laid out, many a system call ──▶ socket
//!  chunks ◀── LaneReceive: parts of what was read, opened in place ◀── socket
//! ```
//!
//! The stream's own task does all of it: nothing is handed from task to task. The end of a stream is a frame, so that
//! the lane serves another afterwards. TCP's flow control is the stream's; resets and stops come over the multiplexed
//! connection, and break the lane.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::super::tcp::Watch;
use super::connection::LINGER;
use super::frame::{Frame, Frames, HEADER, Output, ProtocolError, data_header};
use super::incoming::{Incoming, Opening};
use super::outgoing::{Batch, Outgoing};
use super::record::{RecordError, Sealer};
use crate::buffer::Size;

/// Why a lane broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A record was no good.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// A frame was no good.
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
}

/// The sending half of a lane.
pub(super) struct LaneSend {
    socket: OwnedWriteHalf,
    sealer: Sealer,
    out: Outgoing,
    /// Sealed, on its way into the socket.
    batch: Option<(Batch, Range<usize>)>,
    watch: Watch,
}

impl LaneSend {
    pub(super) fn new(socket: OwnedWriteHalf, sealer: Sealer, watch: Watch) -> Self {
        Self {
            socket,
            sealer,
            out: Outgoing::new(Size::Large),
            batch: None,
            watch,
        }
    }

    /// Takes of the chunks what fits, and seals it. The last batch has to be flushed.
    pub(super) fn fill(&mut self, stream: u32, chunks: &mut [Bytes]) -> Result<usize, LaneError> {
        let mut taken = 0;
        for chunk in chunks {
            while !chunk.is_empty() {
                let room = self.out.room().saturating_sub(HEADER);
                let length = chunk.len().min(self.out.fit()).min(room);
                if length == 0 {
                    self.seal()?;
                    return Ok(taken);
                }
                let space = self.out.reserve(data_header(stream, length), length);
                space.copy_from_slice(&chunk[..length]);
                chunk.advance(length);
                taken += length;
            }
        }
        self.seal()?;
        Ok(taken)
    }

    /// The end of the stream, behind what was taken before.
    pub(super) fn end(&mut self, stream: u32) -> Result<(), LaneError> {
        Frame::Finish { stream }.put(&mut self.out);
        if self.batch.is_none() {
            self.seal()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), RecordError> {
        if let Some(mut batch) = self.out.take() {
            let place = batch.seal(&mut self.sealer)?;
            self.batch = Some((batch, place));
        }
        Ok(())
    }

    /// Closes a lane whose peer may still be sending. A socket that is closed with something unread is reset, and what was
    /// said last is lost with it: so what comes is read, and dropped, until the peer has closed its end, too.
    pub(super) async fn close(mut self) {
        let unread = async {
            self.socket.shutdown().await?;
            let socket: &TcpStream = self.socket.as_ref();
            let mut dropped = [0; 16 << 10];
            loop {
                socket.readable().await?;
                match socket.try_read(&mut dropped) {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        };
        // However it ended: it is closed now.
        let _: Result<io::Result<()>, _> = timeout(LINGER, unread).await;
    }

    /// Hands everything to the socket.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        loop {
            let Some((batch, place)) = &mut self.batch else {
                self.seal()?;
                if self.batch.is_none() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            };
            let written = ready!(Pin::new(&mut self.socket).poll_write(context, batch.bytes(place.clone())))?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.watch.sent(self.socket.as_ref(), written);
            place.start += written;
            if place.start >= place.end {
                self.batch = None;
            }
        }
    }
}

/// The receiving half of a lane.
pub(super) struct LaneReceive {
    socket: OwnedReadHalf,
    incoming: Incoming,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl std::fmt::Debug for LaneSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneSend").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LaneReceive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneReceive").finish_non_exhaustive()
    }
}

/// What a lane has for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LaneRead {
    /// So many chunks were filled.
    Filled(usize),
    /// The stream is over; the lane is free.
    Ended,
}

impl LaneReceive {
    pub(super) fn new(socket: OwnedReadHalf, incoming: Incoming) -> Self {
        Self {
            socket,
            incoming,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    pub(super) fn poll_read(
        &mut self,
        stream: u32,
        chunks: &mut [Bytes],
        context: &mut Context<'_>,
    ) -> Poll<Result<LaneRead, LaneError>> {
        loop {
            let filled = self.ready.len().min(chunks.len());
            if filled > 0 {
                for (chunk, ready) in chunks.iter_mut().zip(self.ready.drain(..filled)) {
                    *chunk = ready;
                }
                return Poll::Ready(Ok(LaneRead::Filled(filled)));
            }
            if self.ended {
                self.ended = false;
                self.ready = VecDeque::new();
                return Poll::Ready(Ok(LaneRead::Ended));
            }
            // What was read together with the end of the stream before is opened without waiting for more.
            self.open(stream)?;
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            if ready!(self.incoming.poll_fill(&mut self.socket, context))? == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
        }
    }

    fn open(&mut self, stream: u32) -> Result<(), LaneError> {
        let Self {
            incoming,
            ready,
            ended,
            ..
        } = self;
        let opening = incoming.open()?;
        incoming.take(|record, keep| {
            for frame in Frames::new(record) {
                match frame? {
                    Frame::Data { stream: of, payload } if of == stream && !*ended => {
                        ready.push_back(keep(payload));
                    }
                    Frame::Finish { stream: of } if of == stream && !*ended => *ended = true,
                    _ => return Err(LaneError::from(ProtocolError::UnknownStream(stream))),
                }
            }
            Ok(())
        })?;
        match opening {
            Opening::Whole => Ok(()),
            Opening::Alert(_) => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        }
    }

    /// Whether the idle lane's socket is still connected.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.incoming
            .poll_fill(&mut self.socket, &mut context)
            .is_pending()
    }
}
