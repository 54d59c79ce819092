//! Where sockets are read into: aligned, grown when it pays, and held only while there is something to read.
//!
//! `rep movsb`, in memcpy and in the kernel's copies, is many times slower at some relative alignments of source and
//! destination; large allocations sit at such ones. So each read begins at a multiple of 64.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::net::tcp::OwnedReadHalf;
use tokio_util::io::poll_read_buf;

/// What a read may take at first, and of a connection that says little.
const SMALL: usize = 4 * 1024;
/// What a read may take of one that says much.
const LARGE: usize = 64 * 1024;
/// Where reads begin.
const ALIGNMENT: usize = 64;
/// Large buffers that a thread keeps for whoever reads next.
const KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// What one socket is read into.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    bytes: BytesMut,
    large: bool,
}

impl ReadBuffer {
    /// Reads once; empty at the end of input. While it waits it holds no memory.
    pub(crate) fn poll_read(
        &mut self,
        socket: &mut OwnedReadHalf,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        if socket.as_ref().poll_read_ready(context).is_pending() {
            self.give_back();
            return Poll::Pending;
        }
        let room = self.make_room();
        let Poll::Ready(read) = poll_read_buf(Pin::new(socket), context, &mut self.bytes) else {
            self.give_back();
            return Poll::Pending;
        };
        // A read that fills the room says that there is more; one that takes little that there is not.
        let read = read?;
        self.large = read == room || (self.large && read > SMALL);
        Poll::Ready(Ok(self.bytes.split().freeze()))
    }

    /// Makes room for a read, and says how much.
    fn make_room(&mut self) -> usize {
        let wanted = if self.large { LARGE } else { SMALL };
        if self.bytes.capacity() < wanted / 4 + ALIGNMENT {
            if self.large && self.bytes.capacity() < LARGE {
                self.bytes = FREE
                    .with_borrow_mut(Vec::pop)
                    .unwrap_or_else(|| BytesMut::with_capacity(LARGE + ALIGNMENT));
            }
            self.bytes.reserve(wanted + ALIGNMENT);
        }
        let begins = self.bytes.chunk_mut().as_mut_ptr() as usize;
        let skipped = begins.wrapping_neg() % ALIGNMENT;
        self.bytes.put_bytes(0, skipped);
        self.bytes.advance(skipped);
        self.bytes.capacity()
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if self.large {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT {
                    free.push(bytes);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_begin_aligned_and_room_is_used_up_before_more_is_taken() {
        let mut buffer = ReadBuffer::default();
        for length in [1, 63, 64, 700, 1000] {
            assert!(buffer.make_room() >= SMALL / 4);
            assert_eq!(buffer.bytes.chunk_mut().as_mut_ptr() as usize % ALIGNMENT, 0);
            buffer.bytes.put_bytes(7, length);
            assert_eq!(buffer.bytes.split().freeze(), vec![7; length]);
        }
        assert!(buffer.bytes.capacity() < SMALL);
        buffer.large = true;
        assert!(buffer.make_room() >= LARGE / 4);
    }

    #[test]
    fn what_is_given_back_is_lent_again() {
        let mut buffer = ReadBuffer {
            large: true,
            ..ReadBuffer::default()
        };
        buffer.make_room();
        let place = buffer.bytes.chunk_mut().as_mut_ptr() as usize;
        buffer.give_back();
        assert_eq!(buffer.bytes.capacity(), 0);
        buffer.make_room();
        assert_eq!(buffer.bytes.chunk_mut().as_mut_ptr() as usize, place);
    }
}
