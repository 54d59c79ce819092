//! Data streams: one for each carried connection, opened by a header and answered before data flows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use karez_topology::{Address, Arrival, RouterId};
use tokio::time::timeout;

use super::live::{LiveLink, Serving};
use super::transport::{ConnectionError, RESET_CODE, RecvStream, SendStream, Stream};
use crate::caller::Caller;
use crate::carry::carry;
use crate::connector::Counted;
use crate::metrics::{Ending, Fault};
use crate::policy::RefusedFor;
use crate::record::{Client, ConnectionRecord};
use crate::seal;
use crate::shared::Shared;
use crate::udp::{self, Direct, Port};
use crate::way::{self, Far, Origin};
use crate::wire::{Answer, Open, WireError, read_answer, read_open, write_answer, write_open};

/// A peer whose streams are all taken gives us one in this time, or the connection goes elsewhere.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// A peer that dials its target answers in this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// And for each link that the connection may still take, in as much more.
const ANSWER_A_HOP: Duration = Duration::from_secs(1);
/// A peer that opens a stream says what it wants in this time.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// Why a connection cannot go over a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The link went down meanwhile.
    #[error("the link went down")]
    Gone,
    /// The link failed.
    #[error("the link failed: {0}")]
    Link(#[from] ConnectionError),
    /// The peer's answer did not come, or made no sense.
    #[error("the peer's answer: {0}")]
    Answer(#[from] WireError),
    /// The peer took too long.
    #[error("the peer did not {0} in time")]
    Slow(&'static str),
    /// Nothing serves the address at the peer.
    #[error("nothing serves the address at the peer")]
    NoRoute,
    /// The peer's target could not be reached.
    #[error("the peer could not reach its target: {0}")]
    Refused(String),
    /// Nothing arrives from the peer; it may be gone.
    #[error("nothing arrives from the peer")]
    Silent,
    /// The peer's targets have as many connections as they should have.
    #[error("the peer's targets are busy")]
    Saturated,
}

/// A stream at the peer, ready to carry.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// A session of UDP: its way beside the stream, if the peer has it too.
    pub(crate) direct: Option<Direct>,
}

/// Opens a stream to an address at or behind the peer; it carries data when this returns.
///
/// Who is not `patient` gives up when nothing arrives from the peer any more, since there may be another way.
pub(crate) async fn open(
    link: &Arc<LiveLink>,
    address: &Address,
    header: Open,
    patient: bool,
) -> Result<Opened, OpenError> {
    if patient {
        return ask(link, address, header).await;
    }
    let mut suspect = link.suspect.subscribe();
    tokio::select! {
        biased;
        opened = ask(link, address, header) => opened,
        Ok(_) = suspect.wait_for(|suspect| *suspect) => Err(OpenError::Silent),
    }
}

async fn ask(link: &Arc<LiveLink>, address: &Address, mut header: Open) -> Result<Opened, OpenError> {
    let slow = OpenError::Slow;
    let opened = timeout(OPEN_LIMIT, link.open()).await;
    let Stream {
        mut send,
        mut receive,
    } = opened.map_err(|_| slow("take another stream"))??;
    // Each router waits a little longer than the next one, so that it still hears why.
    let limit = ANSWER_LIMIT + ANSWER_A_HOP * u32::from(header.hops_left());
    let direct = address.is_udp().then(|| Direct::open(link)).flatten();
    header.datagram_session = direct.as_ref().map_or(0, Direct::number);
    write_open(&mut send, &header).await?;
    match timeout(limit, read_answer(&mut receive))
        .await
        .map_err(|_| slow("answer"))??
    {
        Answer::Connected => Ok(Opened {
            stream: Stream { send, receive },
            direct: None,
        }),
        Answer::ConnectedDatagrams => Ok(Opened {
            stream: Stream { send, receive },
            direct,
        }),
        Answer::NoRoute => Err(OpenError::NoRoute),
        Answer::Refused(reason) => Err(OpenError::Refused(reason)),
        Answer::Saturated => Err(OpenError::Saturated),
    }
}

/// What to answer when a link carries more than it should.
fn too_many(shared: &Shared, link: &LiveLink) -> Option<Answer> {
    let limit = shared.slots.limit();
    if link.serving.load(Ordering::Relaxed) <= u64::from(limit) {
        return None;
    }
    shared.metrics.refused(RefusedFor::TooMany);
    tracing::debug!(
        link = link.name,
        peer = link.peer.name,
        limit,
        "a connection too many"
    );
    Some(Answer::Refused(format!(
        "the link carries {limit} connections already (router.maxConnections at its far end)"
    )))
}

/// Serves a stream that the peer opened: to a target of ours, over another link, or refused.
pub(crate) async fn serve(shared: Arc<Shared>, link: Arc<LiveLink>, stream: Stream) {
    let Stream {
        mut send,
        mut receive,
    } = stream;
    let _serving = Counted::new(Serving(link.clone()));
    if let Some(answer) = too_many(&shared, &link) {
        return answer_no(&mut send, &mut receive, &answer).await;
    }
    let Some((address, to, header)) = wanted(&shared, &link, &mut receive).await else {
        return refuse(&mut send, &mut receive);
    };
    let caller = Caller::of(&header);
    let mut record = ConnectionRecord::new(&shared, Client::Link(link.name.clone()), address.clone(), caller);
    let arrival = Arrival {
        link: link.id,
        to,
        hops_left: header.hops_left(),
    };
    let found = if link.credential.reaches(&address) {
        let (arrival, header) = (&arrival, &header);
        // In a box of its own, so that what carries on is small.
        Box::pin(way::find(
            &shared,
            &address,
            &Origin::Link { arrival, header },
            &caller,
        ))
        .await
    } else {
        shared.metrics.refused(RefusedFor::Reach);
        tracing::warn!(link = link.name, peer = link.peer.name, %address, "the peer wants an address that its token does not reach");
        Err(Answer::Refused(
            "the address is not exposed to this link".to_owned(),
        ))
    };
    let answer = match found {
        Ok(way) => {
            record.set_route(way.route);
            let stream = Stream { send, receive };
            if address.is_udp() {
                let session = header.datagram_session;
                Box::pin(datagrams(&shared, &link, stream, way.far, session, record)).await;
            } else {
                let carried = Carried {
                    stream,
                    far: way.far,
                    caller: &caller,
                    sealed: header.sealed,
                };
                connection(&shared, &address, carried, record).await;
            }
            drop(way.counted);
            return;
        }
        Err(answer) => answer,
    };
    let ending = match answer {
        Answer::NoRoute => Ending::NoRoute,
        Answer::Saturated => Ending::Saturated,
        Answer::Connected | Answer::ConnectedDatagrams | Answer::Refused(_) => Ending::Refused,
    };
    record.end(ending, Some(format!("{answer:?}")));
    answer_no(&mut send, &mut receive, &answer).await;
}

/// What the peer wants of a stream that it opened, when it says so in time and in words that make sense.
async fn wanted(
    shared: &Shared,
    link: &LiveLink,
    receive: &mut RecvStream,
) -> Option<(Address, Option<RouterId>, Open)> {
    let header = timeout(HEADER_LIMIT, read_open(receive)).await.ok()?;
    let checked = header.and_then(|header| Ok((header.address()?, header.router()?, header)));
    let noted = checked.inspect_err(|error| {
        shared.metrics.fault(Fault::Protocol);
        tracing::debug!(link = link.name, %error, "a stream without a usable header");
    });
    noted.ok()
}

async fn answer_no(send: &mut SendStream, receive: &mut RecvStream, answer: &Answer) {
    if write_answer(send, answer).await.is_ok() {
        let _ = send.finish();
    }
    receive.stop(RESET_CODE);
}

/// A connection that came over a link and has found its way.
struct Carried<'a> {
    stream: Stream,
    far: Far,
    caller: &'a Caller,
    sealed: bool,
}

async fn connection(
    shared: &Arc<Shared>,
    address: &Address,
    carried: Carried<'_>,
    mut record: ConnectionRecord,
) {
    let Carried {
        mut stream,
        far,
        caller,
        sealed,
    } = carried;
    if write_answer(&mut stream.send, &Answer::Connected).await.is_err() {
        return;
    }
    // Whoever is between passes on what it cannot read.
    let ends_here = matches!(far, Far::Target(..));
    let Some(end) = far.end() else { return };
    if !sealed || !ends_here {
        return carry(stream.into(), end, record, &shared.force).await;
    }
    let found = shared.seals.hold().incoming(address, true, true);
    let unsealed = match found {
        // In a box of its own, so that what carries on is small.
        Ok(Some(material)) => {
            match Box::pin(seal::accept(shared, &material, stream, address, caller)).await {
                Ok(sealed) => {
                    record.set_route(format!("{}, sealed with {}", record.route(), sealed.site));
                    return carry(sealed.into(), end, record, &shared.force).await;
                }
                Err(error) => error.to_string(),
            }
        }
        // It was looked at before the target was dialled; only a reload in between gets here.
        Ok(None) => "this site cannot seal".to_owned(),
        Err(reason) => reason,
    };
    seal::complain(shared, address, "", &unsealed);
    end.reset();
    record.end(Ending::Refused, Some(unsealed));
}

async fn datagrams(
    shared: &Arc<Shared>,
    link: &Arc<LiveLink>,
    mut stream: Stream,
    far: Far,
    session: u64,
    record: ConnectionRecord,
) {
    let direct = Direct::accept(link, session);
    let answer = match direct {
        Some(_) => Answer::ConnectedDatagrams,
        None => Answer::Connected,
    };
    if write_answer(&mut stream.send, &answer).await.is_ok() {
        udp::serve(shared, Port::link(stream, direct), far, record).await;
    }
}

fn refuse(send: &mut SendStream, receive: &mut RecvStream) {
    send.reset(RESET_CODE);
    receive.stop(RESET_CODE);
}
