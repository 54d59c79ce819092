//! A link's session, the same on both sides: hello, then announcements, pings and data streams until it ends.
//!
//! ```text
//!  dialler                                   acceptor
//!  Hello ─────────────────────────────────▶  checks it, or closes with the reason
//!        ◀───────────────────────────────── Hello
//!  Announce, Ping, Pong, Bye ◀────────────▶ Announce, Ping, Pong, Bye
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use karez_router_config::Role;
use karez_router_config::api::{Direction, SiteIdentity};
use karez_topology::{Announcement, Event, Site};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, timeout};

use super::failure::{CloseCode, Failure, close};
use super::live::LiveLink;
use super::stream;
use super::transport::{Connection, RecvStream, SendStream, Stream};
use crate::saturation::Saturation;
use crate::shared::Shared;
use crate::wire::{Announce, Body, Bye, Control, Hello, PROTOCOL_VERSION, read_control, write_control};

/// A peer says hello in this time.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How often the control stream is tried.
const PING: Duration = Duration::from_secs(5);
/// A peer whose control stream does not answer for this long is gone, whatever its transport says.
const PONG_LIMIT: Duration = Duration::from_secs(20);

/// A connection, and what is known about it before its session.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) direction: Direction,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) cost: u32,
    /// By what the peer was admitted (acceptor only).
    pub(crate) admitted_by: Option<(String, String)>,
}

/// A session whose peer has said who it is.
pub(crate) struct Session {
    pub(crate) link: Arc<LiveLink>,
    send: SendStream,
    receive: RecvStream,
    say: watch::Receiver<Arc<Announcement>>,
}

/// Says hello and hears the peer's. Whatever is wrong closes the connection with the reason.
pub(crate) async fn greet(shared: &Shared, side: Side) -> Result<Session, Failure> {
    let connection = side.connection.clone();
    let greeted = timeout(HELLO_LIMIT, hellos(shared, &side)).await;
    let refusal = match greeted {
        Ok(Ok((send, receive, peer, cost))) => return Ok(session(shared, side, send, receive, peer, cost)),
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

async fn hellos(shared: &Shared, side: &Side) -> Result<(SendStream, RecvStream, Site, u32), Failure> {
    let own = shared
        .read(|state| state.config.as_ref().map(|config| config.site.clone()))
        .unwrap_or_default();
    let hello = Control {
        body: Some(Body::Hello(Hello::of(&own, side.role, side.cost))),
    };
    let (mut send, mut receive, theirs);
    if side.direction == Direction::Outgoing {
        Stream { send, receive } = side.connection.open().await?;
        say(&mut send, &hello).await?;
        theirs = hear(&mut receive).await?;
        check(&own, side, &theirs)?;
    } else {
        Stream { send, receive } = side.connection.accept().await?;
        theirs = hear(&mut receive).await?;
        check(&own, side, &theirs)?;
        say(&mut send, &hello).await?;
    }
    let peer = theirs
        .peer()
        .map_err(|error| Failure::refused(format!("the peer sent {error}")))?;
    Ok((send, receive, peer, theirs.cost))
}

async fn say(send: &mut SendStream, message: &Control) -> Result<(), Failure> {
    write_control(send, message)
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
        Err(error) => Err(Failure::down(error.to_string())),
    }
}

fn check(own: &SiteIdentity, side: &Side, hello: &Hello) -> Result<(), Failure> {
    if hello.version != PROTOCOL_VERSION {
        let theirs = hello.version;
        let text = format!(
            "link protocol version {theirs} there and {PROTOCOL_VERSION} here: upgrade the older site"
        );
        return Err(Failure::refused(text));
    }
    if hello.role != side.role.as_str() {
        let text = format!(
            "this port takes {} links, asked for was one of another role",
            side.role.as_str()
        );
        return Err(Failure::refused(text));
    }
    let peer = hello
        .peer()
        .map_err(|error| Failure::refused(format!("the peer sent {error}")))?;
    if peer.id == own.id {
        return Err(Failure::refused(
            "both ends are the same site: this token is the site's own",
        ));
    }
    Ok(())
}

fn session(
    shared: &Shared,
    side: Side,
    send: SendStream,
    receive: RecvStream,
    peer: Site,
    cost: u32,
) -> Session {
    let (sender, say) = watch::channel(Arc::new(Announcement::default()));
    let outgoing = side.direction == Direction::Outgoing;
    let link = LiveLink {
        id: shared.next_link(),
        name: side.name,
        role: side.role,
        direction: side.direction,
        // The dialler's document sets the cost, for both ways.
        cost: if outgoing { side.cost } else { cost.max(1) }.into(),
        remote: side.connection.remote_address(),
        peer,
        since: jiff::Timestamp::now(),
        admitted_by: side.admitted_by,
        connection: side.connection,
        open: AtomicU64::new(0),
        saturation: Saturation::default(),
        say: sender,
    };
    Session {
        link: Arc::new(link),
        send,
        receive,
        say,
    }
}

impl Session {
    /// Runs the link until its connection ends; says why it ended.
    pub(crate) async fn run(self, shared: &Arc<Shared>) -> Failure {
        let Self {
            link,
            send,
            receive,
            say,
        } = self;
        shared.link_up(link.clone());
        if revoked(shared, &link) {
            link.close(CloseCode::Revoked, TOKEN_REVOKED);
        }
        let (pongs, to_send) = mpsc::channel(4);
        let (heard, last_heard) = watch::channel(Instant::now());
        let ended = tokio::select! {
            error = link.connection.closed() => Failure::from(error),
            failure = read(shared, &link, receive, pongs, heard) => failure,
            failure = write(shared, send, say, to_send, last_heard) => failure,
            failure = streams(shared, &link) => failure,
        };
        shared.link_down(link.id);
        match link.connection.close_reason() {
            Some(error) => Failure::from(error),
            None => {
                link.close(CloseCode::Protocol, &ended.text);
                ended
            }
        }
    }
}

/// What both sides say of a token that is not on the list.
pub(crate) const TOKEN_REVOKED: &str = "token revoked or unknown";

/// Whether the certificate that a peer was admitted by is no longer on the document's list.
pub(crate) fn revoked(shared: &Shared, link: &LiveLink) -> bool {
    let Some((serial, fingerprint)) = &link.admitted_by else {
        return false;
    };
    let config = shared.read(|state| state.config.clone());
    config.is_none_or(|config| config.tokens.admit(serial, fingerprint).is_none())
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
            Err(error) => return Failure::down(format!("the control stream: {error}")),
        };
        heard.send_replace(Instant::now());
        match body {
            Some(Body::Announce(said)) => match said.checked(&link.peer) {
                Ok(announcement) => shared.event(Event::Announced {
                    link: link.id,
                    announcement,
                }),
                Err(error) => return Failure::refused(format!("the peer sent {error}")),
            },
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
            Some(Body::Pong(_) | Body::Hello(_)) | None => {}
        }
    }
}

/// Tells the peer what it should know.
async fn write(
    shared: &Shared,
    mut send: SendStream,
    mut say: watch::Receiver<Arc<Announcement>>,
    mut pongs: mpsc::Receiver<u64>,
    heard: watch::Receiver<Instant>,
) -> Failure {
    let mut ping = interval_at(Instant::now() + PING, PING);
    let mut count = 0;
    let mut leaving = false;
    loop {
        let body = tokio::select! {
            changed = say.changed() => match changed {
                Ok(()) => {
                    let said = say.borrow_and_update().clone();
                    Body::Announce(Announce::of(&said))
                }
                Err(_) => return Failure::down("closed here"),
            },
            Some(number) = pongs.recv() => Body::Pong(number),
            _ = ping.tick() => {
                if heard.borrow().elapsed() > PONG_LIMIT {
                    return Failure::down("the peer's control stream is silent");
                }
                count += 1;
                Body::Ping(count)
            }
            () = shared.shutdown.triggered(), if !leaving => {
                leaving = true;
                Body::Bye(Bye { reason: "the router stops".to_owned() })
            }
        };
        if let Err(error) = write_control(&mut send, &Control { body: Some(body) }).await {
            return Failure::down(format!("the control stream: {error}"));
        }
    }
}

/// Serves the streams that the peer opens.
async fn streams(shared: &Arc<Shared>, link: &Arc<LiveLink>) -> Failure {
    loop {
        match link.connection.accept().await {
            Ok(stream) => {
                shared
                    .carried
                    .spawn(stream::serve(shared.clone(), link.clone(), stream));
            }
            Err(error) => return error.into(),
        }
    }
}
