//! The whole plan of a site's service-level controller.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karez_kubernetes::{labels, names};
use karez_router_config::{AccessLogSection, PolicySection, Sharing};

use super::router_document::{add_services, config_map, credentials, peers, site_document};
use super::site::owner;
use super::tokens::reachable;
use super::{Note, Plan, addresses, network, renewal, router_notes};
use crate::object::{json, reference};
use crate::site_config::SiteConfig;
use crate::snapshot::ServiceSnapshot;

/// Peers that the router did not admit.
fn refusals(site: &ConfigMap, snapshot: &ServiceSnapshot) -> impl Iterator<Item = Note> {
    let refused = snapshot.status.iter().flat_map(|status| &status.refusals);
    refused.map(|refusal| Note {
        about: reference("v1", "ConfigMap", &site.metadata),
        warning: true,
        reason: "PeerRefused",
        message: format!("a peer at {} was not admitted: {}", refusal.from, refusal.reason),
    })
}

/// Claims that somebody asked for in vain.
fn denials(snapshot: &ServiceSnapshot) -> impl Iterator<Item = Note> {
    snapshot.tokens.iter().filter_map(|secret| {
        let reason = snapshot.denials.get(secret.metadata.name.as_ref()?)?;
        Some(Note {
            about: reference("v1", "Secret", &secret.metadata),
            warning: true,
            reason: "ClaimRefused",
            message: format!("a site that asked for this claim was refused: {reason}"),
        })
    })
}

/// What the site's annotation says of the access log.
fn access_log(site: &ConfigMap) -> Option<AccessLogSection> {
    let text = site.metadata.annotations.as_ref()?.get(labels::ACCESS_LOG)?;
    let per_second = text.trim().parse().ok().filter(|number| *number > 0)?;
    Some(AccessLogSection { per_second })
}

/// Plans a site: the router's document, stored definitions, address Services, the network's status.
pub(crate) fn plan(snapshot: &ServiceSnapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(site) = &snapshot.config_map else {
        return plan;
    };
    if site.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (owner, namespace) = (owner(site), &snapshot.site.namespace);
    let credentials = credentials(&snapshot.site, &snapshot.tokens, now);
    let definitions = addresses::definitions(snapshot);
    let ports = addresses::allocate(&definitions.all, snapshot);

    let mut document = site_document(&snapshot.site, &credentials);
    let config = SiteConfig::read(site);
    if config.has_several_routers() {
        document.router.peers = Some(peers());
    }
    add_services(&mut document, &definitions.all, &ports, snapshot);
    renewal::plan(snapshot, &mut document, now, &mut plan);
    if SiteConfig::read(site).shares_addresses {
        document.policy = Some(PolicySection {
            sharing: Sharing::Any,
            ..document.policy.unwrap_or_default()
        });
    }
    document.access_log = access_log(site);
    plan.objects.push(config_map(&document, namespace, Some(&owner)));
    plan.objects.push(json(&ConfigMap {
        // No label and no owner: the site-level controller gives it both.
        metadata: ObjectMeta {
            name: Some(names::SERVICES.to_owned()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        data: Some(definitions.own.clone()),
        ..ConfigMap::default()
    }));
    addresses::plan(&definitions.all, &ports, snapshot, &mut plan);

    let reachable = reachable(&config, snapshot.services.get(names::ROUTER)).filter(|_| !config.edge);
    let alone;
    let status = match &snapshot.status {
        Some(status) if status.site.is_some() => status,
        _ => {
            let site = &snapshot.site;
            alone = network::alone(&site.id, &site.name, &site.namespace, site.mode);
            &alone
        }
    };
    let status = network::network_status(status, reachable.as_ref());
    plan.objects
        .push(network::config_map(&status, namespace, Some(&owner)));
    plan.notes.extend(credentials.notes);
    plan.notes.extend(denials(snapshot));
    plan.notes.extend(refusals(site, snapshot));
    plan.notes.extend(definitions.notes);
    plan.notes.extend(router_notes::notes(snapshot));
    plan
}
