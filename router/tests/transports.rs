//! Which transport carries a link, and how it is reached: over UDP or not, through a proxy, behind an ingress.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use karez_router_config::api::{LinkState, LinkStatus};
use karez_router_config::{Mode, Transport};
use support::{LIMIT, Site, ask, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

/// A public site and an edge that is to link to it; what is between them is up to the test.
async fn sites(accepts: Transport) -> (Site, Site, karez_identity::Credential) {
    let mut public = Site::public();
    public.serve(echo().await);
    public.document.accept[0].transport = accepts;
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.listen();
    (public, edge, token)
}

fn over(transport: &'static str) -> impl Fn(&LinkStatus) -> bool {
    move |link| link.state == LinkState::Active && link.transport.as_deref() == Some(transport)
}

async fn carries(edge: &Site) {
    let mut client = TcpStream::connect(edge.listener().await).await.unwrap();
    assert_eq!(ask(&mut client, b"there and back").await, b"there and back");
}

#[tokio::test]
async fn quic_has_a_head_start_and_each_transport_can_be_forced() {
    for (transport, expected) in [
        (Transport::Auto, "quic"),
        (Transport::Quic, "quic"),
        (Transport::Tls, "tls"),
    ] {
        let (mut public, mut edge, token) = sites(Transport::Auto).await;
        edge.link_to(public.port().await, &token);
        edge.document.links[0].transport = transport;
        edge.start().await;
        edge.link("a link over the transport", over(expected)).await;
        carries(&edge).await;
        public.link("the same at the peer", over(expected)).await;
        edge.stop().await;
        public.stop().await;
    }
}

#[tokio::test]
async fn a_link_comes_up_over_tls_where_udp_is_blocked() {
    let (mut public, mut edge, token) = sites(Transport::Tls).await;
    edge.link_to(public.port().await, &token);
    edge.start().await;
    edge.link("a link over TLS", over("tls")).await;
    carries(&edge).await;
    edge.stop().await;
    public.stop().await;
}

#[tokio::test]
async fn a_forced_transport_that_nobody_takes_says_so() {
    let (mut public, mut edge, token) = sites(Transport::Quic).await;
    edge.link_to(public.port().await, &token);
    edge.document.links[0].transport = Transport::Tls;
    edge.start().await;
    let down = |link: &LinkStatus| link.state == LinkState::Down && link.error.is_some();
    let link = edge.link("a link that is down", down).await;
    assert!(link.error.unwrap().contains("cannot connect to 127.0.0.1"));
    edge.stop().await;
    public.stop().await;
}

/// Relays TCP from a port of its own.
async fn relay_tcp(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

/// Relays UDP from a port, for one client.
async fn relay_udp(from: SocketAddr, to: SocketAddr) {
    let near = UdpSocket::bind(from).await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(to).await.unwrap();
    tokio::spawn(async move {
        let mut client = None;
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut there) => {
                    client = Some(from);
                    let _ = far.send(&there[..length]).await;
                }
                Ok(length) = far.recv(&mut back) => {
                    if let Some(client) = client {
                        let _ = near.send_to(&back[..length], client).await;
                    }
                }
            }
        }
    });
}

#[tokio::test]
async fn a_link_moves_to_quic_when_udp_works_again_and_what_it_carries_stays() {
    let (mut public, mut edge, token) = sites(Transport::Auto).await;
    let peer = public.port().await;
    let front = relay_tcp(peer).await;
    edge.link_to(front, &token);
    edge.start().await;
    edge.link("a link over TLS", over("tls")).await;
    let mut carried = TcpStream::connect(edge.listener().await).await.unwrap();
    let mut answer = [0; 5];
    carried.write_all(b"first").await.unwrap();
    carried.read_exact(&mut answer).await.unwrap();

    relay_udp(front, peer).await;
    edge.link("the link over QUIC", over("quic")).await;
    assert_eq!(ask(&mut carried, b"still there").await, b"still there");
    carries(&edge).await;
    let one =
        |status: &karez_router_config::api::Status| status.links.len() == 1 && over("quic")(&status.links[0]);
    public.until("what was left is closed", one).await;
    edge.stop().await;
    public.stop().await;
}

/// An HTTP proxy that demands credentials; what it was asked for.
async fn proxy(credentials: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = near.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                log.lock().unwrap().push(target.clone());
                if !head.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n")) {
                    let _ = near
                        .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                        .await;
                    return;
                }
                let mut far = TcpStream::connect(target).await.unwrap();
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_link_passes_an_http_proxy_with_credentials() {
    // user:secret
    let (proxy, asked) = proxy("dXNlcjpzZWNyZXQ=").await;
    let (mut public, mut edge, token) = sites(Transport::Tls).await;
    let peer = public.port().await;
    edge.link_to(peer, &token);
    edge.document.links[0].proxy = Some(format!("http://user:wrong@{proxy}"));
    edge.start().await;
    let refused = |link: &LinkStatus| link.error.as_ref().is_some_and(|error| error.contains("407"));
    let error = edge.link("a proxy that refuses", refused).await.error.unwrap();
    assert!(!error.contains("wrong"), "{error}");

    edge.document.links[0].proxy = Some(format!("http://user:secret@{proxy}"));
    edge.write();
    edge.link("a link through the proxy", over("tls")).await;
    carries(&edge).await;
    assert_eq!(asked.lock().unwrap().last(), Some(&peer.to_string()));
    edge.stop().await;
    public.stop().await;
}

/// An ingress that passes TLS through by the server name of its first record; others are turned away.
async fn ingress(name: &'static str, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut hello = vec![0; 16 * 1024];
                let length = near.peek(&mut hello).await.unwrap();
                let named = hello[..length]
                    .windows(name.len())
                    .any(|part| part == name.as_bytes());
                if named {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_link_passes_an_ingress_that_goes_by_the_server_name() {
    let (mut public, mut edge, token) = sites(Transport::Tls).await;
    let ingress = ingress("hub.example.com", public.port().await).await;
    edge.link_to(ingress, &token);
    edge.document.links[0].server_name = Some("hub.example.com".into());
    edge.start().await;
    edge.link("a link through the ingress", over("tls")).await;
    carries(&edge).await;
    edge.stop().await;
    public.stop().await;
}

#[tokio::test]
async fn connections_made_while_a_link_moves_are_all_carried() {
    let (mut public, mut edge, token) = sites(Transport::Auto).await;
    let peer = public.port().await;
    let front = relay_tcp(peer).await;
    edge.link_to(front, &token);
    edge.start().await;
    edge.link("a link over TLS", over("tls")).await;
    let listener = edge.listener().await;
    relay_udp(front, peer).await;
    {
        let moved = edge.link("the link over QUIC", over("quic"));
        tokio::pin!(moved);
        let asking = async {
            loop {
                tokio::select! {
                    _ = &mut moved => return,
                    answer = async {
                        let mut client = TcpStream::connect(listener).await.unwrap();
                        ask(&mut client, b"now").await
                    } => assert_eq!(answer, b"now"),
                }
            }
        };
        timeout(LIMIT, asking).await.expect("moves in time");
    }
    edge.stop().await;
    public.stop().await;
}

/// Relays UDP from a port of its own, for many clients; says how many there are.
async fn relay_many(to: SocketAddr) -> (SocketAddr, tokio::sync::watch::Receiver<usize>) {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = near.local_addr().unwrap();
    let (count, counted) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        let mut clients: std::collections::HashMap<SocketAddr, Arc<UdpSocket>> = Default::default();
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = near.recv_from(&mut datagram).await {
            let known = clients.len();
            if let std::collections::hash_map::Entry::Vacant(new) = clients.entry(from) {
                let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                far.connect(to).await.unwrap();
                new.insert(far.clone());
                count.send_replace(known + 1);
                let near = near.clone();
                tokio::spawn(async move {
                    let mut datagram = vec![0; 65_536];
                    while let Ok(length) = far.recv(&mut datagram).await {
                        let _ = near.send_to(&datagram[..length], from).await;
                    }
                });
            }
            let _ = clients[&from].send(&datagram[..length]).await;
        }
    });
    (address, counted)
}

#[tokio::test]
async fn a_link_has_as_many_connections_as_wanted_each_on_a_socket_of_its_own() {
    let (mut public, mut edge, token) = sites(Transport::Quic).await;
    let (front, mut clients) = relay_many(public.port().await).await;
    edge.link_to(front, &token);
    edge.document.links[0].transport = Transport::Quic;
    edge.document.links[0].connections = Some(3);
    edge.start().await;
    let three = |link: &LinkStatus| {
        link.carries
            .as_ref()
            .is_some_and(|carries| carries.transport_connections == 3)
    };
    edge.link("a link of three connections", three).await;
    public.link("the same at the peer", three).await;
    assert_eq!(*clients.borrow_and_update(), 3);
    for _ in 0..7 {
        carries(&edge).await;
    }
    edge.stop().await;
    public.stop().await;
}
