//! Buffers of the carrying path: aligned, shared by all connections of the process, given back after use.
//!
//! ```text
//!  clients' and targets' sockets ──read──▶ Buffer ──▶ Bytes ──▶ streams
//!  TLS links: records to be opened and to be sealed lie in Buffers, too
//! ```
//!
//! `rep movsb`, in memcpy and in the kernel's copies, is many times slower at some relative alignments of source and
//! destination, and what an allocator hands out for large sizes sits at such ones. So these buffers begin at a multiple
//! of 64 bytes. They are lent for as long as there is something in them: a quiet connection has none.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

/// What buffers begin at a multiple of.
const ALIGNMENT: usize = 64;
/// Bytes of the buffers that wait for the next use, of each size.
const KEPT: usize = 4 << 20;
/// What fills less of a buffer than this is copied, so that bytes that wait never hold much more memory than they take.
const WORTH_SHARING: usize = 32 << 10;

/// The sizes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A socket's, and a multiplexed connection's.
    Small,
    /// A lane's.
    Large,
}

impl Size {
    /// A whole number of records, and what it takes to place their payloads well.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => (64 << 10) + ALIGNMENT,
            Self::Large => (128 << 10) + ALIGNMENT,
        }
    }

    fn kept(self) -> &'static Mutex<Vec<Vec<u8>>> {
        static SMALL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
        static LARGE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
        match self {
            Self::Small => &SMALL,
            Self::Large => &LARGE,
        }
    }
}

thread_local! {
    /// The small buffer that this thread has used last: the next read finds it in the processor's cache, without a lock.
    static LAST: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// A lent buffer; it goes back when dropped.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    size: Size,
}

impl Buffer {
    pub(crate) fn lend(size: Size) -> Self {
        let last = (size == Size::Small)
            .then(|| LAST.with_borrow_mut(Option::take))
            .flatten();
        let kept = last.or_else(|| lock(size).pop());
        let memory = kept.unwrap_or_else(|| vec![0; size.bytes() + ALIGNMENT]);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, size }
    }

    /// The first bytes of it, for whoever needs them for longer.
    fn keep(self, length: usize) -> Bytes {
        match length {
            0 => Bytes::new(),
            1..WORTH_SHARING => Bytes::copy_from_slice(&self[..length]),
            _ => Bytes::from_owner(self).slice(..length),
        }
    }
}

fn lock(size: Size) -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    size.kept().lock().expect("nothing panics while it is held")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that ends has no place any more.
        let mut back = Some(memory);
        if self.size == Size::Small {
            let _ = LAST.try_with(|last| {
                let mut last = last.borrow_mut();
                if last.is_none() {
                    *last = back.take();
                }
            });
        }
        if let Some(memory) = back {
            let mut kept = lock(self.size);
            if kept.len() * self.size.bytes() < KEPT {
                kept.push(memory);
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.size.bytes()]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.size.bytes()]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Reads once; empty at the end of input. Who waits holds no memory.
pub(crate) fn poll_read(socket: &mut OwnedReadHalf, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    ready!(socket.as_ref().poll_read_ready(context))?;
    let mut buffer = Buffer::lend(Size::Small);
    let mut space = ReadBuf::new(&mut buffer);
    ready!(Pin::new(socket).poll_read(context, &mut space))?;
    let length = space.filled().len();
    Poll::Ready(Ok(buffer.keep(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let buffer = Buffer::lend(Size::Large);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        assert_eq!(buffer.len(), Size::Large.bytes());
        drop(buffer);
        assert!(!lock(Size::Large).is_empty());
    }

    #[test]
    fn the_buffer_used_last_is_lent_again() {
        let buffer = Buffer::lend(Size::Small);
        let place = buffer.as_ptr();
        drop(buffer);
        assert_eq!(Buffer::lend(Size::Small).as_ptr(), place);
    }

    #[test]
    fn little_is_copied_and_much_is_shared() {
        let buffer = Buffer::lend(Size::Small);
        let place = buffer.as_ptr();
        let kept = buffer.keep(WORTH_SHARING);
        assert_eq!((kept.as_ptr(), kept.len()), (place, WORTH_SHARING));
        let other = Buffer::lend(Size::Small);
        assert_ne!(other.as_ptr(), place);
        assert_ne!(other.keep(10).as_ptr(), place);
        drop(kept);
        assert!(Buffer::lend(Size::Small).keep(0).is_empty());
    }
}
