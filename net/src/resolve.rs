//! `(name, port)` → addresses: the local cluster's names first, then the system's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::names::{Meaning, Names, Service};
use crate::{Net, is_loopback_itself};

/// The system's resolver is given this long.
const SYSTEM_LIMIT: Duration = Duration::from_secs(5);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The Service is there, and none of its Pods is ready. Worth trying again.
    #[error("Service {service} in namespace {namespace} has no ready endpoint for port {port} yet")]
    NotReady {
        /// The Service.
        service: String,
        /// Its namespace.
        namespace: String,
        /// The port asked for.
        port: u16,
    },
    /// The Service has no such port.
    #[error(
        "Service {service} in namespace {namespace} has no port {port}, only {}",
        list(ports)
    )]
    NoSuchPort {
        /// The Service.
        service: String,
        /// Its namespace.
        namespace: String,
        /// The port asked for.
        port: u16,
        /// The ports it has.
        ports: Vec<u16>,
    },
    /// The name has the form of a Service's, and there is none.
    #[error("there is no Service of the name {host:?}")]
    NoSuchService {
        /// The name.
        host: String,
    },
    /// The system knows no such name.
    #[error(
        "the name {host:?} has no address: it is no Service of the cluster, and the system says: {source}"
    )]
    System {
        /// The name.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The names file of the local cluster cannot be read.
    #[error("the local cluster's names file {} cannot be read: {source}", file.display())]
    NamesFile {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ResolveError {
    /// Whether the same question may have an answer in a moment.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::NoSuchPort { .. })
    }
}

fn list(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    if ports.is_empty() {
        "none at all".into()
    } else {
        ports.join(", ")
    }
}

impl Net {
    /// The addresses at which `host` and `port` can be reached, best first. `host` may be an address.
    ///
    /// # Errors
    /// When there is no address now; [`ResolveError::is_retryable`] says whether asking again may help.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Some(inside) = self.own_pod(bare, port) {
            return Ok(inside);
        }
        match self.in_cluster(bare, port)? {
            InCluster::Addresses(addresses) => Ok(self.take_turns(addresses)),
            InCluster::Named(name) => system(&name, port).await,
            InCluster::No => system(bare, port).await,
        }
    }

    /// In a Pod, `localhost` is the Pod; the host's own comes after it, for programs that run beside the cluster.
    fn own_pod(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let pod = self.pod_address()?;
        let local = host == "localhost" || host.parse().is_ok_and(is_loopback_itself);
        let mut addresses = vec![SocketAddr::new(pod, port)];
        if !is_loopback_itself(pod) {
            addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        local.then_some(addresses)
    }

    fn in_cluster(&self, host: &str, port: u16) -> Result<InCluster, ResolveError> {
        let Some(file) = &self.inner.names else {
            return Ok(InCluster::No);
        };
        let names = match file.current() {
            Ok(names) => names,
            // An address needs no names.
            Err(_) if host.parse::<IpAddr>().is_ok() => return Ok(InCluster::No),
            Err(source) => {
                return Err(ResolveError::NamesFile {
                    file: file.path().to_path_buf(),
                    source,
                });
            }
        };
        look_up(&names, host, port, self.inner.namespace.as_deref())
    }

    /// Starts at another address each time, so that equal ones share the work.
    fn take_turns(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if addresses.len() > 1 {
            let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
            addresses.rotate_left(turn);
        }
        addresses
    }
}

#[derive(Debug, PartialEq, Eq)]
enum InCluster {
    Addresses(Vec<SocketAddr>),
    Named(String),
    No,
}

fn look_up(names: &Names, host: &str, port: u16, namespace: Option<&str>) -> Result<InCluster, ResolveError> {
    match names.meaning(host, namespace.unwrap_or(&names.namespace)) {
        Meaning::Foreign => Ok(InCluster::No),
        Meaning::Absent => Err(ResolveError::NoSuchService {
            host: host.to_owned(),
        }),
        Meaning::Pod(pod) => Ok(InCluster::Addresses(vec![SocketAddr::new(pod.address, port)])),
        Meaning::Service(service) => of_service(service, port),
    }
}

fn of_service(service: &Service, port: u16) -> Result<InCluster, ResolveError> {
    if let Some(name) = &service.external_name {
        return Ok(InCluster::Named(name.clone()));
    }
    let (name, namespace) = (service.name.clone(), service.namespace.clone());
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut known = service.headless;
    for offered in &service.ports {
        if service.headless {
            addresses.extend(
                offered
                    .endpoints
                    .iter()
                    .map(|endpoint| SocketAddr::new(endpoint.ip(), port)),
            );
        } else if offered.port == port {
            known = true;
            addresses.extend(&offered.endpoints);
        }
    }
    if !known {
        let ports = service.ports.iter().map(|port| port.port).collect();
        return Err(ResolveError::NoSuchPort {
            service: name,
            namespace,
            port,
            ports,
        });
    }
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(ResolveError::NotReady {
            service: name,
            namespace,
            port,
        });
    }
    Ok(InCluster::Addresses(addresses))
}

async fn system(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| ResolveError::System {
        host: host.to_owned(),
        source,
    };
    let looked_up = tokio::time::timeout(SYSTEM_LIMIT, tokio::net::lookup_host((host, port))).await;
    let found = looked_up
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        Err(failed(io::ErrorKind::NotFound.into()))
    } else {
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Port;

    fn net(names: &Names) -> (Net, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.json");
        std::fs::write(&path, serde_json::to_vec(names).unwrap()).unwrap();
        (
            Net::builder()
                .names_file(path)
                .pod_address("127.9.8.7".parse().unwrap())
                .build(),
            folder,
        )
    }

    fn collector(endpoints: &[&str]) -> Names {
        let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        let port = Port {
            name: "otlp".into(),
            port: 4317,
            protocol: "TCP".into(),
            endpoints,
        };
        let service = Service {
            namespace: "default".into(),
            name: "collector".into(),
            ports: vec![port],
            ..Service::default()
        };
        Names {
            services: vec![service],
            ..Names::default()
        }
    }

    #[tokio::test]
    async fn a_services_ready_pods_take_turns() {
        let (net, _folder) = net(&collector(&["127.9.8.5:1024", "127.9.8.6:1024"]));
        let first = net.resolve("collector", 4317).await.unwrap();
        let second = net.resolve("collector.default.svc", 4317).await.unwrap();
        assert_eq!(first.len(), 2);
        assert_ne!(first[0], second[0]);
    }

    #[tokio::test]
    async fn a_service_without_ready_pods_is_worth_another_try() {
        let (net, _folder) = net(&collector(&[]));
        let error = net.resolve("collector", 4317).await.unwrap_err();
        assert!(
            error.is_retryable() && matches!(error, ResolveError::NotReady { .. }),
            "{error}"
        );
        let error = net.resolve("collector", 1).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.to_string().ends_with("has no port 1, only 4317"), "{error}");
        let error = net
            .resolve("other.default.svc.cluster.local", 1)
            .await
            .unwrap_err();
        assert!(matches!(error, ResolveError::NoSuchService { .. }));
    }

    #[tokio::test]
    async fn headless_gives_the_pods_with_the_port_asked_for() {
        let mut names = collector(&["127.9.8.5:1024"]);
        names.services[0].headless = true;
        let (net, _folder) = net(&names);
        assert_eq!(
            net.resolve("collector", 99).await.unwrap(),
            ["127.9.8.5:99".parse().unwrap()]
        );
    }

    #[tokio::test]
    async fn localhost_in_a_pod_is_the_pod() {
        let (net, _folder) = net(&Names::default());
        assert_eq!(
            net.resolve("localhost", 1).await.unwrap()[0].to_string(),
            "127.9.8.7:1"
        );
        assert_eq!(
            net.resolve("127.1.2.3", 1).await.unwrap()[0].to_string(),
            "127.1.2.3:1"
        );
        assert_eq!(
            Net::system().resolve("[::1]", 1).await.unwrap()[0].to_string(),
            "[::1]:1"
        );
    }
}
