//! What streams send.

use std::task::Waker;

use bytes::{Buf, Bytes};

use super::super::frame::{HEADER, Output, data_header};
use super::{Due, End, Mux, Receiving, SLACK, Sending};

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Write {
    /// So many bytes went into the output.
    Wrote(usize),
    /// Nothing did; the waker is called when it is worth trying again.
    Blocked,
    /// The stream goes on over its lane.
    Moved,
    /// The peer wants no more.
    Stopped(u32),
    /// This side has already ended the stream.
    Ended,
    /// The connection is over.
    Over(End),
}

impl Mux {
    /// Puts what credit and room allow of the chunks, which are advanced.
    pub(in super::super) fn write(
        &mut self,
        id: u32,
        chunks: &mut [Bytes],
        out: &mut impl Output,
        waker: &Waker,
    ) -> Write {
        if let Some(end) = &self.end {
            return Write::Over(end.clone());
        }
        // A stream that waits for its opening frame stands behind those with lower numbers.
        if self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.due.has(Due::OPEN))
        {
            self.pump(out);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Write::Ended;
        };
        match stream.sending {
            Sending::Open => {}
            Sending::Moved => return Write::Moved,
            Sending::Stopped(code) => return Write::Stopped(code),
            Sending::Ending | Sending::Finished | Sending::Reset(_) => return Write::Ended,
        }
        let mut left: usize = chunks.iter().map(Bytes::len).sum();
        let mut wrote = 0;
        while left > 0 && !stream.due.has(Due::OPEN) {
            let credit = usize::try_from(stream.credit.min(self.credit)).unwrap_or(usize::MAX);
            // Room is kept for what is due, so that data never holds back credit.
            let room = out.room().saturating_sub(SLACK + HEADER);
            let length = left.min(credit).min(room).min(out.fit());
            if length == 0 {
                break;
            }
            copy(chunks, out.reserve(data_header(id, length), length));
            stream.credit -= length as u64;
            self.credit -= length as u64;
            (left, wrote) = (left - length, wrote + length);
        }
        if wrote > 0 || left == 0 {
            return Write::Wrote(wrote);
        }
        stream.writer = Some(waker.clone());
        // Credit for the stream itself comes with its own frame, which wakes it.
        if !stream.blocked && stream.credit > 0 {
            stream.blocked = true;
            self.blocked.push_back(id);
        }
        Write::Blocked
    }

    /// Ends this side's half in order.
    pub(in super::super) fn finish_stream(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        if stream.sending != Sending::Open {
            return false;
        }
        stream.sending = Sending::Finished;
        self.set_due(id, Due::FINISH);
        true
    }

    /// Ends this side's half abruptly.
    pub(in super::super) fn reset_stream(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if matches!(stream.sending, Sending::Open | Sending::Moved | Sending::Ending) {
            stream.sending = Sending::Reset(code);
            self.set_due(id, Due::RESET);
        }
    }

    /// Nobody here sends on the stream any more: what was not ended, ends abruptly.
    pub(in super::super) fn drop_sender(&mut self, id: u32, code: u32) {
        if self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.sending != Sending::Ending)
        {
            self.reset_stream(id, code);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sender = false;
            if stream.sending != Sending::Ending {
                stream.writer = None;
            }
        }
        self.remove_if_over(id);
    }

    /// Why nothing can be sent on the stream, if so.
    pub(in super::super) fn refusal(&self, id: u32) -> Option<Write> {
        if let Some(end) = &self.end {
            return Some(Write::Over(end.clone()));
        }
        match self.streams.get(&id)?.sending {
            Sending::Stopped(code) => Some(Write::Stopped(code)),
            Sending::Ending | Sending::Finished | Sending::Reset(_) => Some(Write::Ended),
            Sending::Open | Sending::Moved => None,
        }
    }

    /// Whether the peer wants no more of the stream or has it all; if not, the waker is called when that changes.
    pub(in super::super) fn is_unwanted(&mut self, id: u32, waker: &Waker) -> bool {
        if self.end.is_some() {
            return true;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return true;
        };
        // What was finished is on its way, and TCP brings it there.
        let finished = stream.sending == Sending::Finished && !stream.queued;
        if stream.unwanted || finished || matches!(stream.sending, Sending::Reset(_)) {
            return true;
        }
        stream.writer = Some(waker.clone());
        false
    }

    pub(super) fn stopped_by_peer(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.unwanted = true;
        self.wakes.extend(stream.writer.take());
        if matches!(stream.sending, Sending::Open | Sending::Moved | Sending::Ending) {
            stream.sending = Sending::Stopped(code);
            self.set_due(id, Due::RESET);
        }
    }

    /// Nobody here reads the stream any more: what was not read is thrown away.
    pub(in super::super) fn stop_stream(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.queue = Default::default();
        self.buffered -= std::mem::take(&mut stream.buffered);
        match stream.receiving {
            Receiving::Open => stream.receiving = Receiving::Stopped(code),
            // Its end comes over the lane, where nobody looks any more.
            Receiving::Moved => stream.receiving = Receiving::Abandoned(code),
            _ => return,
        }
        self.set_due(id, Due::STOP);
    }
}

fn copy(chunks: &mut [Bytes], mut space: &mut [u8]) {
    for chunk in chunks {
        if space.is_empty() {
            return;
        }
        let length = chunk.len().min(space.len());
        let (now, rest) = space.split_at_mut(length);
        now.copy_from_slice(&chunk[..length]);
        chunk.advance(length);
        space = rest;
    }
}
