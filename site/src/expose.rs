//! `expose` and `unexpose`: definitions in ConfigMap `skupper-services`, as Skupper's command writes them.
//!
//! The plan is pure: a definition (or none) and what is asked for go in, the new definition comes out; the shell
//! reads the target's ports and writes the ConfigMap, again when someone else was faster.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karez_kubernetes::{FIELD_MANAGER_CLI, ServiceDefinition, ServiceTarget, names};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// What can be exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A Deployment's Pods.
    Deployment,
    /// A StatefulSet's Pods.
    StatefulSet,
    /// A DaemonSet's Pods.
    DaemonSet,
    /// A Service.
    Service,
}

/// What is exposed: `deployment/backend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetName {
    /// The kind.
    pub kind: TargetKind,
    /// The name.
    pub name: String,
}

impl TargetName {
    /// Reads `kind/name`, or the two as words.
    ///
    /// # Errors
    /// When the kind cannot be exposed or a part is missing.
    pub fn parse(words: &[String]) -> Result<TargetName, ExposeError> {
        let joined = words.join("/");
        let (kind, name) = match joined.split_once('/') {
            Some((kind, name)) if !name.is_empty() && !name.contains('/') => (kind, name),
            _ => return Err(ExposeError::NoTarget(joined)),
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "deployment" | "deploy" => TargetKind::Deployment,
            "statefulset" | "sts" => TargetKind::StatefulSet,
            "daemonset" | "ds" => TargetKind::DaemonSet,
            "service" | "svc" => TargetKind::Service,
            _ => return Err(ExposeError::NoTarget(joined)),
        };
        Ok(TargetName {
            kind,
            name: name.to_owned(),
        })
    }

    /// The kind as it is written.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            TargetKind::Deployment => "deployment",
            TargetKind::StatefulSet => "statefulset",
            TargetKind::DaemonSet => "daemonset",
            TargetKind::Service => "service",
        }
    }
}

/// What `expose` is asked for.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// What.
    pub target: TargetName,
    /// By which address.
    pub address: Option<String>,
    /// `tcp`, `udp`, `http`, `http2`.
    pub protocol: String,
    /// Ports of the address; those of the target if empty.
    pub ports: Vec<u16>,
    /// Ports of the target, `port:target` or one number.
    pub target_ports: Vec<String>,
    /// Whether its connections are encrypted from the first to the last site.
    pub sealed: bool,
}

/// Why something is not exposed or taken back.
#[derive(Debug, thiserror::Error)]
pub enum ExposeError {
    /// Not a target.
    #[error(
        "\"{0}\" cannot be exposed; name deployment/NAME, statefulset/NAME, daemonset/NAME or service/NAME"
    )]
    NoTarget(String),
    /// A Service needs an address of its own.
    #[error(
        "--address is needed for service/{0}: the address becomes a Service itself and cannot have the same name"
    )]
    NoAddress(String),
    /// The target is not there.
    #[error("there is no {kind} {name} in namespace {namespace}")]
    Missing {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// No port to expose.
    #[error("{kind}/{name} names no port; name one with --port")]
    NoPort {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// `--target-port` is not understood.
    #[error(
        "--target-port {0}: write PORT:TARGET with a PORT of the address, or one number for the only port"
    )]
    TargetPort(String),
    /// The definition is not one that can be served.
    #[error(transparent)]
    Definition(#[from] karez_kubernetes::DefinitionError),
    /// The address belongs to another.
    #[error("address {address} is defined by {owner}; {mend}")]
    Foreign {
        /// The address.
        address: String,
        /// Who.
        owner: String,
        /// What to do.
        mend: &'static str,
    },
    /// The address has other ports.
    #[error(
        "address {address} already has the ports {has:?}, not {wants:?}; unexpose it first, or choose another address"
    )]
    OtherPorts {
        /// The address.
        address: String,
        /// Its ports.
        has: Vec<u16>,
        /// What is asked for.
        wants: Vec<u16>,
    },
    /// The address does not serve this target.
    #[error("{kind}/{name} is not exposed as {address}")]
    NotExposed {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// The address.
        address: String,
    },
    /// There is no site.
    #[error("Skupper is not enabled in namespace '{0}': it has no ConfigMap skupper-site")]
    NoSite(String),
    /// Others wrote at the same time, again and again.
    #[error(
        "ConfigMap skupper-services was changed by others at the same time, several times over; try again"
    )]
    Busy,
    /// The API refused.
    #[error("cannot {what} in namespace {namespace}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// The namespace.
        namespace: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What is known of a target in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    ports: Vec<u16>,
    selector: String,
}

/// Exposes a target; gives the address.
///
/// # Errors
/// When the target is not there or the address cannot be had.
pub async fn expose(client: Client, namespace: &str, exposure: &Exposure) -> Result<String, ExposeError> {
    let address = address_of(&exposure.target, exposure.address.as_deref())?;
    let facts = facts(&client, namespace, &exposure.target, &exposure.protocol).await?;
    let wanted = definition(&address, exposure, &facts)?;
    edit(client, namespace, |services| {
        let now = services
            .get(&address)
            .map(|text| ServiceDefinition::parse(&address, text))
            .transpose()?;
        let merged = merge(now, &wanted)?;
        services.insert(address.clone(), merged.to_json());
        Ok(())
    })
    .await?;
    Ok(address)
}

/// Takes a target back; the address goes with its last target.
///
/// # Errors
/// When it is not exposed by that address.
pub async fn unexpose(
    client: Client,
    namespace: &str,
    target: &TargetName,
    address: Option<&str>,
) -> Result<String, ExposeError> {
    let address = address_of(target, address)?;
    edit(client, namespace, |services| {
        let not_exposed = || ExposeError::NotExposed {
            kind: target.kind_name(),
            name: target.name.clone(),
            address: address.clone(),
        };
        let text = services.get(&address).ok_or_else(not_exposed)?;
        let definition = ServiceDefinition::parse(&address, text)?;
        match without(definition, target).ok_or_else(not_exposed)?? {
            Some(rest) => services.insert(address.clone(), rest.to_json()),
            None => services.remove(&address),
        };
        Ok(())
    })
    .await?;
    Ok(address)
}

fn address_of(target: &TargetName, address: Option<&str>) -> Result<String, ExposeError> {
    match (address, target.kind) {
        (Some(address), _) => Ok(address.to_owned()),
        (None, TargetKind::Service) => Err(ExposeError::NoAddress(target.name.clone())),
        (None, _) => Ok(target.name.clone()),
    }
}

/// The definition that is asked for, on its own.
fn definition(address: &str, exposure: &Exposure, facts: &Facts) -> Result<ServiceDefinition, ExposeError> {
    let target = &exposure.target;
    let ports = if exposure.ports.is_empty() {
        facts.ports.clone()
    } else {
        exposure.ports.clone()
    };
    if ports.is_empty() {
        return Err(ExposeError::NoPort {
            kind: target.kind_name(),
            name: target.name.clone(),
        });
    }
    let is_service = target.kind == TargetKind::Service;
    let definition = ServiceDefinition {
        address: address.to_owned(),
        protocol: exposure.protocol.clone(),
        targets: vec![ServiceTarget {
            name: target.name.clone(),
            selector: if is_service {
                String::new()
            } else {
                facts.selector.clone()
            },
            service: if is_service {
                target.name.clone()
            } else {
                String::new()
            },
            target_ports: target_ports(&ports, &exposure.target_ports)?,
            ..ServiceTarget::default()
        }],
        ports,
        sealed: exposure.sealed,
        ..ServiceDefinition::default()
    };
    definition.check()?;
    Ok(definition)
}

fn target_ports(ports: &[u16], given: &[String]) -> Result<BTreeMap<u16, u16>, ExposeError> {
    let mut map = BTreeMap::new();
    for text in given {
        let wrong = || ExposeError::TargetPort(text.clone());
        let (port, target) = match (text.split_once(':'), ports) {
            (Some((port, target)), _) => (port.parse().map_err(|_| wrong())?, target),
            (None, [only]) => (*only, text.as_str()),
            (None, _) => return Err(wrong()),
        };
        let target: u16 = target.parse().map_err(|_| wrong())?;
        if !ports.contains(&port) || target == 0 {
            return Err(wrong());
        }
        if port != target {
            map.insert(port, target);
        }
    }
    Ok(map)
}

/// Adds the target to what is defined by this address.
fn merge(
    now: Option<ServiceDefinition>,
    wanted: &ServiceDefinition,
) -> Result<ServiceDefinition, ExposeError> {
    let Some(mut now) = now else {
        return Ok(wanted.clone());
    };
    if !now.origin.is_empty() && now.origin != karez_kubernetes::ORIGIN_ANNOTATION {
        // Another site defined it: this site serves it too, by a definition of its own.
        return Ok(wanted.clone());
    }
    if now.origin == karez_kubernetes::ORIGIN_ANNOTATION {
        let mend = "change the annotations of that workload or Service, or choose another address";
        return Err(ExposeError::Foreign {
            address: now.address,
            owner: "annotations".into(),
            mend,
        });
    }
    if now.ports != wanted.ports {
        let (has, wants) = (now.ports.clone(), wanted.ports.clone());
        return Err(ExposeError::OtherPorts {
            address: now.address,
            has,
            wants,
        });
    }
    // Never less than was asked for before: to carry it in plain, unexpose it first.
    now.sealed |= wanted.sealed;
    for target in &wanted.targets {
        now.targets
            .retain(|known| (&known.name, &known.service) != (&target.name, &target.service));
        now.targets.push(target.clone());
    }
    Ok(now)
}

/// The definition without the target: nothing if it has no such target, `None` inside if it was the last.
fn without(
    mut definition: ServiceDefinition,
    target: &TargetName,
) -> Option<Result<Option<ServiceDefinition>, ExposeError>> {
    if definition.origin == karez_kubernetes::ORIGIN_ANNOTATION {
        let mend = "remove the annotations from that workload or Service";
        return Some(Err(ExposeError::Foreign {
            address: definition.address,
            owner: "annotations".into(),
            mend,
        }));
    }
    let before = definition.targets.len();
    let is_service = target.kind == TargetKind::Service;
    definition
        .targets
        .retain(|known| known.name != target.name || known.service.is_empty() == is_service);
    if definition.targets.len() == before {
        return None;
    }
    Some(Ok(if definition.targets.is_empty() {
        None
    } else {
        Some(definition)
    }))
}

fn api_error(what: String, namespace: &str) -> impl FnOnce(kube::Error) -> ExposeError + use<> {
    let namespace = namespace.to_owned();
    move |source| ExposeError::Api {
        what,
        namespace,
        source: Box::new(source),
    }
}

async fn facts(
    client: &Client,
    namespace: &str,
    target: &TargetName,
    protocol: &str,
) -> Result<Facts, ExposeError> {
    let protocol = if protocol == "udp" { "UDP" } else { "TCP" };
    let failed = || api_error(format!("read {}/{}", target.kind_name(), target.name), namespace);
    let name = target.name.as_str();
    let client = client.clone();
    let found = match target.kind {
        TargetKind::Service => {
            let api: Api<Service> = Api::namespaced(client, namespace);
            api.get_opt(name)
                .await
                .map_err(failed())?
                .map(|service| of_service(&service, protocol))
        }
        TargetKind::Deployment => {
            let api: Api<Deployment> = Api::namespaced(client, namespace);
            let spec = api
                .get_opt(name)
                .await
                .map_err(failed())?
                .and_then(|found| found.spec);
            spec.map(|spec| of_workload(&spec.selector, spec.template.spec.as_ref(), protocol))
        }
        TargetKind::StatefulSet => {
            let api: Api<StatefulSet> = Api::namespaced(client, namespace);
            let spec = api
                .get_opt(name)
                .await
                .map_err(failed())?
                .and_then(|found| found.spec);
            spec.map(|spec| of_workload(&spec.selector, spec.template.spec.as_ref(), protocol))
        }
        TargetKind::DaemonSet => {
            let api: Api<DaemonSet> = Api::namespaced(client, namespace);
            let spec = api
                .get_opt(name)
                .await
                .map_err(failed())?
                .and_then(|found| found.spec);
            spec.map(|spec| of_workload(&spec.selector, spec.template.spec.as_ref(), protocol))
        }
    };
    found.ok_or_else(|| ExposeError::Missing {
        kind: target.kind_name(),
        name: target.name.clone(),
        namespace: namespace.to_owned(),
    })
}

fn of_service(service: &Service, protocol: &str) -> Facts {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let carried = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol);
    Facts {
        ports: carried.filter_map(|port| u16::try_from(port.port).ok()).collect(),
        selector: String::new(),
    }
}

fn of_workload(selector: &LabelSelector, pod: Option<&PodSpec>, protocol: &str) -> Facts {
    let containers: &[Container] = pod.map_or(&[], |pod| &pod.containers);
    let ports = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    let carried = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol);
    let labels = selector.match_labels.iter().flatten();
    let selector: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    Facts {
        ports: carried
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect(),
        selector: selector.join(","),
    }
}

/// Changes `skupper-services`, again when another writer was faster.
async fn edit(
    client: Client,
    namespace: &str,
    change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), ExposeError>,
) -> Result<(), ExposeError> {
    let failed = |what: &str| api_error(what.to_owned(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    if maps
        .get_opt(names::SITE)
        .await
        .map_err(failed("read ConfigMap skupper-site"))?
        .is_none()
    {
        return Err(ExposeError::NoSite(namespace.to_owned()));
    }
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER_CLI.to_owned()),
        ..PostParams::default()
    };
    for _ in 0..8 {
        let now = maps
            .get_opt(names::SERVICES)
            .await
            .map_err(failed("read ConfigMap skupper-services"))?;
        let existed = now.is_some();
        let mut map = match now {
            Some(map) => map,
            None => new_services(&client, namespace).await?,
        };
        change(map.data.get_or_insert_default())?;
        let written = match existed {
            true => maps.replace(names::SERVICES, &params, &map).await,
            false => maps.create(&params, &map).await,
        };
        match written {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed("write ConfigMap skupper-services")(error)),
        }
    }
    Err(ExposeError::Busy)
}

/// A new ConfigMap, owned by the router's Deployment so that it goes with the site.
async fn new_services(client: &Client, namespace: &str) -> Result<ConfigMap, ExposeError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let router = deployments.get_opt(names::ROUTER).await;
    let router = router.map_err(api_error("read Deployment skupper-router".to_owned(), namespace))?;
    let owners: Vec<serde_json::Value> = router
        .iter()
        .map(|router| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": names::ROUTER, "uid": router.uid().unwrap_or_default()})
        })
        .collect();
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": names::SERVICES, "namespace": namespace, "ownerReferences": owners},
    }))
    .expect("a ConfigMap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> TargetName {
        TargetName::parse(&[text.to_owned()]).unwrap()
    }

    fn exposure(text: &str) -> Exposure {
        Exposure {
            target: target(text),
            address: Some("a".into()),
            protocol: "tcp".into(),
            ports: Vec::new(),
            target_ports: Vec::new(),
            sealed: false,
        }
    }

    fn facts() -> Facts {
        Facts {
            ports: vec![4317, 4318],
            selector: "app=x".into(),
        }
    }

    #[test]
    fn reads_targets_as_one_word_or_two() {
        let words = ["service".to_owned(), "x".to_owned()];
        assert_eq!(TargetName::parse(&words).unwrap(), target("service/x"));
        for bad in ["x", "pods/x", "service/", "service/a/b"] {
            assert!(TargetName::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_what_skupper_writes() {
        let definition = definition("a", &exposure("service/x"), &facts()).unwrap();
        assert_eq!(
            definition.to_json(),
            r#"{"address":"a","protocol":"tcp","ports":[4317,4318],"exposeIngress":"","targets":[{"name":"x","service":"x"}]}"#
        );
    }

    #[test]
    fn maps_target_ports() {
        let mut exposure = exposure("deployment/x");
        exposure.ports = vec![80];
        exposure.target_ports = vec!["8080".into()];
        let definition = definition("a", &exposure, &facts()).unwrap();
        assert_eq!(definition.targets[0].target_ports, BTreeMap::from([(80, 8080)]));
        assert_eq!(definition.targets[0].selector, "app=x");
        assert!(target_ports(&[80, 81], &["8080".into()]).is_err());
    }

    #[test]
    fn the_address_goes_with_its_last_target() {
        let one = definition("a", &exposure("service/x"), &facts()).unwrap();
        let two = merge(
            Some(one.clone()),
            &definition("a", &exposure("service/y"), &facts()).unwrap(),
        )
        .unwrap();
        assert_eq!(two.targets.len(), 2);
        let rest = without(two, &target("service/y")).unwrap().unwrap().unwrap();
        assert_eq!(rest, one);
        assert!(without(one.clone(), &target("deployment/x")).is_none());
        assert_eq!(without(one, &target("service/x")).unwrap().unwrap(), None);
    }

    #[test]
    fn a_service_needs_an_address() {
        assert!(address_of(&target("service/x"), None).is_err());
        assert_eq!(address_of(&target("deployment/x"), None).unwrap(), "x");
    }

    #[test]
    fn what_annotations_define_is_theirs() {
        let mut theirs = definition("a", &exposure("service/x"), &facts()).unwrap();
        theirs.origin = "annotation".into();
        assert!(merge(Some(theirs.clone()), &theirs).is_err());
        assert!(without(theirs, &target("service/x")).unwrap().is_err());
    }
}
