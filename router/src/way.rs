//! The way of one connection: tries targets and links until one takes it, for clients and for what came over a link.

use std::sync::Arc;

use karez_topology::{Address, Arrival, Decision, NextHop, Path, TargetId};

use crate::caller::Caller;
use crate::carry::End;
use crate::connector::{Connector, Counted, Opens, Socket};
use crate::link::{OpenError, Opened, open};
use crate::shared::{Shared, View};
use crate::wire::{Answer, Open};

/// Ways that are tried for one connection before it is refused.
const ATTEMPTS: usize = 4;

/// Whose connection it is.
pub(crate) enum Origin<'a> {
    /// A client of this site.
    Client,
    /// It came over a link, with this header.
    Link { arrival: &'a Arrival, header: &'a Open },
}

/// What is at the other end.
pub(crate) enum Far {
    /// A target on this site.
    Target(Socket, Arc<Connector>),
    /// A peer.
    Link(Opened),
}

impl Far {
    /// To carry a connection; an address of TCP has no targets of UDP.
    pub(crate) fn end(self) -> Option<End> {
        match self {
            Self::Target(Socket::Tcp(socket), _) => Some(socket.into()),
            Self::Target(Socket::Udp(_), _) => None,
            Self::Link(opened) => Some(opened.stream.into()),
        }
    }
}

/// The other end of a connection or session, ready to carry.
pub(crate) struct Way {
    pub(crate) far: Far,
    pub(crate) route: String,
    /// Counts the connection where it goes for as long as it lives.
    pub(crate) counted: Box<dyn std::any::Any + Send>,
}

/// Tries ways until one takes the connection; else the answer says why none did. Whoever sent it may know other ways.
pub(crate) async fn find(
    shared: &Arc<Shared>,
    address: &Address,
    origin: &Origin<'_>,
    caller: &Caller,
) -> Result<Way, Answer> {
    let (mut tried, mut full, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    let mut last_resort = matches!(origin, Origin::Link { header, .. } if header.last_resort);
    // Only where the connection began it is known that there is no other way.
    let begins = matches!(origin, Origin::Client);
    let mut last = Answer::NoRoute;
    for _ in 0..ATTEMPTS {
        let view = shared.view();
        let mut next = choose(&view, address, origin, &tried);
        if next.is_none() && !full.is_empty() && begins {
            // All ways are saturated: then it is the cheapest one's turn all the same.
            last_resort = true;
            tried.retain(|way| !full.contains(way));
            full.clear();
            next = choose(&view, address, origin, &tried);
        }
        let patient = next.is_none() && !silent.is_empty();
        if patient {
            // Nothing but links from which nothing arrives just now: perhaps only for a moment.
            tried.retain(|way| !silent.contains(way));
            silent.clear();
            next = choose(&view, address, origin, &tried);
        }
        let Some(next) = next else { break };
        if !last_resort && view.is_saturated(&next, address) {
            // What is not saturated comes first, so nothing else is left.
            if !begins {
                return Err(Answer::Saturated);
            }
            last_resort = true;
        }
        tried.push(next.clone());
        let attempt = Attempt {
            address,
            origin,
            caller,
            last_resort,
            patient,
        };
        match attempt.take(shared, &next).await {
            Ok(way) => return Ok(way),
            Err(OpenError::Silent) => silent.push(next),
            Err(error) => {
                let answer = answer(error);
                if answer == Answer::Saturated {
                    full.push(next);
                }
                // A peer that has no way any more says nothing new.
                if answer != Answer::NoRoute {
                    last = answer;
                }
            }
        }
    }
    Err(last)
}

fn choose(view: &View, address: &Address, origin: &Origin<'_>, tried: &[NextHop]) -> Option<NextHop> {
    let decision = match origin {
        Origin::Client => view.decide(address, tried),
        Origin::Link { arrival, .. } => view.decide_onward(address, arrival, tried),
    };
    Decision::next(decision)
}

/// What to tell whoever sent a connection that a way did not take.
fn answer(error: OpenError) -> Answer {
    match error {
        OpenError::NoRoute => Answer::NoRoute,
        OpenError::Refused(reason) => Answer::Refused(reason),
        OpenError::Saturated => Answer::Saturated,
        error => Answer::Refused(error.to_string()),
    }
}

/// One try of a way.
struct Attempt<'a> {
    address: &'a Address,
    origin: &'a Origin<'a>,
    caller: &'a Caller,
    last_resort: bool,
    patient: bool,
}

impl Attempt<'_> {
    async fn take(&self, shared: &Arc<Shared>, next: &NextHop) -> Result<Way, OpenError> {
        match next {
            NextHop::Local(target) => {
                let dialled = dial(shared, target, self.caller)
                    .await
                    .map_err(OpenError::Refused)?;
                Ok(Way {
                    far: Far::Target(dialled.socket, dialled.connector),
                    route: format!("target {target}"),
                    counted: Box::new(dialled.counted),
                })
            }
            NextHop::Link(path) => self.over(shared, next, path).await,
        }
    }

    async fn over(&self, shared: &Shared, next: &NextHop, path: &Path) -> Result<Way, OpenError> {
        let mut header = match self.origin {
            Origin::Client => Open::to(self.address, &path.to),
            Origin::Link { header, .. } => (*header).clone().onward(&path.to),
        };
        header.last_resort = self.last_resort;
        self.caller.tell(&mut header);
        let view = shared.view();
        let link = view.links.get(&path.link).cloned().ok_or(OpenError::Gone)?;
        let counted = Counted::new(Opens(link.clone()));
        let distant = view.distant(&path.to).map(|open| Counted::new(Opens(open)));
        let opened = open(&link, self.address, header, self.patient).await;
        let opened = opened.inspect_err(|error| {
            if matches!(error, OpenError::Saturated) {
                link.saturation.note(next, self.address);
            }
        })?;
        Ok(Way {
            far: Far::Link(opened),
            route: format!("link {}", link.name),
            counted: Box::new((counted, distant)),
        })
    }
}

/// A local target that was dialled.
struct Dialled {
    socket: Socket,
    connector: Arc<Connector>,
    counted: Counted<Opens<Connector>>,
}

/// Dials a local target.
async fn dial(shared: &Arc<Shared>, target: &TargetId, caller: &Caller) -> Result<Dialled, String> {
    let connector = shared.view().connectors.get(target).cloned();
    let connector = connector.ok_or_else(|| format!("target {target} was removed"))?;
    // Counted before the dial, so that connections that are made at once spread.
    let counted = Counted::new(Opens(connector.clone()));
    let socket = connector.dial(shared, caller.ends).await?;
    Ok(Dialled {
        socket,
        connector,
        counted,
    })
}
