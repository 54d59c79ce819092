//! The sessions of one link whose datagrams may go beside their streams, as QUIC datagrams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::wire::{PREFIX, seal, unseal};
use crate::link::{ConnectionError, LiveLink};
use crate::metrics::{Dropped, Metrics};

/// Datagrams of one session that wait to be handed on.
const WAITING: usize = 2048;

/// The sessions of one link, by the numbers in the datagrams that come to us.
#[derive(Default)]
pub(crate) struct Exchange {
    numbers: AtomicU64,
    sessions: RwLock<HashMap<u64, Entry>>,
}

struct Entry {
    inbox: mpsc::Sender<Bytes>,
    arrived: Arc<AtomicU64>,
}

/// One session's way beside its stream; dropping it ends it.
pub(crate) struct Direct {
    link: Arc<LiveLink>,
    /// In datagrams that come to us.
    inward: u64,
    /// Those that wait for us.
    pub(super) inbox: mpsc::Receiver<Bytes>,
    /// How many came, also those that found the inbox full.
    pub(super) arrived: Arc<AtomicU64>,
}

impl Direct {
    /// For a session that we open; `None` where the link has no datagrams.
    pub(crate) fn open(link: &Arc<LiveLink>) -> Option<Self> {
        link.connection.max_datagram_size()?;
        let number = 1 + link.exchange.numbers.fetch_add(1, Ordering::Relaxed);
        Some(Self::register(link, number << 1 | 1))
    }

    /// For a session that the peer opened with this number; `None` where there can be none.
    pub(crate) fn accept(link: &Arc<LiveLink>, number: u64) -> Option<Self> {
        link.connection.max_datagram_size()?;
        let inward = number.checked_mul(2).filter(|inward| *inward > 0)?;
        let taken = {
            let sessions = link
                .exchange
                .sessions
                .read()
                .expect("nothing panics while it is held");
            sessions.contains_key(&inward)
        };
        (!taken).then(|| Self::register(link, inward))
    }

    fn register(link: &Arc<LiveLink>, inward: u64) -> Self {
        let (sender, inbox) = mpsc::channel(WAITING);
        let arrived = Arc::<AtomicU64>::default();
        let entry = Entry {
            inbox: sender,
            arrived: arrived.clone(),
        };
        let mut sessions = link
            .exchange
            .sessions
            .write()
            .expect("nothing panics while it is held");
        sessions.insert(inward, entry);
        Self {
            link: link.clone(),
            inward,
            inbox,
            arrived,
        }
    }

    /// The session's number, as its opener tells it.
    pub(crate) fn number(&self) -> u64 {
        self.inward >> 1
    }

    /// What sends to the other end.
    pub(super) fn outlet(&self) -> DirectOutlet {
        DirectOutlet {
            link: self.link.clone(),
            outward: self.inward ^ 1,
            sent: 0,
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let mut sessions = self
            .link
            .exchange
            .sessions
            .write()
            .expect("nothing panics while it is held");
        sessions.remove(&self.inward);
    }
}

/// Sends a session's datagrams beside its stream.
pub(super) struct DirectOutlet {
    link: Arc<LiveLink>,
    outward: u64,
    /// How many it sent.
    pub(super) sent: u64,
}

impl DirectOutlet {
    /// Sends one if it fits; says whether it did.
    pub(super) fn send(&mut self, datagram: &Bytes) -> bool {
        let connection = &self.link.connection;
        let fits = |most: usize| datagram.len() + PREFIX <= most;
        if !connection.max_datagram_size().is_some_and(fits) {
            return false;
        }
        let sent = connection.send_datagram(seal(self.outward, datagram)).is_ok();
        self.sent += u64::from(sent);
        sent
    }
}

/// Hands a link's datagrams to their sessions until the connection ends.
pub(crate) async fn receive(link: &LiveLink, metrics: &Metrics) -> ConnectionError {
    loop {
        let datagram = match link.connection.read_datagram().await {
            Ok(datagram) => datagram,
            Err(error) => return error,
        };
        let Some((session, datagram)) = unseal(datagram) else {
            metrics.dropped(Dropped::Malformed);
            continue;
        };
        let sessions = link
            .exchange
            .sessions
            .read()
            .expect("nothing panics while it is held");
        match sessions.get(&session) {
            Some(entry) => {
                entry.arrived.fetch_add(1, Ordering::Relaxed);
                if entry.inbox.try_send(datagram).is_err() {
                    metrics.dropped(Dropped::QueueFull);
                }
            }
            None => metrics.dropped(Dropped::NoSession),
        }
    }
}
