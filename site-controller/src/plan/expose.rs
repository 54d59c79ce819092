//! Annotated workloads and Services in, service definitions out (annotations as Skupper 1.9.6 reads them).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{ORIGIN_ANNOTATION, ServiceDefinition, ServiceTarget, labels, parse_port_list};

use super::Note;
use crate::object::{Strings, reference};
use crate::site_config::pairs;
use crate::snapshot::{ServiceSnapshot, Workload};

/// What annotations define, by address, and what is wrong with some of them.
#[derive(Debug, Default)]
pub(crate) struct Exposed {
    pub(crate) definitions: BTreeMap<String, ServiceDefinition>,
    pub(crate) notes: Vec<Note>,
}

/// Reads every annotation of the namespace.
pub(crate) fn exposed(snapshot: &ServiceSnapshot) -> Exposed {
    let mut exposed = Exposed::default();
    for workload in &snapshot.workloads {
        if annotation(&workload.metadata, labels::PROXY).is_some() {
            let about = reference("apps/v1", workload.kind, &workload.metadata);
            exposed.add(about, of_workload(workload));
        }
    }
    for service in snapshot.services.values() {
        if annotation(&service.metadata, labels::PROXY).is_some() {
            let about = reference("v1", "Service", &service.metadata);
            exposed.add(about, of_service(service, snapshot));
        }
    }
    exposed
}

impl Exposed {
    fn add(&mut self, about: ObjectReference, read: Result<ServiceDefinition, String>) {
        let definition = match read.and_then(|d| d.check().map(|()| d).map_err(|error| error.to_string())) {
            Ok(definition) => definition,
            Err(message) => return self.ignore(about, &message),
        };
        let Some(there) = self.definitions.get_mut(&definition.address) else {
            self.definitions.insert(definition.address.clone(), definition);
            return;
        };
        if there.protocol != definition.protocol || there.ports != definition.ports {
            let message = format!(
                "address \"{}\" is already defined by another object as {} {:?}; use the same protocol and ports, or \
                 another {}",
                there.address,
                there.protocol,
                there.ports,
                labels::ADDRESS
            );
            return self.ignore(about, &message);
        }
        // One that asks for it is enough: the address must not be carried in plain by the other's leave.
        there.sealed |= definition.sealed;
        there.targets.extend(definition.targets);
    }

    fn ignore(&mut self, about: ObjectReference, message: &str) {
        self.notes.push(Note {
            about,
            warning: true,
            reason: "AnnotationIgnored",
            message: format!("the skupper.io annotations are ignored: {message}"),
        });
    }
}

fn of_workload(workload: &Workload) -> Result<ServiceDefinition, String> {
    let metadata = &workload.metadata;
    let mut definition = common(metadata)?;
    let pairs = match annotation(metadata, labels::PORT) {
        Some(list) => parse_port_list(list)
            .map_err(|error| format!("annotation {}: {error}; correct it", labels::PORT))?,
        None if !declared(workload, &definition).is_empty() => declared(workload, &definition)
            .iter()
            .map(|port| (*port, *port))
            .collect(),
        None if definition.protocol == "http" => vec![(80, 80)],
        None => {
            return Err(format!(
                "no port is known; list it in {} or in the containers' ports",
                labels::PORT
            ));
        }
    };
    if workload.selector.is_empty() {
        return Err("it has no selector.matchLabels, so its pods cannot be found".to_owned());
    }
    definition.ports = pairs.iter().map(|(port, _)| *port).collect();
    definition.targets = vec![ServiceTarget {
        name: metadata.name.clone().unwrap_or_default(),
        selector: joined(&workload.selector),
        target_ports: pairs
            .into_iter()
            .filter(|(port, target)| port != target)
            .collect(),
        capacity: capacity(metadata)?,
        proxy_protocol: proxy_protocol(metadata)?,
        ..ServiceTarget::default()
    }];
    Ok(definition)
}

/// The containers' ports of the definition's protocol.
fn declared<'a>(workload: &'a Workload, definition: &ServiceDefinition) -> &'a [u16] {
    match protocol(definition) {
        "UDP" => &workload.container_udp_ports,
        _ => &workload.container_ports,
    }
}

fn proxy_protocol(metadata: &ObjectMeta) -> Result<String, String> {
    match annotation(metadata, labels::PROXY_PROTOCOL) {
        None => Ok(String::new()),
        Some(version @ ("v1" | "v2")) => Ok(version.to_owned()),
        Some(other) => Err(format!(
            "annotation {}: \"{other}\" is neither v1 nor v2",
            labels::PROXY_PROTOCOL
        )),
    }
}

/// Whoever writes something else than yes or no must not believe that it is encrypted.
fn sealed(metadata: &ObjectMeta) -> Result<bool, String> {
    match annotation(metadata, labels::SEALED).map(str::trim) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!(
            "annotation {}: \"{other}\" is neither true nor false",
            labels::SEALED
        )),
    }
}

fn capacity(metadata: &ObjectMeta) -> Result<Option<u32>, String> {
    let Some(text) = annotation(metadata, labels::CAPACITY) else {
        return Ok(None);
    };
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(format!(
            "annotation {}: \"{text}\" is no number of connections; write 1 or more",
            labels::CAPACITY
        )),
    }
}

fn of_service(service: &Service, snapshot: &ServiceSnapshot) -> Result<ServiceDefinition, String> {
    let metadata = &service.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let mut definition = common(metadata)?;
    let protocol = protocol(&definition);
    definition.ports = ports(service, protocol);
    if definition.ports.is_empty() {
        return Err(format!("the Service has no {protocol} port"));
    }
    if let Some(target) = annotation(metadata, labels::TARGET) {
        definition.targets = vec![named_target(target, &definition.ports, protocol, snapshot)?];
    } else if annotation(metadata, labels::INGRESS_ONLY).is_none() {
        let selector = original_selector(service);
        if selector.is_empty() {
            return Err(format!(
                "no selector defined; name the Service that serves it in {}, or set {}",
                labels::TARGET,
                labels::INGRESS_ONLY
            ));
        }
        definition.targets = vec![if definition.address == name {
            // The Service itself becomes the address: its pods are reached by what it selected before.
            ServiceTarget {
                name,
                selector: joined(&selector),
                target_ports: original_target_ports(service, protocol),
                ..ServiceTarget::default()
            }
        } else {
            ServiceTarget {
                name: name.clone(),
                service: name,
                ..ServiceTarget::default()
            }
        }];
    }
    let (capacity, proxy_protocol) = (capacity(metadata)?, proxy_protocol(metadata)?);
    for target in &mut definition.targets {
        target.capacity = capacity;
        target.proxy_protocol.clone_from(&proxy_protocol);
    }
    Ok(definition)
}

fn named_target(
    text: &str,
    ports: &[u16],
    protocol: &str,
    snapshot: &ServiceSnapshot,
) -> Result<ServiceTarget, String> {
    let (name, namespace) = text.split_once('.').unwrap_or((text, ""));
    let elsewhere = !namespace.is_empty() && namespace != snapshot.site.namespace;
    let target_ports = match snapshot.services.get(name) {
        Some(service) if !elsewhere => {
            let theirs = self::ports(service, protocol);
            matching(ports, &theirs).ok_or_else(|| {
                format!("incompatible number of ports: this Service has {ports:?}, Service {name} {theirs:?}")
            })?
        }
        // Not (yet) there, or not to be seen from here: the same numbers are assumed.
        _ => BTreeMap::new(),
    };
    Ok(ServiceTarget {
        name: name.to_owned(),
        service: name.to_owned(),
        target_ports,
        namespace: if elsewhere {
            namespace.to_owned()
        } else {
            String::new()
        },
        ..ServiceTarget::default()
    })
}

/// Which port leads to which: equal sets need no table, otherwise the numbers must pair up.
fn matching(ports: &[u16], targets: &[u16]) -> Option<BTreeMap<u16, u16>> {
    if targets.is_empty() || ports.iter().all(|port| targets.contains(port)) {
        return Some(BTreeMap::new());
    }
    (ports.len() == targets.len()).then(|| ports.iter().copied().zip(targets.iter().copied()).collect())
}

fn common(metadata: &ObjectMeta) -> Result<ServiceDefinition, String> {
    let text = |key: &str| annotation(metadata, key);
    let ingress = match text(labels::INGRESS).map(str::to_lowercase).as_deref() {
        None => "",
        Some("always") => "Always",
        Some("never") => "Never",
        Some(other) => {
            return Err(format!(
                "annotation {}: \"{other}\" is neither Always nor Never",
                labels::INGRESS
            ));
        }
    };
    Ok(ServiceDefinition {
        address: text(labels::ADDRESS)
            .or(metadata.name.as_deref())
            .unwrap_or_default()
            .to_owned(),
        protocol: text(labels::PROXY).unwrap_or_default().to_owned(),
        expose_ingress: ingress.to_owned(),
        labels: text(labels::SERVICE_LABELS).map(pairs).unwrap_or_default(),
        annotations: text(labels::SERVICE_ANNOTATIONS).map(pairs).unwrap_or_default(),
        sealed: sealed(metadata)?,
        origin: ORIGIN_ANNOTATION.to_owned(),
        ..ServiceDefinition::default()
    })
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The protocol of a Service's ports that a definition is carried by.
pub(crate) fn protocol(definition: &ServiceDefinition) -> &'static str {
    match definition.protocol.as_str() {
        "udp" => "UDP",
        _ => "TCP",
    }
}

/// Whether a Service's port is of this protocol.
pub(crate) fn is_of(port: &ServicePort, protocol: &str) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == protocol
}

/// Ports of a Service.
pub(crate) fn ports(service: &Service, protocol: &str) -> Vec<u16> {
    let all = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten();
    all.filter(|port| is_of(port, protocol))
        .filter_map(|port| u16::try_from(port.port).ok())
        .collect()
}

/// What a Service selected before its address was taken over, or selects.
pub(crate) fn original_selector(service: &Service) -> Strings {
    match annotation(&service.metadata, labels::ORIGINAL_SELECTOR) {
        Some(text) => pairs(text),
        None => service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.clone())
            .unwrap_or_default(),
    }
}

/// Port → target port of a Service, before it was taken over; only where they differ.
pub(crate) fn original_target_ports(service: &Service, protocol: &str) -> BTreeMap<u16, u16> {
    if let Some(text) = annotation(&service.metadata, labels::ORIGINAL_TARGET_PORT) {
        return parse_port_list(text)
            .map(|pairs| {
                pairs
                    .into_iter()
                    .filter(|(port, target)| port != target)
                    .collect()
            })
            .unwrap_or_default();
    }
    let all = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten();
    all.filter(|port| is_of(port, protocol))
        .filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            match &port.target_port {
                Some(IntOrString::Int(target)) => Some((number, u16::try_from(*target).ok()?)),
                _ => None,
            }
        })
        .filter(|(port, target)| port != target)
        .collect()
}

/// `k=v,…`
pub(crate) fn joined(map: &Strings) -> String {
    let all: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.join(",")
}
