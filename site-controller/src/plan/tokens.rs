//! Token requests: which can be answered now, and with which addresses.

use k8s_openapi::api::core::v1::{Secret, Service};
use karez_kubernetes::{labels, names};

use super::certificates::{annotation, bytes};
use super::{ClaimOrder, Note, Plan, TokenOrder, rollover};
use crate::object::reference;
use crate::site_config::{Ingress, SiteConfig};
use crate::snapshot::SiteSnapshot;

/// Where peers dial; what goes into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reachable {
    pub(crate) inter_router: (String, u16),
    pub(crate) edge: (String, u16),
}

/// How this site is reached, or `None` while its load balancer has no address.
pub(crate) fn reachable(config: &SiteConfig, router: Option<&Service>) -> Option<Reachable> {
    let both = |host: &str, inter_router: u16, edge: u16| {
        Some(Reachable {
            inter_router: (host.to_owned(), inter_router),
            edge: (host.to_owned(), edge),
        })
    };
    match &config.ingress {
        Ingress::LoadBalancer => {
            let hosts = router.map(external_hosts).unwrap_or_default();
            both(hosts.first()?, names::INTER_ROUTER_PORT, names::EDGE_PORT)
        }
        Ingress::NodePort => {
            let port = |name: &str| node_port(router?, name);
            if config.ingress_host.is_empty() {
                return None;
            }
            both(&config.ingress_host, port("inter-router")?, port("edge")?)
        }
        Ingress::None | Ingress::Unsupported(_) => {
            let host = format!("{}.{}", names::ROUTER, config.namespace);
            both(&host, names::INTER_ROUTER_PORT, names::EDGE_PORT)
        }
    }
}

/// Where claims are redeemed, or `None` while their Service has no address.
pub(crate) fn claims_endpoint(config: &SiteConfig, controller: Option<&Service>) -> Option<(String, u16)> {
    match &config.console_ingress {
        Ingress::LoadBalancer => {
            let hosts = controller.map(external_hosts).unwrap_or_default();
            Some((hosts.first()?.clone(), names::CLAIMS_PORT))
        }
        Ingress::NodePort if config.ingress_host.is_empty() => None,
        Ingress::NodePort => Some((config.ingress_host.clone(), node_port(controller?, "claims")?)),
        Ingress::None | Ingress::Unsupported(_) => {
            let host = format!("{}.{}", names::CONTROLLER_SERVICE, config.namespace);
            Some((host, names::CLAIMS_PORT))
        }
    }
}

/// Hosts that a load balancer gave a Service: of each entry the IP address, else the name.
pub(crate) fn external_hosts(service: &Service) -> Vec<String> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
            filled(&entry.ip).or_else(|| filled(&entry.hostname))
        })
        .collect()
}

fn node_port(service: &Service, name: &str) -> Option<u16> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let port = ports.iter().find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.node_port?).ok()
}

/// Adds what is to be done about the namespace's token requests.
pub(crate) fn plan(config: &SiteConfig, site_id: &str, snapshot: &SiteSnapshot, plan: &mut Plan) {
    let requests = snapshot
        .secrets
        .values()
        .filter(|secret| kind(secret) == Some(labels::TYPE_TOKEN_REQUEST));
    for request in requests {
        let note = |warning, reason, message: String| Note {
            about: reference("v1", "Secret", &request.metadata),
            warning,
            reason,
            message,
        };
        if config.edge {
            plan.notes.push(note(
                true,
                "TokenRequestRefused",
                format!(
                    "Edge configuration cannot accept connections: site \"{}\" is an edge, request the token \
                     from an interior site",
                    config.name
                ),
            ));
            continue;
        }
        match reachable(config, snapshot.services.get(names::ROUTER)) {
            Some(Reachable { inter_router, edge }) => plan.tokens.push(TokenOrder {
                request: request.clone(),
                site_id: site_id.to_owned(),
                inter_router,
                edge,
            }),
            None => plan.notes.push(note(
                false,
                "TokenRequestWaits",
                "waiting until Service skupper-router has an address by which other sites reach this one; \
                 \"ingress: none\" in ConfigMap skupper-site makes tokens for this cluster only"
                    .to_owned(),
            )),
        }
    }
}

/// Adds requests for renewed certificates that wait in the records of this site's tokens.
pub(crate) fn renewals(config: &SiteConfig, site_id: &str, snapshot: &SiteSnapshot, plan: &mut Plan) {
    if config.edge {
        return;
    }
    let own = snapshot.secrets.values().filter(|secret| {
        kind(secret) == Some(labels::TYPE_TOKEN)
            && annotation(secret, labels::GENERATED_BY).is_some_and(|issuer| issuer == site_id)
    });
    let believed = snapshot.secrets.get(names::SITE_CA).map(rollover::believed);
    // What holders are to believe changes when the authority is replaced: their routers are told from the records.
    let outdated = |record: &Secret| {
        believed
            .as_deref()
            .is_some_and(|all| bytes(record, "ca.crt") != Some(all))
    };
    let asked = own.filter(|record| !super::renewal::waiting(record).is_empty() || outdated(record));
    plan.renewals.extend(asked.map(|record| super::RenewalOrder {
        record: record.clone(),
        site_id: site_id.to_owned(),
        renew_expired: config.renew_expired,
    }));
}

/// Adds what is to be done about the namespace's records of claims.
pub(crate) fn claims(config: &SiteConfig, site_id: &str, snapshot: &SiteSnapshot, plan: &mut Plan) {
    let records = snapshot
        .secrets
        .values()
        .filter(|secret| kind(secret) == Some(labels::TYPE_CLAIM_RECORD));
    for record in records {
        let note = |warning, reason, message: &str| Note {
            about: reference("v1", "Secret", &record.metadata),
            warning,
            reason,
            message: message.to_owned(),
        };
        if config.edge || !config.service_controller {
            let message = "Edge configuration cannot accept connections, and without service-controller nobody \
                           serves claims: make it at an interior site that has one";
            plan.notes.push(note(true, "ClaimRefused", message));
            continue;
        }
        let Some(endpoint) = claims_endpoint(config, snapshot.services.get(names::CONTROLLER_SERVICE)) else {
            let message = "waiting until Service skupper has an address by which other sites reach this one";
            plan.notes.push(note(false, "ClaimWaits", message));
            continue;
        };
        if !is_complete(record, &endpoint, snapshot) {
            plan.claims.push(ClaimOrder {
                record: record.clone(),
                site_id: site_id.to_owned(),
                endpoint,
            });
        }
    }
}

/// Whether the record says where it is redeemed and whom its holder is to believe.
fn is_complete(record: &Secret, endpoint: &(String, u16), snapshot: &SiteSnapshot) -> bool {
    let url =
        annotation(record, karez_identity::ANNOTATION_URL).and_then(|url| karez_identity::split_url(url));
    let authority = snapshot.secrets.get(names::SITE_CA);
    url.is_some_and(|(host, port, _)| (&host, port) == (&endpoint.0, endpoint.1))
        && bytes(record, karez_identity::DATA_PASSWORD).is_some()
        && authority
            .is_none_or(|authority| bytes(record, "ca.crt") == Some(&rollover::believed(authority)[..]))
}

/// The value of `skupper.io/type`.
pub(crate) fn kind(secret: &Secret) -> Option<&str> {
    secret
        .metadata
        .labels
        .as_ref()?
        .get(labels::TYPE)
        .map(String::as_str)
}
