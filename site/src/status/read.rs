//! From the cluster's objects to values: ConfigMaps `skupper-site`, `skupper-services` and
//! `skupper-network-status`, the token Secrets, and the Services of a site.
//!
//! Everything is read through the Kubernetes API, so that it works the same for a local site and for a cluster
//! that lets no one near its routers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use karez_identity::ConnectionToken;
use karez_kubernetes as kubernetes;
use karez_kubernetes::{labels, names};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::{
    LinkStatus, LinkedSite, NetworkService, NetworkStatus, NetworkTarget, ServiceStatus, ServiceTarget,
    SiteStatus, SiteSummary, UnservedPort,
};

/// Why a site's status cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no site in the namespace.
    #[error(
        "Skupper is not enabled in namespace '{namespace}': it has no ConfigMap skupper-site; create one, or name another namespace with -n or another local site with --site"
    )]
    NoSite {
        /// The namespace.
        namespace: String,
    },
    /// The API refused or could not be reached.
    #[error("cannot read {what} in namespace {namespace}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// The namespace.
        namespace: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The network's status is not what the service controller writes.
    #[error(
        "ConfigMap {namespace}/{} is not readable: {source}; delete it, the service controller writes it again",
        names::NETWORK_STATUS
    )]
    Document {
        /// The namespace.
        namespace: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads a site's status through one client.
pub struct Reader {
    client: Client,
    namespace: String,
}

impl Reader {
    /// Reads the site of a namespace.
    pub fn new(client: Client, namespace: impl Into<String>) -> Reader {
        Reader {
            client,
            namespace: namespace.into(),
        }
    }

    fn failed(&self, what: &str) -> impl FnOnce(kube::Error) -> ReadError + use<'_> {
        let what = what.to_owned();
        move |source| ReadError::Api {
            what,
            namespace: self.namespace.clone(),
            source: Box::new(source),
        }
    }

    async fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, ReadError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get_opt(name)
            .await
            .map_err(self.failed(&format!("ConfigMap {name}")))
    }

    async fn site(&self) -> Result<ConfigMap, ReadError> {
        let site = self.config_map(names::SITE).await?;
        site.ok_or_else(|| ReadError::NoSite {
            namespace: self.namespace.clone(),
        })
    }

    async fn document(&self) -> Result<kubernetes::NetworkStatus, ReadError> {
        let map = self.config_map(names::NETWORK_STATUS).await?;
        let text = map
            .and_then(|map| map.data)
            .and_then(|mut data| data.remove(names::NETWORK_STATUS_KEY));
        match text {
            None => Ok(kubernetes::NetworkStatus::default()),
            Some(text) => serde_json::from_str(&text).map_err(|source| ReadError::Document {
                namespace: self.namespace.clone(),
                source,
            }),
        }
    }

    /// The network as this site sees it.
    ///
    /// # Errors
    /// When there is no site or its objects cannot be read.
    pub async fn network(&self) -> Result<NetworkStatus, ReadError> {
        let site = self.site().await?;
        let id = site.metadata.uid.clone().unwrap_or_default();
        let document = self.document().await?;
        let services = self.services().await?;
        Ok(network(&id, &site, &document, &services))
    }

    /// The addresses that this site knows.
    ///
    /// # Errors
    /// When there is no site or its objects cannot be read.
    pub async fn services(&self) -> Result<Vec<ServiceStatus>, ReadError> {
        self.site().await?;
        let data = self
            .config_map(names::SERVICES)
            .await?
            .and_then(|map| map.data)
            .unwrap_or_default();
        Ok(data.iter().filter_map(|(key, text)| service(key, text)).collect())
    }

    /// The links that this site makes, by name.
    ///
    /// # Errors
    /// When there is no site or its objects cannot be read.
    pub async fn links(&self) -> Result<Vec<LinkStatus>, ReadError> {
        let site = self.site().await?;
        let id = site.metadata.uid.clone().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let kinds = format!(
            "{} in ({},{})",
            labels::TYPE,
            labels::TYPE_TOKEN,
            labels::TYPE_CLAIM
        );
        let params = ListParams::default().labels(&kinds);
        let tokens = api.list(&params).await.map_err(self.failed("Secrets"))?;
        let document = self.document().await?;
        let edge = mode(&site) == "edge";
        let foreign = tokens
            .items
            .iter()
            .filter(|token| annotation(token, labels::GENERATED_BY) != id);
        Ok(foreign.map(|token| link(token, edge, &document)).collect())
    }

    /// The site in short.
    ///
    /// # Errors
    /// When there is no site or its objects cannot be read.
    pub async fn summary(&self) -> Result<SiteSummary, ReadError> {
        let site = self.site().await?;
        let network = self.network().await?;
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let services = services
            .list(&ListParams::default())
            .await
            .map_err(self.failed("Services"))?;
        let ready = self.router_ready().await?;
        let others = network.sites.iter().filter(|site| !site.local).count();
        let direct = directly_linked(&network);
        Ok(SiteSummary {
            namespace: self.namespace.clone(),
            name: site_name(&site, &self.namespace),
            mode: mode(&site).to_owned(),
            ready,
            sites: others,
            indirectly: others.saturating_sub(direct),
            services: network.services.len(),
            unserved: self.unserved(&services.items).await?,
        })
    }

    /// Ports of the Services made here that nothing serves: by name where the reason is known, else by what the
    /// containers behind them declare.
    async fn unserved(&self, services: &[Service]) -> Result<Vec<UnservedPort>, ReadError> {
        use k8s_openapi::api::core::v1::Pod;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods = api
            .list(&ListParams::default())
            .await
            .map_err(self.failed("Pods"))?
            .items;
        let mut all: Vec<UnservedPort> = Vec::new();
        for service in services {
            all.extend(unserved(service));
            all.extend(undeclared(service, &pods));
        }
        Ok(all)
    }

    async fn router_ready(&self) -> Result<bool, ReadError> {
        use k8s_openapi::api::apps::v1::Deployment;
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let router = api
            .get_opt(names::ROUTER)
            .await
            .map_err(self.failed("Deployment skupper-router"))?;
        Ok(router
            .and_then(|router| router.status)
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
            > 0)
    }
}

fn directly_linked(network: &NetworkStatus) -> usize {
    let local: BTreeSet<&str> = network
        .sites
        .iter()
        .filter(|site| site.local)
        .map(|site| site.id.as_str())
        .collect();
    let out = network
        .sites
        .iter()
        .filter(|site| site.local)
        .flat_map(|site| &site.links);
    let mut direct: BTreeSet<&str> = out
        .filter(|link| link.active)
        .map(|link| link.id.as_str())
        .collect();
    for site in network.sites.iter().filter(|site| !site.local) {
        if site.links.iter().any(|link| local.contains(link.id.as_str())) {
            direct.insert(&site.id);
        }
    }
    direct.len()
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(key))
        .map_or("", String::as_str)
}

fn data<'a>(site: &'a ConfigMap, key: &str) -> Option<&'a str> {
    site.data
        .as_ref()?
        .get(key)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

fn mode(site: &ConfigMap) -> &'static str {
    match (data(site, "router-mode"), data(site, "edge")) {
        (Some("edge"), _) | (None, Some("true")) => "edge",
        _ => "interior",
    }
}

fn site_name(site: &ConfigMap, namespace: &str) -> String {
    data(site, "name").unwrap_or(namespace).to_owned()
}

fn service(key: &str, text: &str) -> Option<ServiceStatus> {
    let definition = kubernetes::ServiceDefinition::parse(key, text).ok()?;
    let targets = definition.targets.into_iter().map(|target| ServiceTarget {
        name: target.name,
        selector: target.selector,
        service: target.service,
    });
    Some(ServiceStatus {
        address: definition.address,
        protocol: definition.protocol,
        ports: definition.ports,
        targets: targets.collect(),
        labels: definition.labels,
        sealed: definition.sealed,
        origin: definition.origin,
    })
}

fn link(token: &Secret, edge: bool, document: &kubernetes::NetworkStatus) -> LinkStatus {
    let name = token.metadata.name.clone().unwrap_or_default();
    let (host, port) = if edge {
        (labels::EDGE_HOST, labels::EDGE_PORT)
    } else {
        (labels::INTER_ROUTER_HOST, labels::INTER_ROUTER_PORT)
    };
    let record = local_links(document).find(|link| link.direction == "outgoing" && link.name == name);
    let peer = record.map(|link| link.peer_site.as_str()).unwrap_or_default();
    LinkStatus {
        peer: match (
            annotation(token, host),
            annotation(token, karez_identity::ANNOTATION_URL),
        ) {
            ("", url) => url.to_owned(),
            (host, _) => format!("{host}:{}", annotation(token, port)),
        },
        site: site_names(document)
            .get(peer)
            .copied()
            .unwrap_or_default()
            .to_owned(),
        cost: annotation(token, labels::COST).parse().unwrap_or(1),
        active: record.is_some_and(|link| link.state == "active"),
        transport: record.map(|link| link.transport.clone()).unwrap_or_default(),
        round_trip: record.map(|link| link.round_trip.clone()).unwrap_or_default(),
        loss: record.map(|link| link.loss.clone()).unwrap_or_default(),
        certificate_expiry: record
            .map(|link| link.certificate_expiry.clone())
            .unwrap_or_default(),
        token_expiry: token_expiry(token),
        description: record
            .map(|link| link.error.clone())
            .filter(|error| !error.is_empty())
            .or_else(|| unusable(token))
            .unwrap_or_default(),
        name,
    }
}

/// When the certificate of a token ends; empty where there is none.
fn token_expiry(secret: &Secret) -> String {
    let pem = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
    let facts = pem.and_then(|pem| karez_identity::CertificateFacts::from_pem(&pem.0).ok());
    facts.map(|facts| facts.not_after.to_string()).unwrap_or_default()
}

/// Why no link is made from a Secret: a claim that is not redeemed, a token that lacks a part.
fn unusable(secret: &Secret) -> Option<String> {
    if secret
        .labels()
        .get(labels::TYPE)
        .is_some_and(|kind| kind == labels::TYPE_CLAIM)
    {
        let status = annotation(secret, labels::CLAIM_STATUS);
        return Some(
            if status.is_empty() {
                "the claim is being redeemed"
            } else {
                status
            }
            .to_owned(),
        );
    }
    let data = secret.data.iter().flatten();
    let data = data.map(|(key, value)| (key.clone(), value.0.clone())).collect();
    let read = ConnectionToken::from_secret_parts(
        secret.metadata.name.as_deref().unwrap_or_default(),
        secret.labels(),
        secret.annotations(),
        &data,
    );
    read.err().map(|error| error.to_string())
}

fn local_links(document: &kubernetes::NetworkStatus) -> impl Iterator<Item = &kubernetes::LinkRecord> {
    let local = document.site_status.first();
    local
        .into_iter()
        .flat_map(|site| &site.router_status)
        .flat_map(|router| &router.links)
}

fn site_names(document: &kubernetes::NetworkStatus) -> BTreeMap<&str, &str> {
    let sites = document.site_status.iter().map(|status| &status.site);
    sites
        .map(|site| (site.identity.as_str(), site.name.as_str()))
        .collect()
}

/// Puts the network together: sites from the document (the local one from its ConfigMap where the document is
/// not there yet), addresses from `skupper-services` and from what each site serves.
fn network(
    id: &str,
    site: &ConfigMap,
    document: &kubernetes::NetworkStatus,
    services: &[ServiceStatus],
) -> NetworkStatus {
    let mut sites: Vec<SiteStatus> = document
        .site_status
        .iter()
        .map(|status| known_site(id, status, document))
        .collect();
    if !sites.iter().any(|site| site.local) {
        sites.insert(0, local_site(id, site));
    }
    sites.sort_by(|a, b| (&a.id, &a.name).cmp(&(&b.id, &b.name)));
    NetworkStatus {
        sites,
        services: addresses(id, document, services),
    }
}

fn local_site(id: &str, site: &ConfigMap) -> SiteStatus {
    let namespace = site.metadata.namespace.clone().unwrap_or_default();
    SiteStatus {
        id: id.to_owned(),
        name: site_name(site, &namespace),
        mode: mode(site).to_owned(),
        local: true,
        version: kubernetes::VERSION.to_owned(),
        namespace,
        ..SiteStatus::default()
    }
}

fn known_site(id: &str, status: &kubernetes::SiteStatus, document: &kubernetes::NetworkStatus) -> SiteStatus {
    let site = &status.site;
    let local = site.identity == id;
    SiteStatus {
        id: site.identity.clone(),
        name: site.name.clone(),
        namespace: site.name_space.clone(),
        version: site.site_version.clone(),
        url: url_host(&site.url),
        mode: site.mode.clone(),
        links: if local {
            own_links(document)
        } else {
            foreign_links(site, document)
        },
        local,
    }
}

/// The host without its port: Skupper prints where the router is, not which port it has.
fn url_host(url: &str) -> String {
    url.rsplit_once(':').map_or(url, |(host, _)| host).to_owned()
}

fn own_links(document: &kubernetes::NetworkStatus) -> Vec<LinkedSite> {
    let names = site_names(document);
    let outgoing = local_links(document).filter(|link| link.direction == "outgoing");
    let known = outgoing.filter(|link| !link.peer_site.is_empty());
    known
        .map(|link| LinkedSite {
            id: link.peer_site.clone(),
            name: names
                .get(link.peer_site.as_str())
                .copied()
                .unwrap_or(link.name.as_str())
                .to_owned(),
            active: link.state == "active",
        })
        .collect()
}

/// A remote site names its links in either direction; Skupper prints those that a site made. An edge always makes
/// its links itself, and of the local site's links we know who made them.
fn foreign_links(site: &kubernetes::SiteRecord, document: &kubernetes::NetworkStatus) -> Vec<LinkedSite> {
    let local = document
        .site_status
        .first()
        .map(|status| status.site.identity.as_str())
        .unwrap_or_default();
    let made_here =
        local_links(document).any(|link| link.direction == "outgoing" && link.peer_site == site.identity);
    let by_id: BTreeMap<&str, &kubernetes::SiteRecord> = document
        .site_status
        .iter()
        .map(|status| (status.site.identity.as_str(), &status.site))
        .collect();
    let made_there = |peer: &str| match by_id.get(peer) {
        _ if peer == local => !made_here,
        Some(peer) => peer.mode != "edge",
        None => true,
    };
    let peers = site.linked_sites.iter().filter(|peer| made_there(peer));
    peers
        .map(|peer| LinkedSite {
            id: peer.clone(),
            name: by_id
                .get(peer.as_str())
                .map(|site| site.name.clone())
                .unwrap_or_default(),
            active: true,
        })
        .collect()
}

fn addresses(
    id: &str,
    document: &kubernetes::NetworkStatus,
    services: &[ServiceStatus],
) -> Vec<NetworkService> {
    let mut all: BTreeMap<String, NetworkService> = BTreeMap::new();
    for service in services {
        all.insert(
            service.address.clone(),
            NetworkService {
                address: service.address.clone(),
                protocol: service.protocol.clone(),
                ports: service.ports.clone(),
                targets: Vec::new(),
            },
        );
    }
    for status in &document.site_status {
        for service in &status.site.services {
            let entry = all
                .entry(service.address.clone())
                .or_insert_with(|| NetworkService {
                    address: service.address.clone(),
                    protocol: service.protocol.clone(),
                    ports: service.ports.clone(),
                    targets: Vec::new(),
                });
            let ports = entry.ports.len().max(1);
            add_targets(
                entry,
                &status.site.identity,
                service.targets.iter().map(String::as_str),
                ports,
            );
        }
    }
    for service in services {
        let Some(entry) = all.get_mut(&service.address) else {
            continue;
        };
        if entry.targets.iter().all(|target| target.site != id) {
            let targets = service.targets.iter().map(|target| target.name.as_str());
            add_targets(entry, id, targets, service.ports.len().max(1));
        }
    }
    all.into_values().collect()
}

/// One entry a connector: each target once for each port.
fn add_targets<'a>(
    entry: &mut NetworkService,
    site: &str,
    targets: impl Iterator<Item = &'a str>,
    ports: usize,
) {
    let unique: BTreeSet<&str> = targets.collect();
    for name in unique {
        let target = NetworkTarget {
            site: site.to_owned(),
            name: name.to_owned(),
        };
        entry.targets.extend(std::iter::repeat_n(target, ports));
    }
}

/// The ports of the site's own Services that no program of this version serves.
fn unserved(service: &Service) -> Vec<UnservedPort> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let reason = match name {
        names::CONTROLLER_SERVICE => |port: u16| match port {
            names::CONSOLE_PORT => Some("the console is not part of this version"),
            _ => None,
        },
        names::ROUTER_CONSOLE => |_| Some("the router's console is not part of this version"),
        _ => return Vec::new(),
    };
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports = ports.filter_map(|port| Some((port, u16::try_from(port.port).ok()?)));
    ports
        .filter_map(|(port, number)| {
            Some(UnservedPort {
                service: name.to_owned(),
                port: number,
                name: port.name.clone().unwrap_or_default(),
                reason: reason(number)?.to_owned(),
            })
        })
        .collect()
}

/// Ports of a collector's or a Jaeger's Service that no container behind it declares. Headless copies say nothing new.
fn undeclared(service: &Service, pods: &[k8s_openapi::api::core::v1::Pod]) -> Vec<UnservedPort> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let managed = service
        .metadata
        .labels
        .as_ref()
        .and_then(|all| all.get(karez_kubernetes::labels::MANAGED));
    if !managed.is_some_and(|kind| kind == "collector" || kind == "jaeger") || name.ends_with("-headless") {
        return Vec::new();
    }
    let ports = karez_site_controller::unserved_ports(service, pods).into_iter();
    ports
        .map(|port| UnservedPort {
            service: name.to_owned(),
            port: port.port,
            name: port.name,
            reason: port.reason,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(id: &str, name: &str, mode: &str, linked: &[&str]) -> kubernetes::SiteStatus {
        kubernetes::SiteStatus {
            site: kubernetes::SiteRecord {
                identity: id.into(),
                name: name.into(),
                name_space: "default".into(),
                site_version: "0.1.0".into(),
                mode: mode.into(),
                linked_sites: linked.iter().map(|id| (*id).to_owned()).collect(),
                ..Default::default()
            },
            router_status: Vec::new(),
        }
    }

    fn router(direction: &str, peer: &str) -> kubernetes::RouterStatus {
        kubernetes::RouterStatus {
            links: vec![kubernetes::LinkRecord {
                name: "link1".into(),
                direction: direction.into(),
                state: "active".into(),
                peer_site: peer.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn service_of(site: &mut kubernetes::SiteStatus) {
        site.site.services.push(kubernetes::SiteService {
            address: "a".into(),
            protocol: "tcp".into(),
            ports: vec![1, 2],
            targets: vec!["t".into()],
        });
    }

    #[test]
    fn only_the_site_that_made_a_link_is_linked_to() {
        let mut public = site("p", "public-site", "interior", &["e"]);
        service_of(&mut public);
        let mut edge = site("e", "edge-site", "edge", &["p"]);
        edge.router_status = vec![router("outgoing", "p")];
        let document = kubernetes::NetworkStatus {
            addresses: vec![],
            site_status: vec![edge.clone(), public.clone()],
        };
        let seen = network("e", &ConfigMap::default(), &document, &[]);
        let links: Vec<usize> = seen.sites.iter().map(|site| site.links.len()).collect();
        assert_eq!((links, seen.services[0].targets.len()), (vec![1, 0], 2));

        edge.router_status.clear();
        public.router_status = vec![router("incoming", "e")];
        let document = kubernetes::NetworkStatus {
            addresses: vec![],
            site_status: vec![public, edge],
        };
        let seen = network("p", &ConfigMap::default(), &document, &[]);
        let links: Vec<(String, usize)> = seen
            .sites
            .iter()
            .map(|site| (site.id.clone(), site.links.len()))
            .collect();
        assert_eq!(links, [("e".to_owned(), 1), ("p".to_owned(), 0)]);
    }

    #[test]
    fn a_site_alone_is_known_from_its_config_map() {
        let seen = network(
            "x",
            &ConfigMap::default(),
            &kubernetes::NetworkStatus::default(),
            &[],
        );
        assert!(seen.sites[0].local && seen.sites[0].id == "x");
    }
}
