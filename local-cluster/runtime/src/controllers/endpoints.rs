//! Services with a selector have EndpointSlices and Endpoints: the addresses of their ready Pods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as CorePort, EndpointSubset, Endpoints, LoadBalancerIngress,
    LoadBalancerStatus, ObjectReference, Pod, Service, ServicePort, ServiceStatus,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::action::{Action, Kind};
use super::object::{is_active, is_ready, owned_by};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "karez-local-runtime";

/// The ports a Pod has for a Service; Pods of one Deployment agree, two templates may not.
type Ports = Vec<(ServicePort, i32)>;

/// What to write for one Service, given the Pods, slices and Endpoints of its namespace.
pub(crate) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    endpoints: &[Arc<Endpoints>],
) -> Vec<Action> {
    let Some(selector) = selector_of(service) else {
        return Vec::new();
    };
    let mut groups: BTreeMap<String, (Ports, Vec<&Pod>)> = BTreeMap::new();
    for pod in pods
        .iter()
        .map(Arc::as_ref)
        .filter(|pod| is_selected(pod, selector) && is_active(pod))
    {
        if address(pod).is_none() {
            continue;
        }
        let ports = ports_for(service, pod);
        let key = ports
            .iter()
            .map(|(port, target)| format!("{:?}={target},", port.name))
            .collect();
        groups
            .entry(key)
            .or_insert_with(|| (ports, Vec::new()))
            .1
            .push(pod);
    }
    for (_, members) in groups.values_mut() {
        members.sort_by_key(|pod| address(pod).and_then(|text| text.parse::<std::net::IpAddr>().ok()));
    }
    let groups: Vec<(Ports, Vec<&Pod>)> = groups.into_values().collect();
    let mut actions = slice_actions(service, &groups, slices);
    actions.extend(endpoints_action(service, &groups, endpoints));
    actions
}

/// Where the ready Pods of a Service with a selector serve one of its ports; nothing for a Service without one.
pub(crate) fn ready_addresses(
    service: &Service,
    pods: &[Arc<Pod>],
    port: &ServicePort,
) -> Option<Vec<SocketAddr>> {
    let selector = selector_of(service)?;
    let same_namespace = pods.iter().filter(|pod| pod.namespace() == service.namespace());
    let members =
        same_namespace.filter(|pod| is_selected(pod, selector) && is_active(pod) && serves(service, pod));
    let addresses = members.filter_map(|pod| {
        let number = u16::try_from(target_port(port, pod)?).ok()?;
        Some(SocketAddr::new(address(pod)?.parse().ok()?, number))
    });
    Some(addresses.collect())
}

fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let ours = service.metadata.deletion_timestamp.is_none() && spec.type_.as_deref() != Some("ExternalName");
    spec.selector
        .as_ref()
        .filter(|selector| ours && !selector.is_empty())
}

fn is_selected(pod: &Pod, selector: &BTreeMap<String, String>) -> bool {
    let labels = pod.labels();
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status
        .as_ref()?
        .pod_ip
        .as_deref()
        .filter(|text| !text.is_empty())
}

/// Whether traffic may be sent to the Pod.
fn serves(service: &Service, pod: &Pod) -> bool {
    let early = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    early || is_ready(pod)
}

/// The Service's ports as this Pod has them: a named target port is looked up in its containers.
fn ports_for(service: &Service, pod: &Pod) -> Ports {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| Some((port.clone(), target_port(port, pod)?)))
        .collect()
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut offered = containers.flat_map(|container| container.ports.iter().flatten());
            let named = offered.find(|offered| {
                offered.name.as_ref() == Some(name)
                    && offered.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            named
                .map(|offered| offered.container_port)
                .or_else(|| name.parse().ok())
        }
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.namespace(),
        name: Some(pod.name_any()),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.as_deref() == Some(service.name_any().as_str());
    spec.hostname.clone().filter(|_| here)
}

fn slice_actions(
    service: &Service,
    groups: &[(Ports, Vec<&Pod>)],
    slices: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let name = service.name_any();
    let mine = |slice: &EndpointSlice| {
        slice.labels().get(SERVICE_NAME) == Some(&name)
            && slice
                .labels()
                .get(MANAGED_BY)
                .is_some_and(|manager| manager == MANAGER)
    };
    let mut known: BTreeMap<String, &EndpointSlice> = slices
        .iter()
        .filter(|slice| mine(slice))
        .map(|slice| (slice.name_any(), slice.as_ref()))
        .collect();
    let mut actions = Vec::new();
    let none = [(Ports::new(), Vec::new())];
    let groups = if groups.is_empty() {
        none.as_slice()
    } else {
        groups
    };
    for (index, (ports, members)) in groups.iter().enumerate() {
        let wanted = slice(service, index, ports, members);
        match known.remove(&wanted.name_any()) {
            None => actions.push(Action::create(Kind::EndpointSlice, &wanted)),
            Some(present) if present.endpoints == wanted.endpoints && present.ports == wanted.ports => {}
            Some(present) => {
                let mut wanted = wanted;
                wanted.metadata.resource_version = present.resource_version();
                actions.push(Action::replace(Kind::EndpointSlice, &wanted));
            }
        }
    }
    actions.extend(
        known
            .values()
            .map(|slice| Action::delete(Kind::EndpointSlice, *slice)),
    );
    actions
}

fn slice(service: &Service, index: usize, ports: &Ports, members: &[&Pod]) -> EndpointSlice {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let endpoint = |pod: &Pod| Endpoint {
        addresses: address(pod).map(str::to_owned).into_iter().collect(),
        conditions: Some(EndpointConditions {
            ready: Some(serves(service, pod)),
            serving: Some(is_ready(pod)),
            terminating: Some(false),
        }),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    };
    let port = |(port, target): &(ServicePort, i32)| EndpointPort {
        app_protocol: port.app_protocol.clone(),
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(*target),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
    };
    EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: members.iter().map(|pod| endpoint(pod)).collect(),
        metadata: ObjectMeta {
            namespace: service.namespace(),
            name: Some(format!("{}-{index}", service.name_any())),
            labels: Some(labels),
            owner_references: Some(vec![owned_by(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports.iter().map(port).collect()),
    }
}

fn endpoints_action(
    service: &Service,
    groups: &[(Ports, Vec<&Pod>)],
    endpoints: &[Arc<Endpoints>],
) -> Option<Action> {
    let subsets: Vec<EndpointSubset> = groups
        .iter()
        .map(|(ports, members)| subset(service, ports, members))
        .collect();
    let wanted = Endpoints {
        metadata: ObjectMeta {
            namespace: service.namespace(),
            name: Some(service.name_any()),
            labels: Some(service.labels().clone()),
            owner_references: Some(vec![owned_by(service)]),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    };
    match endpoints
        .iter()
        .find(|present| present.name_any() == service.name_any())
    {
        None => Some(Action::create(Kind::Endpoints, &wanted)),
        Some(present)
            if present.subsets.as_deref().unwrap_or(&[]) == wanted.subsets.as_deref().unwrap_or(&[]) =>
        {
            None
        }
        Some(present) => {
            let mut wanted = wanted;
            wanted.metadata.resource_version = present.resource_version();
            Some(Action::replace(Kind::Endpoints, &wanted))
        }
    }
}

fn subset(service: &Service, ports: &Ports, members: &[&Pod]) -> EndpointSubset {
    let listed = |ready: bool| {
        let chosen = members.iter().filter(|pod| serves(service, pod) == ready);
        let addresses: Vec<EndpointAddress> = chosen
            .map(|pod| EndpointAddress {
                ip: address(pod).unwrap_or_default().to_owned(),
                hostname: hostname(service, pod),
                node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
                target_ref: Some(reference(pod)),
            })
            .collect();
        (!addresses.is_empty()).then_some(addresses)
    };
    let ports: Vec<CorePort> = ports
        .iter()
        .map(|(port, target)| CorePort {
            app_protocol: port.app_protocol.clone(),
            name: port.name.clone(),
            port: *target,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        })
        .collect();
    EndpointSubset {
        addresses: listed(true),
        not_ready_addresses: listed(false),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// A Service of type LoadBalancer with a running Pod is reached at the site's address.
pub(crate) fn balance(service: &Service, pods: &[Arc<Pod>], external: std::net::IpAddr) -> Option<Action> {
    let spec = service.spec.as_ref()?;
    let selector = selector_of(service).filter(|_| spec.type_.as_deref() == Some("LoadBalancer"))?;
    let running = pods
        .iter()
        .any(|pod| is_selected(pod, selector) && is_active(pod) && is_running(pod));
    let before = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = before.and_then(|before| before.ingress.as_deref()).unwrap_or(&[]);
    let external = external.to_string();
    if !running || ingress.iter().any(|one| one.ip.as_ref() == Some(&external)) {
        return None;
    }
    let one = LoadBalancerIngress {
        ip: Some(external),
        ..LoadBalancerIngress::default()
    };
    let status = ServiceStatus {
        load_balancer: Some(LoadBalancerStatus {
            ingress: Some(vec![one]),
        }),
        conditions: service
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone()),
    };
    Action::status(Kind::Service, service, service.status.as_ref(), &status)
}
