//! A link of several connections, of which one is lost: what the others carry goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use karez_router_config::api::{LinkState, LinkStatus};
use karez_router_config::{Mode, Transport};
use support::{LIMIT, Site, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// No flow.
const NONE: usize = usize::MAX;

/// A network in front of a port. Of the flows through it, in the order of their first packets, one may be cut.
struct Relay {
    address: SocketAddr,
    cut: Arc<AtomicUsize>,
}

impl Relay {
    async fn start(towards: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let relay = Self {
            address: socket.local_addr().unwrap(),
            cut: Arc::new(AtomicUsize::new(NONE)),
        };
        let cut = relay.cut.clone();
        tokio::spawn(async move {
            let mut flows: HashMap<SocketAddr, (usize, Arc<UdpSocket>)> = HashMap::new();
            let mut packet = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                if !flows.contains_key(&from) {
                    let number = flows.len();
                    let beyond = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    beyond.connect(towards).await.unwrap();
                    tokio::spawn(back(beyond.clone(), socket.clone(), from, number, cut.clone()));
                    flows.insert(from, (number, beyond));
                }
                let (number, beyond) = &flows[&from];
                if cut.load(Ordering::Relaxed) != *number {
                    // What is lost here is sent again.
                    let _ = beyond.send(&packet[..length]).await;
                }
            }
        });
        relay
    }
}

async fn back(
    from: Arc<UdpSocket>,
    through: Arc<UdpSocket>,
    to: SocketAddr,
    number: usize,
    cut: Arc<AtomicUsize>,
) {
    let mut packet = vec![0; 65_536];
    while let Ok(length) = from.recv(&mut packet).await {
        if cut.load(Ordering::Relaxed) != number {
            let _ = through.send_to(&packet[..length], to).await;
        }
    }
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0];
    let exchange = async {
        stream.write_all(b"?").await?;
        stream.read_exact(&mut back).await
    };
    timeout(LIMIT, exchange)
        .await
        .expect("an answer or an end")
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_connections_carry_outlives_the_loss_of_the_first() {
    let mut public = Site::public();
    public.serve(echo().await);
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let relay = Relay::start(public.port().await).await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.listen();
    edge.link_to(relay.address, &token);
    edge.document.links[0].transport = Transport::Quic;
    edge.document.links[0].connections = Some(3);
    edge.start().await;
    let whole = |link: &LinkStatus| {
        let connections = link.carries.as_ref().map(|carries| carries.transport_connections);
        link.state == LinkState::Active && connections == Some(3)
    };
    let since = edge.link("three connections", whole).await.since;
    let listener = edge.listener().await;
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(listener).await.unwrap();
        assert!(echoes(&mut stream).await);
        open.push(stream);
    }

    relay.cut.store(0, Ordering::Relaxed);
    edge.link("the loss", |link| link.state != LinkState::Active)
        .await;
    relay.cut.store(NONE, Ordering::Relaxed);
    let anew = |link: &LinkStatus| whole(link) && link.since != since;
    edge.link("the link anew", anew).await;
    let mut survived = 0;
    for stream in &mut open {
        survived += u32::from(echoes(stream).await);
    }
    assert_eq!(survived, 4, "two were on the connection that was lost");
    let mut stream = TcpStream::connect(edge.listener().await).await.unwrap();
    assert!(echoes(&mut stream).await);

    // Whose token is revoked has nothing left, wherever it is carried.
    public.document.tokens.clear();
    public.write();
    for stream in &mut open {
        let mut rest = Vec::new();
        // Ended or reset.
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest))
            .await
            .expect("an end");
    }
}
