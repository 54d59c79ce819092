//! An encoding made of another: runs of it that stay, lengths that are new, bytes that are written. Bytes move once, when
//! all lengths are known.

use crate::wire::field::{Field, put_varint};

/// What the new encoding is made of, in order.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Bytes of the old one.
    Stays { start: usize, end: usize },
    /// Bytes of what was written.
    Written { start: usize, end: usize },
    /// A length.
    Length(usize),
}

/// The new encoding while it is made.
pub(super) struct Splice<'a> {
    old: &'a [u8],
    written: Vec<u8>,
    parts: Vec<Part>,
    /// Of all that the parts stand for, but for lengths of messages that are open.
    length: usize,
}

/// A message that was opened: what there was before.
pub(super) struct Open {
    parts: usize,
    last: Option<Part>,
    written: usize,
    length: usize,
    /// The length before its content.
    content: usize,
}

impl<'a> Splice<'a> {
    /// Nothing yet of an encoding.
    pub(super) fn new(old: &'a [u8]) -> Self {
        Splice {
            old,
            written: Vec::new(),
            parts: Vec::with_capacity(old.len() / 64 + 16),
            length: 0,
        }
    }

    /// Bytes of the old encoding, and no others, that stay.
    pub(super) fn stays(&mut self, bytes: &'a [u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = bytes.as_ptr() as usize - self.old.as_ptr() as usize;
        let end = start + bytes.len();
        self.length += bytes.len();
        match self.parts.last_mut() {
            Some(Part::Stays { end: last, .. }) if *last == start => *last = end,
            _ => self.parts.push(Part::Stays { start, end }),
        }
    }

    /// A field with a new value.
    pub(super) fn write(&mut self, number: u32, value: &[u8]) {
        let start = self.written.len();
        put_varint(&mut self.written, u64::from(number) << 3 | 2);
        put_varint(&mut self.written, value.len() as u64);
        self.written.extend_from_slice(value);
        let end = self.written.len();
        self.length += end - start;
        match self.parts.last_mut() {
            Some(Part::Written { end: last, .. }) if *last == start => *last = end,
            _ => self.parts.push(Part::Written { start, end }),
        }
    }

    /// Begins a message, whose content is what comes until it is closed.
    pub(super) fn open(&mut self, field: &Field<'a>) -> Open {
        let (parts, last) = (self.parts.len(), self.parts.last().copied());
        let (written, length) = (self.written.len(), self.length);
        let key = field.whole.iter().position(|byte| *byte < 0x80);
        self.stays(&field.whole[..key.map_or(0, |last| last + 1)]);
        self.parts.push(Part::Length(0));
        let content = self.length;
        Open {
            parts,
            last,
            written,
            length,
            content,
        }
    }

    /// Ends it. If nothing in it has changed, it is as it was. Gives whether it has.
    pub(super) fn close(&mut self, open: Open, field: &Field<'a>, changed: bool) -> bool {
        if !changed {
            self.parts.truncate(open.parts);
            if let Some((last, before)) = self.parts.last_mut().zip(open.last) {
                *last = before;
            }
            self.written.truncate(open.written);
            self.length = open.length;
            self.stays(field.whole);
            return false;
        }
        let length = self.length - open.content;
        let own = self.parts[open.parts..].iter_mut();
        // Its key may have joined what stood before; its length is the first that comes.
        if let Some(part) = own.into_iter().find(|part| matches!(part, Part::Length(_))) {
            *part = Part::Length(length);
        }
        self.length += varint_length(length);
        true
    }

    /// The new encoding.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length);
        for part in self.parts {
            match part {
                Part::Stays { start, end } => out.extend_from_slice(&self.old[start..end]),
                Part::Written { start, end } => out.extend_from_slice(&self.written[start..end]),
                Part::Length(length) => put_varint(&mut out, length as u64),
            }
        }
        debug_assert_eq!(out.len(), self.length, "every part was counted");
        out
    }
}

/// The length of a variable-length number.
fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}
