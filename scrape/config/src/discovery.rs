//! What discovery is told: `static_configs` and the `…_sd_configs` that Karez knows.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, join_key};
use serde::Deserialize;

use crate::http::{self, HttpConfig};
use crate::labels::{ADDRESS, Labels};
use crate::target::Group;
use crate::values::{Secret, duration};

/// Where targets come from.
#[derive(Debug, Clone, PartialEq)]
pub enum DiscoveryConfig {
    /// `static_configs`, all of a job.
    Static(Vec<Group>),
    /// `file_sd_configs`
    File(FileDiscovery),
    /// `http_sd_configs`
    Http(HttpDiscovery),
    /// `dns_sd_configs`
    Dns(DnsDiscovery),
    /// `kubernetes_sd_configs`
    Kubernetes(KubernetesDiscovery),
    /// `consul_sd_configs`
    Consul(ConsulDiscovery),
}

/// `file_sd_configs`
#[derive(Debug, Clone, PartialEq)]
pub struct FileDiscovery {
    /// Paths; the last part may hold one `*`.
    pub files: Vec<String>,
    /// How often they are read even without a sign of change.
    pub refresh: Duration,
}

/// `http_sd_configs`
#[derive(Debug, Clone, PartialEq)]
pub struct HttpDiscovery {
    /// Where.
    pub url: String,
    /// How often.
    pub refresh: Duration,
    /// How.
    pub http: HttpConfig,
}

/// `dns_sd_configs`
#[derive(Debug, Clone, PartialEq)]
pub struct DnsDiscovery {
    /// Names that are asked for.
    pub names: Vec<String>,
    /// Records that are asked for.
    pub record: Record,
    /// The port of targets, but for SRV.
    pub port: u16,
    /// How often.
    pub refresh: Duration,
}

/// A type of DNS records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Record {
    /// SRV
    #[default]
    #[serde(alias = "srv")]
    SRV,
    /// A
    #[serde(alias = "a")]
    A,
    /// AAAA
    #[serde(alias = "aaaa")]
    AAAA,
    /// MX
    #[serde(alias = "mx")]
    MX,
    /// NS
    #[serde(alias = "ns")]
    NS,
}

/// `kubernetes_sd_configs`
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesDiscovery {
    /// What is watched.
    pub role: Role,
    /// Where; empty means everywhere.
    pub namespaces: Vec<String>,
    /// Also the namespace of the Pod that asks.
    pub own_namespace: bool,
    /// Labels and fields that objects must have, by role.
    pub selectors: Vec<Selector>,
    /// Whether the labels of a Pod's Node are added.
    pub attach_node: bool,
    /// Whether the labels of an object's Namespace are added.
    pub attach_namespace: bool,
    /// The API; empty for the Pod's own.
    pub api_server: String,
    /// A kubeconfig instead.
    pub kubeconfig_file: String,
    /// How the API is spoken to, when it is named.
    pub http: HttpConfig,
}

/// What Kubernetes discovery watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Nodes.
    Node,
    /// Pods, a target for each port.
    Pod,
    /// Services, a target for each port.
    Service,
    /// Endpoints.
    Endpoints,
    /// EndpointSlices.
    EndpointSlice,
    /// Ingresses, a target for each path.
    Ingress,
}

/// A selector of `kubernetes_sd_configs`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Objects of which role.
    pub role: Role,
    /// Labels.
    #[serde(default)]
    pub label: String,
    /// Fields.
    #[serde(default)]
    pub field: String,
}

/// `consul_sd_configs`
#[derive(Debug, Clone, PartialEq)]
pub struct ConsulDiscovery {
    /// `host:port`
    pub server: String,
    /// `http` or `https`
    pub scheme: String,
    /// The token.
    pub token: Secret,
    /// The datacenter; the agent's own without one.
    pub datacenter: String,
    /// Services; all without any.
    pub services: Vec<String>,
    /// Tags that a service must have.
    pub tags: Vec<String>,
    /// What joins tags in their label.
    pub tag_separator: String,
    /// Whether answers may be a little old.
    pub allow_stale: bool,
    /// How often.
    pub refresh: Duration,
    /// How.
    pub http: HttpConfig,
}

/// The keys of sources that Prometheus has and Karez has not.
const ELSEWHERE: [&str; 26] = [
    "aws_sd_configs",
    "azure_sd_configs",
    "digitalocean_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "ecs_sd_configs",
    "eureka_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "ionos_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "msk_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "openstack_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
];

const KNOWN: [&str; 6] = [
    "static_configs",
    "file_sd_configs",
    "http_sd_configs",
    "dns_sd_configs",
    "kubernetes_sd_configs",
    "consul_sd_configs",
];

/// Takes the sources out of a scrape configuration.
pub(crate) fn take(
    node: &Node,
    parts: &mut Parts<'_>,
    key: &str,
    diagnoses: &mut Vec<Diagnosis>,
) -> Vec<DiscoveryConfig> {
    parts.knows(&KNOWN);
    parts.knows(&ELSEWHERE);
    for entry in node.entries() {
        if ELSEWHERE.contains(&entry.key.as_str()) && !entry.value.items().is_empty() {
            let message = "Karez does not have this discovery";
            let mend = "use static, file, http, dns, kubernetes or consul; http_sd_configs can ask a program of yours";
            let key = join_key(key, &entry.key);
            diagnoses.push(Diagnosis::error(node.key_place(&entry.key), key, message, mend));
        }
    }
    let mut found = Vec::new();
    for known in KNOWN {
        let Some(list) = node.get(known).filter(|list| !list.is_null()) else {
            continue;
        };
        let key = join_key(key, known);
        if !matches!(list.kind, karez_document::yaml::Kind::Sequence(_)) {
            let message = format!("a list is needed, {} is here", list.describe());
            diagnoses.push(Diagnosis::error(
                list.place(),
                key,
                message,
                "start each with `- `",
            ));
            continue;
        }
        if known == "static_configs" {
            // As Prometheus: what looks like a URL is refused only where no rule could make something of it.
            let rules = node
                .get("relabel_configs")
                .is_some_and(|rules| !rules.items().is_empty());
            found.extend(static_groups(list, &key, !rules, diagnoses).map(DiscoveryConfig::Static));
            continue;
        }
        for (index, item) in list.items().iter().enumerate() {
            found.extend(source(known, item, &format!("{key}[{index}]"), diagnoses));
        }
    }
    found
}

fn source(known: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<DiscoveryConfig> {
    match known {
        "file_sd_configs" => file(node, key, diagnoses).map(DiscoveryConfig::File),
        "http_sd_configs" => http_source(node, key, diagnoses).map(DiscoveryConfig::Http),
        "dns_sd_configs" => dns(node, key, diagnoses).map(DiscoveryConfig::Dns),
        "kubernetes_sd_configs" => kubernetes(node, key, diagnoses).map(DiscoveryConfig::Kubernetes),
        _ => consul(node, key, diagnoses).map(DiscoveryConfig::Consul),
    }
}

/// A group as `static_configs`, files and HTTP discovery write it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupDocument {
    /// Addresses.
    #[serde(deserialize_with = "or_none")]
    pub targets: Vec<String>,
    /// Labels of all of them.
    #[serde(deserialize_with = "or_none")]
    pub labels: Labels,
}

/// `null`, as programs in Go write an empty list or map, is none.
fn or_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl GroupDocument {
    /// The group, with these labels beside its own.
    pub fn group(self, more: &[(&str, &str)]) -> Group {
        let labels = self.labels.iter().chain(more.iter().copied());
        Group {
            labels: Labels::of(labels),
            targets: self
                .targets
                .iter()
                .map(|address| Labels::of([(ADDRESS, address.as_str())]))
                .collect(),
        }
    }
}

fn static_groups(
    list: &Node,
    key: &str,
    checked: bool,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<Vec<Group>> {
    let groups: Vec<GroupDocument> = karez_document::yaml::decode_at(list, key, diagnoses)?;
    for (index, (group, node)) in groups.iter().zip(list.items()).enumerate().filter(|_| checked) {
        if let Some(wrong) = group.targets.iter().find(|target| target.contains('/')) {
            let message = format!("`{wrong}` is no address of a target");
            let key = format!("{key}[{index}].targets");
            let mend = "write HOST:PORT; `scheme` and `metrics_path` are keys of their own";
            diagnoses.push(Diagnosis::error(node.key_place("targets"), key, message, mend));
        }
    }
    Some(groups.into_iter().map(|group| group.group(&[])).collect())
}

fn required(node: &Node, key: &str, name: &str, diagnoses: &mut Vec<Diagnosis>) {
    let mend = format!("add `{name}:`");
    diagnoses.push(Diagnosis::error(
        node.place(),
        join_key(key, name),
        "is missing",
        mend,
    ));
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileDocument {
    files: Vec<String>,
    #[serde(deserialize_with = "duration")]
    refresh_interval: Option<Duration>,
}

fn file(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<FileDiscovery> {
    let document: FileDocument = karez_document::yaml::decode_at(node, key, diagnoses)?;
    if document.files.is_empty() {
        required(node, key, "files", diagnoses);
    }
    for file in &document.files {
        let name = file.rsplit('/').next().unwrap_or_default();
        let ending = [".json", ".yml", ".yaml"]
            .iter()
            .any(|ending| name.ends_with(ending));
        let stars = file.matches('*').count();
        if !ending || stars > name.matches('*').count() || stars > 1 {
            let message = format!("`{file}` cannot be used for file discovery");
            let mend = "name a file that ends in .json, .yml or .yaml, with at most one `*` in its last part";
            diagnoses.push(Diagnosis::error(
                node.key_place("files"),
                join_key(key, "files"),
                message,
                mend,
            ));
        }
    }
    Some(FileDiscovery {
        files: document.files,
        refresh: document.refresh_interval.unwrap_or(Duration::from_secs(300)),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpSourceDocument {
    url: String,
    #[serde(deserialize_with = "duration")]
    refresh_interval: Option<Duration>,
}

fn http_source(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<HttpDiscovery> {
    let mut parts = Parts::of(node, key);
    let document: Option<HttpSourceDocument> = parts.take(diagnoses);
    let http = http::take(node, &mut parts, key, diagnoses);
    parts.finish(diagnoses);
    let document = document?;
    let fine = url::Url::parse(&document.url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    if !fine {
        let message = "is no URL of HTTP discovery";
        let mend = "write `url: http://HOST:PORT/PATH`";
        diagnoses.push(Diagnosis::error(
            node.key_place("url"),
            join_key(key, "url"),
            message,
            mend,
        ));
    }
    Some(HttpDiscovery {
        url: document.url,
        refresh: document.refresh_interval.unwrap_or(Duration::from_secs(60)),
        http,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DnsDocument {
    names: Vec<String>,
    r#type: Record,
    port: Option<u16>,
    #[serde(deserialize_with = "duration")]
    refresh_interval: Option<Duration>,
}

fn dns(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<DnsDiscovery> {
    let document: DnsDocument = karez_document::yaml::decode_at(node, key, diagnoses)?;
    if document.names.is_empty() {
        required(node, key, "names", diagnoses);
    }
    if document.port.is_none() && document.r#type != Record::SRV {
        required(node, key, "port", diagnoses);
    }
    Some(DnsDiscovery {
        names: document.names,
        record: document.r#type,
        port: document.port.unwrap_or(0),
        refresh: document.refresh_interval.unwrap_or(Duration::from_secs(30)),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Namespaces {
    own_namespace: bool,
    names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Attach {
    node: bool,
    namespace: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KubernetesDocument {
    role: Option<Role>,
    api_server: Option<String>,
    kubeconfig_file: Option<String>,
    namespaces: Option<Namespaces>,
    selectors: Option<Vec<Selector>>,
    attach_metadata: Option<Attach>,
}

fn kubernetes(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<KubernetesDiscovery> {
    let mut parts = Parts::of(node, key);
    let document: Option<KubernetesDocument> = parts.take(diagnoses);
    let http = http::take(node, &mut parts, key, diagnoses);
    parts.finish(diagnoses);
    let document = document?;
    let Some(role) = document.role else {
        required(node, key, "role", diagnoses);
        return None;
    };
    let api_server = document.api_server.unwrap_or_default();
    let kubeconfig_file = document.kubeconfig_file.unwrap_or_default();
    let mut wrong = |name: &str, message: &str, mend: &str| {
        diagnoses.push(Diagnosis::error(
            node.key_place(name),
            join_key(key, name),
            message,
            mend,
        ));
    };
    if !api_server.is_empty() && !kubeconfig_file.is_empty() {
        wrong(
            "api_server",
            "there is a `kubeconfig_file` as well",
            "keep one of them",
        );
    }
    if !api_server.is_empty() && url::Url::parse(&api_server).is_err() {
        wrong("api_server", "is no URL", "write https://HOST:PORT");
    }
    let selectors = document.selectors.unwrap_or_default();
    let allowed: &[Role] = match role {
        Role::Node => &[Role::Node],
        Role::Pod => &[Role::Pod, Role::Node],
        Role::Service => &[Role::Service],
        Role::Endpoints => &[Role::Endpoints, Role::Service, Role::Pod],
        Role::EndpointSlice => &[Role::EndpointSlice, Role::Service, Role::Pod],
        Role::Ingress => &[Role::Ingress],
    };
    for (index, selector) in selectors.iter().enumerate() {
        let twice = selectors[..index].iter().any(|other| other.role == selector.role);
        if twice || !allowed.contains(&selector.role) {
            let message = "a selector's role is there twice, or has nothing to do with `role`";
            wrong(
                "selectors",
                message,
                "keep one selector for each role that `role` watches",
            );
        }
    }
    let namespaces = document.namespaces.unwrap_or_default();
    let attach = document.attach_metadata.unwrap_or_default();
    Some(KubernetesDiscovery {
        role,
        namespaces: namespaces.names,
        own_namespace: namespaces.own_namespace,
        selectors,
        attach_node: attach.node,
        attach_namespace: attach.namespace,
        api_server,
        kubeconfig_file,
        http,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConsulDocument {
    server: Option<String>,
    scheme: Option<String>,
    token: Option<Secret>,
    datacenter: Option<String>,
    services: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    tag_separator: Option<String>,
    allow_stale: Option<bool>,
    #[serde(deserialize_with = "duration")]
    refresh_interval: Option<Duration>,
}

fn consul(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<ConsulDiscovery> {
    let mut parts = Parts::of(node, key);
    let document: Option<ConsulDocument> = parts.take(diagnoses);
    let http = http::take(node, &mut parts, key, diagnoses);
    parts.finish(diagnoses);
    let document = document?;
    Some(ConsulDiscovery {
        server: document.server.unwrap_or_else(|| "localhost:8500".to_owned()),
        scheme: document.scheme.unwrap_or_else(|| "http".to_owned()),
        token: document.token.unwrap_or_default(),
        datacenter: document.datacenter.unwrap_or_default(),
        services: document.services.unwrap_or_default(),
        tags: document.tags.unwrap_or_default(),
        tag_separator: document.tag_separator.unwrap_or_else(|| ",".to_owned()),
        allow_stale: document.allow_stale.unwrap_or(true),
        refresh: document.refresh_interval.unwrap_or(Duration::from_secs(30)),
        http,
    })
}
