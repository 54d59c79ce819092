//! A virtual address offered on this site: accepts clients and sends each on its way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use karez_net::TcpListeners;
use karez_router_config::{ListenerConfig, Protocol};
use karez_topology::Address;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::carry::{carry, reset};
use crate::connector::{Counted, Opens};
use crate::metrics::{Ending, Fault};
use crate::proxy_protocol::{self, Ends};
use crate::record::{Client, ConnectionRecord};
use crate::shared::{BoundState, ListenerState, Shared};
use crate::way::{self, Origin};
use crate::wire::Answer;

/// How long to wait before a socket that could not be bound is tried again.
pub(crate) const BIND_AGAIN: Duration = Duration::from_secs(3);

/// Offers one virtual address until `stop`.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    name: String,
    config: ListenerConfig,
    stop: CancellationToken,
) {
    let (address, opens) = offered(&shared, &name, &config);
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.shutdown.triggered() => {}
        () = run(&shared, &name, &config, address, opens) => {}
    }
    shared.change(|all| all.listeners.remove(&name));
}

/// Puts a listener into the state: its address, and the count of what it carries.
pub(crate) fn offered(shared: &Shared, name: &str, config: &ListenerConfig) -> (Address, Arc<AtomicU64>) {
    let address = virtual_address(&config.address, config.protocol);
    let opens = Arc::new(AtomicU64::new(0));
    let state = ListenerState {
        address: address.clone(),
        bound: BoundState::default(),
        open: opens.clone(),
        reachable: None,
    };
    shared.change(|all| all.listeners.insert(name.to_owned(), state));
    (address, opens)
}

/// An address of the document as the network knows it.
pub(crate) fn virtual_address(address: &karez_router_config::Address, protocol: Protocol) -> Address {
    let address = Address {
        name: address.name.clone(),
        port: address.port,
    };
    match protocol {
        Protocol::Tcp => address,
        Protocol::Udp => address.over_udp(),
    }
}

async fn run(
    shared: &Arc<Shared>,
    name: &str,
    config: &ListenerConfig,
    address: Address,
    opens: Arc<AtomicU64>,
) {
    let endpoint = endpoint(&config.host, config.port);
    let mut listeners = bind(shared, name, &endpoint).await;
    let own = slots(config.max_connections);
    loop {
        let (Ok(slot), Some(own)) = (own.clone().acquire_owned().await, shared.slots.take().await) else {
            return;
        };
        match listeners.accept().await {
            Ok((client, from)) => {
                let (shared, address) = (shared.clone(), address.clone());
                let counted = Counted::new(Opens(opens.clone()));
                let (trusts, sealed) = (config.accept_proxy_protocol, config.sealed);
                shared.clone().carried.spawn(async move {
                    serve(&shared, client, from, address, trusts, sealed).await;
                    drop((counted, slot, own));
                });
            }
            Err(error) => {
                tracing::warn!(listener = name, %error, "cannot accept a connection");
                // Out of descriptors: the next attempt fails alike, unless some are given back first.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What bounds the connections of one listener; beyond it clients wait in the kernel's queue.
fn slots(limit: Option<u32>) -> Arc<Semaphore> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    Arc::new(Semaphore::new(
        limit.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
    ))
}

async fn bind(shared: &Shared, name: &str, endpoint: &str) -> TcpListeners {
    loop {
        let error = match shared.net.listen_tcp(endpoint).await {
            Ok(listeners) => {
                let bound = BoundState {
                    addresses: listeners.local_addrs(),
                    error: None,
                };
                set_bound(shared, name, bound);
                return listeners;
            }
            Err(error) => error.to_string(),
        };
        if set_bound(
            shared,
            name,
            BoundState {
                addresses: Vec::new(),
                error: Some(error.clone()),
            },
        ) {
            shared.metrics.fault(Fault::Bind);
            tracing::error!(
                listener = name,
                error,
                "the listener cannot be bound; trying again"
            );
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

pub(crate) fn set_bound(shared: &Shared, name: &str, bound: BoundState) -> bool {
    shared.change(|all| match all.listeners.get_mut(name) {
        Some(listener) if listener.bound != bound => {
            listener.bound = bound;
            true
        }
        _ => false,
    })
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Sends one client on its way.
async fn serve(
    shared: &Arc<Shared>,
    mut client: TcpStream,
    from: SocketAddr,
    address: Address,
    trusts_header: bool,
    sealed: bool,
) {
    let mut ends = client.local_addr().ok().map(|destination| Ends {
        source: from,
        destination,
    });
    if trusts_header {
        match Box::pin(proxy_protocol::accept(&mut client)).await {
            Ok(said) => ends = said.or(ends),
            Err(error) => {
                shared.metrics.fault(Fault::ProxyHeader);
                tracing::debug!(%address, %from, %error, "a connection without a usable PROXY header");
                return reset(client);
            }
        }
    }
    let caller = Caller::here(ends);
    let mut record = ConnectionRecord::new(shared, Client::Socket(from), address.clone(), caller);
    // In a box of its own, so that what carries on is small.
    match Box::pin(way::find(shared, &address, &Origin::Client { sealed }, &caller)).await {
        Ok(way) => {
            record.set_route(way.route);
            if let Some(end) = way.far.end() {
                carry(client.into(), end, record, &shared.force).await;
            }
            drop(way.counted);
        }
        Err(answer) => {
            reset(client);
            let (ending, error) = match answer {
                Answer::NoRoute => (Ending::NoRoute, None),
                Answer::Saturated => (Ending::Saturated, Some("all targets are busy".to_owned())),
                Answer::Refused(error) => (Ending::Refused, Some(error)),
                Answer::Connected | Answer::ConnectedDatagrams => (Ending::Refused, None),
            };
            tracing::debug!(%address, %from, error, "the connection has nowhere to go");
            record.end(ending, error);
        }
    }
}
