//! Data streams: one for each carried connection, opened by a header and answered before data flows.

use std::sync::Arc;
use std::time::Duration;

use karez_topology::{Address, Decision};
use tokio::time::timeout;

use super::live::LiveLink;
use super::transport::{ConnectionError, RESET_CODE, RecvStream, SendStream, Stream};
use crate::carry::carry;
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
}

/// Opens a stream to an address at the peer; it carries data when this returns.
pub(crate) async fn open(link: &LiveLink, address: &Address) -> Result<Stream, OpenError> {
    let slow = OpenError::Slow;
    let opened = timeout(OPEN_LIMIT, link.open()).await;
    let Stream {
        mut send,
        mut receive,
    } = opened.map_err(|_| slow("take another stream"))??;
    let header = Open {
        address: address.name.clone(),
        port: u32::from(address.port),
        // One hop: the peer's own targets only.
        hop_limit: 0,
        trace_parent: String::new(),
    };
    write_open(&mut send, &header).await?;
    match timeout(ANSWER_LIMIT, read_answer(&mut receive))
        .await
        .map_err(|_| slow("answer"))??
    {
        Answer::Connected => Ok(Stream { send, receive }),
        Answer::NoRoute => Err(OpenError::NoRoute),
        Answer::Refused(reason) => Err(OpenError::Refused(reason)),
    }
}

/// Serves a stream that the peer opened: to a target of ours, or refused.
pub(crate) async fn serve(shared: Arc<Shared>, link: Arc<LiveLink>, stream: Stream) {
    let Stream {
        mut send,
        mut receive,
    } = stream;
    let header = timeout(HEADER_LIMIT, read_open(&mut receive)).await;
    let address = match header.map(|header| header.and_then(|open| open.address())) {
        Ok(Ok(address)) => address,
        Ok(Err(error)) => {
            shared.metrics.fault(Fault::Protocol);
            tracing::debug!(link = link.name, %error, "a stream without a usable header");
            return refuse(&mut send, &mut receive);
        }
        Err(_) => return refuse(&mut send, &mut receive),
    };
    let mut record = ConnectionRecord::new(&shared.metrics, Client::Link(link.name.clone()), address.clone());
    // What came over a link goes to this site's own targets and no further.
    let answer = match shared.view().decide(&address, 0, &[]) {
        Decision::Local(target) => match dial(&shared, &target).await {
            Ok((target_end, counted)) => {
                record.set_route(format!("target {target}"));
                if write_answer(&mut send, &Answer::Connected).await.is_ok() {
                    carry(Stream { send, receive }.into(), target_end, record, &shared.force).await;
                }
                drop(counted);
                return;
            }
            Err(error) => Answer::Refused(error),
        },
        _ => Answer::NoRoute,
    };
    let ending = if answer == Answer::NoRoute {
        Ending::NoRoute
    } else {
        Ending::Refused
    };
    record.end(ending, Some(format!("{answer:?}")));
    if write_answer(&mut send, &answer).await.is_ok() {
        let _ = send.finish();
    }
    receive.stop(RESET_CODE);
}

fn refuse(send: &mut SendStream, receive: &mut RecvStream) {
    send.reset(RESET_CODE);
    receive.stop(RESET_CODE);
}
