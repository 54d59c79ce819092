//! Peers that must not be believed: refused with a reason on both sides, counted by it, and no honest link suffers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use karez_identity::{
    Authority, CertificateFacts, CertificateRequest, Credential, NewKey, Subject, Usage, request_digest,
};
use karez_router_config::api::LinkState;
use karez_router_config::{Mode, PolicySection, RenewalSection, Role, Sharing, TokenSection};
use support::hostile::{Hostile, carries, counted, framed, with_token};
use support::{ADDRESS, DAY, LIMIT, Site, echo, metric, pair};
use tokio::time::timeout;

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
        ..PolicySection::default()
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

/// Numbers that look like chance and are the same in every run (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_messages_made_up_at_random_hurt_nobody_else() {
    let (public, edge, token) = with_token(|_| ()).await;
    let port = public.port().await;
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut ended = 0;
    for _ in 0..40 {
        let (peer, mut send, _receive) = Hostile::greeted(port, &token).await;
        for _ in 0..8 {
            // Some message of the protocol, with anything in it.
            let field = 1 + chance.below(31);
            let body = chance.bytes(100);
            let tag = u8::try_from(field % 16).unwrap() << 3 | 2;
            let tag = if field < 16 {
                vec![tag]
            } else {
                vec![tag | 0x80, 1]
            };
            let body = [tag, vec![u8::try_from(body.len()).unwrap()], body].concat();
            if send.write_all(&framed(&body)).await.is_err() {
                break;
            }
        }
        // Whatever it thought of these, now the link ends.
        let _ = send.finish();
        ended += u32::from(peer.closed().await.contains("the peer sent"));
    }
    assert!(ended > 10, "{ended} of 40 links were ended for what was said");
    let counted = metric(&public, "karez_router_errors_total", "Protocol").await;
    assert!(counted >= f64::from(ended), "{counted} of {ended} counted");
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
