//! Peers that must not be believed: refused with a reason on both sides, counted by it, and no honest link suffers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use karez_identity::{
    Authority, CertificateFacts, CertificateRequest, Credential, NewKey, Subject, TlsMaterial, Usage,
    client_config, request_digest,
};
use karez_router_config::api::LinkState;
use karez_router_config::{Mode, PolicySection, RenewalSection, Role, Sharing, TokenSection};
use prost::Message;
use quinn::crypto::rustls::QuicClientConfig;
use support::{ADDRESS, DAY, LIMIT, Site, ask, echo, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ALPN: &[u8] = b"karez-link/1";

/// The honest link beside goes on carrying.
async fn carries(edge: &Site) {
    let mut stream = TcpStream::connect(edge.listener().await).await.unwrap();
    assert_eq!(ask(&mut stream, b"still here").await, b"still here");
}

/// The number of refusals that the public router has counted for a reason.
async fn counted(site: &Site, reason: &str) -> u64 {
    let mut stream = TcpStream::connect(site.router().admin_address().unwrap())
        .await
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let line = format!("karez_router_peers_refused_total{{reason=\"{reason}\"}} ");
    let found = answer.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |number| number.parse().unwrap())
}

/// Both sides say why a link is refused, and it is counted.
async fn refused(public: &Site, token: &Credential, role: Role, port: SocketAddr, words: &str, reason: &str) {
    let before = counted(public, reason).await;
    let mode = if role == Role::Edge {
        Mode::Edge
    } else {
        Mode::Interior
    };
    let mut peer = Site::new("stranger", mode);
    peer.link_to(port, token);
    peer.document.links[0].role = role;
    peer.start().await;
    let link = peer
        .link("refused", |link| link.state == LinkState::Refused)
        .await;
    let error = link.error.unwrap();
    assert!(error.contains(words), "the stranger's side says: {error}");
    public
        .until("the public side to say why", |status| {
            status
                .refusals
                .iter()
                .any(|refusal| refusal.reason.contains(words))
        })
        .await;
    assert!(counted(public, reason).await > before, "{reason} is not counted");
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_told_on_both_sides_and_counted() {
    let (mut public, edge) = pair(echo().await).await;
    let now = Timestamp::now();
    // An authority that was there long before, so that it can have issued what expired.
    let long_ago = now - 240.hours();
    let issue = |public: &Site, at, lifetime| {
        let subject = Subject {
            common_name: "bad".into(),
            dns_names: Vec::new(),
            usage: Usage::Client,
            lifetime,
            uri: None,
        };
        public.authority.issue(&subject, at).unwrap()
    };
    let port = public.port().await;
    let edge_link = Role::Edge;

    let mut forged = Site::new("other", Mode::Interior).issue("forged", &[], now);
    forged.ca_pem = public.authority.certificate_pem().to_owned();
    refused(
        &public,
        &forged,
        edge_link,
        port,
        "signed by another authority",
        "Authority",
    )
    .await;

    let expired = issue(&public, long_ago, DAY);
    refused(
        &public,
        &expired,
        edge_link,
        port,
        "certificate expired",
        "Expired",
    )
    .await;

    let early = issue(&public, now + 48.hours(), DAY);
    refused(&public, &early, edge_link, port, "not valid yet", "NotYetValid").await;

    let unknown = issue(&public, now, DAY);
    refused(
        &public,
        &unknown,
        edge_link,
        port,
        "token revoked or unknown",
        "Revoked",
    )
    .await;

    let interior_only = public.token("interior-only", now);
    let ended = public.token("ended", now);
    let full = public.token("full", now);
    let tokens = public.document.tokens.len();
    public.document.tokens[tokens - 3].role = Some(Role::InterRouter);
    public.document.tokens[tokens - 2].until = Some("2020-01-01T00:00:00Z".into());
    public.document.tokens[tokens - 1].uses = Some(1);
    public.document.tokens[tokens - 1].sites = vec!["id-somebody".into()];
    public.write();
    let wrong_role = "is for inter-router links only";
    public
        .until("the new document", |status| status.document.errors.is_empty())
        .await;
    refused(&public, &interior_only, edge_link, port, wrong_role, "Role").await;
    refused(&public, &ended, edge_link, port, "the token ended at", "Expired").await;
    refused(&public, &full, edge_link, port, "1 may use it", "Uses").await;
    refused(&public, &full, Role::InterRouter, port, "edge links", "Role").await;
    carries(&edge).await;
}

/// A peer by hand, which says what no router would.
struct Hostile {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

#[derive(Clone, PartialEq, Message)]
struct HelloSite {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bool, tag = "5")]
    edge: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Hello {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    site: Option<HelloSite>,
    #[prost(string, tag = "3")]
    role: String,
    #[prost(uint32, tag = "4")]
    cost: u32,
    #[prost(string, tag = "5")]
    router: String,
    #[prost(uint32, tag = "6")]
    oldest: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Control {
    #[prost(message, optional, tag = "1")]
    hello: Option<Hello>,
}

#[derive(Clone, PartialEq, Message)]
struct Open {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(uint32, tag = "3")]
    hop_limit: u32,
}

impl Hostile {
    async fn connect(port: SocketAddr, token: &Credential) -> Self {
        let config = client_config(&TlsMaterial::from(token), &[ALPN]).unwrap();
        let crypto = QuicClientConfig::try_from(config).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint.connect_with(config, port, "skupper-router").unwrap();
        Self {
            connection: timeout(LIMIT, connecting).await.unwrap().unwrap(),
            _endpoint: endpoint,
        }
    }

    /// A peer that has said hello properly: its control stream.
    async fn greeted(port: SocketAddr, token: &Credential) -> (Self, quinn::SendStream, quinn::RecvStream) {
        let peer = Self::connect(port, token).await;
        let (mut send, mut receive) = peer.connection.open_bi().await.unwrap();
        let hello = Hello {
            version: 2,
            oldest: 2,
            site: Some(HelloSite {
                id: "id-hostile".into(),
                name: "hostile".into(),
                edge: true,
            }),
            role: "edge".into(),
            cost: 1,
            router: "hostile-0".into(),
        };
        let body = Control { hello: Some(hello) }.encode_to_vec();
        send.write_all(&framed(&body)).await.unwrap();
        let mut length = [0; 4];
        timeout(LIMIT, receive.read_exact(&mut length))
            .await
            .unwrap()
            .unwrap();
        (peer, send, receive)
    }

    /// Opens a stream with a header and gives the first byte of the answer.
    async fn wants(&self, address: &str, port: u32) -> u8 {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        let open = Open {
            address: address.into(),
            port,
            hop_limit: 3,
        };
        let body = open.encode_to_vec();
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        send.write_all(&[&length[..], &body].concat()).await.unwrap();
        let mut answer = [9];
        timeout(LIMIT, receive.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer[0]
    }

    /// Waits until the router has closed the connection; its reason.
    async fn closed(&self) -> String {
        timeout(LIMIT, self.connection.closed())
            .await
            .unwrap()
            .to_string()
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[..], body].concat()
}

/// A public and an edge site that are linked, and a further token.
async fn with_token(change: impl FnOnce(&mut TokenSection)) -> (Site, Site, Credential) {
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let token = public.token("hostile", Timestamp::now());
    change(public.document.tokens.last_mut().unwrap());
    public.write();
    let (port, known) = (public.port().await, token.clone());
    // The document is taken over in a moment: until then the token is unknown.
    let taken_over = async {
        loop {
            let peer = Hostile::connect(port, &known).await;
            let refused = timeout(Duration::from_millis(300), peer.connection.closed()).await;
            if refused.is_err() {
                break;
            }
        }
    };
    timeout(LIMIT, taken_over)
        .await
        .expect("the token is taken over in time");
    (public, edge, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_to_what_the_token_does_not_reach_is_refused() {
    let reach = |token: &mut TokenSection| token.reach = Some(vec!["echo:7001".into(), "else*".into()]);
    let (mut public, edge, token) = with_token(reach).await;
    let (peer, _send, _receive) = Hostile::greeted(public.port().await, &token).await;
    assert_eq!(peer.wants("echo", 7000).await, 2, "refused");
    assert_eq!(
        peer.wants("elsewhere", 1).await,
        1,
        "allowed, but nothing is there"
    );
    assert_eq!(counted(&public, "Reach").await, 1);
    // What the document says holds at once.
    public.document.tokens.last_mut().unwrap().reach = None;
    public.write();
    let allowed = async {
        while peer.wants("echo", 7000).await != 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, allowed).await.expect("the wider scope holds");
    carries(&edge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_peer_takes_over_what_another_offers() {
    let target = echo().await;
    let mut public = Site::public();
    public.document.policy = Some(PolicySection {
        sharing: Sharing::Named,
    });
    let (first, second) = (
        public.token("first", Timestamp::now()),
        public.token("second", Timestamp::now()),
    );
    public.start().await;
    let port = public.port().await;
    let mut sites = Vec::new();
    for (name, token) in [("first", &first), ("second", &second)] {
        let mut site = Site::new(name, Mode::Edge);
        site.serve(target);
        site.link_to(port, token);
        site.start().await;
        site.link("active", |link| link.state == LinkState::Active).await;
        let linked =
            |status: &karez_router_config::api::Status| status.sites.iter().any(|site| site.name == name);
        public.until("the site", linked).await;
        if name == "first" {
            public
                .until("its service", |status| offers(status, "first"))
                .await;
        }
        sites.push(site);
    }
    // What the second says arrives after its link; a third round trip tells that it was heard.
    carries_again(&public, port, &second).await;
    assert!(
        !offers(&public.status(), "second"),
        "{:#?}",
        public.status().sites
    );

    // With permission it may.
    public.document.tokens[1].offer = Some(vec!["echo:7000".into()]);
    public.write();
    public
        .until("the second's service", |status| offers(status, "second"))
        .await;
    assert!(offers(&public.status(), "first"));
}

fn offers(status: &karez_router_config::api::Status, site: &str) -> bool {
    status
        .sites
        .iter()
        .any(|known| known.name == site && known.services.iter().any(|service| service.address == "echo"))
}

/// A whole exchange with the router, after which what came before has been heard.
async fn carries_again(_public: &Site, port: SocketAddr, token: &Credential) {
    let (peer, _send, _receive) = Hostile::greeted(port, token).await;
    assert_eq!(peer.wants("nothing", 1).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_end_the_link_that_sent_them_alone() {
    let (public, edge, token) = with_token(|_| ()).await;
    let port = public.port().await;
    let garbage: [&[u8]; 4] = [
        &framed(&[0xff; 40]),
        // Longer than any message may be.
        &u32::MAX.to_be_bytes(),
        // A renewal that asks for nothing.
        &framed(&[0xf2, 0x01, 0x00]),
        // What only interior routers tell.
        &framed(&[0x42, 0x00]),
    ];
    for bytes in garbage {
        let (peer, mut send, _receive) = Hostile::greeted(port, &token).await;
        send.write_all(bytes).await.unwrap();
        let reason = peer.closed().await;
        assert!(!reason.contains("timed out"), "{reason}");
    }
    // Hello twice, or not at all, is answered too.
    let peer = Hostile::connect(port, &token).await;
    let (mut send, _receive) = peer.connection.open_bi().await.unwrap();
    send.write_all(&framed(b"\x1a\x00")).await.unwrap();
    assert!(!peer.closed().await.contains("timed out"));
    carries(&edge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_or_senseless_header_resets_its_stream_alone() {
    let (public, edge, token) = with_token(|_| ()).await;
    let (peer, _send, _receive) = Hostile::greeted(public.port().await, &token).await;
    for header in [&[0xff, 0xff][..], &[0, 3, 0xff, 0xff, 0xff][..], &[0, 0][..]] {
        let (mut send, mut receive) = peer.connection.open_bi().await.unwrap();
        send.write_all(header).await.unwrap();
        let mut byte = [0];
        let read = timeout(LIMIT, receive.read_exact(&mut byte)).await.unwrap();
        assert!(read.is_err(), "{header:?} was answered with {byte:?}");
    }
    assert_eq!(peer.wants("echo", 7000).await, 0, "the link itself is fine");
    carries(&edge).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_keep_no_honest_peer_out() {
    let number = std::env::var("KAREZ_HALF_OPEN")
        .ok()
        .and_then(|number| number.parse().ok());
    let number: usize = number.unwrap_or(2_000);
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let token = public.token("later", Timestamp::now());
    public.write();
    let port = public.port().await;

    let runtime = quinn::default_runtime().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = Arc::new(Deaf(runtime.wrap_udp_socket(socket).unwrap()));
    let endpoint =
        quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket, runtime)
            .unwrap();
    let stranger = Site::new("stranger", Mode::Interior).issue("x", &[], Timestamp::now());
    let config = client_config(&TlsMaterial::from(&stranger), &[ALPN]).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let mut half_open = Vec::new();
    for _ in 0..number {
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
    let mut late = Site::new("late", Mode::Edge);
    late.link_to(port, &token);
    late.start().await;
    late.link("active", |link| link.state == LinkState::Active).await;
    carries(&edge).await;
    drop(half_open);
}

/// A credential that ends in a few seconds.
fn short(public: &mut Site, name: &str, lifetime: Duration) -> Credential {
    let credential = public
        .authority
        .issue(&subject(name, lifetime), Timestamp::now())
        .unwrap();
    admit(public, name, &credential.certificate_pem);
    credential
}

fn subject(name: &str, lifetime: Duration) -> Subject {
    Subject {
        common_name: name.into(),
        dns_names: Vec::new(),
        usage: Usage::Client,
        lifetime,
        uri: None,
    }
}

fn admit(public: &mut Site, name: &str, certificate: &str) {
    let facts = CertificateFacts::from_pem(certificate.as_bytes()).unwrap();
    public.document.tokens.push(TokenSection {
        name: name.into(),
        serial: facts.serial,
        fingerprint: facts.fingerprint,
        ..TokenSection::default()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_certificate_ends_is_closed_with_the_reason() {
    let mut public = Site::public();
    let token = short(&mut public, "short", Duration::from_secs(4));
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, &token);
    edge.start().await;
    edge.link("active", |link| link.state == LinkState::Active).await;
    let said = |link: &karez_router_config::api::LinkStatus| {
        link.error.as_ref().is_some_and(|error| error.contains("expired"))
    };
    edge.link("closed", said).await;
    public.until("no link", |status| status.links.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_over_the_link_which_stays() {
    let mut public = Site::public();
    public.serve(echo().await);
    let token = short(&mut public, "short", Duration::from_secs(12));
    let ends = Timestamp::now() + 12.seconds();
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, &token);
    edge.listen();
    edge.start().await;
    carries(&edge).await;
    let since = edge.status().links[0].since.clone();

    let key = NewKey::make("short").unwrap();
    edge.document.links[0].renewal = Some(key.request_pem.clone());
    edge.write();
    let asked = public
        .until("a request", |status| !status.renewals.is_empty())
        .await
        .renewals
        .remove(0);
    assert_eq!(
        (asked.token.as_str(), &asked.request),
        ("short", &key.request_pem)
    );
    let request = CertificateRequest::from_pem(asked.request.as_bytes()).unwrap();
    let certificate = public
        .authority
        .sign(&request, &subject("short", DAY), Timestamp::now())
        .unwrap();
    admit(&mut public, "short", &certificate);
    let other = Authority::new("skupper-site-ca", Timestamp::now(), DAY).unwrap();
    let both = format!(
        "{}{}",
        public.authority.certificate_pem(),
        other.certificate_pem()
    );
    public.document.renewals = vec![RenewalSection {
        token: "short".into(),
        request: request_digest(key.request_pem.as_bytes()),
        certificate: certificate.clone(),
        authorities: both.clone(),
    }];
    public.write();
    let link = edge.link("the answer", |link| link.renewed.is_some()).await;
    let renewed = link.renewed.unwrap();
    assert_eq!(
        (renewed.certificate, renewed.authorities),
        (certificate.clone(), both.clone())
    );
    public
        .until("no request", |status| status.renewals.is_empty())
        .await;

    // Taken over as the site's controller would; the link is the same before and after the old one's end.
    let credential = Credential {
        certificate_pem: certificate,
        key_pem: key.key_pem,
        ca_pem: both,
    };
    support::write_profile(&edge.folder.path().join("link1-profile"), &credential);
    public
        .until("the old one's end", |_| Timestamp::now() > ends + 1.seconds())
        .await;
    carries(&edge).await;
    let link = edge.link("active", |link| link.state == LinkState::Active).await;
    assert_eq!(link.since, since, "it was never down");
    assert_eq!(ADDRESS, "echo:7000");
}
