//! The router's status in, `skupper-network-status` out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karez_kubernetes::{
    AddressRecord, ConnectorRecord, IMAGE, LinkRecord, ListenerRecord, NetworkStatus, RouterRecord,
    RouterStatus, ServiceDefinition, SiteRecord, SiteService, SiteStatus, VERSION, names,
};
use karez_router_config::api::{self, Direction};
use karez_router_config::{Mode, Role};
use serde_json::Value;

use super::tokens::Reachable;
use crate::object::{json, meta, strings};

/// What a site tells about itself and what it knows of the others.
pub(crate) fn network_status(status: &api::Status, reachable: Option<&Reachable>) -> NetworkStatus {
    let local_id = status
        .site
        .as_ref()
        .map(|site| site.id.clone())
        .unwrap_or_default();
    let linked = links_between(status, &local_id);
    let sites = status.sites.iter().map(|site| {
        let is_local = site.id == local_id;
        let url = reachable.filter(|_| is_local).map(|reachable| {
            let (host, port) = &reachable.inter_router;
            format!("{host}:{port}")
        });
        SiteStatus {
            site: SiteRecord {
                identity: site.id.clone(),
                name: site.name.clone(),
                name_space: site.namespace.clone(),
                platform: "kubernetes".to_owned(),
                site_version: site.version.clone(),
                minimum_version: String::new(),
                policy: "disabled".to_owned(),
                mode: site.mode.as_str().to_owned(),
                url: url.unwrap_or_default(),
                linked_sites: linked.get(&site.id).cloned().unwrap_or_default(),
                services: site.services.iter().map(service).collect(),
            },
            router_status: vec![router(site, is_local.then_some(status))],
        }
    });
    NetworkStatus {
        addresses: addresses(status),
        site_status: sites.collect(),
    }
}

/// Ids of the sites each site is linked to, in either direction.
fn links_between(status: &api::Status, local_id: &str) -> BTreeMap<String, Vec<String>> {
    let mut linked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |a: &str, b: &str| {
        for (one, other) in [(a, b), (b, a)] {
            let list = linked.entry(one.to_owned()).or_default();
            if !other.is_empty() && one != other && !list.iter().any(|known| known == other) {
                list.push(other.to_owned());
            }
        }
    };
    for site in &status.sites {
        for peer in &site.links {
            add(&site.id, peer);
        }
    }
    let active = status
        .links
        .iter()
        .filter(|link| link.state == api::LinkState::Active);
    for peer in active.filter_map(|link| link.peer.as_ref()) {
        add(local_id, &peer.site_id);
    }
    linked
}

fn service(service: &api::ServiceStatus) -> SiteService {
    SiteService {
        address: service.address.clone(),
        protocol: service.protocol.clone(),
        ports: service.ports.clone(),
        targets: service.targets.iter().map(|target| target.name.clone()).collect(),
    }
}

fn router(site: &api::SiteStatus, local: Option<&api::Status>) -> RouterStatus {
    RouterStatus {
        router: RouterRecord {
            name: format!("0/{}", site.name),
            namespace: site.namespace.clone(),
            mode: site.mode.as_str().to_owned(),
            image_name: IMAGE.split(':').next().unwrap_or_default().to_owned(),
            image_version: site.version.clone(),
            hostname: names::ROUTER.to_owned(),
            build_version: site.version.clone(),
        },
        links: local
            .map(|status| status.links.iter().map(link).collect())
            .unwrap_or_default(),
        listeners: local
            .map(|status| status.listeners.iter().map(listener).collect())
            .unwrap_or_default(),
        connectors: local
            .map(|status| status.connectors.iter().map(connector).collect())
            .unwrap_or_default(),
    }
}

fn link(link: &api::LinkStatus) -> LinkRecord {
    let carries = link.carries.clone().unwrap_or_default();
    LinkRecord {
        mode: match link.role {
            Role::Edge => "edge",
            Role::InterRouter => "interior",
        }
        .to_owned(),
        name: link.name.clone(),
        link_cost: u64::from(link.cost),
        direction: match link.direction {
            Direction::Incoming => "incoming",
            Direction::Outgoing => "outgoing",
        }
        .to_owned(),
        state: link.state.as_str().to_owned(),
        error: link.error.clone().unwrap_or_default(),
        peer_site: link
            .peer
            .as_ref()
            .map(|peer| peer.site_id.clone())
            .unwrap_or_default(),
        transport: link.transport.clone().unwrap_or_default(),
        round_trip: round_trip(carries.round_trip_micros),
        loss: loss(carries.packets_sent, carries.packets_lost),
        certificate_expiry: carries.certificate_expiry.clone().unwrap_or_default(),
    }
}

/// Roughly, so that the object is not written again for each packet: 1, 2 or 5 of a power of ten.
fn rough(number: u64) -> u64 {
    let mut power = 1u64;
    loop {
        for step in [1, 2, 5] {
            let next = power.saturating_mul(step);
            if number <= next || next == u64::MAX {
                return next;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn round_trip(micros: u64) -> String {
    match micros {
        0 => String::new(),
        1..1000 => "1ms".to_owned(),
        _ => format!("{}ms", rough(micros / 1000)),
    }
}

fn loss(sent: u64, lost: u64) -> String {
    let permille = lost.saturating_mul(1000).checked_div(sent);
    match permille {
        None => String::new(),
        Some(0) => "0%".to_owned(),
        Some(permille) => {
            let rough = rough(permille).min(1000);
            format!("{}.{}%", rough / 10, rough % 10)
        }
    }
}

fn listener(listener: &api::ListenerStatus) -> ListenerRecord {
    ListenerRecord {
        name: listener.name.clone(),
        dest_host: listener.host.clone(),
        dest_port: listener.port.to_string(),
        protocol: listener.protocol.as_str().to_owned(),
        address: listener.address.clone(),
    }
}

fn connector(connector: &api::ConnectorStatus) -> ConnectorRecord {
    ConnectorRecord {
        dest_host: connector.host.clone(),
        dest_port: connector.port.to_string(),
        protocol: connector.protocol.as_str().to_owned(),
        address: connector.address.clone(),
        process: String::new(),
        target: connector.target.clone(),
    }
}

fn addresses(status: &api::Status) -> Vec<AddressRecord> {
    let mut all: BTreeMap<String, AddressRecord> = BTreeMap::new();
    for service in status.sites.iter().flat_map(|site| &site.services) {
        for port in &service.ports {
            let name = format!("{}:{port}", service.address);
            let record = all.entry(name.clone()).or_insert_with(|| AddressRecord {
                rec_type: "ADDRESS".to_owned(),
                identity: name.clone(),
                name,
                protocol: service.protocol.clone(),
                listener_count: status.sites.len(),
                ..AddressRecord::default()
            });
            record.connector_count += service.targets.len();
        }
    }
    all.into_values().collect()
}

/// What other sites announce, by their id.
pub(crate) fn announced(status: &api::Status, local_id: &str) -> BTreeMap<String, Vec<ServiceDefinition>> {
    let remote = status
        .sites
        .iter()
        .filter(|site| site.id != local_id && !site.id.is_empty());
    remote
        .map(|site| {
            let services = site.services.iter().map(|service| ServiceDefinition {
                address: service.address.clone(),
                protocol: service.protocol.clone(),
                ports: service.ports.clone(),
                origin: site.id.clone(),
                sealed: service.sealed,
                ..ServiceDefinition::default()
            });
            (site.id.clone(), services.collect())
        })
        .collect()
}

/// ConfigMap `skupper-network-status`.
pub(crate) fn config_map(status: &NetworkStatus, namespace: &str, owner: Option<&OwnerReference>) -> Value {
    let text = serde_json::to_string_pretty(status).expect("only strings and numbers as keys");
    json(&ConfigMap {
        metadata: meta(names::NETWORK_STATUS, namespace, "network-status", owner),
        data: Some(strings([(names::NETWORK_STATUS_KEY, &text)])),
        ..ConfigMap::default()
    })
}

/// A status for a site whose router has not said anything yet: the site alone.
pub(crate) fn alone(id: &str, name: &str, namespace: &str, mode: Mode) -> api::Status {
    let site = api::SiteIdentity {
        id: id.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        version: VERSION.to_owned(),
        mode,
    };
    api::Status {
        sites: vec![api::SiteStatus {
            id: site.id.clone(),
            name: site.name.clone(),
            namespace: site.namespace.clone(),
            version: site.version.clone(),
            mode,
            ..api::SiteStatus::default()
        }],
        site: Some(site),
        ..api::Status::default()
    }
}
