//! Real routers at both ends, and between them one that does whatever it likes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use karez_identity::{Authority, Credential, SealScope, TlsMaterial};
use karez_router_config::api::SiteIdentity;
use karez_router_config::{Congestion, Mode, Role, SealSection, Transport};
use karez_topology::{Message, Route, Summary};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::material::Material;
use super::support::{ADDRESS, LIMIT, Site, ask, echo, metric};
use crate::link::record::Opener;
use crate::link::transport_for_tests::{Connection, TlsListener};
use crate::link::{RecvStream, SendStream, Settings, Stream, handshake};
use crate::wire::{
    Answer, Body, Control, Hello, Open, body, read_answer, read_control, read_open, said, write_answer,
    write_control, write_open,
};

/// What nobody between may read.
const SECRET: &[u8] = b"what is between the client and its target stays there";
/// Bytes of a record beside its plaintext.
const AROUND: usize = 22;

const SETTINGS: Settings = Settings {
    congestion: Congestion::Auto,
    streams: 1024,
};

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Client,
    Server,
}

/// What the router between does.
#[derive(Clone)]
struct Plot {
    /// Tells the client's router nothing of seals.
    strips: bool,
    /// Changes what the client's router asks for.
    header: fn(&mut Open),
    /// Changes a record, or drops it (false).
    record: fn(Towards, &mut Vec<u8>) -> bool,
    /// Speaks for the far site itself.
    poses: Option<Arc<Material>>,
}

impl Plot {
    fn none() -> Self {
        Self {
            strips: false,
            header: |_| (),
            record: |_, _| true,
            poses: None,
        }
    }
}

/// What it has seen.
#[derive(Default)]
struct Seen {
    server: Option<(Connection, Vec<Route>)>,
    bytes: Vec<u8>,
    answers: Vec<Answer>,
    /// Plaintext that clients' routers told it when it posed.
    told: Vec<u8>,
}

#[derive(Clone)]
struct Between {
    plot: Plot,
    seen: Arc<watch::Sender<Seen>>,
}

impl Between {
    async fn listen(self, listener: TlsListener) {
        loop {
            let incoming = listener.accept().await;
            let between = self.clone();
            tokio::spawn(async move {
                if let Ok(Some(connection)) = incoming.handshake().await {
                    between.link(connection).await;
                }
            });
        }
    }

    /// Speaks with an edge as the interior router that it is linked to.
    async fn link(self, connection: Connection) -> Option<()> {
        let Stream {
            mut send,
            mut receive,
        } = connection.accept().await.ok()?;
        let Some(Body::Hello(hello)) = read_control(&mut receive).await.ok()??.body else {
            return None;
        };
        let own = SiteIdentity {
            id: "id-between".into(),
            name: "between".into(),
            ..SiteIdentity::default()
        };
        tell(&mut send, Body::Hello(Hello::of(&own, "between", Role::Edge, 1))).await?;
        let is_client = hello.peer().ok()?.name == "client";
        if is_client {
            let mut routes = self.seen.borrow().server.as_ref()?.1.clone();
            for route in &mut routes {
                if self.plot.strips {
                    route.sealed.clear();
                }
            }
            let summary = Summary {
                first: true,
                routes,
                ..Summary::default()
            };
            tell(&mut send, body(&Message::Summary(summary))).await?;
            let (between, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept().await {
                    tokio::spawn(between.clone().relay(stream));
                }
            });
        }
        loop {
            match read_control(&mut receive).await.ok()??.body? {
                Body::Ping(number) => tell(&mut send, Body::Pong(number)).await?,
                heard @ Body::Announce(_) if !is_client => {
                    if let Some(Message::Announce(has)) = said(&heard).ok()? {
                        let server = Some((connection.clone(), has.routes.clone()));
                        self.seen.send_modify(|seen| seen.server = server);
                    }
                }
                _ => {}
            }
        }
    }

    async fn relay(self, mut near: Stream) -> Option<()> {
        let mut header = read_open(&mut near.receive).await.ok()?;
        (self.plot.header)(&mut header);
        if let Some(material) = self.plot.poses.clone() {
            write_answer(&mut near.send, &Answer::Connected).await.ok()?;
            return self.pose(near, &material, &header).await;
        }
        let server = self
            .seen
            .borrow()
            .server
            .as_ref()
            .map(|(server, _)| server.clone());
        let mut far = server?.open().await.ok()?;
        write_open(&mut far.send, &header).await.ok()?;
        let answer = read_answer(&mut far.receive).await.ok()?;
        self.seen.send_modify(|seen| seen.answers.push(answer.clone()));
        write_answer(&mut near.send, &answer).await.ok()?;
        let up = self.pump(near.receive, far.send, Towards::Server);
        let down = self.pump(far.receive, near.send, Towards::Client);
        tokio::join!(up, down);
        Some(())
    }

    /// Pretends to be the far site.
    async fn pose(&self, stream: Stream, material: &Material, header: &Open) -> Option<()> {
        let bound =
            super::super::session::binding(&header.address().ok()?, &crate::caller::Caller::of(header));
        let config: Arc<ServerConfig> = material.server(bound);
        let secured = handshake::server(stream, config).await.ok()?;
        let mut incoming = secured.early;
        let (mut opener, mut pipe) = (secured.opener, secured.pipe);
        loop {
            while let Ok(Some(length)) = Opener::length(&incoming)
                && incoming.len() >= length
            {
                let mut record: Vec<u8> = incoming.drain(..length).collect();
                if let Ok(crate::link::record::Content::Data(range)) = opener.open(&mut record) {
                    self.seen
                        .send_modify(|seen| seen.told.extend_from_slice(&record[range]));
                }
            }
            if handshake::Pipe::read_more(&mut pipe, &mut incoming).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Passes bytes on, record by record where they are records, and keeps all of them.
    async fn pump(&self, mut from: RecvStream, mut to: SendStream, towards: Towards) {
        let mut waiting = Vec::new();
        loop {
            let mut chunk = [Bytes::new()];
            match from.read_chunks(&mut chunk).await {
                Ok(Some(_)) => waiting.extend_from_slice(&chunk[0]),
                Ok(None) => return drop(to.finish()),
                Err(_) => return to.reset(1),
            }
            self.seen
                .send_modify(|seen| seen.bytes.extend_from_slice(&chunk[0]));
            while !waiting.is_empty() {
                let length = match Opener::length(&waiting) {
                    Ok(Some(length)) if waiting.len() >= length => length,
                    Ok(_) => break,
                    Err(_) => waiting.len(),
                };
                let mut record: Vec<u8> = waiting.drain(..length).collect();
                if (self.plot.record)(towards, &mut record) && to.write_all(&record).await.is_err() {
                    return from.stop(1);
                }
            }
        }
    }
}

async fn tell(send: &mut SendStream, body: Body) -> Option<()> {
    write_control(send, &Control { body: Some(body) }).await.ok()
}

/// What a site may do sealed.
fn scope(serve: &[&str], reach: &[&str]) -> SealScope {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    SealScope {
        serve: owned(serve),
        reach: owned(reach),
    }
}

fn issue(authority: &Authority, site: &str, scope: &SealScope) -> Credential {
    let issued = authority.issue_seal(site, scope, super::HOUR, jiff::Timestamp::now());
    issued.unwrap()
}

fn seal(site: &mut Site, credential: &Credential) {
    site.profile("seal", credential);
    site.document.seal = Some(SealSection { tls: "seal".into() });
}

/// A network of two sites and what is between them.
struct Network {
    client: Site,
    server: Site,
    between: Between,
}

impl Network {
    /// `server` serves an echo, sealed; `client` has a listener for it.
    async fn start(plot: Plot, of_client: Option<Credential>, of_server: Option<Credential>) -> Self {
        Self::with(plot, of_client, of_server, true).await
    }

    async fn with(
        plot: Plot,
        of_client: Option<Credential>,
        of_server: Option<Credential>,
        sealed: bool,
    ) -> Self {
        let mut middle = Site::new("between", Mode::Interior);
        let own = middle.issue("skupper-router", &["skupper-router"], jiff::Timestamp::now());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at: SocketAddr = socket.local_addr().unwrap();
        let listener = TlsListener::new(socket, &TlsMaterial::from(&own), SETTINGS).unwrap();
        let between = Between {
            plot,
            seen: Arc::new(watch::Sender::new(Seen::default())),
        };
        tokio::spawn(between.clone().listen(listener));
        let (mut client, mut server) = (Site::new("client", Mode::Edge), Site::new("server", Mode::Edge));
        for (site, seal_with) in [(&mut client, of_client), (&mut server, of_server)] {
            let token = middle.token(&site.document.site.name.clone(), jiff::Timestamp::now());
            site.link_to(at, &token);
            site.document.links[0].transport = Transport::Tls;
            site.document.admin = super::support::Site::public().document.admin;
            if let Some(credential) = seal_with {
                seal(site, &credential);
            }
        }
        server.serve(echo().await);
        server.document.connectors[0].sealed = sealed;
        server.document.services[0].sealed = sealed;
        client.listen();
        server.start().await;
        let mut seen = between.seen.subscribe();
        let wanted = sealed && server.document.seal.is_some();
        let announced = seen.wait_for(|seen| {
            let routes = seen.server.as_ref().map_or(&[][..], |(_, routes)| routes);
            routes.iter().any(|route| route.sealed.is_empty() != wanted)
        });
        timeout(LIMIT, announced)
            .await
            .expect("announced in time")
            .unwrap();
        drop(seen);
        client.start().await;
        Self {
            client,
            server,
            between,
        }
    }

    async fn ask(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.client.listener().await).await.unwrap();
        ask(&mut stream, SECRET).await
    }

    /// Asks in vain: the client is reset.
    async fn ask_in_vain(&self) {
        let listener = self.client.listener().await;
        let asked = async {
            // The reset may be faster than what follows the connection.
            let mut stream = TcpStream::connect(listener).await?;
            stream.write_all(SECRET).await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        let ended = timeout(LIMIT, asked).await.expect("ended in time");
        ended.expect_err("a reset, no end");
        assert!(
            !contains(&self.between.seen.borrow().bytes, SECRET),
            "nothing in plain"
        );
        assert!(
            self.between.seen.borrow().told.is_empty(),
            "nothing told to a stranger"
        );
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// An authority, what the client has of it and what the server has.
fn credentials() -> (Authority, Option<Credential>, Option<Credential>) {
    let authority = super::authority();
    let client = issue(&authority, "client", &scope(&[], &["echo"]));
    let server = issue(&authority, "server", &scope(&["echo", "other"], &[]));
    (authority, Some(client), Some(server))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_between_carries_what_it_cannot_read() {
    let (_, client, server) = credentials();
    let network = Network::start(Plot::none(), client, server).await;
    assert_eq!(network.ask().await, SECRET);
    let seen = network.between.seen.borrow();
    assert!(!seen.bytes.is_empty() && !contains(&seen.bytes, SECRET));
    assert_eq!(
        network.client.status().listeners[0].sealed,
        Some(Default::default())
    );
    assert_eq!(
        network.server.status().connectors[0].sealed,
        Some(Default::default())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_seal_it_reads_everything() {
    let network = Network::with(Plot::none(), None, None, false).await;
    assert_eq!(network.ask().await, SECRET);
    assert!(
        contains(&network.between.seen.borrow().bytes, SECRET),
        "or the others prove nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_altered_on_its_way_is_noticed_and_counted() {
    let flip = |towards, record: &mut Vec<u8>| {
        if towards == Towards::Server && record.len() == SECRET.len() + AROUND {
            record[10] ^= 1;
        }
        true
    };
    let (_, client, server) = credentials();
    let plot = Plot {
        record: flip,
        ..Plot::none()
    };
    let network = Network::start(plot, client, server).await;
    network.ask_in_vain().await;
    assert!(metric(&network.server, "karez_router_errors_total", "Seal").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_on_its_way_is_no_end() {
    let drop_farewells =
        |towards, record: &mut Vec<u8>| towards == Towards::Server || record.len() != 2 + AROUND;
    let (_, client, server) = credentials();
    let plot = Plot {
        record: drop_farewells,
        ..Plot::none()
    };
    let network = Network::start(plot, client, server).await;
    let mut stream = TcpStream::connect(network.client.listener().await).await.unwrap();
    stream.write_all(SECRET).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
    ended.expect_err("all of it came, but its end did not");
    assert!(metric(&network.client, "karez_router_errors_total", "Seal").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_without_its_seal_lowers_nothing() {
    let (_, client, server) = credentials();
    let plot = Plot {
        strips: true,
        ..Plot::none()
    };
    let network = Network::start(plot, client, server).await;
    assert_eq!(
        network.ask().await,
        SECRET,
        "this site's certificate names the address"
    );
    assert!(!contains(&network.between.seen.borrow().bytes, SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_target_takes_nothing_in_plain_from_a_site_without_a_seal() {
    let (_, _, server) = credentials();
    let plot = Plot {
        strips: true,
        ..Plot::none()
    };
    let network = Network::start(plot, None, server).await;
    network.ask_in_vain().await;
    let answers = network.between.seen.borrow().answers.clone();
    assert!(
        matches!(&answers[..], [Answer::Refused(reason), ..] if reason.contains("sealed")),
        "{answers:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_without_its_seal_is_refused() {
    let (_, client, server) = credentials();
    let plot = Plot {
        header: |header| header.sealed = false,
        ..Plot::none()
    };
    let network = Network::start(plot, client, server).await;
    network.ask_in_vain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_led_elsewhere_comes_to_nothing() {
    let (_, client, server) = credentials();
    let plot = Plot {
        header: |header| header.client = "192.0.2.66:6666".into(),
        ..Plot::none()
    };
    let network = Network::start(plot, client, server).await;
    network.ask_in_vain().await;
    assert!(metric(&network.client, "karez_router_errors_total", "Seal").await >= 1.0);
    assert!(metric(&network.server, "karez_router_errors_total", "Seal").await >= 1.0);
    assert_eq!(ADDRESS, "echo:7000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_can_speak_for_the_far_site() {
    let (authority, client, server) = credentials();
    // One of the same network that serves something else, and one that an authority of its own lets serve everything.
    let other = issue(&authority, "between", &scope(&["something"], &["*"]));
    let own = issue(&super::authority(), "server", &scope(&["*"], &["*"]));
    for credential in [other, own] {
        let material = Material::read(&TlsMaterial::from(&credential)).unwrap();
        let plot = Plot {
            poses: Some(Arc::new(material)),
            ..Plot::none()
        };
        let network = Network::start(plot, client.clone(), server.clone()).await;
        network.ask_in_vain().await;
        assert!(metric(&network.client, "karez_router_errors_total", "Seal").await >= 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_may_not_reach_the_address_is_refused_by_the_far_one() {
    let (authority, _, server) = credentials();
    // The client's own router would not even try: its certificate is made to name the address, by another authority
    // that the client believes as well.
    let own = super::authority();
    let mut client = issue(&own, "client", &scope(&[], &["echo"]));
    client.ca_pem.push_str(authority.certificate_pem());
    let network = Network::start(Plot::none(), Some(client), server).await;
    network.ask_in_vain().await;
    assert!(metric(&network.server, "karez_router_errors_total", "Seal").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_far_site_that_cannot_seal_is_not_spoken_to() {
    let (_, client, _) = credentials();
    let network = Network::start(Plot::none(), client, None).await;
    network.ask_in_vain().await;
    let error = network.server.status().connectors[0]
        .sealed
        .clone()
        .unwrap()
        .error;
    assert!(error.unwrap().contains("has no seal certificate"));
}
