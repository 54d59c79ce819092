//! A site: `skupper-site` in, everything that runs it out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use karez_identity::CertificateFacts;
use karez_kubernetes::{labels, names};
use karez_router_config::Mode;

use super::certificates::{Certificates, annotation, bytes, expires_soon};
use super::router_document::{config_map, credentials, peers, site_document};
use super::site_workloads::Workloads;
use super::{CertificateKind, CertificateOrder, Note, Plan, rollover, tokens};
use crate::object::{Strings, json, meta, reference, strings};
use crate::site_config::{Ingress, SiteConfig};
use crate::snapshot::{SiteFacts, SiteSnapshot};

/// Plans one namespace. Without a site there is nothing to do: its objects go with their owner.
pub(crate) fn plan(snapshot: &SiteSnapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(site) = &snapshot.site else { return plan };
    let ignored = site.metadata.labels.as_ref().is_some_and(|labels| {
        labels
            .get(labels::SITE_CONTROLLER_IGNORE)
            .is_some_and(|value| value == "true")
    });
    if ignored || site.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let config = SiteConfig::read(site);
    let owner = owner(site);
    let site_id = site_id(snapshot, &owner);
    let hosts = |name: &str| {
        snapshot
            .services
            .get(name)
            .map(tokens::external_hosts)
            .unwrap_or_default()
    };
    let mut router_hosts = hosts(names::ROUTER);
    if !config.ingress_host.is_empty() {
        router_hosts.push(config.ingress_host.clone());
    }
    let certificates = Certificates {
        config: &config,
        site_id: &site_id,
        snapshot,
        router_hosts: &router_hosts,
        controller_hosts: &hosts(names::CONTROLLER_SERVICE),
        owner: &owner,
        now,
    };
    plan.certificates = certificates.orders();
    plan.again_at = certificates.next_renewal();
    let (rollovers, again) = certificates.rollovers();
    plan.rollovers = rollovers;
    if let Some(at) = again {
        plan.again(at);
    }
    note_old_authorities(&certificates, site, &mut plan);
    remember_site_id(&config, snapshot, &site_id, &mut plan);

    Workloads {
        config: &config,
        site_id: &site_id,
        owner: &owner,
    }
    .plan(&mut plan);
    if config.has_console_users() {
        console_users(&config, snapshot, &owner, &mut plan);
        plan.objects.push(sasl_config(&config, &owner));
    }
    tokens::plan(&config, &site_id, snapshot, &mut plan);
    tokens::claims(&config, &site_id, snapshot, &mut plan);
    tokens::renewals(&config, &site_id, snapshot, &mut plan);
    if !config.service_controller {
        router_document(&config, &site_id, snapshot, &owner, now, &mut plan);
    }
    note_unsupported(&config, site, &mut plan);
    plan.prune(&snapshot.managed);
    plan
}

/// Without a service-level controller nobody else writes the router's document: links, but no addresses.
fn router_document(
    config: &SiteConfig,
    site_id: &str,
    snapshot: &SiteSnapshot,
    owner: &OwnerReference,
    now: Timestamp,
    plan: &mut Plan,
) {
    let site = SiteFacts {
        id: site_id.to_owned(),
        name: config.name.clone(),
        namespace: config.namespace.clone(),
        mode: if config.edge { Mode::Edge } else { Mode::Interior },
        sync: false,
        renew_expired: config.renew_expired,
    };
    let credentials = credentials(&site, snapshot.secrets.values(), now);
    let mut document = site_document(&site, &credentials);
    if config.has_several_routers() {
        document.router.peers = Some(peers());
    }
    plan.objects
        .push(config_map(&document, &config.namespace, Some(owner)));
    plan.notes.extend(credentials.notes);
}

/// The reference by which a site owns its objects; as Skupper's, without a `controller` flag.
pub(crate) fn owner(site: &ConfigMap) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: names::SITE.to_owned(),
        uid: site.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// The site's id: remembered with the local authority, else the ConfigMap's uid.
fn site_id(snapshot: &SiteSnapshot, owner: &OwnerReference) -> String {
    snapshot
        .secrets
        .get(names::LOCAL_CA)
        .and_then(|secret| annotation(secret, labels::SITE_ID))
        .filter(|id| !id.is_empty())
        .unwrap_or(&owner.uid)
        .clone()
}

/// An authority that somebody brought along lacks the id: it is written beside.
fn remember_site_id(config: &SiteConfig, snapshot: &SiteSnapshot, site_id: &str, plan: &mut Plan) {
    let Some(secret) = snapshot.secrets.get(names::LOCAL_CA) else {
        return;
    };
    if annotation(secret, labels::SITE_ID).is_some() {
        return;
    }
    plan.objects.push(json(&Secret {
        metadata: ObjectMeta {
            annotations: Some(strings([(labels::SITE_ID, site_id)])),
            ..meta(names::LOCAL_CA, &config.namespace, "authority", None)
        },
        type_: secret.type_.clone(),
        ..Secret::default()
    }));
}

/// `skupper-console-users`: the user that the site names. Where it names no password one is made up once, by the
/// issuing step, because a plan has no randomness.
fn console_users(config: &SiteConfig, snapshot: &SiteSnapshot, owner: &OwnerReference, plan: &mut Plan) {
    let user = if config.console_user.is_empty() {
        "admin"
    } else {
        &config.console_user
    };
    if !config.console_password.is_empty() {
        let password = k8s_openapi::ByteString(config.console_password.clone().into_bytes());
        plan.objects.push(json(&Secret {
            metadata: meta(names::CONSOLE_USERS, &config.namespace, "site", Some(owner)),
            type_: Some("Opaque".to_owned()),
            data: Some([(user.to_owned(), password)].into()),
            ..Secret::default()
        }));
    } else if snapshot.secrets.get(names::CONSOLE_USERS).is_none_or(|secret| {
        let mut owners = secret.metadata.owner_references.iter().flatten();
        bytes(secret, user).is_none() || !owners.any(|one| one.uid == owner.uid)
    }) {
        plan.certificates.push(CertificateOrder {
            secret: names::CONSOLE_USERS.to_owned(),
            namespace: config.namespace.clone(),
            kind: CertificateKind::ConsoleUser {
                user: user.to_owned(),
            },
            owner: Some(owner.clone()),
            annotations: Strings::new(),
            extra: BTreeMap::new(),
        });
    }
}

fn sasl_config(config: &SiteConfig, owner: &OwnerReference) -> serde_json::Value {
    json(&ConfigMap {
        metadata: meta(names::SASL_CONFIG, &config.namespace, "site", Some(owner)),
        data: Some(strings([(
            "skrouterd.conf",
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: /tmp/skrouterd.sasldb\n",
        )])),
        ..ConfigMap::default()
    })
}

fn note_old_authorities(certificates: &Certificates<'_>, site: &ConfigMap, plan: &mut Plan) {
    for name in certificates.authorities() {
        let Some(secret) = certificates.snapshot.secrets.get(name) else {
            continue;
        };
        plan.notes.extend(rollover::note(name, secret, site));
        let Some(Ok(facts)) = bytes(secret, "tls.crt").map(CertificateFacts::from_pem) else {
            continue;
        };
        let has_key = bytes(secret, "tls.key").is_some_and(|key| !key.is_empty());
        if !has_key && expires_soon(&facts, certificates.now) {
            plan.notes.push(Note {
                about: reference("v1", "ConfigMap", &site.metadata),
                warning: true,
                reason: "AuthorityExpires",
                message: format!(
                    "the authority in Secret {name} ends at {}, and its key is not there to make a successor: \
                     replace it",
                    facts.not_after
                ),
            });
        }
    }
}

fn note_unsupported(config: &SiteConfig, site: &ConfigMap, plan: &mut Plan) {
    for (key, ingress) in [
        ("ingress", &config.ingress),
        ("console-ingress", &config.console_ingress),
    ] {
        if let Ingress::Unsupported(kind) = ingress {
            plan.notes.push(Note {
                about: reference("v1", "ConfigMap", &site.metadata),
                warning: true,
                reason: "IngressNotSupported",
                message: format!(
                    "skupper-site: {key}: \"{kind}\" is not made by Karez, the Services stay ClusterIP and tokens \
                     hold for this cluster only; use loadbalancer, nodeport or none"
                ),
            });
        }
        if key == "ingress" && *ingress == Ingress::NodePort && config.ingress_host.is_empty() {
            plan.notes.push(Note {
                about: reference("v1", "ConfigMap", &site.metadata),
                warning: true,
                reason: "IngressHostMissing",
                message:
                    "skupper-site: ingress: \"nodeport\" needs ingress-host: the host by which the nodes \
                          are reached; token requests wait for it"
                        .to_owned(),
            });
        }
    }
}
