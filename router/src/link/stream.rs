//! Data streams: one for each carried connection, opened by a header and answered before data flows.

use std::sync::Arc;
use std::time::Duration;

use karez_topology::{Address, Decision, NextHop, TargetId};
use tokio::time::timeout;

use super::live::LiveLink;
use super::transport::{ConnectionError, RESET_CODE, RecvStream, SendStream, Stream};
use crate::carry::{End, carry};
use crate::connector::{Connector, Counted, Opens};
use crate::listener::dial;
use crate::metrics::{Ending, Fault};
use crate::record::{Client, ConnectionRecord};
use crate::shared::Shared;
use crate::wire::{Answer, Open, WireError, read_answer, read_open, write_answer, write_open};

/// A peer whose streams are all taken gives us one in this time, or the connection goes elsewhere.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// A peer that dials its target answers in this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// A peer that opens a stream says what it wants in this time.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Targets that are tried for one connection.
const ATTEMPTS: usize = 3;

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
    /// The peer's targets have as many connections as they should have.
    #[error("the peer's targets are busy")]
    Saturated,
}

/// What a connection wants of the peer.
pub(crate) struct Wanted<'a> {
    /// Where it goes.
    pub(crate) address: &'a Address,
    /// Whether targets that have as many connections as they should have are to take it.
    pub(crate) last_resort: bool,
}

/// Opens a stream to an address at the peer; it carries data when this returns.
pub(crate) async fn open(link: &LiveLink, wanted: &Wanted<'_>) -> Result<Stream, OpenError> {
    let slow = OpenError::Slow;
    let opened = timeout(OPEN_LIMIT, link.open()).await;
    let Stream {
        mut send,
        mut receive,
    } = opened.map_err(|_| slow("take another stream"))??;
    let header = Open {
        address: wanted.address.name.clone(),
        port: u32::from(wanted.address.port),
        // One hop: the peer's own targets only.
        hop_limit: 0,
        trace_parent: String::new(),
        last_resort: wanted.last_resort,
    };
    write_open(&mut send, &header).await?;
    match timeout(ANSWER_LIMIT, read_answer(&mut receive))
        .await
        .map_err(|_| slow("answer"))??
    {
        Answer::Connected => Ok(Stream { send, receive }),
        Answer::NoRoute => Err(OpenError::NoRoute),
        Answer::Refused(reason) => Err(OpenError::Refused(reason)),
        Answer::Saturated => Err(OpenError::Saturated),
    }
}

/// Serves a stream that the peer opened: to a target of ours, or refused.
pub(crate) async fn serve(shared: Arc<Shared>, link: Arc<LiveLink>, stream: Stream) {
    let Stream {
        mut send,
        mut receive,
    } = stream;
    let header = timeout(HEADER_LIMIT, read_open(&mut receive)).await;
    let header = header.map(|header| header.and_then(|open| Ok((open.address()?, open.last_resort))));
    let (address, last_resort) = match header {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(error)) => {
            shared.metrics.fault(Fault::Protocol);
            tracing::debug!(link = link.name, %error, "a stream without a usable header");
            return refuse(&mut send, &mut receive);
        }
        Err(_) => return refuse(&mut send, &mut receive),
    };
    let mut record = ConnectionRecord::new(&shared.metrics, Client::Link(link.name.clone()), address.clone());
    let answer = match target(&shared, &address, last_resort).await {
        Ok((target, target_end, counted)) => {
            record.set_route(format!("target {target}"));
            if write_answer(&mut send, &Answer::Connected).await.is_ok() {
                carry(Stream { send, receive }.into(), target_end, record, &shared.force).await;
            }
            drop(counted);
            return;
        }
        Err(answer) => answer,
    };
    let ending = match answer {
        Answer::NoRoute => Ending::NoRoute,
        Answer::Saturated => Ending::Saturated,
        Answer::Connected | Answer::Refused(_) => Ending::Refused,
    };
    record.end(ending, Some(format!("{answer:?}")));
    if write_answer(&mut send, &answer).await.is_ok() {
        let _ = send.finish();
    }
    receive.stop(RESET_CODE);
}

/// One of this site's own targets, connected: what came over a link goes no further.
async fn target(
    shared: &Arc<Shared>,
    address: &Address,
    last_resort: bool,
) -> Result<(TargetId, End, Counted<Opens<Connector>>), Answer> {
    let mut tried = Vec::new();
    let mut answer = Answer::NoRoute;
    while tried.len() < ATTEMPTS {
        let view = shared.view();
        let Decision::Local(target) = view.decide(address, 0, &tried) else {
            break;
        };
        let next = NextHop::Local(target.clone());
        if !last_resort && view.is_saturated(&next, address) {
            return Err(Answer::Saturated);
        }
        tried.push(next);
        match dial(shared, &target).await {
            Ok((end, counted)) => return Ok((target, end, counted)),
            Err(error) => answer = Answer::Refused(error),
        }
    }
    Err(answer)
}

fn refuse(send: &mut SendStream, receive: &mut RecvStream) {
    send.reset(RESET_CODE);
    receive.stop(RESET_CODE);
}
