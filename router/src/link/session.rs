//! A link's session, the same on both sides: hello, then what is told of the network, pings and data streams until it ends.
//!
//! ```text
//!  dialler                                        acceptor
//!  Hello ──────────────────────────────────────▶  checks it, or closes with the reason
//!        ◀──────────────────────────────────────  Hello
//!  Digests, Have, Records, Ping, Pong, Bye ◀────▶ the same (between interior routers)
//!  Announce, Ping, Pong, Bye ◀──────────────────▶ Summary, Ping, Pong, Bye (from an edge to its interior router)
//! ```
//!
//! What is told comes from the topology when the stream takes it: a slow peer gets the latest state, not a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use karez_router_config::api::{Direction, LinkState, SiteIdentity};
use karez_router_config::{Mode, Role};
use karez_topology::{Event, Filter, LinkKind, Message, RouterId, Site};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::credential::{self, Credential, revoked};
use super::data::{Further, new_ticket};
use super::dial::MOVED;
use super::failure::{CloseCode, Failure, close};
use super::live::LiveLink;
use super::stream;
use super::transport::{Connection, RecvStream, SendStream, Stream};
use crate::metrics::Fault;
use crate::policy::{Admission, TOKEN_REVOKED};
use crate::saturation::Saturation;
use crate::shared::Shared;
use crate::udp::{self, Exchange};
use crate::wire::{Body, Bye, Control, Hello, WireError, body, read_control, said, write_control};

/// A peer says hello in this time.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How often the control stream is tried, when the peer does not speak by itself.
const PING: Duration = Duration::from_secs(1);
/// How often it is looked whether anything arrives from the peer.
const LOOK: Duration = Duration::from_millis(250);
/// While nothing arrives from a peer for this long, new connections go another way if there is one, and one is looked for.
/// A peer that can hear answers each [`PING`].
const SUSPECT: Duration = Duration::from_millis(1300);
/// A peer of whom nothing arrives for this long is gone.
const SILENT_LIMIT: Duration = Duration::from_secs(3);
/// A peer whose control stream is silent for this long is gone, whatever else arrives from it.
const PONG_LIMIT: Duration = Duration::from_secs(20);

/// A connection, and what is known about it before its session.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) direction: Direction,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) cost: u32,
    /// What the peer said first (acceptor only).
    pub(crate) first: Option<First>,
    /// By what the peer was admitted (acceptor only).
    pub(crate) admission: Option<Admission>,
}

/// What a peer said first, and the stream that it said it on.
pub(crate) struct First {
    pub(crate) stream: Stream,
    pub(crate) body: Body,
}

/// Hears what a peer that dialled us says first: hello, or whose link its connection belongs to.
pub(crate) async fn first(connection: &Connection) -> Result<First, Failure> {
    let heard = timeout(HELLO_LIMIT, async {
        let mut stream = connection.accept().await?;
        match read_control(&mut stream.receive).await {
            Ok(Some(Control { body: Some(body) })) => Ok(First { stream, body }),
            Ok(Some(_)) => Err(Failure::refused("the first message was no hello")),
            Ok(None) => Err(Failure::down("the peer said nothing")),
            Err(error) => Err(unreadable(&error)),
        }
    });
    heard
        .await
        .unwrap_or_else(|_| Err(Failure::down("the peer did not say hello in time")))
}

/// A session whose peer has said who it is.
pub(crate) struct Session {
    pub(crate) link: Arc<LiveLink>,
    send: SendStream,
    receive: RecvStream,
}

/// What a peer said of itself.
struct Peer {
    site: Site,
    router: RouterId,
    cost: u32,
    ticket: Vec<u8>,
}

/// Says hello and hears the peer's. Whatever is wrong closes the connection with the reason.
pub(crate) async fn greet(shared: &Shared, mut side: Side) -> Result<Session, Failure> {
    let connection = side.connection.clone();
    let greeted = timeout(HELLO_LIMIT, hellos(shared, &mut side)).await;
    let refusal = match greeted {
        Ok(Ok((send, receive, peer))) => return Ok(session(shared, side, send, receive, peer)),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::down("the peer did not say hello in time"),
    };
    // When the peer closed, its reason says more than the stream's error.
    if let Some(error) = connection.close_reason() {
        return Err(error.into());
    }
    close(&connection, CloseCode::Refused, &refusal.text);
    Err(refusal)
}

async fn hellos(shared: &Shared, side: &mut Side) -> Result<(SendStream, RecvStream, Peer), Failure> {
    let own = shared
        .read(|state| state.config.as_ref().map(|config| config.site.clone()))
        .unwrap_or_default();
    let router = shared.read(|state| state.topology.router());
    let mut hello = Hello::of(&own, &router, side.role, side.cost);
    let (mut send, mut receive, peer);
    if side.direction == Direction::Outgoing {
        Stream { send, receive } = side.connection.open().await?;
        say(&mut send, hello).await?;
        peer = check(&own, &router, side, &hear(&mut receive).await?)?;
    } else {
        let Some(First {
            stream,
            body: Body::Hello(theirs),
        }) = side.first.take()
        else {
            return Err(Failure::refused("the first message was no hello"));
        };
        Stream { send, receive } = stream;
        let known = check(&own, &router, side, &theirs)?;
        let ticket = new_ticket();
        hello.ticket.clone_from(&ticket);
        say(&mut send, hello).await?;
        peer = Peer { ticket, ..known };
    }
    Ok((send, receive, peer))
}

async fn say(send: &mut SendStream, hello: Hello) -> Result<(), Failure> {
    let message = Control {
        body: Some(Body::Hello(hello)),
    };
    write_control(send, &message)
        .await
        .map_err(|error| Failure::down(error.to_string()))
}

async fn hear(receive: &mut RecvStream) -> Result<Hello, Failure> {
    match read_control(receive).await {
        Ok(Some(Control {
            body: Some(Body::Hello(hello)),
        })) => Ok(hello),
        Ok(Some(_)) => Err(Failure::refused("the first message was no hello")),
        Ok(None) => Err(Failure::down("the peer said nothing")),
        Err(error) => Err(unreadable(&error)),
    }
}

/// What it means that nothing could be read: the stream failed, or the peer sends what makes no sense.
fn unreadable(error: &WireError) -> Failure {
    match error {
        WireError::Read(_) | WireError::Write(_) | WireError::Cut => {
            Failure::down(format!("the control stream: {error}"))
        }
        WireError::TooLong(_) | WireError::Decode(_) | WireError::Content(_) => {
            Failure::refused(format!("the peer sent {error}"))
        }
    }
}

fn check(own: &SiteIdentity, router: &RouterId, side: &Side, hello: &Hello) -> Result<Peer, Failure> {
    hello.version().map_err(Failure::refused)?;
    if hello.role != side.role.as_str() {
        let text = format!(
            "this port takes {} links, asked for was one of another role",
            side.role.as_str()
        );
        return Err(Failure::refused(text));
    }
    let sent = |error| Failure::refused(format!("the peer sent {error}"));
    let peer = Peer {
        site: hello.peer().map_err(sent)?,
        router: hello.router().map_err(sent)?,
        cost: hello.cost,
        ticket: hello.ticket.clone(),
    };
    if side.role == Role::InterRouter && (peer.site.edge || own.mode == Mode::Edge) {
        return Err(Failure::refused(
            "an edge router makes edge links only: use a token for edges",
        ));
    }
    // The routers of one site link as interior routers.
    if peer.site.id == own.id && side.role == Role::Edge {
        return Err(Failure::refused(
            "both ends are the same site: this token is the site's own",
        ));
    }
    if peer.router == *router {
        let text = format!(
            "both ends are the router \"{router}\": this token is the site's own, or two routers have one id"
        );
        return Err(Failure::refused(text));
    }
    Ok(peer)
}

/// What a link is for, seen from here.
fn kind(side: &Side) -> LinkKind {
    match (side.role, side.direction) {
        (Role::InterRouter, _) => LinkKind::Interior,
        (Role::Edge, Direction::Outgoing) => LinkKind::Uplink,
        (Role::Edge, Direction::Incoming) => LinkKind::Attached,
    }
}

fn session(shared: &Shared, side: Side, send: SendStream, receive: RecvStream, peer: Peer) -> Session {
    let outgoing = side.direction == Direction::Outgoing;
    let link = LiveLink {
        id: shared.next_link(),
        kind: kind(&side),
        name: side.name,
        role: side.role,
        direction: side.direction,
        // The dialler's document sets the cost, for both ways.
        cost: if outgoing {
            side.cost
        } else {
            peer.cost.clamp(1, DEAREST)
        }
        .into(),
        remote: side.connection.remote_address(),
        router: peer.router,
        peer: peer.site,
        since: jiff::Timestamp::now(),
        credential: Credential::new(side.admission),
        connection: side.connection,
        further: Further::default(),
        ticket: peer.ticket,
        open: AtomicU64::new(0),
        serving: AtomicU64::new(0),
        saturation: Saturation::default(),
        exchange: Exchange::default(),
        filter: ArcSwap::from_pointee(Filter::default()),
        wake: Notify::new(),
        leaving: CancellationToken::new(),
        suspect: watch::Sender::new(false),
    };
    Session {
        link: Arc::new(link),
        send,
        receive,
    }
}

/// What a peer may say that a link costs.
const DEAREST: u32 = 1 << 20;

impl Session {
    /// Runs the link until its connection ends; says why it ended.
    pub(crate) async fn run(self, shared: &Arc<Shared>) -> Failure {
        let Self { link, send, receive } = self;
        shared.link_up(link.clone());
        credential::begin(shared, &link);
        if revoked(shared, &link) {
            link.close(CloseCode::Revoked, TOKEN_REVOKED);
        }
        let (pongs, to_send) = mpsc::channel(4);
        let (heard, last_heard) = watch::channel(Instant::now());
        let ended = tokio::select! {
            error = link.connection.closed() => Failure::from(error),
            failure = read(shared, &link, receive, pongs, heard) => failure,
            failure = write(shared, &link, send, to_send, last_heard) => failure,
            failure = streams(shared, &link, &link.connection) => failure,
            error = udp::receive(&link, &shared.metrics) => Failure::from(error),
            failure = credential::ended(&link) => failure,
        };
        shared.link_down(link.id);
        match link.connection.close_reason() {
            Some(error) => Failure::from(error),
            // What further connections carry does not end with this one.
            None if ended.state == LinkState::Down => {
                close(&link.connection, CloseCode::Silent, &ended.text);
                ended
            }
            None => {
                link.close(CloseCode::Protocol, &ended.text);
                ended
            }
        }
    }
}

/// Takes what the peer says.
async fn read(
    shared: &Shared,
    link: &LiveLink,
    mut receive: RecvStream,
    pongs: mpsc::Sender<u64>,
    heard: watch::Sender<Instant>,
) -> Failure {
    loop {
        let body = match read_control(&mut receive).await {
            Ok(Some(message)) => message.body,
            Ok(None) => return Failure::down("the peer ended the control stream"),
            Err(error) => {
                let failure = unreadable(&error);
                if failure.state == LinkState::Refused {
                    shared.metrics.fault(Fault::Protocol);
                }
                return failure;
            }
        };
        heard.send_replace(Instant::now());
        match body {
            // When four answers wait already, the peer asks faster than it reads.
            Some(Body::Ping(number)) => drop(pongs.try_send(number)),
            Some(Body::Bye(bye)) => {
                let reason = crate::wire::clean(&bye.reason, 256);
                tracing::info!(
                    link = link.name,
                    peer = link.peer.name,
                    reason,
                    "the peer is leaving"
                );
                // No new connections; what is carried may end in peace.
                shared.link_down(link.id);
            }
            Some(Body::Pong(_) | Body::Hello(_) | Body::Join(_)) | None => {}
            Some(Body::Renewal(renewal)) => {
                if let Err(error) = credential::heard(shared, link, &renewal) {
                    shared.metrics.fault(Fault::Protocol);
                    return Failure::refused(format!("the peer sent {error}"));
                }
            }
            Some(body) => {
                if let Err(error) = heard_of_network(shared, link, &body) {
                    shared.metrics.fault(Fault::Protocol);
                    return Failure::refused(format!("the peer sent {error}"));
                }
            }
        }
    }
}

/// Takes what the peer tells of the network. A peer that tells what is not its business is not believed further.
fn heard_of_network(shared: &Shared, link: &LiveLink, body: &Body) -> Result<(), WireError> {
    let Some(message) = said(body)? else { return Ok(()) };
    let fits = match link.kind {
        LinkKind::Interior => matches!(
            message,
            Message::Digests(_) | Message::Have(_) | Message::Records(_)
        ),
        LinkKind::Uplink => matches!(message, Message::Summary(_)),
        LinkKind::Attached => matches!(message, Message::Announce(_)),
    };
    if !fits {
        return Err(WireError::Content("what a peer of this role has no say in"));
    }
    let message = match message {
        Message::Announce(said) => Message::Announce(credential::offers(shared, link, said)),
        other => other,
    };
    shared.event(Event::Heard {
        link: link.id,
        message,
    });
    Ok(())
}

/// Tells the peer what it should know.
async fn write(
    shared: &Shared,
    link: &LiveLink,
    mut send: SendStream,
    mut pongs: mpsc::Receiver<u64>,
    heard: watch::Receiver<Instant>,
) -> Failure {
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silence = Silence::new(link);
    let (mut count, mut asked) = (0, Instant::now());
    let mut renewals = link.credential.to_tell();
    let mut leaving = false;
    loop {
        let body = tokio::select! {
            () = link.wake.notified() => match shared.tell(link.id) {
                Some(message) => {
                    // There may be more.
                    link.wake.notify_one();
                    body(&message)
                }
                None => continue,
            },
            Some(number) = pongs.recv() => Body::Pong(number),
            Ok(()) = renewals.changed() => Body::Renewal(renewals.borrow_and_update().clone()),
            _ = look.tick() => {
                let heard = heard.borrow().elapsed();
                if let Some(failure) = silence.check(link, heard) {
                    return failure;
                }
                // The dialler asks, the acceptor only when nobody asks it.
                let unasked = link.direction == Direction::Incoming && heard < PING * 3 / 2;
                if unasked || asked.elapsed() + LOOK / 2 < PING {
                    continue;
                }
                asked = Instant::now();
                count += 1;
                Body::Ping(count)
            }
            () = shared.shutdown.triggered(), if !leaving => {
                leaving = true;
                Body::Bye(Bye { reason: "the router stops".to_owned() })
            }
            () = link.leaving.cancelled(), if !leaving => {
                leaving = true;
                Body::Bye(Bye { reason: MOVED.to_owned() })
            }
        };
        if let Err(error) = write_control(&mut send, &Control { body: Some(body) }).await {
            return Failure::down(format!("the control stream: {error}"));
        }
    }
}

/// Notices that nothing arrives from a peer any more.
struct Silence {
    received: u64,
    since: Instant,
}

impl Silence {
    fn new(link: &LiveLink) -> Self {
        Self {
            received: received(link),
            since: Instant::now(),
        }
    }

    /// What is wrong, when the control stream was last heard so long ago.
    fn check(&mut self, link: &LiveLink, heard: Duration) -> Option<Failure> {
        let received = received(link);
        if received != self.received {
            (self.received, self.since) = (received, Instant::now());
        }
        if heard > PONG_LIMIT {
            return Some(Failure::down("the peer's control stream is silent"));
        }
        let silent = heard.min(self.since.elapsed());
        link.suspect.send_if_modified(|suspect| {
            let now = silent >= SUSPECT;
            std::mem::replace(suspect, now) != now
        });
        (silent >= SILENT_LIMIT).then(|| Failure::down("nothing has arrived from the peer for 3 s"))
    }
}

fn received(link: &LiveLink) -> u64 {
    link.connection.statistics().bytes_received
}

/// Serves the streams that the peer opens.
pub(super) async fn streams(shared: &Arc<Shared>, link: &Arc<LiveLink>, connection: &Connection) -> Failure {
    loop {
        match connection.accept().await {
            Ok(stream) => {
                connection.serves(link.serving.load(Ordering::Relaxed));
                shared
                    .carried
                    .spawn(stream::serve(shared.clone(), link.clone(), stream));
            }
            Err(error) => return error.into(),
        }
    }
}
