//! Plans as a whole: what a snapshot gives, object by object.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use karez_kubernetes::{ServiceDefinition, labels, names};
use karez_router_config::api::{ServiceStatus, SiteStatus, Status};
use karez_router_config::{ListenerSection, Mode, RouterDocument};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::{CertificateKind, Plan, addresses, network, service, site};
use crate::issue::Issuer;
use crate::object::{ObjectRef, strings};
use crate::snapshot::{ServiceSnapshot, SiteFacts, SiteSnapshot};

const SITE_ID: &str = "0d7e";

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn config_map<const N: usize>(data: [(&str, &str); N]) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::SITE.into()),
            namespace: Some("ns".into()),
            uid: Some(SITE_ID.into()),
            ..ObjectMeta::default()
        },
        data: Some(strings(data)),
        ..ConfigMap::default()
    }
}

fn snapshot<const N: usize>(data: [(&str, &str); N]) -> SiteSnapshot {
    SiteSnapshot {
        namespace: "ns".into(),
        site: Some(config_map(data)),
        ..SiteSnapshot::default()
    }
}

fn kinds(plan: &Plan) -> Vec<String> {
    plan.objects
        .iter()
        .map(|object| {
            let object = ObjectRef::of(object);
            format!("{}/{}", object.kind, object.name)
        })
        .collect()
}

fn object<'a>(plan: &'a Plan, kind: &str, name: &str) -> &'a Value {
    let found = plan
        .objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} in {:?}", kinds(plan)))
}

fn orders(plan: &Plan) -> Vec<&str> {
    plan.certificates
        .iter()
        .map(|order| order.secret.as_str())
        .collect()
}

/// Fulfils a plan's orders, as the controller would.
fn issued(mut snapshot: SiteSnapshot, plan: &Plan, at: Timestamp) -> SiteSnapshot {
    let secrets = snapshot.secrets.clone();
    let mut issuer = Issuer::new(&secrets, at);
    for order in &plan.certificates {
        let secret = issuer.certificate(order).unwrap();
        snapshot.secrets.insert(order.secret.clone(), secret);
    }
    snapshot
}

#[test]
fn an_interior_site_is_complete() {
    let plan = site::plan(
        &snapshot([("name", "public-site"), ("router-console", "true")]),
        now(),
    );
    assert_eq!(
        kinds(&plan),
        [
            "ServiceAccount/skupper-router",
            "Role/skupper-router",
            "RoleBinding/skupper-router",
            "ConfigMap/skupper-services",
            "Service/skupper-router-local",
            "Service/skupper-router",
            "Service/skupper-router-console",
            "Deployment/skupper-router",
            "ServiceAccount/skupper-service-controller",
            "Role/skupper-service-controller",
            "RoleBinding/skupper-service-controller",
            "Service/skupper",
            "Deployment/skupper-service-controller",
            "ConfigMap/skupper-sasl-config",
        ]
    );
    assert_eq!(
        orders(&plan),
        [
            "skupper-local-ca",
            "skupper-site-ca",
            "skupper-service-ca",
            "skupper-local-server",
            "skupper-local-client",
            "skupper-site-server",
            "skupper-claims-server",
            "skupper-console-certs",
            "skupper-service-client",
            "skupper-console-users",
        ]
    );
    for object in &plan.objects {
        let owner =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "skupper-site", "uid": SITE_ID}]);
        assert_eq!(object["metadata"]["ownerReferences"], owner);
    }
    assert_eq!(
        object(&plan, "Service", "skupper-router")["spec"]["type"],
        "LoadBalancer"
    );
}

#[test]
fn several_routers_of_a_site_find_each_other_through_a_headless_service() {
    let plan = site::plan(&snapshot([("name", "s"), ("routers", "3")]), now());
    let service = object(&plan, "Service", "skupper-router-peers");
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    let mut services = service_snapshot();
    services.config_map = Some(config_map([("name", "s"), ("routers", "3")]));
    let with_document = service::plan(&services, now());
    let document =
        object(&with_document, "ConfigMap", "skupper-internal")["data"]["karez-router.yaml"].clone();
    assert!(
        document.as_str().unwrap().contains("host: skupper-router-peers"),
        "{document}"
    );
    let names = |plan: &Plan| {
        plan.objects
            .iter()
            .any(|one| one["metadata"]["name"] == "skupper-router-peers")
    };
    assert!(
        !names(&site::plan(&snapshot([("name", "s")]), now())),
        "one router needs none"
    );
    let edge = snapshot([("name", "s"), ("routers", "3"), ("edge", "true")]);
    assert!(
        !names(&site::plan(&edge, now())),
        "edge routers do not link to each other"
    );
}

#[test]
fn the_router_deployment_is_skuppers() {
    let plan = site::plan(&snapshot([("name", "public-site")]), now());
    let router = object(&plan, "Deployment", "skupper-router");
    assert_eq!(
        router["spec"]["selector"]["matchLabels"],
        json!({"skupper.io/component": "router"})
    );
    assert_eq!(
        router["spec"]["template"]["metadata"]["labels"],
        json!({
            "application": "skupper-router", "app.kubernetes.io/name": "skupper-router",
            "app.kubernetes.io/part-of": "skupper", "skupper.io/component": "router",
        })
    );
    assert_eq!(
        router["spec"]["template"]["metadata"]["annotations"],
        json!({"prometheus.io/port": "9090", "prometheus.io/scrape": "true"})
    );
    let container = &router["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"], json!(["karez"]));
    assert_eq!(
        container["args"],
        json!(["router", "--config=kube:$(POD_NAMESPACE)/skupper-internal"])
    );
    let ports: Vec<&str> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        ports,
        ["amqps", "http", "inter-router", "edge", "link-quic", "edge-quic"]
    );
    assert!(ports.iter().all(|name| name.len() <= 15));
    let controller = object(&plan, "Deployment", "skupper-service-controller");
    let env = controller["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap();
    let env: BTreeMap<&str, &str> = env
        .iter()
        .map(|var| (var["name"].as_str().unwrap(), var["value"].as_str().unwrap()))
        .collect();
    assert_eq!(env["SKUPPER_SITE_ID"], SITE_ID);
    assert_eq!(env["SKUPPER_SITE_NAME"], "public-site");
    assert_eq!(env["SKUPPER_ROUTER_MODE"], "interior");
}

#[test]
fn an_edge_site_has_no_listeners_and_no_authority_for_links() {
    let plan = site::plan(
        &snapshot([("edge", "true"), ("ingress", "none"), ("console", "true")]),
        now(),
    );
    assert!(!kinds(&plan).contains(&"Service/skupper-router".to_owned()));
    for absent in ["skupper-site-ca", "skupper-site-server", "skupper-claims-server"] {
        assert!(!orders(&plan).contains(&absent), "{absent}");
    }
    let ports = &object(&plan, "Service", "skupper")["spec"]["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 1);
    let router = object(&plan, "Deployment", "skupper-router");
    let ports = &router["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 2);
}

#[test]
fn a_site_without_console_or_controller_has_no_service_for_them() {
    let plan = site::plan(
        &snapshot([("console", "false"), ("service-controller", "false")]),
        now(),
    );
    let kinds = kinds(&plan);
    assert!(
        !kinds
            .iter()
            .any(|kind| kind == "Service/skupper" || kind.contains("service-controller"))
    );
    assert!(!orders(&plan).contains(&"skupper-console-users"));
    // Nobody else would write the router's document.
    assert!(kinds.contains(&"ConfigMap/skupper-internal".to_owned()));
}

#[test]
fn a_settled_site_orders_nothing() {
    let before = snapshot([]);
    let plan = site::plan(&before, now());
    let after = site::plan(&issued(before, &plan, now()), now());
    assert_eq!(orders(&after), Vec::<&str>::new());
}

#[test]
fn certificates_follow_the_hosts_the_authority_and_the_calendar() {
    let mut settled = snapshot([]);
    settled = issued(settled.clone(), &site::plan(&settled, now()), now());
    // The load balancer got an address.
    let mut balanced = settled.clone();
    let service: Service =
        serde_json::from_value(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}))
            .unwrap();
    balanced.services.insert(names::ROUTER.into(), service);
    assert_eq!(orders(&site::plan(&balanced, now())), ["skupper-site-server"]);
    // Somebody deleted an authority.
    let mut robbed = settled.clone();
    robbed.secrets.remove(names::SITE_CA);
    let plan = site::plan(&robbed, now());
    assert_eq!(
        orders(&plan),
        ["skupper-site-ca", "skupper-site-server", "skupper-claims-server"]
    );
    // Close to their end, what can outlive its authority no longer is not ordered again and again.
    let late = now() + SignedDuration::from_hours(24 * (5 * 365 - 10));
    let plan = site::plan(&settled, late);
    assert_eq!(orders(&plan), Vec::<&str>::new());
    assert!(
        !plan.rollovers.is_empty(),
        "successors are made before the authorities end"
    );
    // Under a younger authority the same certificate is renewed.
    let mut renewed = settled.clone();
    for name in [names::LOCAL_CA, names::SITE_CA, names::SERVICE_CA] {
        renewed.secrets.remove(name);
    }
    let renewed = issued(renewed.clone(), &site::plan(&renewed, late), late);
    assert_eq!(orders(&site::plan(&renewed, late)), Vec::<&str>::new());
}

#[test]
fn authorities_have_no_owner_and_the_local_one_remembers_the_site() {
    let plan = site::plan(&snapshot([]), now());
    let authority = &plan.certificates[0];
    assert_eq!(authority.owner, None);
    assert_eq!(authority.annotations[labels::SITE_ID], SITE_ID);
    let before = snapshot([]);
    let mut again = issued(before, &plan, now());
    again.site.as_mut().unwrap().metadata.uid = Some("another".into());
    let plan = site::plan(&again, now());
    // All but the authorities are issued anew for the new owner, under the id of old.
    assert!(
        plan.certificates
            .iter()
            .all(|order| !matches!(order.kind, CertificateKind::Authority { .. }))
    );
    let controller = object(&plan, "Deployment", "skupper-service-controller");
    assert!(controller.to_string().contains(r#""value":"0d7e""#));
}

#[test]
fn what_is_no_longer_wanted_is_deleted() {
    let mut was_interior = snapshot([("edge", "true")]);
    let of = |kind: &str, name: &str| ObjectRef {
        api_version: "v1".into(),
        kind: kind.into(),
        namespace: "ns".into(),
        name: name.into(),
    };
    was_interior.managed = vec![
        of("Service", "skupper-router"),
        of("Service", "skupper-router-local"),
    ];
    assert_eq!(
        site::plan(&was_interior, now()).deletions,
        [of("Service", "skupper-router")]
    );
}

#[test]
fn a_site_that_is_to_be_left_alone_is() {
    let mut ignored = snapshot([]);
    ignored.site.as_mut().unwrap().metadata.labels =
        Some(strings([(labels::SITE_CONTROLLER_IGNORE, "true")]));
    let plan = site::plan(&ignored, now());
    assert!(plan.objects.is_empty() && plan.certificates.is_empty());
}

fn service_snapshot() -> ServiceSnapshot {
    ServiceSnapshot {
        site: SiteFacts {
            id: SITE_ID.into(),
            name: "s".into(),
            namespace: "ns".into(),
            mode: Mode::Interior,
            sync: true,
            ..SiteFacts::default()
        },
        config_map: Some(config_map([])),
        router: Some(ObjectMeta {
            uid: Some("r".into()),
            ..ObjectMeta::default()
        }),
        ..ServiceSnapshot::default()
    }
}

fn definition(address: &str, ports: &[u16], origin: &str) -> ServiceDefinition {
    ServiceDefinition {
        address: address.into(),
        protocol: "tcp".into(),
        ports: ports.to_vec(),
        origin: origin.into(),
        ..ServiceDefinition::default()
    }
}

fn stored(definitions: &[ServiceDefinition]) -> ConfigMap {
    ConfigMap {
        data: Some(
            definitions
                .iter()
                .map(|one| (one.address.clone(), one.to_json()))
                .collect(),
        ),
        ..ConfigMap::default()
    }
}

#[test]
fn what_was_exposed_wins_over_what_others_announce_and_the_first_origin_stays() {
    let mut snapshot = service_snapshot();
    snapshot.services_map = Some(stored(&[
        definition("mine", &[1], ""),
        definition("both", &[2], "b"),
    ]));
    snapshot.remotes = BTreeMap::from([
        (
            "a".to_owned(),
            vec![definition("mine", &[9], "a"), definition("both", &[3], "a")],
        ),
        (
            "b".to_owned(),
            vec![definition("both", &[2], "b"), definition("Bad Name", &[2], "b")],
        ),
    ]);
    let found = addresses::definitions(&snapshot);
    assert_eq!(found.all["mine"].ports, [1]);
    assert_eq!(found.all["both"].origin, "b");
    assert_eq!(found.own.keys().collect::<Vec<_>>(), ["both"]);
    assert_eq!(found.all.len(), 2);
}

#[test]
fn a_damaged_entry_is_named_and_the_others_stay() {
    let mut snapshot = service_snapshot();
    let mut map = stored(&[definition("good", &[1], "")]);
    map.data.as_mut().unwrap().insert("bad".into(), "{".into());
    snapshot.services_map = Some(map);
    let found = addresses::definitions(&snapshot);
    assert!(found.all.contains_key("good"));
    assert!(found.notes[0].message.contains("skupper-services/bad"));
}

#[test]
fn listeners_keep_their_ports() {
    let mut snapshot = service_snapshot();
    let listener = |name: &str, port| ListenerSection {
        name: name.into(),
        address: name.into(),
        port,
        ..ListenerSection::default()
    };
    snapshot.previous = Some(RouterDocument {
        listeners: vec![
            listener("b:1", 1024),
            listener("gone:1", 1025),
            listener("c:1", 1024),
        ],
        ..RouterDocument::default()
    });
    let all = ["a", "b", "c"].map(|name| (name.to_owned(), definition(name, &[1], "")));
    let ports = addresses::allocate(&BTreeMap::from(all), &snapshot);
    assert_eq!(ports["b:1"], 1024);
    assert_eq!((ports["a:1"], ports["c:1"]), (1025, 1026));
}

#[test]
fn a_port_that_the_router_cannot_bind_is_said_about_its_deployment() {
    let mut snapshot = service_snapshot();
    snapshot.router = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some("skupper-router".into()),
        ..Default::default()
    });
    let mut status = karez_router_config::api::Status::default();
    status.accepts.push(karez_router_config::api::AcceptStatus {
        name: "edge".into(),
        addresses: Vec::new(),
        error: Some("UDP port 45671 is in use; stop that program".into()),
    });
    snapshot.status = Some(status);
    let notes = service::plan(&snapshot, now()).notes;
    let note = notes
        .iter()
        .find(|note| note.reason == "LinkPortNotBound")
        .expect("a note");
    assert!(note.warning && note.message.contains("45671"), "{note:?}");
    assert_eq!(note.about.name.as_deref(), Some("skupper-router"));
}

#[test]
fn never_means_no_service_and_still_a_listener() {
    let mut snapshot = service_snapshot();
    let quiet = ServiceDefinition {
        expose_ingress: "Never".into(),
        ..definition("quiet", &[1], "")
    };
    snapshot.services_map = Some(stored(&[quiet]));
    let plan = service::plan(&snapshot, now());
    assert!(!kinds(&plan).contains(&"Service/quiet".to_owned()));
    assert!(
        object(&plan, "ConfigMap", "skupper-internal")
            .to_string()
            .contains("quiet:1")
    );
}

#[test]
fn a_token_that_cannot_be_used_is_a_note_on_its_secret() {
    let mut snapshot = service_snapshot();
    snapshot.tokens = vec![Secret {
        metadata: ObjectMeta {
            name: Some("link1".into()),
            labels: Some(strings([(labels::TYPE, labels::TYPE_TOKEN)])),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }];
    let plan = service::plan(&snapshot, now());
    assert_eq!(plan.notes[0].reason, "TokenUnusable");
    assert_eq!(plan.notes[0].about.name.as_deref(), Some("link1"));
}

#[test]
fn the_network_status_lists_links_both_ways() {
    let service = ServiceStatus {
        address: "a".into(),
        protocol: "tcp".into(),
        ports: vec![1],
        ..ServiceStatus::default()
    };
    let mut status = network::alone("me", "m", "ns", Mode::Interior);
    status.sites.push(SiteStatus {
        id: "you".into(),
        links: vec!["me".into()],
        services: vec![service],
        ..SiteStatus::default()
    });
    let document = network::network_status(&status, None);
    assert_eq!(document.site_status[0].site.linked_sites, ["you"]);
    assert_eq!(document.site_status[1].site.linked_sites, ["me"]);
    assert_eq!(document.addresses[0].name, "a:1");
    assert_eq!(
        network::announced(&status, "me").keys().collect::<Vec<_>>(),
        ["you"]
    );
    assert!(network::announced(&Status::default(), "me").is_empty());
}

/// An API server lets nobody grant what he does not have: the controller's own rights must cover what it grants.
#[test]
fn the_deployed_rights_cover_what_sites_are_granted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes/20-rbac.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let own: Vec<PolicyRule> = text
        .split("\n---\n")
        .filter(|document| document.lines().any(|line| line == "kind: ClusterRole"))
        .flat_map(|document| {
            serde_saphyr::from_str::<ClusterRole>(document)
                .unwrap()
                .rules
                .unwrap()
        })
        .collect();
    let each = |rules: &[PolicyRule]| -> BTreeSet<(String, String, String)> {
        let mut all = BTreeSet::new();
        for rule in rules.iter().filter(|rule| rule.resource_names.is_none()) {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    all.extend(
                        rule.verbs
                            .iter()
                            .map(|verb| (group.clone(), resource.clone(), verb.clone())),
                    );
                }
            }
        }
        all
    };
    let own = each(&own);
    let mut objects = site::plan(&snapshot([]), now()).objects;
    objects.push(super::target_allocator::widest_role());
    for granted in objects.iter().filter(|object| object["kind"] == "Role") {
        let role: Role = serde_json::from_value(granted.clone()).unwrap();
        let missing: Vec<_> = each(&role.rules.unwrap()).difference(&own).cloned().collect();
        assert_eq!(
            missing,
            [],
            "{path} lacks what Role {:?} grants",
            role.metadata.name
        );
    }
}
