//! A site that was off past the end of its certificate: let in again only where the policy says so, and only to renew it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karez_identity::{
    Authority, CertificateFacts, CertificateRequest, Credential, NewKey, Subject, TokenUri, Usage,
    request_digest,
};
use karez_router_config::api::LinkState;
use karez_router_config::{Mode, PolicySection, RenewalSection, TokenSection, Transport};
use support::{DAY, Site, ask, echo, write_profile};
use tokio::net::TcpStream;

const HOUR: Duration = Duration::from_secs(3600);

fn subject(lifetime: Duration) -> Subject {
    Subject {
        common_name: "shop".into(),
        dns_names: Vec::new(),
        usage: Usage::Client,
        lifetime,
        uri: Some(
            TokenUri {
                site_id: "id-public".into(),
                token: "shop".into(),
            }
            .to_uri(),
        ),
    }
}

fn admit(public: &mut Site, certificate: &str) {
    let facts = CertificateFacts::from_pem(certificate.as_bytes()).unwrap();
    public.document.tokens.push(TokenSection {
        name: "shop".into(),
        serial: facts.serial,
        fingerprint: facts.fingerprint,
        ..TokenSection::default()
    });
}

fn forgive(public: &mut Site, seconds: u64) {
    public.document.policy = Some(PolicySection {
        renew_expired_seconds: seconds,
        ..PolicySection::default()
    });
    public.write();
}

/// A public site, and an edge whose certificate ended an hour ago.
async fn late(transport: Transport) -> (Site, Site) {
    let mut public = Site::public();
    let made = Timestamp::now() - SignedDuration::from_hours(2);
    public.authority = Authority::new("skupper-site-ca", made, 30 * DAY).unwrap();
    let server = public.issue("skupper-router", &["skupper-router"], Timestamp::now());
    write_profile(&public.folder.path().join("skupper-internal"), &server);
    let token = public.authority.issue(&subject(HOUR), made).unwrap();
    admit(&mut public, &token.certificate_pem);
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, &token);
    edge.document.links[0].transport = transport;
    edge.serve(echo().await);
    (public, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ended_is_refused_unless_policy_says_otherwise() {
    for transport in [Transport::Quic, Transport::Tls] {
        let (mut public, mut edge) = late(transport).await;
        edge.start().await;
        let refused = |link: &karez_router_config::api::LinkStatus| link.state == LinkState::Refused;
        let link = edge.link("refused", refused).await;
        let error = link.error.unwrap();
        assert!(error.contains("expired"), "{error}");
        let said = public
            .until("both sides say it", |status| !status.refusals.is_empty())
            .await;
        assert!(said.refusals[0].reason.contains("expired"), "{said:?}");
        // A window that is over is none.
        forgive(&mut public, 60);
        edge.stop().await;
        edge.start().await;
        edge.link("refused again", refused).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_the_window_it_can_renew_and_do_nothing_else_before() {
    for transport in [Transport::Quic, Transport::Tls] {
        let (mut public, mut edge) = late(transport).await;
        public.listen();
        forgive(&mut public, 2 * 3600);
        edge.start().await;
        edge.link("let in", |link| link.state == LinkState::Active).await;
        let status = public.until("the edge", |status| status.sites.len() == 2).await;
        assert!(
            status.sites[1].services.is_empty(),
            "nothing of it is believed: {status:?}"
        );
        assert_eq!(status.listeners[0].state, "unreachable");

        let key = NewKey::make("shop").unwrap();
        edge.document.links[0].renewal = Some(key.request_pem.clone());
        edge.write();
        let asked = public
            .until("a request", |status| !status.renewals.is_empty())
            .await;
        let request = CertificateRequest::from_pem(asked.renewals[0].request.as_bytes()).unwrap();
        let signed = public.authority.sign(&request, &subject(DAY), Timestamp::now());
        let certificate = signed.unwrap();
        admit(&mut public, &certificate);
        let authorities = public.authority.certificate_pem().to_owned();
        public.document.renewals = vec![RenewalSection {
            token: "shop".into(),
            request: request_digest(key.request_pem.as_bytes()),
            certificate: certificate.clone(),
            authorities: authorities.clone(),
        }];
        public.write();
        edge.link("the answer", |link| link.renewed.is_some()).await;
        // From now on it is what it was, over the same link.
        let mut stream = TcpStream::connect(public.listener().await).await.unwrap();
        assert_eq!(ask(&mut stream, b"back again").await, b"back again");
        let credential = Credential {
            certificate_pem: certificate,
            key_pem: key.key_pem,
            ca_pem: authorities,
        };
        write_profile(&edge.folder.path().join("link1-profile"), &credential);
        forgive(&mut public, 0);
        edge.stop().await;
        edge.start().await;
        edge.link("with the new one", |link| link.state == LinkState::Active)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_within_the_window_too() {
    let (mut public, mut edge) = late(Transport::Quic).await;
    public.document.tokens.clear();
    forgive(&mut public, 2 * 3600);
    edge.start().await;
    let link = edge
        .link("refused", |link| link.state == LinkState::Refused)
        .await;
    assert!(link.error.unwrap().contains("revoked or unknown"));
}
