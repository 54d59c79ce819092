//! Peers that begin and do not go on: slow handshakes, half-open ones by the thousand, connections that say nothing.
//! Each is ended, counted and told, and no honest peer is kept out.
//!
//! `KAREZ_HALF_OPEN` says how many; 2,000 otherwise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use karez_identity::{Credential, TlsMaterial, client_config};
use karez_router_config::api::LinkState;
use karez_router_config::{Mode, Transport};
use quinn::crypto::rustls::QuicClientConfig;
use support::hostile::{ALPN, Hostile, carries, counted};
use support::{LIMIT, Site, echo, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

fn how_many() -> usize {
    let number = std::env::var("KAREZ_HALF_OPEN").ok();
    number.and_then(|number| number.parse().ok()).unwrap_or(2_000)
}

/// A socket that says much and hears nothing: every handshake over it stays half open.
#[derive(Debug)]
struct Deaf(Arc<dyn quinn::AsyncUdpSocket>);

impl quinn::AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn quinn::UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> std::io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [std::io::IoSliceMut<'_>],
        _: &mut [quinn::udp::RecvMeta],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// An endpoint on such a socket.
fn deaf() -> quinn::Endpoint {
    let runtime = quinn::default_runtime().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = Arc::new(Deaf(runtime.wrap_udp_socket(socket).unwrap()));
    quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket, runtime)
        .unwrap()
}

fn config(credential: &Credential) -> quinn::ClientConfig {
    let config = client_config(&TlsMaterial::from(credential), &[ALPN]).unwrap();
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

fn stranger() -> Credential {
    Site::new("stranger", Mode::Interior).issue("x", &[], Timestamp::now())
}

/// A site that links now, and carries.
async fn links(port: SocketAddr, token: &Credential, transport: Transport) -> Site {
    let mut late = Site::new("late", Mode::Edge);
    late.link_to(port, token);
    late.document.links[0].transport = transport;
    late.start().await;
    late.link("active", |link| link.state == LinkState::Active).await;
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_keep_no_honest_peer_out() {
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let token = public.token("later", Timestamp::now());
    public.write();
    let port = public.port().await;
    let (endpoint, config) = (deaf(), config(&stranger()));
    let mut half_open = Vec::new();
    for _ in 0..how_many() {
        half_open.push(
            endpoint
                .connect_with(config.clone(), port, "skupper-router")
                .unwrap(),
        );
        if half_open.len() % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    carries(&edge).await;
    links(port, &token, Transport::Quic).await;
    carries(&edge).await;
    drop(half_open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_keep_no_honest_peer_out() {
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let token = public.token("later", Timestamp::now());
    public.write();
    let port = public.port().await;
    let enough = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn({
        let enough = enough.clone();
        async move {
            let (mut silent, mut opened) = (VecDeque::new(), 0);
            while opened < how_many() || !enough.load(Ordering::Relaxed) {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
                // One that gave way at once is as good.
                silent.extend(socket.connect(port).await);
                opened += 1;
                // More than the router serves at once, fewer than a process may have open.
                if silent.len() > 700 {
                    silent.pop_front();
                }
            }
            opened
        }
    });
    // While it goes on.
    let late = links(port, &token, Transport::Tls).await;
    carries(&edge).await;
    enough.store(true, Ordering::Relaxed);
    let opened = flood.await.unwrap();
    assert!(opened >= how_many());
    carries(&edge).await;
    assert!(counted(&public, "Slow").await > 0);
    let told = |status: &karez_router_config::api::Status| {
        let mut refusals = status.refusals.iter();
        refusals.any(|refusal| refusal.from == "127.0.0.2" && refusal.reason.contains("not done in time"))
    };
    public.until("why they were ended", told).await;
    drop(late);
}

/// Says a byte now and then, until the router has enough of it.
async fn dribble(port: SocketAddr) {
    let mut stream = TcpStream::connect(port).await.unwrap();
    // The beginning of a record of 512 bytes.
    stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let (mut read, mut write) = stream.split();
    let dribbling = async {
        while write.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    };
    let ended = async {
        // Ended or reset: it is over.
        let _ = read.read(&mut [0]).await;
    };
    timeout(LIMIT, async {
        tokio::select! {
            () = dribbling => {}
            () = ended => {}
        }
    })
    .await
    .expect("the router ends it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_peers_are_ended_told_and_counted() {
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let token = public.token("mute", Timestamp::now());
    public.write();
    let port = public.port().await;
    let until_known = async {
        loop {
            let peer = Hostile::connect(port, &token).await;
            if timeout(Duration::from_millis(300), peer.connection.closed())
                .await
                .is_err()
            {
                // Admitted, and says no hello.
                return peer;
            }
        }
    };
    let mute = timeout(LIMIT, until_known).await.unwrap();
    let before = counted(&public, "Slow").await;
    let endpoint = deaf();
    let half_open = endpoint
        .connect_with(config(&stranger()), port, "skupper-router")
        .unwrap();
    dribble(port).await;
    assert!(mute.closed().await.contains("did not say hello in time"));
    let all = async {
        while counted(&public, "Slow").await < before + 3 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, all)
        .await
        .expect("the slow handshakes and the slow hello are counted");
    let told = |words: &'static str| {
        move |status: &karez_router_config::api::Status| {
            status
                .refusals
                .iter()
                .any(|refusal| refusal.reason.contains(words))
        }
    };
    public
        .until("the slow handshake", told("the handshake took too long"))
        .await;
    public
        .until("the slow hello", told("did not say hello in time"))
        .await;
    carries(&edge).await;
    drop(half_open);
}
