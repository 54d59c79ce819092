//! Bytes from the socket, opened where they were read.
//!
//! ```text
//!  socket ──fill──▶ buffer ──open──▶ places of plaintext in it ──take──▶ each record, and a way to keep parts of it
//! ```
//!
//! A quiet connection has no buffer: one is lent when there is something to read, and given back when all of it was
//! taken. Long payloads are handed out as parts of the buffer, which then lives as long as they do; short ones are
//! copied, so that a few bytes that nobody reads do not hold a whole buffer.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use super::record::{Content, Opener, RecordError};
use crate::buffer::{Buffer, Size};

/// What is kept without a copy is at least so long.
const WORTH_SHARING: usize = 8 << 10;
/// Space for any record: when less is left, what is there moves to the front.
const RECORD: usize = 17 << 10;

/// The reading end of a secured connection.
pub(super) struct Incoming {
    opener: Opener,
    size: Size,
    buffer: Option<Buffer>,
    /// What was read and not opened yet.
    unopened: Range<usize>,
    /// Where the opened records' plaintexts are.
    places: Vec<Range<usize>>,
}

/// How opening ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// With all that is there.
    Whole,
    /// With an alert: the peer ends the TLS connection.
    Alert(u8),
}

impl Incoming {
    /// `early` came with the handshake.
    pub(super) fn new(opener: Opener, size: Size, early: &[u8]) -> Self {
        let mut new = Self {
            opener,
            size,
            buffer: None,
            unopened: 0..0,
            places: Vec::new(),
        };
        // A handshake reads far less ahead than a buffer holds.
        if !early.is_empty() && early.len() <= size.bytes() {
            let mut buffer = Buffer::lend(size);
            buffer[..early.len()].copy_from_slice(early);
            new.unopened = 0..early.len();
            new.buffer = Some(buffer);
        }
        new
    }

    /// Buffers are of this size from the next one on.
    pub(super) fn set_size(&mut self, size: Size) {
        self.size = size;
    }

    /// Reads what there is; 0 at the end of input.
    pub(super) fn poll_fill(
        &mut self,
        socket: &mut OwnedReadHalf,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_none() {
            ready!(socket.as_ref().poll_read_ready(context))?;
        }
        let buffer = self.buffer.get_or_insert_with(|| Buffer::lend(self.size));
        if self.unopened.is_empty() {
            self.unopened = 0..0;
        } else if buffer.len() - self.unopened.end < RECORD {
            buffer.copy_within(self.unopened.clone(), 0);
            self.unopened = 0..self.unopened.len();
        }
        let mut space = ReadBuf::new(&mut buffer[self.unopened.end..]);
        match Pin::new(socket).poll_read(context, &mut space) {
            Poll::Ready(Ok(())) => {
                let read = space.filled().len();
                self.unopened.end += read;
                Poll::Ready(Ok(read))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.give_back();
                Poll::Pending
            }
        }
    }

    fn give_back(&mut self) {
        if self.unopened.is_empty() {
            self.buffer = None;
            self.unopened = 0..0;
        }
    }

    /// Takes what was opened: each record's plaintext, with a way to keep parts of it. Ends with the first error.
    pub(super) fn take<E>(
        &mut self,
        mut each: impl FnMut(&[u8], &dyn Fn(&[u8]) -> Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut places = std::mem::take(&mut self.places);
        if places.iter().any(|place| place.len() >= WORTH_SHARING) {
            let shared = self.share();
            let keep = |part: &[u8]| match part.len() {
                ..WORTH_SHARING => Bytes::copy_from_slice(part),
                _ => shared.slice_ref(part),
            };
            for place in &places {
                each(&shared[place.clone()], &keep)?;
            }
        } else if let Some(buffer) = &self.buffer {
            for place in &places {
                each(&buffer[place.clone()], &|part| Bytes::copy_from_slice(part))?;
            }
        }
        places.clear();
        self.places = places;
        Ok(())
    }

    /// Whether there is something to take.
    pub(super) fn has_opened(&self) -> bool {
        !self.places.is_empty()
    }

    /// Opens all whole records.
    pub(super) fn open(&mut self) -> Result<Opening, RecordError> {
        self.open_some(usize::MAX)
    }

    /// Opens whole records, up to so many.
    pub(super) fn open_some(&mut self, most: usize) -> Result<Opening, RecordError> {
        let Some(buffer) = &mut self.buffer else {
            return Ok(Opening::Whole);
        };
        while self.places.len() < most
            && let Some(length) = Opener::length(&buffer[self.unopened.clone()])?
        {
            if self.unopened.len() < length {
                break;
            }
            let start = self.unopened.start;
            self.unopened.start += length;
            match self.opener.open(&mut buffer[start..start + length])? {
                Content::Data(place) => self.places.push(start + place.start..start + place.end),
                Content::Alert(alert) => return Ok(Opening::Alert(alert)),
                Content::Nothing => {}
            }
        }
        Ok(Opening::Whole)
    }

    /// Makes the buffer one that lives as long as its parts; what is not opened yet moves to another.
    fn share(&mut self) -> Bytes {
        let Some(buffer) = self.buffer.take() else {
            return Bytes::new();
        };
        if !self.unopened.is_empty() {
            let mut next = Buffer::lend(self.size);
            next[..self.unopened.len()].copy_from_slice(&buffer[self.unopened.clone()]);
            self.buffer = Some(next);
        }
        self.unopened = 0..self.unopened.len();
        Bytes::from_owner(buffer)
    }
}
