//! Which target takes a connection: saturated, failed, removed and bounded ones, with real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use karez_router_config::api::Status;
use karez_router_config::{ConnectorSection, Mode};
use support::{ADDRESS, LIMIT, Site, ask, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A target that says its name, then echoes.
async fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(says(listener, name));
    address
}

async fn says(listener: TcpListener, name: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            stream.write_all(name.as_bytes()).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        });
    }
}

/// A connection, and the one letter that its target said.
async fn connect(listener: SocketAddr) -> (TcpStream, char) {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    let mut name = [0];
    timeout(LIMIT, stream.read_exact(&mut name))
        .await
        .expect("a target answers")
        .unwrap();
    (stream, name[0].into())
}

fn connector(name: &str, target: SocketAddr, capacity: Option<u32>) -> ConnectorSection {
    ConnectorSection {
        name: name.into(),
        address: ADDRESS.into(),
        host: target.ip().to_string(),
        port: target.port(),
        target: name.into(),
        capacity,
        ..ConnectorSection::default()
    }
}

/// Two public sites that serve the address, and an edge that is linked to both: the first is nearer.
async fn near_and_far(near: ConnectorSection, far: ConnectorSection) -> (Site, Site, Site) {
    let mut sites = Vec::new();
    let mut edge = Site::new("edge", Mode::Edge);
    for (cost, connector) in [(1, near), (10, far)] {
        let mut public = Site::public();
        let name = format!("public-{cost}");
        public.document.site.id.clone_from(&name);
        public.document.site.name.clone_from(&name);
        public.document.connectors = vec![connector];
        let token = public.token(&name, Timestamp::now());
        public.start().await;
        edge.profile(&name, &token);
        edge.document.links.push(karez_router_config::LinkSection {
            name: name.clone(),
            role: karez_router_config::Role::Edge,
            host: "127.0.0.1".into(),
            port: public.port().await.port(),
            cost,
            tls: name,
            ..karez_router_config::LinkSection::default()
        });
        sites.push(public);
    }
    edge.listen();
    edge.start().await;
    let both = |status: &Status| status.sites.len() == 3;
    edge.until("both links", both).await;
    let far = sites.pop().unwrap();
    (sites.pop().unwrap(), far, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_site_overflows_to_a_dearer_one_and_takes_again_when_it_has_room() {
    let near = connector("near", named("n").await, Some(2));
    let far = connector("far", named("f").await, Some(2));
    let (_near, _far, edge) = near_and_far(near, far).await;
    let listener = edge.listener().await;
    let (mut open, mut names) = (Vec::new(), String::new());
    for _ in 0..5 {
        let (stream, name) = connect(listener).await;
        open.push(stream);
        names.push(name);
    }
    assert_eq!(&names[..4], "nnff");
    assert_eq!(&names[4..], "n", "when all are full, the nearest takes more");
    drop(open);
    let deadline = tokio::time::Instant::now() + LIMIT;
    while connect(listener).await.1 != 'n' {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the near site has room again"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_target_is_set_aside_probed_and_comes_back_by_itself() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = gone.local_addr().unwrap();
    drop(gone);
    let mut site = Site::public();
    site.document.connectors = vec![
        connector("first", place, None),
        connector("second", named("2").await, None),
    ];
    site.listen();
    site.start().await;
    let listener = site.listener().await;
    let (_open, name) = connect(listener).await;
    assert_eq!(name, '2', "the client does not notice");
    site.until("an error", |status| status.connectors[0].error.is_some())
        .await;
    tokio::spawn(says(TcpListener::bind(place).await.unwrap(), "1"));
    // Nobody connects meanwhile: the router finds out by itself.
    site.until("no error", |status| status.connectors[0].error.is_none())
        .await;
    assert_eq!(connect(listener).await.1, '1', "it has fewer connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_target_finishes_what_it_has_and_gets_nothing_new() {
    let (old, new) = (named("o").await, named("n").await);
    let (mut public, edge) = support::pair(old).await;
    let listener = edge.listener().await;
    let (mut open, name) = connect(listener).await;
    assert_eq!(name, 'o');
    public.serve(new);
    public.write();
    public
        .until("the new target", |status| status.connectors[0].port == new.port())
        .await;
    assert_eq!(connect(listener).await.1, 'n');
    assert_eq!(ask(&mut open, b"still there").await, b"still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_carries_no_more_than_it_may() {
    let mut site = Site::public();
    site.serve(echo().await);
    site.listen();
    site.document.listeners[0].max_connections = Some(2);
    site.start().await;
    let listener = site.listener().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(listener).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        open.push(stream);
    }
    for stream in &mut open[..2] {
        timeout(LIMIT, stream.read_exact(&mut [0]))
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(site.status().listeners[0].connections, 2);
    let waiting = timeout(Duration::from_millis(50), open[2].read_exact(&mut [0])).await;
    assert!(waiting.is_err(), "the third waits");
    open.remove(0);
    timeout(LIMIT, open[1].read_exact(&mut [0]))
        .await
        .unwrap()
        .unwrap();
}
