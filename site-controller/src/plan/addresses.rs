//! Which addresses there are, and the Service each of them gets on this site.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{ServiceDefinition, labels, names};
use serde_json::Value;

use super::expose::{exposed, is_of, joined, original_selector, original_target_ports, protocol};
use super::{Note, Plan};
use crate::object::{Strings, json, non_empty, reference, strings};
use crate::snapshot::ServiceSnapshot;

/// Every definition that holds on this site, and those that this controller has to store.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// By address.
    pub(crate) all: BTreeMap<String, ServiceDefinition>,
    /// Values of `skupper-services` that are ours to write.
    pub(crate) own: BTreeMap<String, String>,
    /// What is wrong with some.
    pub(crate) notes: Vec<Note>,
}

/// Brings together what `expose` stored, what annotations say, and what other sites announce, in this order of
/// precedence.
pub(crate) fn definitions(snapshot: &ServiceSnapshot) -> Definitions {
    let mut result = Definitions::default();
    let mut origins: BTreeMap<String, String> = BTreeMap::new();
    let stored = snapshot.services_map.as_ref().and_then(|map| map.data.as_ref());
    for (key, text) in stored.into_iter().flatten() {
        match ServiceDefinition::parse(key, text) {
            Ok(definition) if definition.origin.is_empty() => {
                result.all.insert(definition.address.clone(), definition);
            }
            Ok(definition) => {
                origins.insert(definition.address, definition.origin);
            }
            Err(error) => result
                .notes
                .extend(snapshot.services_map.as_ref().map(|map| Note {
                    about: reference("v1", "ConfigMap", &map.metadata),
                    warning: true,
                    reason: "ServiceIgnored",
                    message: error.to_string(),
                })),
        }
    }
    let annotated = exposed(snapshot);
    result.notes.extend(annotated.notes);
    for (address, definition) in annotated.definitions {
        result.add_own(address, definition);
    }
    // The first that announced an address keeps it; among new ones the smallest id.
    let mut remotes: Vec<_> = snapshot.remotes.iter().collect();
    remotes.sort_by_key(|(id, _)| *id);
    for first in [true, false] {
        for (id, announced) in &remotes {
            for definition in *announced {
                let keeps = origins.get(&definition.address) == Some(*id);
                if keeps == first && definition.check().is_ok() {
                    let definition = ServiceDefinition {
                        origin: (*id).clone(),
                        ..definition.clone()
                    };
                    result.add_own(definition.address.clone(), definition);
                }
            }
        }
    }
    result
}

impl Definitions {
    fn add_own(&mut self, address: String, definition: ServiceDefinition) {
        if !self.all.contains_key(&address) {
            self.own.insert(address.clone(), definition.to_json());
            self.all.insert(address, definition);
        }
    }
}

/// Listener ports, `<address>:<port>` → port of the router's pod: those that have one keep it, others get the
/// first that is free.
pub(crate) fn allocate(
    definitions: &BTreeMap<String, ServiceDefinition>,
    snapshot: &ServiceSnapshot,
) -> BTreeMap<String, u16> {
    let before: BTreeMap<&str, u16> = snapshot
        .previous
        .iter()
        .flat_map(|document| &document.listeners)
        .map(|listener| (listener.name.as_str(), listener.port))
        .collect();
    let wanted: Vec<String> = definitions
        .values()
        .flat_map(|definition| {
            definition
                .ports
                .iter()
                .map(|port| format!("{}:{port}", definition.address))
        })
        .collect();
    let mut used: BTreeSet<u16> = [names::LOCAL_PORT, names::ADMIN_PORT].into();
    let mut ports = BTreeMap::new();
    for name in &wanted {
        if let Some(port) = before.get(name.as_str()).filter(|port| used.insert(**port)) {
            ports.insert(name.clone(), *port);
        }
    }
    for name in wanted {
        if ports.contains_key(&name) {
            continue;
        }
        let free = (names::FIRST_LISTENER_PORT..=names::EDGE_PORT - 1).find(|port| !used.contains(port));
        if let Some(port) = free {
            used.insert(port);
            ports.insert(name, port);
        }
    }
    ports
}

/// Adds the Services of all addresses and deletes those that have none any more.
pub(crate) fn plan(
    definitions: &BTreeMap<String, ServiceDefinition>,
    ports: &BTreeMap<String, u16>,
    snapshot: &ServiceSnapshot,
    plan: &mut Plan,
) {
    let Some(owner) = owner(snapshot) else { return };
    let mut kept = BTreeSet::new();
    for definition in definitions
        .values()
        .filter(|definition| definition.expose_ingress != "Never")
    {
        let made = match snapshot.services.get(&definition.address) {
            Some(service) if !is_controlled(service) => taken_over(service, definition, ports),
            _ => made(definition, ports, &snapshot.site.namespace, &owner),
        };
        kept.insert(definition.address.clone());
        plan.objects.push(made);
    }
    for (name, service) in &snapshot.services {
        if kept.contains(name) {
            continue;
        }
        if is_ours(service) {
            let object = crate::object::ObjectRef {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                namespace: snapshot.site.namespace.clone(),
                name: name.clone(),
            };
            plan.deletions.push(object);
        } else if annotation(service, labels::ORIGINAL_SELECTOR).is_some() {
            plan.objects.push(restored(service));
        }
    }
}

fn made(
    definition: &ServiceDefinition,
    ports: &BTreeMap<String, u16>,
    namespace: &str,
    owner: &OwnerReference,
) -> Value {
    let mut object_labels = definition.labels.clone();
    object_labels.insert(labels::MANAGED.to_owned(), "service".to_owned());
    let mut annotations = definition.annotations.clone();
    annotations.insert(labels::CONTROLLED.to_owned(), "true".to_owned());
    json(&Service {
        metadata: ObjectMeta {
            name: Some(definition.address.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(object_labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(selector()),
            ports: Some(
                definition
                    .ports
                    .iter()
                    .filter_map(|port| address_port(definition, *port, ports))
                    .collect(),
            ),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

fn address_port(
    definition: &ServiceDefinition,
    port: u16,
    ports: &BTreeMap<String, u16>,
) -> Option<ServicePort> {
    let address = &definition.address;
    let name = format!("{address}{port}");
    Some(ServicePort {
        // The name of a port is a DNS label too.
        name: Some(if name.len() <= 63 {
            name
        } else {
            format!("port{port}")
        }),
        port: i32::from(port),
        target_port: Some(IntOrString::Int(i32::from(
            *ports.get(&format!("{address}:{port}"))?,
        ))),
        protocol: Some(protocol(definition).to_owned()),
        ..ServicePort::default()
    })
}

/// A Service that somebody else made under the address's name: it is led to the router, and what it did before is
/// kept beside.
fn taken_over(service: &Service, definition: &ServiceDefinition, ports: &BTreeMap<String, u16>) -> Value {
    let name = definition.address.as_str();
    let existing: Vec<ServicePort> = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone())
        .unwrap_or_default();
    let mut wanted: Vec<ServicePort> = Vec::new();
    for port in &definition.ports {
        let Some(mut new) = address_port(definition, *port, ports) else {
            continue;
        };
        let old = existing
            .iter()
            .find(|old| old.port == i32::from(*port) && is_of(old, protocol(definition)));
        new.name = old.map_or_else(|| Some(format!("port{port}")), |old| old.name.clone());
        wanted.push(new);
    }
    let list = |pairs: Vec<(u16, u16)>| {
        pairs
            .iter()
            .map(|(port, target)| format!("{port}:{target}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let targets = original_target_ports(service, protocol(definition));
    let originals = definition
        .ports
        .iter()
        .map(|port| (*port, targets.get(port).copied().unwrap_or(*port)));
    let assigned = definition
        .ports
        .iter()
        .filter_map(|port| Some((*port, *ports.get(&format!("{name}:{port}"))?)));
    let annotations = strings([
        (labels::ORIGINAL_SELECTOR, &joined(&original_selector(service))),
        (labels::ORIGINAL_TARGET_PORT, &list(originals.collect())),
        (labels::ORIGINAL_ASSIGNED_PORT, &list(assigned.collect())),
    ]);
    change(service, annotations, selector(), wanted)
}

/// A Service that was taken over, as it was before.
fn restored(service: &Service) -> Value {
    // What is noted there is of the protocol that was taken over; the rest has its own numbers still.
    let targets = original_target_ports(service, "TCP");
    let existing = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone())
        .unwrap_or_default();
    let ports = existing.into_iter().map(|mut port| {
        let number = u16::try_from(port.port).unwrap_or_default();
        let target = targets.get(&number).copied().unwrap_or(number);
        port.target_port = Some(IntOrString::Int(i32::from(target)));
        port
    });
    change(
        service,
        Strings::new(),
        original_selector(service),
        ports.collect(),
    )
}

fn change(service: &Service, annotations: Strings, selector: Strings, ports: Vec<ServicePort>) -> Value {
    json(&Service {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            annotations: non_empty(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(selector),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

/// What address Services select: the router's pods.
fn selector() -> Strings {
    strings([("application", names::ROUTER), (labels::COMPONENT, "router")])
}

/// Address Services belong to the router's Deployment, as Skupper has it.
fn owner(snapshot: &ServiceSnapshot) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: names::ROUTER.to_owned(),
        uid: snapshot.router.as_ref()?.uid.clone()?,
        ..OwnerReference::default()
    })
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a String> {
    service.metadata.annotations.as_ref()?.get(key)
}

fn is_controlled(service: &Service) -> bool {
    annotation(service, labels::CONTROLLED).is_some_and(|value| value == "true")
}

/// Made here, for an address, and by nobody else.
fn is_ours(service: &Service) -> bool {
    let mark = service
        .metadata
        .labels
        .as_ref()
        .and_then(|all| all.get(labels::MANAGED));
    is_controlled(service) && mark.is_some_and(|value| value == "service")
}
