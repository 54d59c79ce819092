//! Datagrams over every kind of way: a link of TLS, and an interior site between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;

use jiff::Timestamp;
use karez_router_config::{
    AcceptSection, AdminSection, ConnectorSection, ListenerSection, Mode, Protocol, Role, ServiceSection,
    TargetSection, Transport,
};
use support::{Site, metric};
use tokio::net::UdpSocket;
use tokio::time::{Duration, timeout};

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

/// Sends datagrams of several sizes and expects each to come back.
async fn come_back(place: SocketAddr) {
    let client = client(place).await;
    for size in [1, 800, 20_000, 65_507] {
        let sent = vec![7; size];
        let mut came = false;
        // A datagram may be lost on its way: then it is sent again.
        for _ in 0..20 {
            client.send(&sent).await.unwrap();
            let mut buffer = vec![0; 65_535];
            if let Ok(length) = timeout(Duration::from_secs(3), client.recv(&mut buffer)).await {
                came = buffer[..length.unwrap()] == sent;
                break;
            }
        }
        assert!(came, "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_all_datagrams_are_framed() {
    let (_public, mut edge, place) = pair("dns:53", mirror().await).await;
    edge.document.links[0].transport = Transport::Tls;
    edge.write();
    edge.link("tls", |link| link.transport.as_deref() == Some("tls"))
        .await;
    come_back(place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interior_site_between_hands_datagrams_on() {
    let mut hub = Site::public();
    hub.document.accept.push(AcceptSection {
        name: "inter-router".into(),
        role: Role::InterRouter,
        host: "127.0.0.1".into(),
        port: 0,
        tls: "skupper-internal".into(),
        ..hub.document.accept[0].clone()
    });
    let (far_token, edge_token) = (
        hub.token("far", Timestamp::now()),
        hub.token("edge", Timestamp::now()),
    );
    hub.start().await;
    let bound = |status: &karez_router_config::api::Status| {
        status.accepts.len() == 2 && status.accepts.iter().all(|accept| !accept.addresses.is_empty())
    };
    let status = hub.until("both ports", bound).await;
    let port = |name: &str| -> SocketAddr {
        let accept = status.accepts.iter().find(|accept| accept.name == name);
        accept.unwrap().addresses[0].parse().unwrap()
    };
    let mut far = Site::new("far", Mode::Interior);
    serve(&mut far, "dns", 53, mirror().await);
    far.link_to(port("inter-router"), &far_token);
    far.document.links[0].role = Role::InterRouter;
    far.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(port("edge"), &edge_token);
    listen(&mut edge, "dns:53");
    edge.start().await;
    come_back(place(&edge, "dns:53").await).await;
    assert!(metric(&hub, "karez_router_udp_datagrams_total", "").await >= 8.0);
}
