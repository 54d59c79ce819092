//! Records to come: frames laid out where they will be sealed.
//!
//! ```text
//!  buffer: ·····[header|frame|frame|…|type,tag][header|frame ⋯ frame|type,tag]
//!                └─ 16 KiB, when full ────────┘
//! ```
//!
//! Many small frames share a record, and all records of a buffer leave with one system call.

use std::ops::Range;

use super::frame::{self, Output, PAYLOAD, RECORD};
use super::record::{DATA, HEADER, RecordError, Sealer, TRAILER};
use crate::buffer::{Buffer, Size};

/// Where the first record begins: then the payload of a data frame that begins a record is aligned.
const START: usize = 64 - HEADER - frame::HEADER;
/// A data frame that would be shorter than this rather begins the next record.
const SHORT: usize = 256;

/// A buffer that is being filled.
pub(super) struct Outgoing {
    size: Size,
    buffer: Option<Buffer>,
    /// Where closed records end.
    ends: Vec<usize>,
    /// Where the open record begins, if one is open.
    open: Option<usize>,
    /// Where the next byte goes.
    filled: usize,
    /// How many frames were laid out.
    frames: usize,
}

/// Records that are to be sealed and sent.
pub(super) struct Batch {
    buffer: Buffer,
    ends: Vec<usize>,
}

impl Outgoing {
    pub(super) fn new(size: Size) -> Self {
        Self {
            size,
            buffer: None,
            ends: Vec::new(),
            open: None,
            filled: START,
            frames: 0,
        }
    }

    /// How many frames wait here.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// What was laid out; the next frames go into another buffer.
    pub(super) fn take(&mut self) -> Option<Batch> {
        self.close();
        let buffer = self.buffer.take()?;
        self.filled = START;
        self.frames = 0;
        Some(Batch {
            buffer,
            ends: std::mem::take(&mut self.ends),
        })
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.filled += TRAILER;
            self.ends.push(self.filled);
        }
    }

    /// What the open record may still hold.
    fn left(&self) -> usize {
        let used = self.open.map(|start| self.filled - start - HEADER);
        used.map_or(0, |used| RECORD.saturating_sub(used))
    }
}

impl Output for Outgoing {
    fn room(&self) -> usize {
        // In the worst case a record is closed, and another opened and closed.
        self.size
            .bytes()
            .saturating_sub(self.filled + 2 * TRAILER + HEADER)
    }

    fn fit(&self) -> usize {
        match self.left().saturating_sub(frame::HEADER) {
            left if left < SHORT => PAYLOAD,
            left => left,
        }
    }

    fn reserve(&mut self, header: [u8; frame::HEADER], payload: usize) -> &mut [u8] {
        let needed = frame::HEADER + payload;
        if self.left() < needed {
            self.close();
            self.open = Some(self.filled);
            self.filled += HEADER;
        }
        let at = self.filled;
        self.filled += needed;
        self.frames += 1;
        let buffer = self.buffer.get_or_insert_with(|| Buffer::lend(self.size));
        let (head, space) = buffer[at..at + needed].split_at_mut(frame::HEADER);
        head.copy_from_slice(&header);
        space
    }
}

impl Batch {
    /// Seals the records; says where they are.
    pub(super) fn seal(&mut self, sealer: &mut Sealer) -> Result<Range<usize>, RecordError> {
        let mut first = START;
        if sealer.is_used_up() {
            // The news of the next key goes into the space before the first record.
            let update = sealer.renew()?;
            first -= update.len();
            self.buffer[first..START].copy_from_slice(&update);
        }
        let mut start = START;
        for end in &self.ends {
            sealer.seal(&mut self.buffer[start..*end], DATA)?;
            start = *end;
        }
        Ok(first..start)
    }

    pub(super) fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.buffer[place]
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Frame, Frames, data_header};
    use super::super::record::{Content, Opener};
    use super::*;

    fn records(batch: &mut Batch) -> Vec<Vec<u8>> {
        let (mut sealer, mut opener) = super::super::record::tests::pair();
        let place = batch.seal(&mut sealer).expect("they fit");
        let mut bytes = batch.bytes(place).to_vec();
        let mut records = Vec::new();
        let mut rest = &mut bytes[..];
        while let Ok(Some(length)) = Opener::length(rest) {
            let (record, tail) = rest.split_at_mut(length);
            let Ok(Content::Data(place)) = opener.open(record) else {
                panic!("it was sealed")
            };
            records.push(record[place].to_vec());
            rest = tail;
        }
        records
    }

    #[test]
    fn full_records_are_aligned_and_use_all_of_the_buffer() {
        let mut out = Outgoing::new(Size::Small);
        let mut payloads = 0;
        loop {
            let length = out.fit().min(out.room().saturating_sub(frame::HEADER));
            if length == 0 {
                break;
            }
            let space = out.reserve(data_header(1, length), length);
            assert_eq!(space.as_ptr() as usize % 64, 0);
            space.fill(1);
            payloads += length;
        }
        assert_eq!(payloads, 4 * PAYLOAD);
        let mut batch = out.take().expect("it is full");
        assert_eq!(records(&mut batch).len(), 4);
        assert_eq!(out.frames(), 0);
    }

    #[test]
    fn a_new_key_is_announced_before_the_records_that_it_seals() {
        let mut out = Outgoing::new(Size::Small);
        let (mut sealer, mut opener) = super::super::record::tests::pair();
        sealer.use_up();
        opener.use_up();
        Frame::Finish { stream: 1 }.put(&mut out);
        let mut batch = out.take().expect("there is something");
        let place = batch.seal(&mut sealer).expect("it fits");
        let mut bytes = batch.bytes(place).to_vec();
        let length = Opener::length(&bytes).expect("a record").expect("whole");
        let (update, record) = bytes.split_at_mut(length);
        assert_eq!(opener.open(update), Ok(Content::Nothing));
        assert!(matches!(opener.open(record), Ok(Content::Data(_))));
    }

    #[test]
    fn small_frames_share_a_record() {
        let mut out = Outgoing::new(Size::Small);
        for stream in 1..100 {
            Frame::Finish { stream }.put(&mut out);
        }
        let mut batch = out.take().expect("there is something");
        let records = records(&mut batch);
        assert_eq!(records.len(), 1);
        assert_eq!(Frames::new(&records[0]).count(), 99);
    }
}
