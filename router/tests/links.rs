//! Pairs of routers in one process: real sockets, real TLS, real QUIC, on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use karez_identity::{Authority, TlsMaterial};
use karez_router_config::Mode;
use karez_router_config::api::{Direction, LinkState, Status};
use support::{ADDRESS, DAY, LIMIT, Site, ask, echo, pair, write_profile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_bytes_both_ways_and_half_closes() {
    let (mut public, mut edge) = pair(echo().await).await;
    let listener = edge.listener().await;
    let mut first = TcpStream::connect(listener).await.unwrap();
    let mut second = TcpStream::connect(listener).await.unwrap();
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (one, two) = tokio::join!(ask(&mut first, &big), ask(&mut second, b"short"));
    assert!(one == big, "{} of {} bytes", one.len(), big.len());
    assert_eq!(two, b"short");

    let status = edge
        .until("no open connection", |status| {
            status.listeners[0].connections == 0
        })
        .await;
    assert_eq!(status.links[0].peer.as_ref().unwrap().site_name, "public");
    assert_eq!(status.links[0].token.as_deref(), Some("token1"));
    assert_eq!(status.sites[1].services[0].address, "echo");
    assert_eq!(status.sites[0].links, ["id-public"]);
    let there = public.status();
    assert_eq!(there.links[0].direction, Direction::Incoming);
    assert_eq!(there.links[0].name, "token1");
    assert_eq!(there.sites[1].name, "edge");
    edge.stop().await;
    public.until("no link", |status| status.links.is_empty()).await;
    public.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_passes_in_both_directions() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_public, edge) = pair(target.local_addr().unwrap()).await;
    let listener = edge.listener().await;

    let mut client = TcpStream::connect(listener).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (mut served, _) = timeout(LIMIT, target.accept()).await.unwrap().unwrap();
    served.read_exact(&mut [0]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let error = timeout(LIMIT, served.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut client = TcpStream::connect(listener).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (served, _) = timeout(LIMIT, target.accept()).await.unwrap().unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    let error = timeout(LIMIT, client.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Connects and reads; a reset may show in either.
async fn touch(address: SocketAddr) -> std::io::Result<usize> {
    TcpStream::connect(address).await?.read(&mut [0]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_announced_and_withdrawn() {
    let target = echo().await;
    let (mut public, edge) = pair(target).await;
    let listener = edge.listener().await;
    let mut open = TcpStream::connect(listener).await.unwrap();
    open.write_all(b"a").await.unwrap();
    open.read_exact(&mut [0]).await.unwrap();

    (public.document.services, public.document.connectors) = (Vec::new(), Vec::new());
    public.write();
    edge.until("unreachable", |status| status.listeners[0].state == "unreachable")
        .await;
    assert!(edge.status().sites[1].services.is_empty());
    let error = timeout(LIMIT, touch(listener)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    open.write_all(b"b").await.unwrap();
    let mut still = [0];
    open.read_exact(&mut still).await.unwrap();
    assert_eq!(&still, b"b", "what is carried already goes on");

    public.serve(target);
    public.write();
    let mut again = TcpStream::connect(edge.listener().await).await.unwrap();
    assert_eq!(ask(&mut again, b"hello").await, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_gone_resets_the_client() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (public, edge) = pair(gone).await;
    let listener = edge.listener().await;
    let error = timeout(LIMIT, touch(listener)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let status = public
        .until("an error", |status| status.connectors[0].error.is_some())
        .await;
    let error = status.connectors[0].error.clone().unwrap();
    assert!(error.contains(&gone.port().to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_comes_back_after_its_peer_restarted() {
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let port = public.port().await;
    public.stop().await;
    edge.link("down", |link| link.state != LinkState::Active).await;
    public.document.accept[0].port = port.port();
    public.start().await;
    edge.link("active", |link| link.state == LinkState::Active).await;
    let mut client = TcpStream::connect(edge.listener().await).await.unwrap();
    assert_eq!(ask(&mut client, b"hello").await, b"hello");
}

/// A runtime of its own for a router that is to die without a farewell.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_peer_that_was_killed_and_restarted_is_noticed_by_its_answer() {
    let (mut public, mut edge) = (Site::public(), Site::new("edge", Mode::Edge));
    let token = public.token("token1", Timestamp::now());
    let first = runtime();
    first.block_on(public.start());
    let port = first.block_on(public.port());
    let own = runtime();
    edge.link_to(port, &token);
    own.block_on(edge.start());
    own.block_on(edge.link("active", |link| link.state == LinkState::Active));
    first.shutdown_timeout(LIMIT);

    let second = runtime();
    public.document.accept[0].port = port.port();
    second.block_on(public.start());
    let down = own.block_on(edge.link("down", |link| link.state != LinkState::Active));
    assert_eq!(down.error.as_deref(), Some("the peer was restarted"));
    own.block_on(edge.link("active again", |link| link.state == LinkState::Active));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_come_to_the_sites_address_and_clients_to_the_pods() {
    let (pod, site): (IpAddr, IpAddr) = ([127, 83, 44, 9].into(), [127, 83, 44, 1].into());
    let mut public = Site::public();
    public.net = karez_net::Net::builder()
        .pod_address(pod)
        .external_address(site)
        .build();
    public.document.accept[0].host = "0.0.0.0".into();
    public.document.local.as_mut().unwrap().host = "0.0.0.0".into();
    public.serve(echo().await);
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    assert_eq!(public.port().await.ip(), pod);
    let addresses = public.status().accepts[0].addresses.clone();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    public
        .until("the local API", |_| public.router().local_address().is_some())
        .await;
    assert_eq!(public.router().local_address().unwrap().ip(), pod);

    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(SocketAddr::new(site, public.port().await.port()), &token);
    edge.listen();
    edge.start().await;
    let mut client = TcpStream::connect(edge.listener().await).await.unwrap();
    assert_eq!(ask(&mut client, b"hello").await, b"hello");
}

/// The error of a link that is refused.
async fn refusal(public: &Site, token: &karez_identity::Credential) -> String {
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, token);
    edge.start().await;
    let link = edge
        .link("refused", |link| link.state == LinkState::Refused)
        .await;
    assert!(public.status().links.is_empty());
    link.error.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_token_signed_by_another_authority() {
    let mut public = Site::public();
    let good = public.token("good", Timestamp::now());
    public.start().await;
    let other = Site::new("other", Mode::Interior);
    let mut forged = other.issue("good", &[], Timestamp::now());
    // It believes the right site, but is not signed by it.
    forged.ca_pem = good.ca_pem.clone();
    let error = refusal(&public, &forged).await;
    assert!(
        error.contains("the peer refused our certificate: signed by another authority"),
        "{error}"
    );

    let mut elsewhere = good;
    elsewhere.ca_pem = other.authority.certificate_pem().to_owned();
    let error = refusal(&public, &elsewhere).await;
    assert!(
        error.contains("refused here: signed by another authority"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_an_expired_certificate() {
    let mut public = Site::public();
    let past = Timestamp::now() - 10 * DAY;
    public.authority = Authority::new("skupper-site-ca", past, 30 * DAY).unwrap();
    let server = public.issue("skupper-router", &["skupper-router"], Timestamp::now());
    write_profile(&public.folder.path().join("skupper-internal"), &server);
    let expired = public.token("old", past);
    public.start().await;
    let error = refusal(&public, &expired).await;
    assert!(
        error.contains("the peer refused our certificate: certificate expired"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_server_of_another_name_and_the_own_site() {
    let mut public = Site::public();
    let server = public.issue("other", &["other.example"], Timestamp::now());
    write_profile(&public.folder.path().join("skupper-internal"), &server);
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let error = refusal(&public, &token).await;
    assert!(
        error.contains("certificate is for another name than skupper-router"),
        "{error}"
    );

    let mut public = Site::public();
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let mut own = Site::new("public", Mode::Edge);
    own.link_to(public.port().await, &token);
    own.start().await;
    let link = own.link("refused", |link| link.state == LinkState::Refused).await;
    assert!(link.error.unwrap().contains("both ends are the same site"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_token_that_is_not_on_the_list_and_a_wrong_role() {
    let mut public = Site::public();
    let unknown = public.issue("unknown", &[], Timestamp::now());
    let known = public.token("known", Timestamp::now());
    public.document.accept[0].role = karez_router_config::Role::InterRouter;
    public.start().await;
    let error = refusal(&public, &unknown).await;
    assert!(error.contains("token revoked or unknown"), "{error}");
    let error = refusal(&public, &known).await;
    assert!(error.contains("this port takes inter-router links"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_closes_its_link_at_once() {
    let (mut public, edge) = pair(echo().await).await;
    let mut client = TcpStream::connect(edge.listener().await).await.unwrap();
    client.write_all(b"a").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    let tokens = std::mem::take(&mut public.document.tokens);
    public.write();
    let link = edge
        .link("refused", |link| link.state == LinkState::Refused)
        .await;
    assert!(link.error.unwrap().contains("token revoked or unknown"));
    let ended = timeout(LIMIT, client.read(&mut [0])).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    public.document.tokens = tokens;
    public.write();
    edge.link("active", |link| link.state == LinkState::Active).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_document_keeps_what_runs_running() {
    let (public, mut edge) = pair(echo().await).await;
    let mut client = TcpStream::connect(edge.listener().await).await.unwrap();
    edge.write_text("version: 1\nsite: {id: x, name: y}\nlisteners:\n  - {nmae: l}\n");
    let status = edge
        .until("errors", |status| !status.document.errors.is_empty())
        .await;
    let errors = status.document.errors.join("\n");
    assert!(
        errors.contains("karez-router.yaml:4: error: listeners[0]"),
        "{errors}"
    );
    assert_eq!(ask(&mut client, b"still").await, b"still");
    edge.document.links[0].cost = 7;
    edge.write();
    let status = edge
        .until("no errors", |status| status.document.errors.is_empty())
        .await;
    assert_eq!(status.links[0].cost, 7);
    assert_eq!(
        status.links[0].state,
        LinkState::Active,
        "a new cost is no new link"
    );
    assert_eq!(public.status().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named_and_taken_when_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut site = Site::public();
    site.serve(echo().await);
    site.listen();
    site.document.listeners[0].port = port;
    site.start().await;
    let status = site
        .until("failed", |status| {
            status
                .listeners
                .first()
                .is_some_and(|listener| listener.error.is_some())
        })
        .await;
    let error = status.listeners[0].error.clone().unwrap();
    assert!(
        error.contains(&port.to_string()) && error.contains("in use"),
        "{error}"
    );
    drop(taken);
    let mut client = TcpStream::connect(site.listener().await).await.unwrap();
    assert_eq!(
        ask(&mut client, b"local").await,
        b"local",
        "a local target needs no link"
    );
}

/// One request to the local API.
async fn get(address: SocketAddr, client: &TlsMaterial, path: &str) -> std::io::Result<String> {
    let config = karez_identity::client_config(client, &[b"http/1.1"]).unwrap();
    let name = karez_identity::LOCAL_SERVER_NAME.try_into().unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_api_tells_the_status_to_admitted_clients() {
    let mut site = Site::public();
    site.start().await;
    site.until("the local API", |_| site.router().local_address().is_some())
        .await;
    let address = site.router().local_address().unwrap();
    let client = TlsMaterial::from(&site.issue("skupper-local-client", &[], Timestamp::now()));
    let answer = get(address, &client, "/v1/status").await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let status: Status = serde_json::from_str(body).unwrap();
    assert_eq!(status.site.unwrap().name, "public");
    assert!(
        get(address, &client, "/v1/other")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 404")
    );

    let path = format!("/v1/status?since={}", site.status().generation);
    let poll = tokio::spawn({
        let client = client.clone();
        async move { get(address, &client, &path).await }
    });
    site.document.site.version = "9.9.9".into();
    site.write();
    let answer = timeout(LIMIT, poll).await.unwrap().unwrap().unwrap();
    assert!(answer.contains("9.9.9"), "{answer}");

    let stranger = Authority::new("skupper-site-ca", Timestamp::now(), DAY).unwrap();
    let subject = karez_identity::Subject {
        common_name: "x".into(),
        dns_names: Vec::new(),
        usage: karez_identity::Usage::Client,
        lifetime: DAY,
        uri: None,
    };
    let mut stranger = TlsMaterial::from(&stranger.issue(&subject, Timestamp::now()).unwrap());
    stranger.ca = client.ca.clone();
    assert!(get(address, &stranger, "/v1/status").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_health_are_served() {
    let mut site = Site::public();
    site.start().await;
    site.until("the admin port", |_| site.router().admin_address().is_some())
        .await;
    let mut stream = TcpStream::connect(site.router().admin_address().unwrap())
        .await
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    for name in [
        "karez_router_connections_open",
        "karez_router_certificate_expiry_timestamp_seconds{profile=",
    ] {
        assert!(answer.contains(name), "{name} in {answer}");
    }
    assert!(ADDRESS.contains("echo"));
}
