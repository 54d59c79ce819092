//! Objects of the API → groups of targets, with the labels that Prometheus gives them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karez_scrape_config::Group;
use karez_scrape_config::labels::{ADDRESS, Labels};

const PREFIX: &str = "__meta_kubernetes_";

/// A name of a label as Prometheus makes it of any text.
pub fn sanitize(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

/// What other objects a group's labels come from.
pub trait Others {
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// A Pod.
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;
    /// A Node, when its labels are wanted.
    fn node(&self, name: &str) -> Option<Arc<Node>>;
    /// A Namespace, when its labels are wanted.
    fn namespace(&self, name: &str) -> Option<Arc<Namespace>>;
}

/// Labels being collected.
#[derive(Clone, Default)]
struct Set(Vec<(String, String)>);

impl Set {
    fn put(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((format!("{PREFIX}{name}"), value.into()));
    }

    fn maybe(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn address(&mut self, address: String) {
        self.0.push((ADDRESS.to_owned(), address));
    }

    fn add(&mut self, other: &Set) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Name, labels and annotations of an object.
    fn object(&mut self, role: &str, meta: &ObjectMeta) {
        self.maybe(&format!("{role}_name"), meta.name.clone());
        self.attached(role, meta);
    }

    fn attached(&mut self, role: &str, meta: &ObjectMeta) {
        self.map(role, "label", meta.labels.as_ref());
        self.map(role, "annotation", meta.annotations.as_ref());
    }

    fn map(&mut self, role: &str, kind: &str, map: Option<&BTreeMap<String, String>>) {
        for (name, value) in map.into_iter().flatten() {
            let name = sanitize(name);
            self.put(&format!("{role}_{kind}_{name}"), value.clone());
            self.put(&format!("{role}_{kind}present_{name}"), "true");
        }
    }

    fn labels(&self) -> Labels {
        Labels::of(self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

fn start(meta: &ObjectMeta, others: &impl Others) -> Set {
    let mut labels = Set::default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    labels.put("namespace", namespace);
    if let Some(found) = others.namespace(namespace) {
        labels.attached("namespace", &found.metadata);
    }
    labels
}

fn host_port(host: &str, port: i32) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A Node is one target: its kubelet.
pub fn node(node: &Node) -> Option<Group> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let preferred = [
        "InternalIP",
        "InternalDNS",
        "ExternalIP",
        "ExternalDNS",
        "LegacyHostIP",
        "Hostname",
    ];
    let address = preferred
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address.type_ == *kind))?;
    let endpoints = status.daemon_endpoints.as_ref();
    let port = endpoints
        .and_then(|e| e.kubelet_endpoint.as_ref())
        .map_or(0, |e| e.port);
    let mut labels = Set::default();
    labels.object("node", &node.metadata);
    let provider = node.spec.as_ref().and_then(|spec| spec.provider_id.clone());
    labels.maybe("node_provider_id", provider);
    for condition in status.conditions.iter().flatten() {
        let kind = sanitize(&condition.type_.to_lowercase());
        labels.put(&format!("node_condition_{kind}"), condition.status.to_lowercase());
    }
    let mut target = Set::default();
    target.address(host_port(&address.address, port));
    let name = node.metadata.name.clone().unwrap_or_default();
    target.0.push(("instance".to_owned(), name));
    // The first address of a kind counts; of labels the last would.
    for other in addresses.iter().rev() {
        target.put(
            &format!("node_address_{}", sanitize(&other.type_)),
            other.address.clone(),
        );
    }
    Some(Group {
        labels: labels.labels(),
        targets: vec![target.labels()],
    })
}

/// A Service is a target for each port.
pub fn service(service: &Service, others: &impl Others) -> Group {
    let meta = &service.metadata;
    let mut labels = start(meta, others);
    labels.object("service", meta);
    let (name, namespace) = (meta.name.as_deref(), meta.namespace.as_deref());
    let host = format!(
        "{}.{}.svc",
        name.unwrap_or_default(),
        namespace.unwrap_or_default()
    );
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.unwrap_or_default();
    let mut targets = Vec::new();
    for port in spec.ports.iter().flatten() {
        let mut target = Set::default();
        target.address(host_port(&host, port.port));
        target.maybe("service_port_name", port.name.clone());
        target.put("service_port_number", port.port.to_string());
        target.maybe("service_port_protocol", port.protocol.clone());
        target.put("service_type", kind.clone());
        match kind.as_str() {
            "ExternalName" => target.maybe("service_external_name", spec.external_name.clone()),
            _ => target.maybe("service_cluster_ip", spec.cluster_ip.clone()),
        }
        if kind == "LoadBalancer" {
            target.maybe("service_loadbalancer_ip", spec.load_balancer_ip.clone());
        }
        targets.push(target.labels());
    }
    Group {
        labels: labels.labels(),
        targets,
    }
}

fn pod_labels(pod: &Pod) -> Set {
    let (meta, mut labels) = (&pod.metadata, Set::default());
    labels.object("pod", meta);
    let status = pod.status.clone().unwrap_or_default();
    labels.maybe("pod_ip", status.pod_ip);
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    labels.put(
        "pod_ready",
        ready.map_or("unknown".to_owned(), |c| c.status.to_lowercase()),
    );
    labels.maybe("pod_phase", status.phase);
    labels.maybe(
        "pod_node_name",
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    );
    labels.maybe("pod_host_ip", status.host_ip);
    labels.maybe("pod_uid", meta.uid.clone());
    let owners = meta.owner_references.iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) {
        labels.put("pod_controller_kind", owner.kind.clone());
        labels.put("pod_controller_name", owner.name.clone());
    }
    labels
}

/// A Pod's containers; whether each is one of those that start first.
fn containers(pod: &Pod) -> Vec<(&Container, bool)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let first = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| (container, true));
    spec.containers
        .iter()
        .map(|container| (container, false))
        .chain(first)
        .collect()
}

fn container_id(pod: &Pod, name: &str, first: bool) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = match first {
        true => status.init_container_statuses.as_ref(),
        false => status.container_statuses.as_ref(),
    };
    all?.iter()
        .find(|status| status.name == name)?
        .container_id
        .clone()
}

fn container_labels(target: &mut Set, container: &Container) {
    target.put("pod_container_name", container.name.clone());
    target.maybe("pod_container_image", container.image.clone());
}

fn port_labels(target: &mut Set, port: &ContainerPort) {
    target.maybe("pod_container_port_name", port.name.clone());
    target.put("pod_container_port_number", port.container_port.to_string());
    target.maybe("pod_container_port_protocol", port.protocol.clone());
}

/// A Pod is a target for each port of each container, or one for a container without ports.
pub fn pod(pod: &Pod, others: &impl Others) -> Group {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let Some(ip) = ip.filter(|ip| !ip.is_empty()) else {
        return Group::default();
    };
    let mut labels = start(&pod.metadata, others);
    labels.add(&pod_labels(pod));
    attach_node(
        &mut labels,
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()),
        others,
    );
    let mut targets = Vec::new();
    for (container, first) in containers(pod) {
        let mut base = Set::default();
        container_labels(&mut base, container);
        base.maybe("pod_container_id", container_id(pod, &container.name, first));
        base.put("pod_container_init", first.to_string());
        let ports = container.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            // Without brackets, as it is no HOST:PORT.
            base.address(ip.clone());
            targets.push(base.labels());
            continue;
        }
        for port in ports {
            let mut target = base.clone();
            target.address(host_port(&ip, port.container_port));
            port_labels(&mut target, port);
            targets.push(target.labels());
        }
    }
    Group {
        labels: labels.labels(),
        targets,
    }
}

fn attach_node(labels: &mut Set, name: Option<&str>, others: &impl Others) {
    if let Some(node) = name.and_then(|name| others.node(name)) {
        labels.object("node", &node.metadata);
    }
}

/// An address of Endpoints or of an EndpointSlice, and what it belongs to.
struct Endpoint<'a> {
    address: &'a str,
    port: i32,
    /// What the port's protocol is called, where that is not the container's to say.
    protocol: Option<&'a str>,
    target: Option<(&'a str, &'a str, &'a str)>,
    node: Option<&'a str>,
}

/// Pods that were met, and at which ports.
type Seen = BTreeMap<(String, String), (Arc<Pod>, Vec<i32>)>;

/// Adds what is known of the Pod behind an address.
fn backing(target: &mut Set, endpoint: &Endpoint<'_>, seen: &mut Seen, others: &impl Others) {
    let (kind, namespace, name) = endpoint.target.unwrap_or_default();
    match kind {
        "Node" => attach_node(target, Some(name), others),
        _ => attach_node(target, endpoint.node, others),
    }
    if kind != "Pod" {
        return;
    }
    let Some(pod) = others.pod(namespace, name) else {
        return;
    };
    let known = seen
        .entry((namespace.to_owned(), name.to_owned()))
        .or_insert_with(|| (pod.clone(), Vec::new()));
    known.1.push(endpoint.port);
    target.add(&pod_labels(&pod));
    // Of several containers with the port the last counts; only the number is looked at.
    for (container, first) in containers(&pod) {
        let mut ports = container.ports.iter().flatten();
        let Some(port) = ports.find(|port| port.container_port == endpoint.port) else {
            continue;
        };
        container_port_labels(target, container, first, port);
        if let Some(protocol) = endpoint.protocol {
            target.put("pod_container_port_protocol", protocol);
        }
    }
}

/// As endpoints have them: without the container's id, which only Pods have.
fn container_port_labels(target: &mut Set, container: &Container, first: bool, port: &ContainerPort) {
    container_labels(target, container);
    target.put("pod_container_init", first.to_string());
    target.put("pod_container_port_name", port.name.clone().unwrap_or_default());
    port_labels(target, port);
}

/// Ports of Pods behind a Service that the Service does not have: they are targets, too.
fn unlisted(seen: &Seen, targets: &mut Vec<Labels>) {
    for (pod, ports) in seen.values() {
        let ip = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.clone())
            .unwrap_or_default();
        if ip.is_empty() {
            continue;
        }
        for (container, first) in containers(pod) {
            for port in container.ports.iter().flatten() {
                if ports.contains(&port.container_port) {
                    continue;
                }
                let mut target = Set::default();
                target.address(host_port(&ip, port.container_port));
                container_port_labels(&mut target, container, first, port);
                target.add(&pod_labels(pod));
                targets.push(target.labels());
            }
        }
    }
}

fn service_labels(labels: &mut Set, namespace: &str, name: &str, others: &impl Others) {
    if let Some(service) = others.service(namespace, name) {
        labels.object("service", &service.metadata);
    }
}

/// Endpoints are a target for each address and port, and for each further port of their Pods.
pub fn endpoints(endpoints: &Endpoints, others: &impl Others) -> Group {
    let meta = &endpoints.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut labels = start(meta, others);
    labels.object("endpoints", meta);
    service_labels(
        &mut labels,
        namespace,
        meta.name.as_deref().unwrap_or_default(),
        others,
    );
    let (mut targets, mut seen) = (Vec::new(), Seen::new());
    for subset in endpoints.subsets.iter().flatten() {
        for port in subset.ports.iter().flatten() {
            let ready = subset.addresses.iter().flatten().map(|address| (address, "true"));
            let not_ready = subset
                .not_ready_addresses
                .iter()
                .flatten()
                .map(|address| (address, "false"));
            for (address, ready) in ready.chain(not_ready) {
                let mut target = Set::default();
                target.address(host_port(&address.ip, port.port));
                target.maybe("endpoint_port_name", port.name.clone());
                target.maybe("endpoint_port_protocol", port.protocol.clone());
                target.put("endpoint_ready", ready);
                let reference = address.target_ref.as_ref();
                if let Some(reference) = reference {
                    target.maybe("endpoint_address_target_kind", reference.kind.clone());
                    target.maybe("endpoint_address_target_name", reference.name.clone());
                }
                target.maybe("endpoint_node_name", address.node_name.clone());
                target.maybe("endpoint_hostname", address.hostname.clone());
                let endpoint = Endpoint {
                    address: &address.ip,
                    port: port.port,
                    protocol: port.protocol.as_deref(),
                    target: reference.map(|r| reference_of(r, namespace)),
                    node: address.node_name.as_deref(),
                };
                backing(&mut target, &endpoint, &mut seen, others);
                targets.push(target.labels());
            }
        }
    }
    unlisted(&seen, &mut targets);
    Group {
        labels: labels.labels(),
        targets,
    }
}

fn reference_of<'a>(
    reference: &'a k8s_openapi::api::core::v1::ObjectReference,
    namespace: &'a str,
) -> (&'a str, &'a str, &'a str) {
    (
        reference.kind.as_deref().unwrap_or_default(),
        reference.namespace.as_deref().unwrap_or(namespace),
        reference.name.as_deref().unwrap_or_default(),
    )
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get("kubernetes.io/service-name").map(String::as_str)
}

/// An EndpointSlice is a target for each address and port, and for each further port of its Pods.
pub fn endpoint_slice(slice: &EndpointSlice, others: &impl Others) -> Group {
    let meta = &slice.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut labels = start(meta, others);
    labels.object("endpointslice", meta);
    labels.put("endpointslice_address_type", slice.address_type.clone());
    service_labels(
        &mut labels,
        namespace,
        service_of(slice).unwrap_or_default(),
        others,
    );
    let (mut targets, mut seen) = (Vec::new(), Seen::new());
    for port in slice.ports.iter().flatten() {
        for endpoint in &slice.endpoints {
            let reference = endpoint.target_ref.as_ref();
            for address in &endpoint.addresses {
                let behind = Endpoint {
                    address,
                    port: port.port.unwrap_or(0),
                    protocol: None,
                    target: reference.map(|r| reference_of(r, namespace)),
                    node: endpoint.node_name.as_deref(),
                };
                let mut target = slice_endpoint(&behind, endpoint);
                target.maybe("endpointslice_port_name", port.name.clone());
                target.maybe("endpointslice_port_protocol", port.protocol.clone());
                target.maybe("endpointslice_port", port.port.map(|port| port.to_string()));
                target.maybe("endpointslice_port_app_protocol", port.app_protocol.clone());
                backing(&mut target, &behind, &mut seen, others);
                targets.push(target.labels());
            }
        }
    }
    unlisted(&seen, &mut targets);
    Group {
        labels: labels.labels(),
        targets,
    }
}

fn slice_endpoint(behind: &Endpoint<'_>, endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> Set {
    let mut target = Set::default();
    target.address(host_port(behind.address, behind.port));
    if let Some(conditions) = &endpoint.conditions {
        let conditions = [
            ("ready", conditions.ready),
            ("serving", conditions.serving),
            ("terminating", conditions.terminating),
        ];
        for (name, met) in conditions {
            let met = met.map(|met| met.to_string());
            target.maybe(&format!("endpointslice_endpoint_conditions_{name}"), met);
        }
    }
    target.maybe("endpointslice_endpoint_hostname", endpoint.hostname.clone());
    if let Some(reference) = &endpoint.target_ref {
        target.maybe("endpointslice_address_target_kind", reference.kind.clone());
        target.maybe("endpointslice_address_target_name", reference.name.clone());
    }
    target.maybe("endpointslice_endpoint_node_name", endpoint.node_name.clone());
    target.maybe("endpointslice_endpoint_zone", endpoint.zone.clone());
    for (name, value) in endpoint.deprecated_topology.iter().flatten() {
        let name = sanitize(name);
        target.put(&format!("endpointslice_endpoint_topology_{name}"), value.clone());
        target.put(&format!("endpointslice_endpoint_topology_present_{name}"), "true");
    }
    target
}

/// An Ingress is a target for each path of each host.
pub fn ingress(ingress: &Ingress, others: &impl Others) -> Group {
    let mut labels = start(&ingress.metadata, others);
    labels.object("ingress", &ingress.metadata);
    let spec = ingress.spec.clone().unwrap_or_default();
    labels.maybe("ingress_class_name", spec.ingress_class_name.clone());
    let secured: Vec<&String> = spec
        .tls
        .iter()
        .flatten()
        .flat_map(|tls| tls.hosts.iter().flatten())
        .collect();
    let mut targets = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = rule.host.clone().unwrap_or_default();
        let scheme = match secured.iter().any(|pattern| covers(pattern, &host)) {
            true => "https",
            false => "http",
        };
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        let mut paths: Vec<String> = paths
            .map(|path| {
                path.path
                    .clone()
                    .filter(|path| !path.is_empty())
                    .unwrap_or_else(|| "/".to_owned())
            })
            .collect();
        if paths.is_empty() {
            paths.push("/".to_owned());
        }
        for path in paths {
            let mut target = Set::default();
            target.address(host.clone());
            target.put("ingress_scheme", scheme);
            target.put("ingress_host", host.clone());
            target.put("ingress_path", path);
            targets.push(target.labels());
        }
    }
    Group {
        labels: labels.labels(),
        targets,
    }
}

/// Whether a host of an Ingress' TLS covers a host: `*.a.b` covers one name below `a.b`.
fn covers(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    let Some(below) = pattern.strip_prefix("*.") else {
        return false;
    };
    host.split_once('.')
        .is_some_and(|(first, rest)| !first.is_empty() && rest == below)
}
