//! Several routers between a client and its target: lines, diamonds, and routers that die or leave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use karez_identity::{Authority, Credential, SealScope};
use karez_router_config::api::{LinkState, Status};
use karez_router_config::{AcceptSection, LinkSection, Mode, PeersSection, Role, SealSection, Transport};
use support::{LIMIT, Site, ask, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A site that takes links of both kinds.
fn interior(name: &str) -> Site {
    let mut site = Site::new(name, Mode::Interior);
    let server = site.issue("skupper-router", &["skupper-router"], Timestamp::now());
    site.profile("skupper-internal", &server);
    for role in [Role::InterRouter, Role::Edge] {
        site.document.accept.push(AcceptSection {
            name: role.as_str().into(),
            role,
            host: "127.0.0.1".into(),
            port: 0,
            tls: "skupper-internal".into(),
            ..AcceptSection::default()
        });
    }
    site
}

/// Where a site takes links of a kind.
async fn port(site: &Site, role: Role) -> SocketAddr {
    let find = |status: &Status| {
        let accept = status
            .accepts
            .iter()
            .find(|accept| accept.name == role.as_str())?;
        accept.addresses.first()?.parse().ok()
    };
    let status = site.until("a bound port", |status| find(status).is_some()).await;
    find(&status).unwrap()
}

/// A link from one site to another, by a token of the latter.
fn link(from: &mut Site, name: &str, role: Role, to: SocketAddr, token: &Credential, cost: u32) {
    let profile = format!("{name}-profile");
    from.profile(&profile, token);
    from.document.links.push(LinkSection {
        name: name.into(),
        role,
        host: to.ip().to_string(),
        port: to.port(),
        cost,
        tls: profile,
        ..LinkSection::default()
    });
}

/// `client` and `server` are edges, at the ends of a line of two interior sites.
struct Line {
    client: Site,
    near: Site,
    far: Site,
    server: Site,
}

async fn line(target: SocketAddr) -> Line {
    line_of(target, Transport::Auto, |_, _| ()).await
}

/// All links over one transport; the edges are changed before they start.
async fn line_of(
    target: SocketAddr,
    transport: Transport,
    change: impl FnOnce(&mut Site, &mut Site),
) -> Line {
    let (mut near, mut far) = (interior("near"), interior("far"));
    let now = Timestamp::now();
    let (for_near, for_client, for_server) = (
        far.token("near", now),
        near.token("client", now),
        far.token("server", now),
    );
    far.start().await;
    link(
        &mut near,
        "to-far",
        Role::InterRouter,
        port(&far, Role::InterRouter).await,
        &for_near,
        3,
    );
    near.document.links[0].transport = transport;
    near.start().await;
    let (mut client, mut server) = (Site::new("client", Mode::Edge), Site::new("server", Mode::Edge));
    link(
        &mut client,
        "up",
        Role::Edge,
        port(&near, Role::Edge).await,
        &for_client,
        1,
    );
    link(
        &mut server,
        "up",
        Role::Edge,
        port(&far, Role::Edge).await,
        &for_server,
        1,
    );
    client.listen();
    server.serve(target);
    for edge in [&mut client, &mut server] {
        edge.document.links[0].transport = transport;
    }
    change(&mut client, &mut server);
    client.start().await;
    server.start().await;
    Line {
        client,
        near,
        far,
        server,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_routers_carries_from_edge_to_edge() {
    let Line {
        client,
        near,
        far,
        mut server,
    } = line(echo().await).await;
    let listener = client.listener().await;
    let big: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut first = TcpStream::connect(listener).await.unwrap();
    assert!(ask(&mut first, &big).await == big);
    let mut second = TcpStream::connect(listener).await.unwrap();
    assert_eq!(ask(&mut second, b"half-closed").await, b"half-closed");

    let sites = |status: &Status| {
        let mut names: Vec<_> = status.sites.iter().map(|site| site.name.clone()).collect();
        names.sort();
        names
    };
    let all = ["client", "far", "near", "server"];
    for site in [&near, &far] {
        let status = site.until("all sites", |status| sites(status) == all).await;
        let named = |name: &str| {
            status
                .sites
                .iter()
                .find(|site| site.name == name)
                .unwrap()
                .clone()
        };
        assert_eq!(named("near").links, ["id-far"]);
        assert_eq!(named("client").links, ["id-near"]);
        assert_eq!(named("server").services[0].address, "echo");
        assert_eq!(named("server").mode, Mode::Edge);
    }
    // An edge knows itself, where it is linked to, and who offers something.
    client
        .until("the service's site", |status| {
            sites(status) == ["client", "near", "server"]
        })
        .await;
    server.stop().await;
    client
        .until("unreachable", |status| status.listeners[0].state == "unreachable")
        .await;
}

/// Gives a site a certificate that says what it may serve and reach.
fn seal(site: &mut Site, authority: &Authority, serve: &[&str], reach: &[&str]) {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    let scope = SealScope {
        serve: owned(serve),
        reach: owned(reach),
    };
    let lifetime = Duration::from_secs(3600);
    let issued = authority.issue_seal(&site.document.site.name, &scope, lifetime, Timestamp::now());
    site.profile("seal", &issued.unwrap());
    site.document.seal = Some(SealSection { tls: "seal".into() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_service_is_reached_through_several_routers_over_each_transport() {
    let day = Duration::from_secs(86_400);
    for transport in [Transport::Quic, Transport::Tls] {
        let authority = Authority::new("seal", Timestamp::now(), day).unwrap();
        let line = line_of(echo().await, transport, |client, server| {
            seal(client, &authority, &[], &["echo"]);
            seal(server, &authority, &["echo"], &[]);
            server.document.connectors[0].sealed = true;
            server.document.services[0].sealed = true;
        });
        let line = line.await;
        let sealed = |status: &Status| {
            let listener = status.listeners.first();
            let sealed = listener.and_then(|listener| listener.sealed.as_ref());
            sealed.is_some_and(|sealed| sealed.error.is_none())
                && listener.is_some_and(|listener| listener.state == "listening")
        };
        line.client.until("a sealed way", sealed).await;
        let listener = line.client.listener().await;
        let big: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut stream = TcpStream::connect(listener).await.unwrap();
        assert!(ask(&mut stream, &big).await == big, "{transport:?}");
        let mut half = TcpStream::connect(listener).await.unwrap();
        assert_eq!(ask(&mut half, b"half-closed").await, b"half-closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_a_sealed_service_is_not_reached_over_several_hops() {
    let authority = Authority::new("seal", Timestamp::now(), Duration::from_secs(86_400)).unwrap();
    let line = line_of(echo().await, Transport::Auto, |_, server| {
        seal(server, &authority, &["echo"], &[]);
        server.document.connectors[0].sealed = true;
        server.document.services[0].sealed = true;
    });
    let line = line.await;
    let refused = |status: &Status| {
        let listener = status.listeners.first();
        let sealed = listener.and_then(|listener| listener.sealed.as_ref());
        sealed.is_some_and(|sealed| sealed.error.is_some())
    };
    line.client.until("why it cannot be sealed", refused).await;
    let ended = async {
        // It may be reset before it was seen to be there.
        let mut stream = TcpStream::connect(line.client.listener().await).await?;
        stream.write_all(b"in plain").await?;
        stream.read(&mut [0]).await
    };
    let ended = timeout(LIMIT, ended).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_and_a_refusal_come_back_through_all_routers() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let Line {
        client,
        near: _near,
        far: _far,
        server,
    } = line(target.local_addr().unwrap()).await;
    let listener = client.listener().await;
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let (mut served, _) = timeout(LIMIT, target.accept()).await.unwrap().unwrap();
    served.read_exact(&mut [0]).await.unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    let ended = timeout(LIMIT, stream.read(&mut [0])).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

    drop(target);
    let refused = async {
        // It may be reset before it was seen to be there.
        TcpStream::connect(listener).await?.read(&mut [0]).await
    };
    let ended = timeout(LIMIT, refused).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    server
        .until("an error", |status| status.connectors[0].error.is_some())
        .await;
}

/// A runtime of its own for a router that is to die without a farewell.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Two edges that both hold links to the same two interior sites.
struct Diamond {
    client: Site,
    server: Site,
}

async fn diamond(
    left: &mut Site,
    right: &mut Site,
    ports: [SocketAddr; 2],
    tokens: &[Credential; 4],
) -> Diamond {
    let (mut client, mut server) = (Site::new("client", Mode::Edge), Site::new("server", Mode::Edge));
    for (edge, tokens) in [(&mut client, &tokens[..2]), (&mut server, &tokens[2..])] {
        link(edge, "left", Role::Edge, ports[0], &tokens[0], 1);
        link(edge, "right", Role::Edge, ports[1], &tokens[1], 1);
    }
    client.listen();
    server.serve(echo().await);
    client.start().await;
    server.start().await;
    let both = |status: &Status| {
        status.links.len() == 2 && status.links.iter().all(|link| link.state == LinkState::Active)
    };
    client.until("two links", both).await;
    server.until("two links", both).await;
    let linked = |status: &Status| status.links.len() == 2;
    left.until("both edges", linked).await;
    right.until("both edges", linked).await;
    client.listener().await;
    Diamond { client, server }
}

/// Opens connections for a while, several at once; gives how many were answered and the longest wait.
async fn keep_asking(listener: SocketAddr, end: tokio_util::sync::CancellationToken) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !end.is_cancelled() {
        let started = Instant::now();
        let round = (0..4).map(|_| async move {
            let mut stream = TcpStream::connect(listener).await.unwrap();
            assert_eq!(ask(&mut stream, b"hello").await, b"hello");
        });
        let mut asking = tokio::task::JoinSet::new();
        round.for_each(|one| drop(asking.spawn(one)));
        while let Some(asked) = asking.join_next().await {
            asked.expect("no connection fails");
            count += 1;
        }
        longest = longest.max(started.elapsed());
    }
    (count, longest)
}

#[test]
fn no_new_connection_fails_when_a_router_dies_or_leaves() {
    let (mut left, mut right) = (interior("left"), interior("right"));
    let now = Timestamp::now();
    let tokens = [
        left.token("client", now),
        right.token("client", now),
        left.token("server", now),
        right.token("server", now),
    ];
    let (own, doomed) = (runtime(), runtime());
    doomed.block_on(left.start());
    own.block_on(right.start());
    let ports = [
        doomed.block_on(port(&left, Role::Edge)),
        own.block_on(port(&right, Role::Edge)),
    ];
    let Diamond { client, server } = own.block_on(diamond(&mut left, &mut right, ports, &tokens));
    let listener = own.block_on(client.listener());
    let end = tokio_util::sync::CancellationToken::new();
    let asking = own.spawn(keep_asking(listener, end.clone()));

    // Killed: it says nothing to anyone.
    doomed.shutdown_background();
    let gone = |status: &Status| {
        let left = status.links.iter().find(|link| link.name == "left");
        left.is_some_and(|link| link.state != LinkState::Active)
    };
    let noticed = Instant::now();
    own.block_on(client.until("the dead router noticed", gone));
    own.block_on(server.until("the dead router noticed", gone));
    println!("noticed after {:?}", noticed.elapsed());

    // Back again, then told to stop: it says farewell.
    left.document.accept[1].port = ports[0].port();
    own.block_on(left.start());
    let back = |status: &Status| status.links.iter().all(|link| link.state == LinkState::Active);
    own.block_on(client.until("back", back));
    own.block_on(server.until("back", back));
    own.block_on(left.stop());
    own.block_on(client.until("left", gone));
    end.cancel();
    let (count, longest) = own.block_on(asking).expect("no connection fails");
    println!("{count} connections, the slowest took {longest:?}");
    assert!(count > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routers_of_a_site_link_to_each_other_and_are_one_site() {
    let (mut one, mut two) = (interior("public"), interior("public"));
    one.document.router.id = Some("public-1".into());
    two.document.router.id = Some("public-2".into());
    let now = Timestamp::now();
    let (peer, for_client, for_server) = (
        one.token("peer", now),
        one.token("client", now),
        two.token("server", now),
    );
    one.start().await;
    link(
        &mut two,
        "peer",
        Role::InterRouter,
        port(&one, Role::InterRouter).await,
        &peer,
        1,
    );
    two.start().await;
    let (mut client, mut server) = (Site::new("client", Mode::Edge), Site::new("server", Mode::Edge));
    link(
        &mut client,
        "up",
        Role::Edge,
        port(&one, Role::Edge).await,
        &for_client,
        1,
    );
    link(
        &mut server,
        "up",
        Role::Edge,
        port(&two, Role::Edge).await,
        &for_server,
        1,
    );
    client.listen();
    server.serve(echo().await);
    client.start().await;
    server.start().await;
    let mut stream = TcpStream::connect(client.listener().await).await.unwrap();
    assert_eq!(ask(&mut stream, b"hello").await, b"hello");
    let status = one.until("three sites", |status| status.sites.len() == 3).await;
    assert_eq!(status.sites[0].name, "public");
    assert!(
        status.sites[0].links.is_empty(),
        "no link to itself: {:?}",
        status.sites[0]
    );
    let status = client.status();
    assert_eq!(status.links[0].peer.as_ref().unwrap().site_name, "public");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routers_of_a_site_find_each_other_by_name_and_certificate() {
    let (mut one, mut two) = (interior("public"), interior("public"));
    // Both have the site's own certificate, and no token.
    let server = one.issue("skupper-router", &["skupper-router"], Timestamp::now());
    for (site, pod) in [(&mut one, [127, 83, 45, 2]), (&mut two, [127, 83, 45, 3])] {
        support::write_profile(&site.folder.path().join("skupper-internal"), &server);
        site.net = karez_net::Net::builder().pod_address(pod.into()).build();
        site.document.router.id = Some(format!("public-{}", pod[3]));
        for accept in &mut site.document.accept {
            accept.host = "0.0.0.0".into();
        }
    }
    two.document.router.peers = Some(PeersSection {
        host: "127.83.45.3".into(),
        port: 1,
        tls: "skupper-internal".into(),
    });
    two.start().await;
    let at = port(&two, Role::InterRouter).await;
    one.document.router.peers = Some(PeersSection {
        host: at.ip().to_string(),
        port: at.port(),
        tls: "skupper-internal".into(),
    });
    one.serve(echo().await);
    one.start().await;
    two.listen();
    two.write();
    let mut stream = TcpStream::connect(two.listener().await).await.unwrap();
    assert_eq!(ask(&mut stream, b"hello").await, b"hello");

    // Without the setting the certificate alone opens nothing.
    two.document.router.peers = None;
    two.write();
    one.stop().await;
    one.start().await;
    one.until("started", |status| status.site.is_some()).await;
    let refused = |status: &Status| status.listeners[0].state == "unreachable";
    two.until("no peer", refused).await;
}
