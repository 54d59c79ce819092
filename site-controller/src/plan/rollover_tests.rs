//! An authority's replacement as a whole, by a clock that is passed in: what the issuing site plans, what its router is
//! told to tell, and what a linked site makes of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use karez_identity::{NewKey, request_digest, signed_by};
use karez_kubernetes::{labels, names};
use karez_router_config::api::{Direction, LinkState, LinkStatus, RenewalStatus, RenewedStatus, Status};
use karez_router_config::{Mode, Role, RouterDocument};
use kube::core::ObjectMeta;

use super::certificates::bytes;
use super::router_document::read_config_map;
use super::{Plan, SecretChange, renewal, service, site};
use crate::issue::Issuer;
use crate::object::strings;
use crate::site_config::SiteConfig;
use crate::snapshot::{ServiceSnapshot, SiteFacts, SiteSnapshot};

const TOKEN: &str = "shop";

fn day(days: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(24 * days)
}

fn site_map() -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::SITE.into()),
            namespace: Some("ns".into()),
            uid: Some("hub".into()),
            annotations: Some(strings([
                (labels::AUTHORITY_LIFETIME, "7200h"),
                (labels::CREDENTIAL_LIFETIME, "7200h"),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(strings([("name", "hub"), ("ingress", "none")])),
        ..ConfigMap::default()
    }
}

/// The issuing site: its site-level controller, over and over until there is nothing left to do.
struct Hub(SiteSnapshot);

impl Hub {
    fn new() -> Self {
        Self(SiteSnapshot {
            namespace: "ns".into(),
            site: Some(site_map()),
            ..SiteSnapshot::default()
        })
    }

    /// Carries out what is planned, as the controller does.
    fn settle(&mut self, now: Timestamp) {
        for _ in 0..6 {
            let plan = site::plan(&self.0, now);
            let secrets = self.0.secrets.clone();
            let lifetimes = SiteConfig::read(self.0.site.as_ref().unwrap()).lifetimes;
            let mut issuer = Issuer::new(&secrets, now).lasting(lifetimes);
            let mut made = Vec::new();
            made.extend(
                plan.certificates
                    .iter()
                    .map(|order| issuer.certificate(order).unwrap()),
            );
            made.extend(plan.rollovers.iter().map(|order| issuer.rollover(order).unwrap()));
            made.extend(plan.tokens.iter().map(|order| issuer.token(order).unwrap()));
            made.extend(plan.renewals.iter().map(|order| issuer.renew(order).unwrap()));
            if made.is_empty() {
                return;
            }
            for secret in made {
                self.0
                    .secrets
                    .insert(secret.metadata.name.clone().unwrap(), secret);
            }
        }
        panic!("it does not come to rest");
    }

    fn believed(&self, secret: &str) -> usize {
        count(bytes(&self.0.secrets[secret], "ca.crt").unwrap())
    }

    /// The document that its router gets while it says this.
    fn document(&mut self, status: Option<Status>, now: Timestamp) -> RouterDocument {
        let snapshot = service_snapshot("hub", vec![self.0.secrets[TOKEN].clone()], status);
        let plan = service::plan(&snapshot, now);
        change(self.0.secrets.get_mut(TOKEN).unwrap(), &plan.changes);
        document(&plan)
    }
}

fn service_snapshot(id: &str, tokens: Vec<Secret>, status: Option<Status>) -> ServiceSnapshot {
    ServiceSnapshot {
        site: SiteFacts {
            id: id.into(),
            name: id.into(),
            namespace: "ns".into(),
            mode: Mode::Interior,
            ..SiteFacts::default()
        },
        config_map: Some(site_map()),
        tokens,
        status,
        ..ServiceSnapshot::default()
    }
}

fn document(plan: &Plan) -> RouterDocument {
    let maps = plan
        .objects
        .iter()
        .filter_map(|object| serde_json::from_value::<ConfigMap>(object.clone()).ok());
    let mut documents = maps.filter_map(|map| read_config_map(&map));
    documents.next().expect("a document")
}

fn change(secret: &mut Secret, changes: &[SecretChange]) {
    let data = secret.data.get_or_insert_default();
    for (key, value) in changes.iter().flat_map(|change| &change.data) {
        match value {
            Some(value) => drop(data.insert(key.clone(), ByteString(value.clone()))),
            None => drop(data.remove(key)),
        }
    }
}

fn count(bundle: &[u8]) -> usize {
    String::from_utf8_lossy(bundle)
        .matches("BEGIN CERTIFICATE")
        .count()
}

/// The linked site: its service-level controller, told by its router what came over the link.
struct Shop(Secret);

impl Shop {
    fn plan(&mut self, sent: Option<RenewedStatus>, now: Timestamp) -> RouterDocument {
        let link = LinkStatus {
            name: TOKEN.into(),
            role: Role::InterRouter,
            host: "hub".into(),
            port: 1,
            cost: 1,
            direction: Direction::Outgoing,
            peer: None,
            state: LinkState::Active,
            error: None,
            since: String::new(),
            token: None,
            transport: None,
            carries: None,
            fingerprint: None,
            renewed: sent,
        };
        let status = Status {
            links: vec![link],
            ..Status::default()
        };
        let plan = service::plan(&service_snapshot("shop", vec![self.0.clone()], Some(status)), now);
        change(&mut self.0, &plan.changes);
        if !plan.keys.is_empty() {
            let key = NewKey::make(TOKEN).unwrap();
            let data = self.0.data.get_or_insert_default();
            data.insert(renewal::NEXT_KEY.into(), ByteString(key.key_pem.into_bytes()));
            data.insert(
                renewal::NEXT_REQUEST.into(),
                ByteString(key.request_pem.into_bytes()),
            );
        }
        document(&plan)
    }

    fn is_of(&self, authority: &[u8]) -> bool {
        signed_by(bytes(&self.0, "tls.crt").unwrap(), authority).unwrap()
    }
}

fn linked() -> (Hub, Shop) {
    let mut hub = Hub::new();
    let request = Secret {
        metadata: ObjectMeta {
            name: Some(TOKEN.into()),
            namespace: Some("ns".into()),
            labels: Some(strings([(labels::TYPE, labels::TYPE_TOKEN_REQUEST)])),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    hub.settle(day(0));
    hub.0.secrets.insert(TOKEN.into(), request);
    hub.settle(day(0));
    let shop = Shop(hub.0.secrets[TOKEN].clone());
    (hub, shop)
}

#[test]
fn a_link_moves_to_the_successor_without_a_new_token() {
    let (mut hub, mut shop) = linked();
    let old = bytes(&hub.0.secrets[names::SITE_CA], "tls.crt").unwrap().to_vec();
    assert!(site::plan(&hub.0, day(200)).rollovers.is_empty());
    assert_eq!(
        hub.document(None, day(200))
            .authorities
            .map(|all| count(all.as_bytes())),
        Some(1)
    );

    // It begins: both are believed wherever certificates are checked, and the link is told.
    hub.settle(day(270));
    for secret in [
        names::SITE_SERVER,
        names::CLAIMS_SERVER,
        names::LOCAL_CLIENT,
        TOKEN,
    ] {
        assert_eq!(hub.believed(secret), 2, "{secret}");
    }
    let server = bytes(&hub.0.secrets[names::SITE_SERVER], "tls.crt").unwrap();
    assert!(
        signed_by(server, &old).unwrap(),
        "servers keep the old one's for now"
    );
    let told = hub.document(None, day(270)).authorities.unwrap();
    assert_eq!(count(told.as_bytes()), 2);

    // The linked site takes both over, and asks for a certificate of the successor.
    let sent = RenewedStatus {
        certificate: String::new(),
        authorities: told.clone(),
    };
    shop.plan(Some(sent.clone()), day(270));
    assert_eq!(bytes(&shop.0, "ca.crt").unwrap(), told.as_bytes());
    shop.plan(Some(sent.clone()), day(270));
    let asked = shop.plan(Some(sent), day(270)).links[0]
        .renewal
        .clone()
        .expect("a request");
    let status = Status {
        renewals: vec![RenewalStatus {
            token: TOKEN.into(),
            fingerprint: String::new(),
            request: asked.clone(),
        }],
        ..Status::default()
    };
    hub.document(Some(status.clone()), day(270));
    hub.settle(day(270));
    let answer = hub.document(Some(status), day(270)).renewals.remove(0);
    assert_eq!(answer.request, request_digest(asked.as_bytes()));
    let sent = RenewedStatus {
        certificate: answer.certificate,
        authorities: answer.authorities,
    };
    shop.plan(Some(sent.clone()), day(270));
    assert!(!shop.is_of(&old), "it holds by the successor now");
    let quiet = shop.plan(Some(sent), day(271)).links[0].renewal.clone();
    assert_eq!(quiet, None, "and asks no more");

    // The successor takes its place: servers get certificates of it, and what linked sites hold is believed before and after.
    hub.settle(day(280));
    let new = bytes(&hub.0.secrets[names::SITE_CA], "tls.crt").unwrap().to_vec();
    assert_ne!(new, old);
    let server = bytes(&hub.0.secrets[names::SITE_SERVER], "tls.crt").unwrap();
    assert!(signed_by(server, &new).unwrap() && shop.is_of(&new));
    assert_eq!(hub.believed(names::SITE_SERVER), 2);
    assert!(
        signed_by(server, bytes(&shop.0, "ca.crt").unwrap()).unwrap(),
        "the linked site believes it"
    );

    // The old one leaves, also where it was believed far away.
    hub.settle(day(300));
    assert_eq!(hub.believed(names::SITE_SERVER), 1);
    let authorities = hub.document(None, day(300)).authorities.unwrap();
    assert_eq!(authorities.as_bytes(), new);
    let sent = RenewedStatus {
        certificate: String::new(),
        authorities,
    };
    shop.plan(Some(sent), day(300));
    assert_eq!(bytes(&shop.0, "ca.crt").unwrap(), new);
}

#[test]
fn a_token_that_is_issued_meanwhile_is_of_the_successor() {
    let (mut hub, _) = linked();
    hub.settle(day(270));
    let next = bytes(&hub.0.secrets[names::SITE_CA], "next.crt")
        .unwrap()
        .to_vec();
    let mut request = hub.0.secrets[TOKEN].clone();
    request.metadata.name = Some("late".into());
    request.metadata.labels = Some(strings([(labels::TYPE, labels::TYPE_TOKEN_REQUEST)]));
    request.metadata.annotations = Some(BTreeMap::new());
    request.data = None;
    hub.0.secrets.insert("late".into(), request);
    hub.settle(day(270));
    let token = &hub.0.secrets["late"];
    assert!(signed_by(bytes(token, "tls.crt").unwrap(), &next).unwrap());
    assert_eq!(count(bytes(token, "ca.crt").unwrap()), 2);
}
