//! The names file: Services and where they are ready, for the resolver of every process of the site.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use karez_lifecycle::Shutdown;
use karez_net::names::{self, Names};
use kube::ResourceExt;

use crate::controllers::endpoints::ready_addresses;
use crate::observe::{Changes, Objects};
use crate::pods::files::write_whole;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Writes the file now and on every change, until the shutdown.
pub(crate) async fn keep(objects: Objects, mut changes: Changes, path: PathBuf, shutdown: Shutdown) {
    let mut written = None;
    loop {
        write(&objects, &path, &mut written);
        tokio::select! {
            () = shutdown.triggered() => return,
            () = changes.next() => {}
        }
    }
}

/// Writes the file if what it should hold is not what was written.
pub(crate) fn write(objects: &Objects, path: &Path, written: &mut Option<Names>) {
    let names = names(
        &objects.services.state(),
        &objects.slices.state(),
        &objects.pods.state(),
    );
    if written.as_ref() == Some(&names) {
        return;
    }
    // A Names is plain data: it can always be written as JSON.
    let text = serde_json::to_vec(&names).unwrap_or_default();
    match write_whole(path, &text, 0o600) {
        Ok(()) => *written = Some(names),
        Err(error) => tracing::warn!(file = %path.display(), %error, "the names file cannot be written"),
    }
}

/// What the file holds.
fn names(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], pods: &[Arc<Pod>]) -> Names {
    let mut names = Names {
        services: services
            .iter()
            .map(|service| of_service(service, slices, pods))
            .collect(),
        pods: pods.iter().filter_map(|pod| of_pod(pod)).collect(),
        ..Names::default()
    };
    names
        .services
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    names.pods.sort_by_key(|pod| pod.address);
    names
}

/// A Service with a selector is where its ready Pods are: a real API server takes no loopback address into an
/// EndpointSlice, and loopback addresses are what Pods have here. Without a selector its EndpointSlices say it.
fn of_service(service: &Service, slices: &[Arc<EndpointSlice>], pods: &[Arc<Pod>]) -> names::Service {
    let spec = service.spec.clone().unwrap_or_default();
    let name = service.name_any();
    let mine: Vec<&EndpointSlice> = slices
        .iter()
        .map(Arc::as_ref)
        .filter(|slice| {
            slice.namespace() == service.namespace() && slice.labels().get(SERVICE_NAME) == Some(&name)
        })
        .collect();
    let ports = spec.ports.iter().flatten().map(|port| {
        let port_name = port.name.clone().unwrap_or_default();
        let mut endpoints = ready_addresses(service, pods, port)
            .unwrap_or_else(|| mine.iter().flat_map(|slice| ready(slice, &port_name)).collect());
        endpoints.sort();
        endpoints.dedup();
        names::Port {
            name: port_name,
            port: u16::try_from(port.port).unwrap_or(0),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            endpoints,
        }
    });
    let external = spec
        .external_name
        .clone()
        .filter(|_| spec.type_.as_deref() == Some("ExternalName"));
    names::Service {
        namespace: service.namespace().unwrap_or_default(),
        ports: ports.collect(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        cluster_ip: spec.cluster_ip.as_deref().and_then(|text| text.parse().ok()),
        external_name: external,
        name,
    }
}

fn ready<'a>(slice: &'a EndpointSlice, port: &str) -> impl Iterator<Item = std::net::SocketAddr> + 'a {
    let named = slice
        .ports
        .iter()
        .flatten()
        .find(|one| one.name.as_deref().unwrap_or_default() == port);
    let number = named
        .and_then(|one| one.port)
        .and_then(|number| u16::try_from(number).ok());
    let endpoints = slice.endpoints.iter().filter(|endpoint| {
        // Absent means ready, says the API.
        endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true)
    });
    let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(move |text| Some(std::net::SocketAddr::new(text.parse().ok()?, number?)))
}

fn of_pod(pod: &Pod) -> Option<names::Pod> {
    let spec = pod.spec.as_ref()?;
    Some(names::Pod {
        namespace: pod.namespace()?,
        hostname: spec.hostname.clone()?,
        subdomain: spec.subdomain.clone().filter(|text| !text.is_empty())?,
        address: pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_endpoints_by_port_name() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}]}}))
        .unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s-0", "namespace": "n", "labels": {SERVICE_NAME: "s"}}, "addressType": "IPv4",
            "ports": [{"name": "a", "port": 10}, {"name": "b", "port": 20}],
            "endpoints": [{"addresses": ["127.9.8.3"]}, {"addresses": ["127.9.8.2"], "conditions": {"ready": true}},
                          {"addresses": ["127.9.8.4"], "conditions": {"ready": false}}]}))
        .unwrap();
        let names = names(&[Arc::new(service)], &[Arc::new(slice)], &[]);
        let port = &names.services[0].ports[1];
        assert_eq!((port.port, port.protocol.as_str()), (2, "UDP"));
        assert_eq!(
            port.endpoints,
            ["127.9.8.2:20".parse().unwrap(), "127.9.8.3:20".parse().unwrap()]
        );
    }
}
