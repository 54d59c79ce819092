//! Where the backends are, told anew whenever that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use karez_collector_config::load_balancing::{DnsResolver, K8sResolver};
use karez_kubernetes::ClientOptions;
use karez_net::Net;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch::Sender;

/// The most backends.
const MAX_BACKENDS: usize = 1024;

/// Tells backends, if they are others than before.
fn tell(to: &Sender<Vec<String>>, backends: BTreeSet<String>) {
    let new: Vec<String> = backends.into_iter().take(MAX_BACKENDS).collect();
    to.send_if_modified(|old| {
        let differs = *old != new;
        if differs {
            *old = new;
        }
        differs
    });
}

/// Looks a name up for ever. While it cannot be, the last answer holds.
pub(super) async fn follow_dns(net: Net, config: DnsResolver, to: Sender<Vec<String>>) {
    let mut failing = false;
    loop {
        let looked_up =
            tokio::time::timeout(config.timeout, net.resolve(&config.hostname, config.port)).await;
        let failed = match looked_up {
            Ok(Ok(addresses)) if !addresses.is_empty() => {
                tell(&to, addresses.iter().map(ToString::to_string).collect());
                None
            }
            Ok(Ok(_)) => Some("it has no address".to_owned()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {:?}", config.timeout)),
        };
        if let Some(reason) = &failed
            && !failing
        {
            tracing::warn!(
                hostname = config.hostname,
                reason,
                "the backends' name cannot be looked up"
            );
        }
        failing = failed.is_some();
        tokio::time::sleep(config.interval).await;
    }
}

/// Follows the endpoints of a Service for ever.
pub(super) async fn follow_service(config: K8sResolver, to: Sender<Vec<String>>) {
    let client = loop {
        match karez_kubernetes::client(&ClientOptions::default()).await {
            Ok((client, _)) => break client,
            Err(error) => tracing::error!(%error, "loadbalancing has no API to ask; trying again"),
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    };
    follow_slices(client, config, to).await;
}

/// The same with a client.
pub(super) async fn follow_slices(client: Client, config: K8sResolver, to: Sender<Vec<String>>) {
    let (service, namespace) = name(&config.service, client.default_namespace());
    let api: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    let of_service = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut events = pin!(watcher(api, of_service).default_backoff());
    let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    let mut listing: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(slice)) => {
                listing.insert(slice.name_any(), slice);
                continue;
            }
            Ok(Event::InitDone) => slices = std::mem::take(&mut listing),
            Ok(Event::Apply(slice)) => {
                slices.insert(slice.name_any(), slice);
            }
            Ok(Event::Delete(slice)) => {
                slices.remove(&slice.name_any());
            }
            Err(error) => {
                tracing::warn!(%error, service, namespace, "the endpoints of the Service cannot be followed");
                continue;
            }
        }
        let found: BTreeSet<String> = slices
            .values()
            .flat_map(|slice| backends(slice, &config, &service, &namespace))
            .collect();
        // A list that is just beginning is no news.
        if !found.is_empty() || listing.is_empty() {
            tell(&to, found);
        }
    }
}

/// `name`, `name.namespace` or longer.
fn name(service: &str, default_namespace: &str) -> (String, String) {
    let mut parts = service.split('.');
    let name = parts.next().unwrap_or_default().to_owned();
    let namespace = parts
        .next()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or(default_namespace);
    (name, namespace.to_owned())
}

fn backends(slice: &EndpointSlice, config: &K8sResolver, service: &str, namespace: &str) -> Vec<String> {
    let ready = slice.endpoints.iter().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let mut backends = Vec::new();
    for endpoint in ready {
        let hosts: Vec<String> = match (config.return_hostnames, &endpoint.hostname) {
            (true, Some(hostname)) => vec![format!("{hostname}.{service}.{namespace}")],
            (true, None) => Vec::new(),
            (false, _) => endpoint.addresses.clone(),
        };
        for host in hosts {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host
            };
            backends.extend(config.ports.iter().map(|port| format!("{host}:{port}")));
        }
    }
    backends
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_endpoints_are_backends() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s-1"}, "addressType": "IPv4", "ports": [],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "hostname": "a", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["fd00::1"]},
            ],
        }))
        .unwrap();
        let mut config = K8sResolver {
            ports: vec![1, 2],
            ..K8sResolver::default()
        };
        let found = backends(&slice, &config, "s", "n");
        assert_eq!(found, ["10.0.0.1:1", "10.0.0.1:2", "[fd00::1]:1", "[fd00::1]:2"]);
        config.return_hostnames = true;
        assert_eq!(backends(&slice, &config, "s", "n"), ["a.s.n:1", "a.s.n:2"]);
        assert_eq!(name("s", "d"), ("s".into(), "d".into()));
        assert_eq!(name("s.n.svc.cluster.local", "d"), ("s".into(), "n".into()));
    }
}
