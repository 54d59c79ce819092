//! How an allocator begins among others: who it is, where they reach it, and the tasks that agree with them.

use std::sync::Arc;

use karez_lifecycle::Shutdown;
use karez_net::TcpListeners;
use kube::Client;
use tokio::task::JoinSet;

use crate::config::LeaseConfig;
use crate::lease::{self, Peer, Sought};
use crate::peers;
use crate::shared::Shared;

/// A name that no other allocator has: the Pod's, or that of the host with the process.
pub(crate) fn identity() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let unique = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    match variable("POD_NAME") {
        // A container that starts anew in its Pod is another allocator: it knows nothing any more.
        Some(pod) => format!("{pod}_{unique:x}"),
        None => {
            let host = variable("HOSTNAME").unwrap_or_else(|| "allocator".to_owned());
            format!("{host}_{}_{unique:x}", std::process::id())
        }
    }
}

/// By which others reach a port: as the document says, as the port is bound, or at the Pod's address. Empty if nobody knows.
pub(crate) fn address(listener: &TcpListeners, lease: Option<&LeaseConfig>) -> String {
    let bound = listener.local_addrs();
    let Some(port) = bound.first().map(std::net::SocketAddr::port) else {
        return String::new();
    };
    let advertised = lease.and_then(|lease| lease.advertise.clone());
    let specific = bound.iter().find(|address| !address.ip().is_unspecified());
    let host = advertised
        .or_else(|| specific.map(|address| address.ip().to_string()))
        .or_else(|| std::env::var("POD_IP").ok().filter(|ip| !ip.is_empty()));
    match host {
        Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None => String::new(),
    }
}

/// Starts to seek the Lease, and to follow who has it.
pub(crate) fn seek(
    lease: LeaseConfig,
    own: Peer,
    client: Client,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    shutdown: &Shutdown,
) {
    if own.http.is_empty() {
        tracing::warn!(
            "others do not know where this allocator answers: set `karez.advertise` or POD_IP, or bind an address"
        );
    }
    let sought = Sought {
        namespace: lease.namespace,
        name: lease.name,
        duration: lease.duration,
        own,
    };
    let standing = shared.standing.clone();
    tasks.spawn(lease::seek(client, sought, standing, shutdown.clone()));
    let standing = shared.standing.subscribe();
    tasks.spawn(peers::follow(shared.clone(), standing, shutdown.clone()));
}
