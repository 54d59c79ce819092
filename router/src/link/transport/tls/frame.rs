//! The frames of a multiplexed connection: what stands in the records, and a parser that believes nothing.
//!
//! ```text
//!  record's plaintext ──▶ Frames (iterator) ──▶ Frame { kind, stream, payload }
//!  Frame ──▶ header + payload, put into a record by the writer
//! ```
//!
//! A frame is a header of eight bytes (kind, length of three bytes, stream of four bytes, big-endian) and its payload.
//! It never crosses the end of a record, so that a reader keeps no state between records and can hand out parts of a
//! record without a copy.

use super::record;

/// Bytes before a frame's payload.
pub(super) const HEADER: usize = 8;
/// The longest reason in a close frame.
pub(super) const REASON: usize = 512;
/// What a record holds: with what TLS adds to it 16 KiB, so that full records, and the payloads in them, all begin
/// where memory is well aligned.
pub(super) const RECORD: usize = 16_384 - record::HEADER - record::TRAILER;
/// The longest payload of any frame: what fits into a record beside a header.
pub(super) const PAYLOAD: usize = RECORD - HEADER;

/// What is wrong with bytes from a peer. The peer is told, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    /// A frame that stops before its end.
    #[error("a frame crosses the end of a record")]
    Torn,
    /// A kind that this version does not know.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// A payload of a length that its kind does not have.
    #[error("a frame of kind {kind} with {length} bytes")]
    Length {
        /// The frame's kind.
        kind: u8,
        /// The payload's length.
        length: usize,
    },
    /// A frame of a connection with a stream, or of a stream without one.
    #[error("a frame of kind {kind} for stream {stream}")]
    Misplaced {
        /// The frame's kind.
        kind: u8,
        /// The stream that it names.
        stream: u32,
    },
    /// A frame for a stream that was never opened, or is of the wrong side.
    #[error("a frame for the unknown stream {0}")]
    UnknownStream(u32),
    /// A stream opened out of order.
    #[error("stream {0} opened out of order")]
    OutOfOrder(u32),
    /// More streams than were granted.
    #[error("more streams than were granted")]
    TooManyStreams,
    /// More data than was granted for a stream or for the connection.
    #[error("more data than was granted on stream {0}")]
    Overrun(u32),
    /// Credit beyond what can be counted.
    #[error("credit beyond all measure on stream {0}")]
    Overflow(u32),
    /// Data after the end of a stream.
    #[error("data after the end of stream {0}")]
    AfterEnd(u32),
    /// A lane that is not there, is in use, or is not this side's to give.
    #[error("lane {0} is not to be used so")]
    Lane(u32),
}

/// One frame; payloads are borrowed from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The sender opens a stream.
    Open { stream: u32 },
    /// Bytes of a stream.
    Data { stream: u32, payload: &'a [u8] },
    /// The receiver may be sent so much more; stream 0 is the whole connection.
    Credit { stream: u32, bytes: u32 },
    /// The end of the sender's half.
    Finish { stream: u32 },
    /// The sender's half ends abruptly.
    Reset { stream: u32, code: u32 },
    /// The receiver wants no more.
    Stop { stream: u32, code: u32 },
    /// To be answered with the same number.
    Ping { number: u64 },
    /// The answer.
    Pong { number: u64 },
    /// The connection ends.
    Close { code: u32, reason: &'a [u8] },
    /// So many more streams may be opened.
    Streams { more: u32 },
    /// The acceptor asks for a lane for a stream.
    Want { stream: u32 },
    /// The dialler gives a stream a lane.
    Assign { stream: u32, lane: u32 },
    /// What follows of the sender's half comes over the lane.
    Moved { stream: u32, lane: u32 },
    /// The acceptor has done with a lane, which is in order.
    Returned { lane: u32 },
    /// A lane broke, or is not kept any longer.
    Gone { lane: u32 },
}

mod kind {
    pub(super) const OPEN: u8 = 1;
    pub(super) const DATA: u8 = 2;
    pub(super) const CREDIT: u8 = 3;
    pub(super) const FINISH: u8 = 4;
    pub(super) const RESET: u8 = 5;
    pub(super) const STOP: u8 = 6;
    pub(super) const PING: u8 = 7;
    pub(super) const PONG: u8 = 8;
    pub(super) const CLOSE: u8 = 9;
    pub(super) const STREAMS: u8 = 10;
    pub(super) const WANT: u8 = 11;
    pub(super) const ASSIGN: u8 = 12;
    pub(super) const MOVED: u8 = 13;
    pub(super) const RETURNED: u8 = 14;
    pub(super) const GONE: u8 = 15;
}

/// Where frames go: into records that are sealed later.
pub(super) trait Output {
    /// How many bytes may still be added, headers included.
    fn room(&self) -> usize;
    /// How long a data frame's payload should be so that it fills a record and crosses none.
    fn fit(&self) -> usize;
    /// Adds bytes that stand together in a record: a header and the payload's space, which is returned.
    fn reserve(&mut self, header: [u8; HEADER], payload: usize) -> &mut [u8];
}

pub(super) fn header(kind: u8, stream: u32, length: usize) -> [u8; HEADER] {
    // Lengths are at most PAYLOAD, which three bytes hold.
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    [kind, high, middle, low, a, b, c, d]
}

/// The header of a data frame.
pub(super) fn data_header(stream: u32, length: usize) -> [u8; HEADER] {
    header(kind::DATA, stream, length)
}

impl Frame<'_> {
    /// Adds the frame; the caller has made sure of the room.
    pub(super) fn put(self, out: &mut impl Output) {
        let (kind, stream, number) = match self {
            Self::Open { stream } => (kind::OPEN, stream, None),
            Self::Finish { stream } => (kind::FINISH, stream, None),
            Self::Want { stream } => (kind::WANT, stream, None),
            Self::Credit { stream, bytes } => (kind::CREDIT, stream, Some(bytes)),
            Self::Reset { stream, code } => (kind::RESET, stream, Some(code)),
            Self::Stop { stream, code } => (kind::STOP, stream, Some(code)),
            Self::Streams { more } => (kind::STREAMS, 0, Some(more)),
            Self::Assign { stream, lane } => (kind::ASSIGN, stream, Some(lane)),
            Self::Moved { stream, lane } => (kind::MOVED, stream, Some(lane)),
            Self::Returned { lane } => (kind::RETURNED, 0, Some(lane)),
            Self::Gone { lane } => (kind::GONE, 0, Some(lane)),
            Self::Ping { number } => return put_bytes(out, kind::PING, &[&number.to_be_bytes()]),
            Self::Pong { number } => return put_bytes(out, kind::PONG, &[&number.to_be_bytes()]),
            Self::Close { code, reason } => {
                let reason = &reason[..reason.len().min(REASON)];
                return put_bytes(out, kind::CLOSE, &[&code.to_be_bytes(), reason]);
            }
            Self::Data { stream, payload } => {
                let space = out.reserve(data_header(stream, payload.len()), payload.len());
                return space.copy_from_slice(payload);
            }
        };
        match number {
            Some(number) => out
                .reserve(header(kind, stream, 4), 4)
                .copy_from_slice(&number.to_be_bytes()),
            None => drop(out.reserve(header(kind, stream, 0), 0)),
        }
    }
}

fn put_bytes(out: &mut impl Output, kind: u8, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut space = out.reserve(header(kind, 0, length), length);
    for part in parts {
        let (now, rest) = space.split_at_mut(part.len());
        now.copy_from_slice(part);
        space = rest;
    }
}

/// The frames of one record.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self { rest: record }
    }

    fn parse(&mut self) -> Result<Frame<'a>, ProtocolError> {
        let rest = self.rest;
        let Some((head, tail)) = rest.split_first_chunk::<HEADER>() else {
            return Err(ProtocolError::Torn);
        };
        let [kind, l2, l1, l0, s3, s2, s1, s0] = *head;
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        let stream = u32::from_be_bytes([s3, s2, s1, s0]);
        if length > tail.len() {
            return Err(ProtocolError::Torn);
        }
        let (payload, tail) = tail.split_at(length);
        self.rest = tail;
        frame(kind, stream, payload)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, ProtocolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = self.parse();
        if parsed.is_err() {
            self.rest = &[];
        }
        Some(parsed)
    }
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Result<Frame<'_>, ProtocolError> {
    let length = ProtocolError::Length {
        kind,
        length: payload.len(),
    };
    let none = |frame| {
        if payload.is_empty() {
            Ok(frame)
        } else {
            Err(length)
        }
    };
    let number = || {
        let bytes = payload.try_into().map_err(|_| length)?;
        Ok(u32::from_be_bytes(bytes))
    };
    let long = || {
        let bytes = payload.try_into().map_err(|_| length)?;
        Ok(u64::from_be_bytes(bytes))
    };
    let of_connection = matches!(
        kind,
        kind::PING | kind::PONG | kind::CLOSE | kind::STREAMS | kind::RETURNED | kind::GONE
    );
    let either = kind == kind::CREDIT || kind > kind::GONE;
    if !either && of_connection != (stream == 0) {
        return Err(ProtocolError::Misplaced { kind, stream });
    }
    match kind {
        kind::OPEN => none(Frame::Open { stream }),
        kind::DATA if payload.len() > PAYLOAD => Err(length),
        kind::DATA => Ok(Frame::Data { stream, payload }),
        kind::CREDIT => Ok(Frame::Credit {
            stream,
            bytes: number()?,
        }),
        kind::FINISH => none(Frame::Finish { stream }),
        kind::RESET => Ok(Frame::Reset {
            stream,
            code: number()?,
        }),
        kind::STOP => Ok(Frame::Stop {
            stream,
            code: number()?,
        }),
        kind::PING => Ok(Frame::Ping { number: long()? }),
        kind::PONG => Ok(Frame::Pong { number: long()? }),
        kind::CLOSE => {
            let (code, reason) = payload.split_first_chunk::<4>().ok_or(length)?;
            let code = u32::from_be_bytes(*code);
            if reason.len() > REASON {
                return Err(length);
            }
            Ok(Frame::Close { code, reason })
        }
        kind::STREAMS => Ok(Frame::Streams { more: number()? }),
        kind::WANT => none(Frame::Want { stream }),
        kind::ASSIGN => Ok(Frame::Assign {
            stream,
            lane: number()?,
        }),
        kind::MOVED => Ok(Frame::Moved {
            stream,
            lane: number()?,
        }),
        kind::RETURNED => Ok(Frame::Returned { lane: number()? }),
        kind::GONE => Ok(Frame::Gone { lane: number()? }),
        unknown => Err(ProtocolError::UnknownKind(unknown)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Plain(Vec<u8>);

    impl Output for Plain {
        fn room(&self) -> usize {
            usize::MAX
        }

        fn fit(&self) -> usize {
            PAYLOAD
        }

        fn reserve(&mut self, header: [u8; HEADER], payload: usize) -> &mut [u8] {
            self.0.extend_from_slice(&header);
            let start = self.0.len();
            self.0.resize(start + payload, 0);
            &mut self.0[start..]
        }
    }

    fn any_frame(payload: &'static [u8]) -> impl Strategy<Value = Frame<'static>> {
        let stream = 1..=u32::MAX;
        prop_oneof![
            stream.clone().prop_map(|stream| Frame::Open { stream }),
            stream
                .clone()
                .prop_map(move |stream| Frame::Data { stream, payload }),
            any::<(u32, u32)>().prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
            stream.clone().prop_map(|stream| Frame::Finish { stream }),
            (stream.clone(), any::<u32>()).prop_map(|(stream, code)| Frame::Reset { stream, code }),
            (stream.clone(), any::<u32>()).prop_map(|(stream, code)| Frame::Stop { stream, code }),
            any::<u64>().prop_map(|number| Frame::Ping { number }),
            any::<u64>().prop_map(|number| Frame::Pong { number }),
            any::<u32>().prop_map(move |code| Frame::Close {
                code,
                reason: payload
            }),
            any::<u32>().prop_map(|more| Frame::Streams { more }),
            stream.clone().prop_map(|stream| Frame::Want { stream }),
            (stream.clone(), any::<u32>()).prop_map(|(stream, lane)| Frame::Assign { stream, lane }),
            (stream, any::<u32>()).prop_map(|(stream, lane)| Frame::Moved { stream, lane }),
            any::<u32>().prop_map(|lane| Frame::Returned { lane }),
            any::<u32>().prop_map(|lane| Frame::Gone { lane }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_the_way(frames in proptest::collection::vec(any_frame(b"some bytes"), 0..20)) {
            let mut out = Plain::default();
            for frame in &frames {
                frame.put(&mut out);
            }
            let parsed: Result<Vec<_>, _> = Frames::new(&out.0).collect();
            prop_assert_eq!(parsed, Ok(frames));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frames::new(&bytes).count();
        }
    }

    #[test]
    fn refuses_a_torn_frame() {
        let mut out = Plain::default();
        Frame::Data {
            stream: 1,
            payload: b"abc",
        }
        .put(&mut out);
        let torn = &out.0[..out.0.len() - 1];
        assert_eq!(Frames::new(torn).next(), Some(Err(ProtocolError::Torn)));
    }

    #[test]
    fn refuses_a_ping_for_a_stream() {
        let bytes = [kind::PING, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let misplaced = ProtocolError::Misplaced {
            kind: kind::PING,
            stream: 1,
        };
        assert_eq!(Frames::new(&bytes).next(), Some(Err(misplaced)));
    }
}
