//! Buffers of the carrying path: aligned, shared by all connections of the process, given back after use.
//!
//! Copies into memory that is badly aligned to their source are many times slower on some processors, in the kernel as
//! in user space, and what an allocator hands out for large sizes always is. So these buffers begin at a multiple of
//! 64 bytes. They are lent for as long as there is something in them: a quiet connection has none.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// What buffers begin at a multiple of.
const ALIGNMENT: usize = 64;
/// Bytes of the buffers that wait for the next use, of each size.
const KEPT: usize = 4 << 20;

/// The sizes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A multiplexed connection's.
    Small,
    /// A lane's.
    Large,
}

impl Size {
    /// A whole number of records, and what it takes to place their payloads well.
    pub(super) const fn bytes(self) -> usize {
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

/// A lent buffer; it goes back when dropped.
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    size: Size,
}

impl Buffer {
    pub(super) fn lend(size: Size) -> Self {
        let kept = lock(size).pop();
        let memory = kept.unwrap_or_else(|| vec![0; size.bytes() + ALIGNMENT]);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, size }
    }
}

fn lock(size: Size) -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    size.kept().lock().expect("nothing panics while it is held")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = lock(self.size);
        if kept.len() * self.size.bytes() < KEPT {
            kept.push(std::mem::take(&mut self.memory));
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
}
