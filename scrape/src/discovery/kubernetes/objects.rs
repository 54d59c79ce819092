//! Objects of the API → what is kept of them: the labels that Prometheus gives their targets, and whose labels they take
//! besides. Pure.

use std::sync::Arc;

use karez_scrape_config::labels::Labels;

use super::raw::{
    Address, Container, Endpoint, EndpointPort, EndpointSlice, Endpoints, Ingress, Meta, Namespace, Node,
    Pod, Reference, Service, Text,
};
use super::set::{Set, Shared, host_port, sanitize};

/// An object's kind, namespace and name; of what groups are made of it is the group's name, too.
pub(super) type Key = Arc<str>;

pub(super) fn key(kind: &str, namespace: &str, name: &str) -> Key {
    match namespace.is_empty() {
        true => format!("{kind}/{name}").into(),
        false => format!("{kind}/{namespace}/{name}").into(),
    }
}

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Facts {
    /// Labels for groups that others are: of a Node, a Namespace or a Service.
    Labels(Labels),
    /// Of a Pod, what endpoints take from it.
    Behind(Behind),
    /// A group but for the labels of what is attached to it.
    Group(Part),
    /// A group of endpoints, whose Pods and Service are elsewhere.
    Ends(Ends),
}

/// A group by itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Part {
    pub(super) labels: Labels,
    pub(super) targets: Vec<Labels>,
    /// Whose labels are attached to the group.
    pub(super) attached: Vec<Key>,
}

/// What endpoints take from the Pod behind them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Behind {
    pub(super) labels: Labels,
    pub(super) ip: Box<str>,
    pub(super) ports: Box<[PodPort]>,
}

/// A port of a Pod's container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodPort {
    pub(super) container: u16,
    pub(super) number: i32,
    pub(super) labels: Labels,
}

/// Endpoints, or an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Ends {
    pub(super) labels: Labels,
    /// Whose labels are attached to the group.
    pub(super) attached: Vec<Key>,
    pub(super) subsets: Vec<EndSubset>,
}

/// Each of its ends is a target at each of its ports.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EndSubset {
    pub(super) ports: Vec<EndPort>,
    pub(super) ends: Vec<End>,
}

/// A port of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EndPort {
    pub(super) number: i32,
    pub(super) labels: Labels,
    /// What its protocol is called, where that is not the container's to say.
    pub(super) protocol: Option<Box<str>>,
}

/// An address of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub(super) host: Box<str>,
    pub(super) labels: Labels,
    /// The Pod that it is of.
    pub(super) pod: Option<Key>,
    /// The Node whose labels are attached.
    pub(super) node: Option<Key>,
}

impl Ends {
    /// Everything whose labels its targets take.
    pub(super) fn references(&self) -> impl Iterator<Item = &Key> {
        let ends = self.subsets.iter().flat_map(|subset| &subset.ends);
        let behind = ends.flat_map(|end| end.pod.iter().chain(&end.node));
        self.attached.iter().chain(behind)
    }

    /// The same, to be replaced by what is the same text elsewhere.
    pub(super) fn references_mut(&mut self) -> impl Iterator<Item = &mut Key> {
        let ends = self.subsets.iter_mut().flat_map(|subset| &mut subset.ends);
        let behind = ends.flat_map(|end| end.pod.iter_mut().chain(&mut end.node));
        self.attached.iter_mut().chain(behind)
    }
}

/// Makes facts of objects. One for a page, so that what its objects have alike is there once.
#[derive(Default)]
pub(super) struct Maker {
    pub(super) attach_node: bool,
    pub(super) attach_namespace: bool,
    set: Set,
    shared: Shared,
}

impl Maker {
    /// Whose labels are attached to groups.
    pub(super) fn new(attach_node: bool, attach_namespace: bool) -> Self {
        Maker {
            attach_node,
            attach_namespace,
            ..Maker::default()
        }
    }

    fn namespace_of(&self, meta: &Meta<'_>) -> Option<Key> {
        (self.attach_namespace && !meta.namespace.is_empty()).then(|| key("namespace", "", &meta.namespace))
    }

    fn node_of(&self, name: &str) -> Option<Key> {
        (self.attach_node && !name.is_empty()).then(|| key("node", "", name))
    }

    /// Labels of a Namespace for what is in it.
    pub(super) fn namespace(&mut self, namespace: &Namespace<'_>) -> Facts {
        self.set.attached("namespace", &namespace.metadata);
        Facts::Labels(self.set.take())
    }

    /// Labels of a Service for its endpoints.
    pub(super) fn service_labels(&mut self, service: &Service<'_>) -> Facts {
        self.set.object("service", &service.metadata);
        Facts::Labels(self.set.take())
    }

    /// Labels of a Node for what runs on it.
    pub(super) fn node_labels(&mut self, node: &Node<'_>) -> Facts {
        self.set.object("node", &node.metadata);
        Facts::Labels(self.set.take())
    }

    /// A Node is one target: its kubelet.
    pub(super) fn node(&mut self, node: &Node<'_>) -> Facts {
        let addresses = &node.status.addresses;
        let preferred = [
            "InternalIP",
            "InternalDNS",
            "ExternalIP",
            "ExternalDNS",
            "LegacyHostIP",
            "Hostname",
        ];
        let found = preferred
            .iter()
            .find_map(|kind| addresses.iter().find(|address| &*address.kind == *kind));
        let Some(found) = found else {
            return Facts::Group(Part::default());
        };
        let set = &mut self.set;
        set.object("node", &node.metadata);
        set.put("node_provider_id", &node.spec.provider_id);
        for condition in &node.status.conditions {
            let kind = sanitize(&condition.kind.to_lowercase());
            set.put_parts(&["node_condition_", &kind], &condition.status.to_lowercase());
        }
        let labels = set.take();
        set.address(&host_port(
            &found.address,
            node.status.daemon_endpoints.kubelet_endpoint.port,
        ));
        set.exactly("instance", &node.metadata.name);
        // The first address of a kind counts; of labels the last would.
        for other in addresses.iter().rev() {
            set.put_parts(&["node_address_", &sanitize(&other.kind)], &other.address);
        }
        Facts::Group(Part {
            labels,
            targets: vec![set.take()],
            attached: Vec::new(),
        })
    }

    /// A Service is a target for each port.
    pub(super) fn service(&mut self, service: &Service<'_>) -> Facts {
        let (meta, spec) = (&service.metadata, &service.spec);
        let host = format!("{}.{}.svc", &*meta.name, &*meta.namespace);
        let attached = self.namespace_of(meta).into_iter().collect();
        let set = &mut self.set;
        set.put("namespace", &meta.namespace);
        set.object("service", meta);
        let labels = set.take();
        let target = |port: &super::raw::ServicePort<'_>| {
            set.address(&host_port(&host, port.port));
            set.put("service_port_name", &port.name);
            set.number("service_port_number", port.port);
            set.put("service_port_protocol", &port.protocol);
            set.put("service_type", &spec.kind);
            match &*spec.kind {
                "ExternalName" => set.put("service_external_name", &spec.external_name),
                _ => set.put("service_cluster_ip", &spec.cluster_ip),
            }
            if &*spec.kind == "LoadBalancer" {
                set.put("service_loadbalancer_ip", &spec.load_balancer_ip);
            }
            set.take()
        };
        let targets = spec.ports.iter().map(target).collect();
        Facts::Group(Part {
            labels,
            targets,
            attached,
        })
    }

    /// A Pod is a target for each port of each container, or one for a container without ports.
    pub(super) fn pod(&mut self, pod: &Pod<'_>) -> Facts {
        let ip = &*pod.status.pod_ip;
        if ip.is_empty() {
            return Facts::Group(Part::default());
        }
        let namespace = self.namespace_of(&pod.metadata);
        let attached = namespace.into_iter().chain(self.node_of(&pod.spec.node_name));
        let attached = attached.collect();
        self.set.put("namespace", &pod.metadata.namespace);
        let labels = self.pod_labels(pod);
        let mut targets = Vec::new();
        for (container, first) in containers(pod) {
            let id = container_id(pod, &container.name, first);
            let bare = [None];
            let ports = container.ports.iter().map(Some);
            let ports: Vec<_> = match container.ports.is_empty() {
                true => bare.into_iter().collect(),
                false => ports.collect(),
            };
            for port in ports {
                let set = &mut self.set;
                container_labels(set, container, first);
                set.put("pod_container_id", id);
                match port {
                    // Without brackets, as it is no HOST:PORT.
                    None => set.address(ip),
                    Some(port) => {
                        set.address(&host_port(ip, port.container_port));
                        port_labels(set, port);
                    }
                }
                targets.push(set.take());
            }
        }
        targets.shrink_to_fit();
        Facts::Group(Part {
            labels,
            targets,
            attached,
        })
    }

    /// What has been put already, and a Pod's labels.
    fn pod_labels(&mut self, pod: &Pod<'_>) -> Labels {
        let (meta, status, labels) = (&pod.metadata, &pod.status, &mut self.set);
        labels.object("pod", meta);
        labels.put("pod_ip", &status.pod_ip);
        let ready = status.conditions.iter().find(|c| &*c.kind == "Ready");
        labels.put(
            "pod_ready",
            &ready.map_or("unknown".to_owned(), |c| c.status.to_lowercase()),
        );
        labels.put("pod_phase", &status.phase);
        labels.put("pod_node_name", &pod.spec.node_name);
        labels.put("pod_host_ip", &status.host_ip);
        labels.put("pod_uid", &meta.uid);
        if let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller) {
            labels.put("pod_controller_kind", &owner.kind);
            labels.put("pod_controller_name", &owner.name);
        }
        labels.take()
    }

    /// What endpoints take from a Pod.
    pub(super) fn behind(&mut self, pod: &Pod<'_>) -> Facts {
        let labels = self.pod_labels(pod);
        let mut ports = Vec::new();
        for (number, (container, first)) in (0u16..).zip(containers(pod)) {
            for port in &container.ports {
                // As endpoints have them: without the container's id, which only Pods have.
                container_labels(&mut self.set, container, first);
                port_labels(&mut self.set, port);
                ports.push(PodPort {
                    container: number,
                    number: port.container_port,
                    labels: self.shared.one(self.set.take()),
                });
            }
        }
        Facts::Behind(Behind {
            labels,
            ip: (*pod.status.pod_ip).into(),
            ports: ports.into(),
        })
    }

    /// Endpoints are a target for each address and port.
    pub(super) fn endpoints(&mut self, endpoints: &Endpoints<'_>) -> Facts {
        let meta = &endpoints.metadata;
        let service = Some(key("svc", &meta.namespace, &meta.name));
        let attached = self.namespace_of(meta).into_iter().chain(service).collect();
        self.set.put("namespace", &meta.namespace);
        self.set.object("endpoints", meta);
        let labels = self.set.take();
        let subsets = endpoints.subsets.iter().map(|subset| {
            let ready = subset.addresses.iter().map(|address| (address, true));
            let not_ready = subset.not_ready_addresses.iter().map(|address| (address, false));
            let all = ready.chain(not_ready);
            EndSubset {
                ports: subset
                    .ports
                    .iter()
                    .map(|port| self.endpoints_port(port))
                    .collect(),
                ends: all
                    .map(|(address, ready)| self.address(address, ready, &meta.namespace))
                    .collect(),
            }
        });
        Facts::Ends(Ends {
            subsets: subsets.collect(),
            labels,
            attached,
        })
    }

    fn endpoints_port(&mut self, port: &EndpointPort<'_>) -> EndPort {
        self.set.put("endpoint_port_name", &port.name);
        self.set.put("endpoint_port_protocol", &port.protocol);
        EndPort {
            number: port.port.unwrap_or(0),
            labels: self.set.take(),
            protocol: (!port.protocol.is_empty()).then(|| (*port.protocol).into()),
        }
    }

    fn address(&mut self, address: &Address<'_>, ready: bool, namespace: &str) -> End {
        let set = &mut self.set;
        set.flag(&["endpoint_ready"], ready);
        set.put("endpoint_address_target_kind", &address.target_ref.kind);
        set.put("endpoint_address_target_name", &address.target_ref.name);
        set.put("endpoint_node_name", &address.node_name);
        set.put("endpoint_hostname", &address.hostname);
        let labels = set.take();
        End {
            host: (*address.ip).into(),
            labels: self.shared.one(labels),
            pod: pod_of(&address.target_ref, namespace),
            node: self.end_node(&address.target_ref, &address.node_name),
        }
    }

    fn end_node(&self, reference: &Reference<'_>, node: &str) -> Option<Key> {
        match &*reference.kind {
            "Node" => self.node_of(&reference.name),
            _ => self.node_of(node),
        }
    }

    /// An EndpointSlice is a target for each address and port.
    pub(super) fn slice(&mut self, slice: &EndpointSlice<'_>) -> Facts {
        let meta = &slice.metadata;
        let service = meta
            .labels
            .0
            .iter()
            .find(|(name, _)| &**name == "kubernetes.io/service-name");
        let service = service.map(|(_, service)| key("svc", &meta.namespace, service));
        let attached = self.namespace_of(meta).into_iter().chain(service).collect();
        self.set.put("namespace", &meta.namespace);
        self.set.object("endpointslice", meta);
        self.set.put("endpointslice_address_type", &slice.address_type);
        let labels = self.set.take();
        let ports = slice.ports.iter().map(|port| self.slice_port(port)).collect();
        let mut ends = Vec::with_capacity(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            let labels = self.endpoint(endpoint);
            ends.extend(endpoint.addresses.iter().map(|address| End {
                host: (**address).into(),
                labels: labels.clone(),
                pod: pod_of(&endpoint.target_ref, &meta.namespace),
                node: self.end_node(&endpoint.target_ref, &endpoint.node_name),
            }));
        }
        ends.shrink_to_fit();
        Facts::Ends(Ends {
            labels,
            attached,
            subsets: vec![EndSubset { ports, ends }],
        })
    }

    fn slice_port(&mut self, port: &EndpointPort<'_>) -> EndPort {
        let set = &mut self.set;
        set.put("endpointslice_port_name", &port.name);
        set.put("endpointslice_port_protocol", &port.protocol);
        if let Some(number) = port.port {
            set.number("endpointslice_port", number);
        }
        set.put("endpointslice_port_app_protocol", &port.app_protocol);
        EndPort {
            number: port.port.unwrap_or(0),
            labels: set.take(),
            protocol: None,
        }
    }

    fn endpoint(&mut self, endpoint: &Endpoint<'_>) -> Labels {
        let set = &mut self.set;
        let conditions = &endpoint.conditions;
        let conditions = [
            ("ready", conditions.ready),
            ("serving", conditions.serving),
            ("terminating", conditions.terminating),
        ];
        for (name, met) in conditions {
            if let Some(met) = met {
                set.flag(&["endpointslice_endpoint_conditions_", name], met);
            }
        }
        set.put("endpointslice_endpoint_hostname", &endpoint.hostname);
        set.put("endpointslice_address_target_kind", &endpoint.target_ref.kind);
        set.put("endpointslice_address_target_name", &endpoint.target_ref.name);
        set.put("endpointslice_endpoint_node_name", &endpoint.node_name);
        set.put("endpointslice_endpoint_zone", &endpoint.zone);
        for (name, value) in &endpoint.deprecated_topology.0 {
            let name = sanitize(name);
            set.put_parts(&["endpointslice_endpoint_topology_", &name], value);
            set.flag(&["endpointslice_endpoint_topology_present_", &name], true);
        }
        set.take()
    }

    /// An Ingress is a target for each path of each host.
    pub(super) fn ingress(&mut self, ingress: &Ingress<'_>) -> Facts {
        let (meta, spec) = (&ingress.metadata, &ingress.spec);
        let attached = self.namespace_of(meta).into_iter().collect();
        let set = &mut self.set;
        set.put("namespace", &meta.namespace);
        set.object("ingress", meta);
        set.put("ingress_class_name", &spec.ingress_class_name);
        let labels = set.take();
        let secured: Vec<&Text<'_>> = spec.tls.iter().flat_map(|tls| &tls.hosts).collect();
        let mut targets = Vec::new();
        for rule in &spec.rules {
            let covered = secured.iter().any(|pattern| covers(pattern, &rule.host));
            let scheme = if covered { "https" } else { "http" };
            let mut paths: Vec<&str> = rule.http.paths.iter().map(|path| &*path.path).collect();
            if paths.is_empty() {
                paths.push("");
            }
            for path in paths {
                set.address(&rule.host);
                set.put("ingress_scheme", scheme);
                set.put("ingress_host", &rule.host);
                set.put("ingress_path", if path.is_empty() { "/" } else { path });
                targets.push(set.take());
            }
        }
        Facts::Group(Part {
            labels,
            targets,
            attached,
        })
    }
}

fn pod_of(reference: &Reference<'_>, namespace: &str) -> Option<Key> {
    let namespace = match reference.namespace.is_empty() {
        true => namespace,
        false => &reference.namespace,
    };
    (&*reference.kind == "Pod").then(|| key("pod", namespace, &reference.name))
}

/// A Pod's containers; whether each is one of those that start first.
fn containers<'p, 'a>(pod: &'p Pod<'a>) -> impl Iterator<Item = (&'p Container<'a>, bool)> {
    let first = pod.spec.init_containers.iter().map(|container| (container, true));
    let usual = pod.spec.containers.iter().map(|container| (container, false));
    usual.chain(first)
}

fn container_id<'p>(pod: &'p Pod<'_>, name: &str, first: bool) -> &'p str {
    let all = match first {
        true => &pod.status.init_container_statuses,
        false => &pod.status.container_statuses,
    };
    let found = all.iter().find(|status| &*status.name == name);
    found.map_or("", |status| &status.container_id)
}

fn container_labels(target: &mut Set, container: &Container<'_>, first: bool) {
    target.put("pod_container_name", &container.name);
    target.put("pod_container_image", &container.image);
    target.flag(&["pod_container_init"], first);
}

fn port_labels(target: &mut Set, port: &super::raw::ContainerPort<'_>) {
    target.put("pod_container_port_name", &port.name);
    target.number("pod_container_port_number", port.container_port);
    target.put("pod_container_port_protocol", &port.protocol);
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
