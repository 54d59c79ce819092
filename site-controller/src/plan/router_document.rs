//! The router's document: who the site is, tokens it admits, links it makes, addresses it offers and serves.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karez_identity::{CertificateFacts, ConnectionToken, TokenError, Validity};
use karez_kubernetes::{ServiceDefinition, ServiceTarget, VERSION, labels, names};
use karez_router_config as router;
use karez_router_config::{Mode, Role, RouterDocument};
use serde_json::Value;

use super::certificates::{annotation, bytes};
use super::expose::original_selector;
use super::{Note, renewal, tokens};
use crate::object::{Strings, json, meta, reference, strings};
use crate::site_config::pairs;
use crate::snapshot::{ServiceSnapshot, SiteFacts};

/// The name of the TLS profile for the ends of sealed connections.
const SEAL_PROFILE: &str = "karez-seal";

/// What the Secrets of a site mean for its router.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) tokens: Vec<router::TokenSection>,
    pub(crate) links: Vec<router::LinkSection>,
    pub(crate) profiles: Vec<router::TlsSection>,
    /// The Secret with what the site proves itself with at the ends of sealed connections.
    pub(crate) seal: Option<String>,
    pub(crate) notes: Vec<Note>,
}

/// Sorts tokens into those that this site issued and those it links with.
pub(crate) fn credentials<'a>(
    site: &SiteFacts,
    secrets: impl IntoIterator<Item = &'a Secret>,
    now: Timestamp,
) -> Credentials {
    let mut found = Credentials::default();
    for secret in secrets {
        let read = match tokens::kind(secret) {
            Some(labels::TYPE_TOKEN) => read(secret),
            Some(labels::TYPE_CLAIM) => {
                found.claim(secret);
                continue;
            }
            Some(labels::TYPE_SEAL) => {
                found.seal(secret, now);
                continue;
            }
            _ => continue,
        };
        match read {
            Ok(token) if token.generated_by == site.id => found.issued(site, secret, &token, now),
            Ok(token) => found.link(site, secret, &token, now),
            Err(error) => found.warn(secret, "TokenUnusable", error.to_string()),
        }
    }
    found
}

fn read(secret: &Secret) -> Result<ConnectionToken, TokenError> {
    let empty = BTreeMap::new();
    let data = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    ConnectionToken::from_secret_parts(
        secret.metadata.name.as_deref().unwrap_or_default(),
        secret.metadata.labels.as_ref().unwrap_or(&empty),
        secret.metadata.annotations.as_ref().unwrap_or(&empty),
        &data,
    )
}

impl Credentials {
    fn warn(&mut self, secret: &Secret, reason: &'static str, message: String) {
        let about = reference("v1", "Secret", &secret.metadata);
        self.notes.push(Note {
            about,
            warning: true,
            reason,
            message,
        });
    }

    /// A site has one seal certificate; of several the first by name counts, so that nothing depends on their order.
    fn seal(&mut self, secret: &Secret, now: Timestamp) {
        let name = secret.metadata.name.clone().unwrap_or_default();
        if secret.metadata.deletion_timestamp.is_some() {
            return;
        }
        let certificate = bytes(secret, "tls.crt").map(CertificateFacts::from_pem);
        match certificate {
            Some(Ok(facts)) if facts.not_after <= now => {
                let message = format!(
                    "the site's seal certificate ended at {}: sealed addresses are refused until a new one is applied",
                    facts.not_after
                );
                self.warn(secret, "SealExpired", message);
            }
            Some(Ok(_)) => {}
            _ => self.warn(
                secret,
                "SealUnusable",
                "data.tls.crt is missing or no certificate: make the Secret with karez seal issue".to_owned(),
            ),
        }
        match self.seal.take() {
            Some(other) if other != name => {
                let message = format!("there are two seal certificates, {other} and {name}: keep one");
                self.warn(secret, "SealTwice", message);
                self.seal = Some(other.min(name));
            }
            _ => self.seal = Some(name),
        }
    }

    /// A claim is no link yet; why it is not redeemed is worth telling.
    fn claim(&mut self, secret: &Secret) {
        if let Some(status) = annotation(secret, labels::CLAIM_STATUS) {
            let mend = if annotation(secret, labels::CLAIM_LAST_FAILED).is_some() {
                "ask its site for a new one"
            } else {
                "trying again"
            };
            self.warn(secret, "ClaimNotRedeemed", format!("{status}; {mend}"));
        }
    }

    fn issued(&mut self, site: &SiteFacts, secret: &Secret, token: &ConnectionToken, now: Timestamp) {
        // Those that ended within the window may still come to be renewed.
        let ended_before = now.checked_sub(site.renew_expired).unwrap_or(now);
        self.tokens.extend(renewal::sections(secret, token, ended_before));
        match token.facts() {
            Ok(facts) => self.tokens.push(token_section(token, &facts)),
            Err(error) => self.warn(secret, "TokenUnusable", format!("data.tls.crt: {error}")),
        }
    }

    fn link(&mut self, site: &SiteFacts, secret: &Secret, token: &ConnectionToken, now: Timestamp) {
        let disabled = secret
            .metadata
            .labels
            .as_ref()
            .and_then(|all| all.get(labels::DISABLED));
        if disabled.is_some_and(|value| value == "true") || secret.metadata.deletion_timestamp.is_some() {
            return;
        }
        if let Ok(facts) = token.facts()
            && Validity::of(&facts, now) != Validity::Valid
        {
            let message = format!(
                "the token's certificate is valid from {} to {}: ask site {} for a new token, or to allow renewal after \
                 the end (annotation karez.dev/renew-expired of its skupper-site)",
                facts.not_before, facts.not_after, token.generated_by
            );
            self.warn(secret, "TokenExpired", message);
        }
        let (role, (host, port)) = match site.mode {
            Mode::Edge => (Role::Edge, token.edge.clone()),
            Mode::Interior => (Role::InterRouter, token.inter_router.clone()),
        };
        let profile = format!("{}-profile", token.name);
        self.profiles.push(router::TlsSection {
            name: profile.clone(),
            secret: Some(token.name.clone()),
            directory: None,
        });
        self.links.push(router::LinkSection {
            name: token.name.clone(),
            role,
            host,
            port,
            cost: token.cost.unwrap_or(1).max(1),
            tls: profile,
            ..router::LinkSection::default()
        });
    }
}

/// An entry of the router's list: a certificate, and what its holder may do.
pub(crate) fn token_section(token: &ConnectionToken, facts: &CertificateFacts) -> router::TokenSection {
    let scope = &token.scope;
    router::TokenSection {
        name: token.name.clone(),
        serial: facts.serial.clone(),
        fingerprint: facts.fingerprint.clone(),
        role: match scope.role.as_deref() {
            Some("edge") => Some(Role::Edge),
            Some(_) => Some(Role::InterRouter),
            None => None,
        },
        reach: scope.reach.clone(),
        offer: scope.offer.clone(),
        until: scope.expires.map(|end| end.to_string()),
        uses: scope.uses,
        // Without a limit nobody asks who has used it.
        sites: if scope.uses.is_some() {
            scope.used_by.clone()
        } else {
            Vec::new()
        },
    }
}

/// The part of the document that does not depend on services.
pub(crate) fn site_document(site: &SiteFacts, credentials: &Credentials) -> RouterDocument {
    let profile = |name: &str, secret: &str| router::TlsSection {
        name: name.to_owned(),
        secret: Some(secret.to_owned()),
        directory: None,
    };
    let any = || "0.0.0.0".to_owned();
    let mut tls = vec![profile("skupper-amqps", names::LOCAL_SERVER)];
    let mut accept = Vec::new();
    if site.mode == Mode::Interior {
        tls.push(profile("skupper-internal", names::SITE_SERVER));
        let listener = |name: &str, role, port| router::AcceptSection {
            name: name.to_owned(),
            role,
            host: any(),
            port,
            tls: "skupper-internal".to_owned(),
            ..router::AcceptSection::default()
        };
        accept.push(listener(
            "inter-router",
            Role::InterRouter,
            names::INTER_ROUTER_PORT,
        ));
        accept.push(listener("edge", Role::Edge, names::EDGE_PORT));
    }
    tls.extend(credentials.profiles.clone());
    tls.extend(
        credentials
            .seal
            .as_deref()
            .map(|secret| profile(SEAL_PROFILE, secret)),
    );
    RouterDocument {
        version: router::VERSION,
        site: router::SiteSection {
            id: site.id.clone(),
            name: site.name.clone(),
            namespace: site.namespace.clone(),
            version: VERSION.to_owned(),
        },
        router: router::RouterSection {
            id: None,
            mode: site.mode,
            peers: None,
            max_connections: None,
        },
        tls,
        accept,
        tokens: if site.mode == Mode::Interior {
            credentials.tokens.clone()
        } else {
            Vec::new()
        },
        policy: (site.mode == Mode::Interior).then_some(router::PolicySection {
            sharing: router::Sharing::Named,
            renew_expired_seconds: site.renew_expired.as_secs(),
        }),
        links: credentials.links.clone(),
        seal: credentials.seal.as_ref().map(|_| router::SealSection {
            tls: SEAL_PROFILE.to_owned(),
        }),
        local: Some(router::LocalSection {
            host: any(),
            port: names::LOCAL_PORT,
            tls: "skupper-amqps".to_owned(),
        }),
        admin: Some(router::AdminSection {
            host: any(),
            port: names::ADMIN_PORT,
        }),
        ..RouterDocument::default()
    }
}

/// How the routers of a site that has several find each other.
pub(crate) fn peers() -> router::PeersSection {
    router::PeersSection {
        host: names::ROUTER_PEERS.to_owned(),
        port: names::INTER_ROUTER_PORT,
        tls: "skupper-internal".to_owned(),
    }
}

/// Adds what is offered and served.
pub(crate) fn add_services(
    document: &mut RouterDocument,
    definitions: &BTreeMap<String, ServiceDefinition>,
    ports: &BTreeMap<String, u16>,
    snapshot: &ServiceSnapshot,
) {
    for definition in definitions.values() {
        for port in &definition.ports {
            let address = format!("{}:{port}", definition.address);
            let Some(listener) = ports.get(&address) else {
                continue;
            };
            document.listeners.push(router::ListenerSection {
                name: address.clone(),
                address,
                host: "0.0.0.0".to_owned(),
                port: *listener,
                protocol: protocol(definition),
                sealed: definition.sealed,
                ..router::ListenerSection::default()
            });
        }
        if !definition.is_local() {
            continue;
        }
        for target in &definition.targets {
            document
                .connectors
                .extend(connectors(definition, target, snapshot));
        }
        if snapshot.site.sync {
            document.services.push(announced(definition));
        }
    }
}

fn protocol(definition: &ServiceDefinition) -> router::Protocol {
    match definition.protocol.as_str() {
        "udp" => router::Protocol::Udp,
        _ => router::Protocol::Tcp,
    }
}

fn announced(definition: &ServiceDefinition) -> router::ServiceSection {
    let targets = definition.targets.iter().map(|target| router::TargetSection {
        name: target.name.clone(),
    });
    router::ServiceSection {
        address: definition.address.clone(),
        protocol: definition.protocol.clone(),
        ports: definition.ports.clone(),
        origin: definition.origin.clone(),
        targets: targets.collect(),
        sealed: definition.sealed,
    }
}

fn connectors(
    definition: &ServiceDefinition,
    target: &ServiceTarget,
    snapshot: &ServiceSnapshot,
) -> Vec<router::ConnectorSection> {
    let mut all = Vec::new();
    for host in hosts(definition, target, snapshot) {
        for port in &definition.ports {
            let target_port = target.target_ports.get(port).copied().unwrap_or(*port);
            let address = &definition.address;
            all.push(router::ConnectorSection {
                name: format!("{address}.{}@{host}:{port}:{target_port}", target.name),
                address: format!("{address}:{port}"),
                host: host.clone(),
                port: target_port,
                target: target.name.clone(),
                protocol: protocol(definition),
                capacity: target.capacity,
                sealed: definition.sealed,
                send_proxy_protocol: match (target.proxy_protocol.as_str(), protocol(definition)) {
                    ("v1", router::Protocol::Tcp) => Some(router::ProxyProtocol::V1),
                    ("v2", router::Protocol::Tcp) => Some(router::ProxyProtocol::V2),
                    _ => None,
                },
            });
        }
    }
    all
}

/// Where a target is dialled: a Service's name, or the addresses of ready pods.
fn hosts(definition: &ServiceDefinition, target: &ServiceTarget, snapshot: &ServiceSnapshot) -> Vec<String> {
    if !target.service.is_empty() && target.service != definition.address {
        let elsewhere = !target.namespace.is_empty();
        return vec![if elsewhere {
            format!("{}.{}", target.service, target.namespace)
        } else {
            target.service.clone()
        }];
    }
    let selector = if target.selector.is_empty() {
        // The Service whose name the address took: its pods, not itself.
        snapshot
            .services
            .get(&target.service)
            .map(original_selector)
            .unwrap_or_default()
    } else {
        pairs(&target.selector)
    };
    if selector.is_empty() {
        return Vec::new();
    }
    let mut hosts: Vec<String> = snapshot
        .pods
        .iter()
        .filter(|pod| is_selected(pod, &selector))
        .filter_map(ready_address)
        .collect();
    hosts.sort();
    hosts
}

fn is_selected(pod: &Pod, selector: &Strings) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn ready_address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (ready && pod.metadata.deletion_timestamp.is_none()).then(|| status.pod_ip.clone())?
}

/// ConfigMap `skupper-internal`.
pub(crate) fn config_map(
    document: &RouterDocument,
    namespace: &str,
    owner: Option<&OwnerReference>,
) -> Value {
    json(&ConfigMap {
        metadata: meta(names::INTERNAL, namespace, "router-document", owner),
        data: Some(strings([(names::ROUTER_DOCUMENT_KEY, &document.to_yaml())])),
        ..ConfigMap::default()
    })
}

/// The document that a ConfigMap holds, if it can be read.
pub(crate) fn read_config_map(map: &ConfigMap) -> Option<RouterDocument> {
    let text = map.data.as_ref()?.get(names::ROUTER_DOCUMENT_KEY)?;
    serde_saphyr::from_str(text).ok()
}
