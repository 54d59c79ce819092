//! Datagrams as bytes of a link.
//!
//! ```text
//!  on a stream         length (u16) ‖ datagram
//!                      65535 ‖ count (u64)               so many went beside the stream until now
//!  as QUIC datagram    session (LEB128) ‖ datagram       session: number × 2, + 1 towards the one who opened it
//! ```

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// No datagram is as long: what follows is a count.
const COUNT: u16 = u16::MAX;
/// The longest datagram that a frame holds.
const LONGEST: usize = 65_534;
/// The most bytes that a session's number takes.
pub(super) const PREFIX: usize = 10;

/// One frame of a session's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A datagram.
    Datagram(Bytes),
    /// How many datagrams the sender has sent beside the stream.
    Sent(u64),
}

/// Cuts what arrives on a stream into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    chunks: VecDeque<Bytes>,
    length: usize,
}

impl Frames {
    /// Adds what arrived.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.length += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let length = self.peek()?;
        if length == COUNT {
            return (self.length >= 10).then(|| {
                let mut count = self.take(10);
                count.advance(2);
                Frame::Sent(count.get_u64())
            });
        }
        let whole = 2 + usize::from(length);
        (self.length >= whole).then(|| {
            let mut frame = self.take(whole);
            frame.advance(2);
            Frame::Datagram(frame)
        })
    }

    fn peek(&self) -> Option<u16> {
        let mut bytes = self.chunks.iter().flat_map(|chunk| chunk.iter());
        Some(u16::from_be_bytes([*bytes.next()?, *bytes.next()?]))
    }

    /// Takes bytes that are there; without a copy when they are in one chunk.
    fn take(&mut self, length: usize) -> Bytes {
        self.length -= length;
        let mut gathered = BytesMut::new();
        loop {
            let missing = length - gathered.len();
            let Some(chunk) = self.chunks.front_mut() else {
                return gathered.freeze();
            };
            let whole = chunk.len() <= missing;
            let part = chunk.split_to(missing.min(chunk.len()));
            if whole {
                self.chunks.pop_front();
            }
            if part.len() == length {
                return part;
            }
            gathered.extend_from_slice(&part);
            if gathered.len() == length {
                return gathered.freeze();
            }
        }
    }
}

/// What goes before a datagram on a stream; `None` when it is too long.
pub(super) fn header(scratch: &mut BytesMut, datagram: &[u8]) -> Option<Bytes> {
    let length = u16::try_from(datagram.len())
        .ok()
        .filter(|length| usize::from(*length) <= LONGEST)?;
    scratch.put_u16(length);
    Some(scratch.split().freeze())
}

/// The frame that tells how many went beside the stream.
pub(super) fn count(sent: u64) -> [u8; 10] {
    let mut frame = [0; 10];
    frame[..2].copy_from_slice(&COUNT.to_be_bytes());
    frame[2..].copy_from_slice(&sent.to_be_bytes());
    frame
}

/// Puts a session's number before a datagram.
pub(super) fn seal(mut session: u64, datagram: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + datagram.len());
    while session >= 0x80 {
        bytes.put_u8(session.to_le_bytes()[0] | 0x80);
        session >>= 7;
    }
    bytes.put_u8(session.to_le_bytes()[0]);
    bytes.extend_from_slice(datagram);
    bytes.freeze()
}

/// Takes the session's number off a datagram.
pub(super) fn unseal(mut datagram: Bytes) -> Option<(u64, Bytes)> {
    let mut session = 0u64;
    for shift in (0..64).step_by(7) {
        if !datagram.has_remaining() {
            return None;
        }
        let byte = datagram.get_u8();
        session |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((session, datagram));
        }
    }
    None
}

/// A stream of frames, whole and in pieces, and a datagram beside it. For fuzzing only.
pub(super) fn fuzz(bytes: &[u8]) {
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    whole.push(Bytes::copy_from_slice(bytes));
    let expected: Vec<_> = std::iter::from_fn(|| whole.next()).collect();
    let length = 1 + usize::from(bytes.first().copied().unwrap_or(0) % 17);
    let mut found = Vec::new();
    for piece in bytes.chunks(length) {
        pieces.push(Bytes::copy_from_slice(piece));
        found.extend(std::iter::from_fn(|| pieces.next()));
    }
    assert_eq!(found, expected);
    if let Some((session, datagram)) = unseal(Bytes::copy_from_slice(bytes)) {
        let again = unseal(seal(session, &datagram));
        assert_eq!(again, Some((session, datagram)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_come_back_however_the_stream_is_cut(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in proptest::collection::vec(1usize..50, 1..20),
        ) {
            let (mut stream, mut scratch) = (Vec::new(), BytesMut::new());
            for datagram in &datagrams {
                stream.extend_from_slice(&header(&mut scratch, datagram).unwrap());
                stream.extend_from_slice(datagram);
                stream.extend_from_slice(&count(7));
            }
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                let (first, last) = rest.split_at((*cut).min(rest.len()));
                frames.push(Bytes::copy_from_slice(first));
                while let Some(frame) = frames.next() {
                    read.push(frame);
                }
                rest = last;
                if rest.is_empty() {
                    break;
                }
            }
            let wanted: Vec<_> = datagrams
                .into_iter()
                .flat_map(|datagram| [Frame::Datagram(datagram.into()), Frame::Sent(7)])
                .collect();
            prop_assert_eq!(read, wanted);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.push(bytes.clone().into());
            while frames.next().is_some() {}
            let _ = unseal(bytes.into());
        }

        #[test]
        fn a_session_comes_back(session in any::<u64>(), datagram in proptest::collection::vec(any::<u8>(), 0..50)) {
            let (number, rest) = unseal(seal(session, &datagram)).unwrap();
            prop_assert_eq!(number, session);
            prop_assert_eq!(rest.as_ref(), datagram.as_slice());
        }
    }

    #[test]
    fn the_longest_datagram_fits_and_no_longer_one() {
        let mut scratch = BytesMut::new();
        assert!(header(&mut scratch, &[0; 65_507]).is_some());
        assert!(header(&mut scratch, &[0; 65_535]).is_none());
    }
}
