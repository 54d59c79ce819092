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
    use crate::wire::{Answer, Body, Open, body, read_answer, read_open, said, write_answer, write_open};

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
            last_resort: true,
            datagram_session: 9,
            ..Open::default()
        };
        let mut bytes = Vec::new();
        run(write_open(&mut bytes, &open)).unwrap();
        assert_eq!(run(read_open(&mut bytes.as_slice())).unwrap(), open);
        for answer in [
            Answer::Connected,
            Answer::ConnectedDatagrams,
            Answer::NoRoute,
            Answer::Saturated,
            Answer::Refused("no one there".into()),
        ] {
            let mut bytes = Vec::new();
            run(write_answer(&mut bytes, &answer)).unwrap();
            assert_eq!(run(read_answer(&mut bytes.as_slice())).unwrap(), answer);
        }
    }

    /// One of each kind.
    fn messages() -> Vec<karez_topology::Message> {
        use karez_topology::*;
        let address = Address {
            name: "otel".into(),
            port: 4317,
        };
        let route = Route {
            address: address.clone(),
            cost: 3,
            sealed: vec![Fingerprint([7; 32])],
        };
        let site = Site {
            id: "a".into(),
            name: "b".into(),
            ..Site::default()
        };
        let service = Service {
            address: "otel".into(),
            protocol: "tcp".into(),
            ports: vec![4317],
            targets: vec!["t".into()],
            sealed: true,
        };
        let has = std::sync::Arc::new(Announcement {
            site: site.clone(),
            services: vec![service.clone()],
            routes: vec![route.clone(); 5],
            links: vec!["c".into()],
        });
        let record = |part, body| Flooded {
            record: std::sync::Arc::new(Record {
                origin: "r".into(),
                epoch: 5,
                sequence: 6,
                mark: u64::MAX,
                part,
                body,
            }),
            age: 7,
        };
        let neighbour = |router: &str| Neighbour {
            router: router.into(),
            cost: 2,
        };
        let router = Body::Router {
            neighbours: vec![neighbour("x"), neighbour("y")],
            has: has.clone(),
        };
        let edge = Body::Edge {
            router: "e".into(),
            cost: 1,
            has: has.clone(),
        };
        vec![
            Message::Announce(has),
            Message::Digests(vec![Digest {
                router: "r".into(),
                epoch: 1,
                digest: u64::MAX,
            }]),
            Message::Have(Have {
                router: "r".into(),
                epoch: 1,
                parts: vec![(0, (1, 5)), (9, (3, u64::MAX))],
            }),
            Message::Records(vec![record(0, router), record(3, edge), record(4, Body::Gone)]),
            Message::Summary(Summary {
                first: true,
                routes: vec![route],
                unreachable: vec![address],
                sites: vec![(site, vec![service])],
                gone: vec!["d".into()],
            }),
        ]
    }

    #[test]
    fn what_is_told_of_the_network_comes_back() {
        for message in messages() {
            let mut bytes = Vec::new();
            let body = Some(body(&message));
            run(write_control(&mut bytes, &Control { body })).unwrap();
            let read = run(read_control(&mut bytes.as_slice())).unwrap().unwrap();
            assert_eq!(said(&read.body.unwrap()).unwrap(), Some(message));
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Some(Control { body: Some(body) })) = run(read_control(&mut bytes.as_slice())) {
                let _ = said(&body);
            }
            if let Ok(Control { body: Some(body) }) = Control::decode(bytes.as_slice()) {
                let _ = said(&body);
            }
            let _ = run(read_open(&mut bytes.as_slice()));
            let _ = run(read_answer(&mut bytes.as_slice()));
        }

        #[test]
        fn a_damaged_message_never_panics(which in 0usize..5, at in 0usize..400, to in any::<u8>()) {
            let mut bytes = Vec::new();
            let body = Some(body(&messages()[which]));
            run(write_control(&mut bytes, &Control { body })).unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(Some(Control { body: Some(body) })) = run(read_control(&mut bytes.as_slice())) {
                let _ = said(&body);
            }
        }
    }
}
