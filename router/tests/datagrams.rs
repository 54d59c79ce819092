//! Services of protocol UDP, with real sockets on loopback: what clients send arrives, or is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use karez_router_config::{
    AdminSection, ConnectorSection, ListenerSection, Mode, Protocol, ServiceSection, TargetSection,
};
use support::{LIMIT, Site, ask, echo, metric};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Duration, Instant, timeout};

/// A target that answers every datagram with itself.
async fn mirror() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    address
}

/// A target that only listens, as those of statsd, syslog and Jaeger's compact protocol do; counts what comes.
async fn sink() -> (SocketAddr, Arc<AtomicU64>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (socket.local_addr().unwrap(), Arc::<AtomicU64>::default());
    let counted = count.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while socket.recv_from(&mut buffer).await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, count)
}

fn serve(site: &mut Site, name: &str, port: u16, target: SocketAddr) {
    site.document.services.push(ServiceSection {
        address: name.into(),
        protocol: "udp".into(),
        ports: vec![port],
        origin: String::new(),
        targets: vec![TargetSection { name: name.into() }],
        ..ServiceSection::default()
    });
    site.document.connectors.push(ConnectorSection {
        name: format!("{name}-target"),
        address: format!("{name}:{port}"),
        host: target.ip().to_string(),
        port: target.port(),
        target: name.into(),
        protocol: Protocol::Udp,
        ..ConnectorSection::default()
    });
}

fn listen(site: &mut Site, address: &str) {
    site.document.listeners.push(ListenerSection {
        name: format!("{address}/udp"),
        address: address.into(),
        host: "127.0.0.1".into(),
        port: 0,
        protocol: Protocol::Udp,
        ..ListenerSection::default()
    });
    site.document.admin = Some(AdminSection {
        host: "127.0.0.1".into(),
        port: 0,
    });
}

/// Where the listener of this address is, once it can be reached.
async fn place(site: &Site, address: &str) -> SocketAddr {
    let name = format!("{address}/udp");
    let found = |status: &karez_router_config::api::Status| {
        let listener = status.listeners.iter().find(|listener| listener.name == name);
        listener.filter(|listener| listener.state == "listening").cloned()
    };
    let status = site.until("a listener", |status| found(status).is_some()).await;
    let listener = found(&status).unwrap();
    SocketAddr::new(listener.host.parse().unwrap(), listener.port)
}

/// A public site that serves the address with a target, and an edge that offers it.
async fn pair(address: &str, target: SocketAddr) -> (Site, Site, SocketAddr) {
    let (name, port) = address.split_once(':').unwrap();
    let mut public = Site::public();
    serve(&mut public, name, port.parse().unwrap(), target);
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, &token);
    listen(&mut edge, address);
    edge.start().await;
    let place = place(&edge, address).await;
    (public, edge, place)
}

async fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn answer(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = timeout(LIMIT, socket.recv(&mut buffer))
        .await
        .expect("an answer")
        .unwrap();
    buffer.truncate(length);
    buffer
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_every_size_come_back_to_the_client_that_sent_them() {
    let (_public, edge, place) = pair("dns:53", mirror().await).await;
    let clients = [client(place).await, client(place).await, client(place).await];
    for (index, size) in [0, 1, 512, 1_200, 1_473, 9_000, 65_507].into_iter().enumerate() {
        for (mark, client) in (0u8..).zip(&clients) {
            let sent = vec![mark * 16 + u8::try_from(index).unwrap(); size];
            client.send(&sent).await.unwrap();
            assert!(answer(client).await == sent, "{size} bytes");
        }
    }
    edge.until("three sessions", |status| status.listeners[0].connections == 3)
        .await;
    assert!(metric(&edge, "karez_router_udp_sessions_open", "").await >= 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_datagrams_arrive_or_are_counted() {
    let (target, arrived) = sink().await;
    let (public, edge, place) = pair("statsd:8125", target).await;
    let clients: Vec<_> = [client(place).await, client(place).await].into();
    let total = 6_000u64;
    for number in 0..total / 2 {
        for client in &clients {
            client
                .send(format!("requests:{number}|c").as_bytes())
                .await
                .unwrap();
        }
        if number % 25 == 0 {
            // What the kernel drops before the target reads it is nobody's count.
            let keeps_up = async {
                while arrived.load(Ordering::Relaxed) + 50 < 2 * number {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let _ = timeout(Duration::from_secs(1), keeps_up).await;
        }
    }
    eventually("all are accounted for", async || {
        let here = metric(&edge, "karez_router_udp_dropped_total", "").await;
        let there = metric(&public, "karez_router_udp_dropped_total", "").await;
        arrived.load(Ordering::Relaxed) as f64 + here + there == total as f64
    })
    .await;
    let arrived = arrived.load(Ordering::Relaxed);
    assert!(arrived > total / 2, "{arrived} of {total}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_bounded_and_the_idle_ones_go_first() {
    let mut site = Site::public();
    serve(&mut site, "syslog", 514, mirror().await);
    listen(&mut site, "syslog:514");
    site.document.listeners[0].max_connections = Some(2);
    site.start().await;
    let place = place(&site, "syslog:514").await;
    let mut all = Vec::new();
    for _ in 0..4 {
        let client = client(place).await;
        client.send(b"<14>hello").await.unwrap();
        answer(&client).await;
        all.push(client);
    }
    site.until("two sessions", |status| status.listeners[0].connections == 2)
        .await;
    eventually("two were evicted", async || {
        metric(&site, "karez_router_udp_sessions_evicted_total", "").await >= 2.0
    })
    .await;
    all[0].send(b"again").await.unwrap();
    assert_eq!(
        answer(&all[0]).await,
        b"again",
        "an evicted client gets a new session"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_ends_at_both_sites() {
    let mut public = Site::public();
    serve(&mut public, "dns", 53, mirror().await);
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, &token);
    listen(&mut edge, "dns:53");
    edge.document.listeners[0].idle_seconds = Some(1);
    edge.start().await;
    let place = place(&edge, "dns:53").await;
    let client = client(place).await;
    client.send(b"?").await.unwrap();
    answer(&client).await;
    public
        .until("its end", |status| status.connectors[0].connections == 0)
        .await;
    edge.until("its end", |status| status.listeners[0].connections == 0)
        .await;
    client.send(b"??").await.unwrap();
    assert_eq!(answer(&client).await, b"??");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_and_udp_share_a_name_and_a_number() {
    let mut site = Site::public();
    site.serve(echo().await);
    serve(&mut site, "other", 1, mirror().await);
    site.document.connectors[1].address = support::ADDRESS.into();
    site.listen();
    site.document.listeners[0].port = free().await;
    let same = ListenerSection {
        name: "udp".into(),
        protocol: Protocol::Udp,
        ..site.document.listeners[0].clone()
    };
    site.document.listeners.push(same);
    site.start().await;
    let both = |status: &karez_router_config::api::Status| {
        let listening = status
            .listeners
            .iter()
            .filter(|listener| listener.state == "listening");
        listening.count() == 2
    };
    site.until("both", both).await;
    let place: SocketAddr = ([127, 0, 0, 1], site.document.listeners[0].port).into();
    let mut stream = TcpStream::connect(place).await.unwrap();
    assert_eq!(ask(&mut stream, b"stream").await, b"stream");
    let client = client(place).await;
    client.send(b"datagram").await.unwrap();
    assert_eq!(answer(&client).await, b"datagram");
}

/// A port that was free a moment ago, for both protocols.
async fn free() -> u16 {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        if tokio::net::TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_move_to_a_new_target_and_without_one_drops_are_counted() {
    let (first, second) = (sink().await, sink().await);
    let (mut public, edge, place) = pair("jaeger:6831", first.0).await;
    let client = client(place).await;
    eventually("the first target gets datagrams", async || {
        client.send(b"compact").await.unwrap();
        first.1.load(Ordering::Relaxed) > 0
    })
    .await;
    public.document.connectors[0].port = second.0.port();
    public.write();
    eventually("the second target gets datagrams", async || {
        client.send(b"compact").await.unwrap();
        second.1.load(Ordering::Relaxed) > 0
    })
    .await;
    public.document.connectors.clear();
    public.write();
    edge.until("unreachable", |status| status.listeners[0].state == "unreachable")
        .await;
    eventually("drops are counted", async || {
        client.send(b"compact").await.unwrap();
        metric(&edge, "karez_router_udp_dropped_total", "NoRoute").await > 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_each_get_their_own_answer() {
    let (_public, _edge, place) = pair("dns:53", mirror().await).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..200u32 {
        asking.spawn(async move {
            let client = client(place).await;
            let question = number.to_be_bytes();
            // As a resolver does: asks again when nothing comes.
            for _ in 0..20 {
                client.send(&question).await.unwrap();
                let mut buffer = [0; 16];
                if let Ok(length) = timeout(Duration::from_secs(3), client.recv(&mut buffer)).await {
                    assert_eq!(&buffer[..length.unwrap()], question);
                    return number;
                }
            }
            panic!("no answer for {number}");
        });
    }
    let answered: HashSet<u32> = asking.join_all().await.into_iter().collect();
    assert_eq!(answered.len(), 200);
}
