//! Length-prefixed control messages on a stream.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::control::Control;
use super::{Reader, Writer};
use crate::link::{ReadError, ReadExactError, WriteError};

/// The longest control message that is read or written.
const CONTROL_LIMIT: usize = 1024 * 1024;
/// How much of a message is read at once.
const STEP: usize = 16 * 1024;

/// Why the peer's bytes make no sense, or could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Nothing can be read.
    #[error("the stream failed: {0}")]
    Read(#[from] ReadError),
    /// Nothing can be written.
    #[error("the stream failed: {0}")]
    Write(#[from] WriteError),
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Cut,
    /// Longer than allowed.
    #[error("a message of {0} bytes, longer than allowed")]
    TooLong(usize),
    /// No such encoding.
    #[error("a message that cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Decoded, but not acceptable.
    #[error("{0}")]
    Content(&'static str),
}

/// Reads one control message; `None` when the peer has finished the stream.
pub(crate) async fn read_control<R: Reader>(stream: &mut R) -> Result<Option<Control>, WireError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::Ended(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > CONTROL_LIMIT {
        return Err(WireError::TooLong(length));
    }
    // Grows as bytes arrive: a length alone reserves little.
    let mut body = BytesMut::new();
    while body.len() < length {
        let start = body.len();
        body.resize(length.min(start + STEP), 0);
        stream.read_exact(&mut body[start..]).await?;
    }
    Ok(Some(Control::decode(body.freeze())?))
}

/// Writes one control message.
pub(crate) async fn write_control<W: Writer>(stream: &mut W, message: &Control) -> Result<(), WireError> {
    stream.write_all(&encode_control(message)?).await?;
    Ok(())
}

fn encode_control(message: &Control) -> Result<Bytes, WireError> {
    let length = message.encoded_len();
    if length > CONTROL_LIMIT {
        return Err(WireError::TooLong(length));
    }
    let mut frame = BytesMut::with_capacity(4 + length);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode(&mut frame).expect("the buffer grows");
    Ok(frame.freeze())
}

impl From<ReadExactError> for WireError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::Ended(_) => Self::Cut,
            ReadExactError::Read(error) => Self::Read(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Answer, Body, Open, read_answer, read_open, write_answer, write_open};

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_message_comes_back() {
        let message = Control {
            body: Some(Body::Ping(7)),
        };
        let mut bytes = Vec::new();
        run(write_control(&mut bytes, &message)).unwrap();
        let mut read = bytes.as_slice();
        assert_eq!(run(read_control(&mut read)).unwrap(), Some(message));
        assert_eq!(run(read_control(&mut read)).unwrap(), None);
        assert!(matches!(run(read_control(&mut &bytes[..5])), Err(WireError::Cut)));
        let mut long = &[0xff; 8][..];
        assert!(matches!(run(read_control(&mut long)), Err(WireError::TooLong(_))));
    }

    #[test]
    fn a_header_and_its_answer_come_back() {
        let open = Open {
            address: "otel".into(),
            port: 4317,
            hop_limit: 0,
            trace_parent: String::new(),
            last_resort: true,
        };
        let mut bytes = Vec::new();
        run(write_open(&mut bytes, &open)).unwrap();
        assert_eq!(run(read_open(&mut bytes.as_slice())).unwrap(), open);
        for answer in [
            Answer::Connected,
            Answer::NoRoute,
            Answer::Saturated,
            Answer::Refused("no one there".into()),
        ] {
            let mut bytes = Vec::new();
            run(write_answer(&mut bytes, &answer)).unwrap();
            assert_eq!(run(read_answer(&mut bytes.as_slice())).unwrap(), answer);
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let peer = karez_topology::Site { id: "a".into(), ..Default::default() };
            if let Ok(Some(Control { body: Some(Body::Announce(announce)) })) = run(read_control(&mut bytes.as_slice())) {
                let _ = announce.checked(&peer);
            }
            if let Ok(Control { body: Some(Body::Announce(announce)) }) = Control::decode(bytes.as_slice()) {
                let _ = announce.checked(&peer);
            }
            let _ = run(read_open(&mut bytes.as_slice()));
            let _ = run(read_answer(&mut bytes.as_slice()));
        }

        #[test]
        fn a_damaged_announcement_never_panics(at in 0usize..200, to in any::<u8>()) {
            let route = karez_topology::Route {
                address: karez_topology::Address { name: "otel".into(), port: 4317 },
                cost: 0,
            };
            let said = karez_topology::Announcement { routes: vec![route; 5], ..Default::default() };
            let mut bytes = Vec::new();
            let body = Some(Body::Announce(crate::wire::Announce::of(&said)));
            run(write_control(&mut bytes, &Control { body })).unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = run(read_control(&mut bytes.as_slice()));
        }
    }
}
