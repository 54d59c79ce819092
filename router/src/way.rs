//! The way of one connection: tries targets and links until one takes it, for clients and for what came over a link.

use std::sync::Arc;

use karez_topology::{Address, Arrival, Decision, NextHop, Path, TargetId};

use crate::caller::Caller;
use crate::carry::End;
use crate::connector::{Connector, Counted, Opens, Socket};
use crate::link::{OpenError, Opened, open};
use crate::seal::{self, Sealed};
use crate::shared::{Shared, View};
use crate::wire::{Answer, Open};

/// Ways that are tried for one connection before it is refused.
const ATTEMPTS: usize = 4;

/// Whose connection it is.
pub(crate) enum Origin<'a> {
    /// A client of this site.
    Client {
        /// Whether its listener lets it go to other sites sealed only.
        sealed: bool,
    },
    /// It came over a link, with this header.
    Link { arrival: &'a Arrival, header: &'a Open },
}

/// What is at the other end.
pub(crate) enum Far {
    /// A target on this site.
    Target(Socket, Arc<Connector>),
    /// A peer.
    Link(Opened),
    /// The last router, through a peer that cannot read what is carried.
    Sealed(Box<Sealed>),
}

impl Far {
    /// To carry a connection; an address of TCP has no targets of UDP.
    pub(crate) fn end(self) -> Option<End> {
        match self {
            Self::Target(Socket::Tcp(socket), _) => Some(socket.into()),
            Self::Target(Socket::Udp(_), _) => None,
            Self::Link(opened) => Some(opened.stream.into()),
            Self::Sealed(sealed) => Some((*sealed).into()),
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
    let begins = matches!(origin, Origin::Client { .. });
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
        Origin::Client { .. } => view.decide(address, tried),
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
                self.check_seal(shared, target)?;
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

    /// Whether a target here takes what came over a link as it came.
    fn check_seal(&self, shared: &Arc<Shared>, target: &TargetId) -> Result<(), OpenError> {
        let Origin::Link { header, .. } = self.origin else {
            return Ok(());
        };
        let view = shared.view();
        let only = view
            .connectors
            .get(target)
            .is_some_and(|connector| connector.config.sealed);
        let taken = shared.seals.hold().incoming(self.address, only, header.sealed);
        taken.map(drop).map_err(|reason| {
            seal::complain(shared, self.address, "", &reason);
            OpenError::Refused(reason)
        })
    }

    async fn over(&self, shared: &Arc<Shared>, next: &NextHop, path: &Path) -> Result<Way, OpenError> {
        let view = shared.view();
        let (mut header, material) = match self.origin {
            Origin::Client { sealed } => {
                let offered = view.table.find(self.address).map_or(&[][..], |ways| &ways.sealed);
                let outgoing = shared.seals.hold().outgoing(self.address, *sealed, offered);
                let material = outgoing.map_err(|reason| {
                    seal::complain(shared, self.address, "", &reason);
                    OpenError::Refused(reason)
                })?;
                let header = Open {
                    sealed: material.is_some(),
                    ..Open::to(self.address, &path.to)
                };
                (header, material)
            }
            Origin::Link { header, .. } => ((*header).clone().onward(&path.to), None),
        };
        header.last_resort = self.last_resort;
        self.caller.tell(&mut header);
        let link = view.links.get(&path.link).cloned().ok_or(OpenError::Gone)?;
        let counted = Counted::new(Opens(link.clone()));
        let distant = view.distant(&path.to).map(|open| Counted::new(Opens(open)));
        let opened = open(&link, self.address, header, self.patient).await;
        let opened = opened.inspect_err(|error| {
            if matches!(error, OpenError::Saturated) {
                link.saturation.note(next, self.address);
            }
        })?;
        let counted = Box::new((counted, distant));
        let Some(material) = material else {
            return Ok(Way {
                far: Far::Link(opened),
                route: format!("link {}", link.name),
                counted,
            });
        };
        let sealed = seal::connect(shared, &material, opened.stream, self.address, self.caller).await;
        let sealed = sealed.map_err(|error| {
            let reason = error.to_string();
            seal::complain(shared, self.address, "", &reason);
            OpenError::Refused(reason)
        })?;
        Ok(Way {
            route: format!("link {}, sealed with {}", link.name, sealed.site),
            far: Far::Sealed(Box::new(sealed)),
            counted,
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
