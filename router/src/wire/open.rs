//! The header that opens a data stream, and its answer.

use karez_topology::To;
use prost::Message;

use super::control::{name, port};
use super::frame::WireError;
use super::routing::router;
use super::{Reader, Writer, clean};

/// The longest header.
const OPEN_LIMIT: usize = 2048;
/// The longest reason in an answer.
const REASON_LIMIT: usize = 1024;

const CONNECTED: u8 = 0;
const NO_ROUTE: u8 = 1;
const REFUSED: u8 = 2;
const SATURATED: u8 = 3;
const CONNECTED_DATAGRAMS: u8 = 4;

/// Where a carried connection wants to go.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Open {
    /// The virtual address's name.
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    /// The virtual address's port.
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
    /// How many further links it may take.
    #[prost(uint32, tag = "3")]
    pub(crate) hop_limit: u32,
    /// W3C `traceparent` of whoever opened it; may be empty.
    #[prost(string, tag = "4")]
    pub(crate) trace_parent: String,
    /// Targets that have all the connections that they should have are to take it nevertheless: there is no other way.
    #[prost(bool, tag = "5")]
    pub(crate) last_resort: bool,
    /// The real client, `host:port`; may be empty.
    #[prost(string, tag = "7")]
    pub(crate) client: String,
    /// What the client connected to, `host:port`; may be empty.
    #[prost(string, tag = "8")]
    pub(crate) destination: String,
    /// UDP: the session's number in QUIC datagrams on this link; 0 when all datagrams go on the stream.
    #[prost(uint64, tag = "6")]
    pub(crate) datagram_session: u64,
    /// A TLS session with the last router follows the answer: routers between cannot read what is carried.
    #[prost(bool, tag = "9")]
    pub(crate) sealed: bool,
    /// The interior router that is to take it; when empty, whoever reads this chooses.
    #[prost(string, tag = "20")]
    pub(crate) router: String,
}

/// Links that a connection may take.
const HOP_LIMIT: u8 = 12;

impl Open {
    /// The header of a connection from here.
    pub(crate) fn to(address: &karez_topology::Address, to: &To) -> Self {
        Self {
            address: address.name.clone(),
            port: u32::from(address.port),
            router: match to {
                To::Router(router) => router.to_string(),
                To::Edge | To::Uplink => String::new(),
            },
            hop_limit: u32::from(HOP_LIMIT),
            ..Self::default()
        }
    }

    /// The header of the same connection, one link further.
    pub(crate) fn onward(mut self, to: &To) -> Self {
        self.hop_limit = self.hop_limit.min(u32::from(HOP_LIMIT)).saturating_sub(1);
        self.router = match to {
            To::Router(router) => router.to_string(),
            To::Edge | To::Uplink => String::new(),
        };
        self
    }

    /// How many further links it may take.
    pub(crate) fn hops_left(&self) -> u8 {
        u8::try_from(self.hop_limit).unwrap_or(u8::MAX).min(HOP_LIMIT)
    }

    /// The router that is to take it.
    pub(crate) fn router(&self) -> Result<Option<karez_topology::RouterId>, WireError> {
        (!self.router.is_empty())
            .then(|| router(&self.router))
            .transpose()
    }

    /// The address, checked.
    pub(crate) fn address(&self) -> Result<karez_topology::Address, WireError> {
        Ok(karez_topology::Address {
            name: name(&self.address)?,
            port: port(self.port)?,
        })
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The target is connected; bytes follow.
    Connected,
    /// So it is, and the session's datagrams may come beside the stream.
    ConnectedDatagrams,
    /// Nothing serves the address here.
    NoRoute,
    /// The target could not be reached.
    Refused(String),
    /// All targets have as many connections as they should have.
    Saturated,
}

/// Writes the header.
pub(crate) async fn write_open<W: Writer>(stream: &mut W, open: &Open) -> Result<(), WireError> {
    let body = open.encode_to_vec();
    let length = u16::try_from(body.len())
        .ok()
        .filter(|length| usize::from(*length) <= OPEN_LIMIT);
    let length = length.ok_or(WireError::TooLong(body.len()))?;
    stream
        .write_all(&[&length.to_be_bytes()[..], &body].concat())
        .await?;
    Ok(())
}

/// Reads the header.
pub(crate) async fn read_open<R: Reader>(stream: &mut R) -> Result<Open, WireError> {
    let body = read_short(stream, OPEN_LIMIT).await?;
    Ok(Open::decode(body.as_slice())?)
}

/// Writes the answer.
pub(crate) async fn write_answer<W: Writer>(stream: &mut W, answer: &Answer) -> Result<(), WireError> {
    let (status, reason) = match answer {
        Answer::Connected => (CONNECTED, None),
        Answer::ConnectedDatagrams => (CONNECTED_DATAGRAMS, None),
        Answer::NoRoute => (NO_ROUTE, Some(String::new())),
        Answer::Refused(reason) => (REFUSED, Some(clean(reason, REASON_LIMIT / 4))),
        Answer::Saturated => (SATURATED, Some(String::new())),
    };
    let mut bytes = vec![status];
    if let Some(reason) = reason {
        let length = u16::try_from(reason.len()).map_err(|_| WireError::TooLong(reason.len()))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(reason.as_bytes());
    }
    stream.write_all(&bytes).await?;
    Ok(())
}

/// Reads the answer; nothing of what follows it is consumed.
pub(crate) async fn read_answer<R: Reader>(stream: &mut R) -> Result<Answer, WireError> {
    let mut status = [0];
    stream.read_exact(&mut status).await?;
    match status[0] {
        CONNECTED => return Ok(Answer::Connected),
        CONNECTED_DATAGRAMS => return Ok(Answer::ConnectedDatagrams),
        _ => {}
    }
    let reason = read_short(stream, REASON_LIMIT).await?;
    match status[0] {
        NO_ROUTE => Ok(Answer::NoRoute),
        SATURATED => Ok(Answer::Saturated),
        REFUSED => Ok(Answer::Refused(clean(
            &String::from_utf8_lossy(&reason),
            REASON_LIMIT,
        ))),
        _ => Err(WireError::Content("an answer of an unknown kind")),
    }
}

async fn read_short<R: Reader>(stream: &mut R, limit: usize) -> Result<Vec<u8>, WireError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > limit {
        return Err(WireError::TooLong(length));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
