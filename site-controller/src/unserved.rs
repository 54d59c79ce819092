//! Ports that Services offer and nothing serves.
//!
//! Names and ports are compatible with what others look for; not everything behind them exists. `status` says so.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{labels, names};

/// A port of a Service that no container behind it declares.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnservedPort {
    /// The Service's port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The port's name, if it has one.
    pub name: String,
    /// What is missing, for people.
    pub reason: String,
}

/// Which of a Service's ports nothing serves yet, as far as its pods' containers say.
///
/// `pods` are those of the Service's namespace; a Service without a selector is somebody else's business. A pod
/// whose containers declare no port at all says nothing, so nothing is concluded from it.
#[must_use]
pub fn unserved_ports(service: &Service, pods: &[Pod]) -> Vec<UnservedPort> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return Vec::new();
    };
    let selected: Vec<&Pod> = pods
        .iter()
        .filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            selector
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
        .collect();
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let reason = if selected.is_empty() {
                "no pod is selected".to_owned()
            } else if selected.iter().any(|pod| serves(pod, port)) {
                return None;
            } else {
                format!("no container behind it listens on {}", target(port))
            };
            Some(UnservedPort {
                port: u16::try_from(port.port).unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                name: port.name.clone().unwrap_or_default(),
                reason,
            })
        })
        .collect()
}

fn target(port: &ServicePort) -> String {
    match &port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
        None => port.port.to_string(),
    }
}

fn serves(pod: &Pod, port: &ServicePort) -> bool {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let wanted = target(port);
    let component = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|all| all.get(labels::COMPONENT));
    match component.map(String::as_str) {
        // Skupper's port of the console is there for compatibility; nothing listens on it yet.
        Some("service-controller") => return wanted == names::CLAIMS_PORT.to_string(),
        // The router opens a port for each address without its Deployment saying so; it has no console.
        Some("router") if protocol == "TCP" => {
            let number = wanted.parse::<u16>().unwrap_or_default();
            return number >= names::FIRST_LISTENER_PORT && number != names::CONSOLE_PORT;
        }
        _ => {}
    }
    let containers = pod
        .spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    let mut declared = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .peekable();
    // Who declares nothing says nothing.
    declared.peek().is_none()
        || declared.any(|one| {
            let same = one.container_port.to_string() == wanted || one.name.as_deref() == Some(&wanted);
            same && one.protocol.as_deref().unwrap_or("TCP") == protocol
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(ports: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "ports": ports}]},
        }))
        .unwrap()
    }

    fn service() -> Service {
        serde_json::from_value(json!({
            "spec": {"selector": {"app": "x"}, "ports": [
                {"name": "a", "port": 4317}, {"name": "b", "port": 9411}, {"name": "c", "port": 80, "targetPort": "web"},
                {"name": "d", "port": 6831, "protocol": "UDP"},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn lists_what_no_container_declares() {
        let pods = [pod(json!([
            {"containerPort": 4317}, {"containerPort": 8080, "name": "web"}, {"containerPort": 6831},
        ]))];
        let ports: Vec<u16> = unserved_ports(&service(), &pods)
            .iter()
            .map(|port| port.port)
            .collect();
        assert_eq!(ports, [9411, 6831]);
    }

    #[test]
    fn the_sites_own_programs_are_known() {
        let mut pods = [pod(json!([{"containerPort": 80, "name": "web"}]))];
        pods[0]
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert(labels::COMPONENT.into(), "service-controller".into());
        assert_eq!(unserved_ports(&service(), &pods).len(), 4);
        pods[0]
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert(labels::COMPONENT.into(), "router".into());
        let ports: Vec<u16> = unserved_ports(&service(), &pods)
            .iter()
            .map(|port| port.port)
            .collect();
        assert_eq!(ports, [80, 6831]);
    }

    #[test]
    fn without_pods_nothing_serves_and_without_declarations_nothing_is_known() {
        assert_eq!(unserved_ports(&service(), &[]).len(), 4);
        assert!(unserved_ports(&service(), &[pod(json!([]))]).is_empty());
    }
}
