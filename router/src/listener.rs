//! A virtual address offered on this site: accepts clients and sends each on its way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use karez_net::TcpListeners;
use karez_router_config::ListenerConfig;
use karez_topology::{Address, Decision, LinkId, NextHop, TargetId};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::carry::{End, carry, reset};
use crate::connector::{Counted, Opens};
use crate::link::{OpenError, open};
use crate::metrics::{Ending, Fault};
use crate::record::{Client, ConnectionRecord};
use crate::shared::{BoundState, ListenerState, Shared};

/// How long to wait before a socket that could not be bound is tried again.
pub(crate) const BIND_AGAIN: Duration = Duration::from_secs(3);
/// Ways that are tried for one connection before its client is reset.
const ATTEMPTS: usize = 3;

/// Offers one virtual address until `stop`.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    name: String,
    config: ListenerConfig,
    stop: CancellationToken,
) {
    let address = Address {
        name: config.address.name.clone(),
        port: config.address.port,
    };
    let opens = Arc::new(AtomicU64::new(0));
    let state = ListenerState {
        address: address.clone(),
        bound: BoundState::default(),
        open: opens.clone(),
        reachable: None,
    };
    shared.change(|all| all.listeners.insert(name.clone(), state));
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.shutdown.triggered() => {}
        () = run(&shared, &name, &config, address, opens) => {}
    }
    shared.change(|all| all.listeners.remove(&name));
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
    loop {
        let Ok(slot) = shared.slots.clone().acquire_owned().await else {
            return;
        };
        match listeners.accept().await {
            Ok((client, from)) => {
                let (shared, address) = (shared.clone(), address.clone());
                let counted = Counted::new(Opens(opens.clone()));
                shared.clone().carried.spawn(async move {
                    serve(&shared, client, from, address).await;
                    drop((counted, slot));
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

fn set_bound(shared: &Shared, name: &str, bound: BoundState) -> bool {
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
async fn serve(shared: &Arc<Shared>, client: TcpStream, from: SocketAddr, address: Address) {
    let mut record = ConnectionRecord::new(&shared.metrics, Client::Socket(from), address.clone());
    match find_way(shared, &address).await {
        Ok(way) => {
            record.set_route(way.route);
            carry(client.into(), way.end, record, &shared.force).await;
            drop(way.counted);
        }
        Err(error) => {
            reset(client);
            let ending = if error.is_none() {
                Ending::NoRoute
            } else {
                Ending::Refused
            };
            tracing::debug!(%address, %from, error, "the connection has nowhere to go");
            record.end(ending, error);
        }
    }
}

/// The other end of a connection, ready to carry.
struct Way {
    end: End,
    route: String,
    counted: Box<dyn std::any::Any + Send>,
}

/// Tries ways until one takes the connection; with `None` there was none to try.
async fn find_way(shared: &Shared, address: &Address) -> Result<Way, Option<String>> {
    let mut tried: Vec<NextHop> = Vec::new();
    let mut last = None;
    while tried.len() < ATTEMPTS {
        let view = shared.view();
        let result = match view.decide(address, 1, &tried) {
            Decision::NoRoute => break,
            Decision::Local(target) => {
                tried.push(NextHop::Local(target.clone()));
                let dialled = dial(shared, &target).await;
                let route = format!("target {target}");
                dialled.map(|(end, counted)| Way {
                    end,
                    route,
                    counted: Box::new(counted),
                })
            }
            Decision::Link(id) => {
                tried.push(NextHop::Link(id));
                over(shared, id, address).await.map_err(|error| error.to_string())
            }
        };
        match result {
            Ok(way) => return Ok(way),
            Err(error) => last = Some(error),
        }
    }
    Err(last)
}

/// Dials a local target.
pub(crate) async fn dial(
    shared: &Shared,
    target: &TargetId,
) -> Result<(End, Counted<Opens<crate::connector::Connector>>), String> {
    let connector = shared.view().connectors.get(target).cloned();
    let connector = connector.ok_or_else(|| format!("target {target} was removed"))?;
    // Counted before the dial, so that connections that are made at once spread.
    let counted = Counted::new(Opens(connector.clone()));
    let (result, changed) = connector.dial(&shared.net).await;
    if changed {
        shared.touch();
    }
    if result.is_err() {
        shared.metrics.fault(Fault::TargetDown);
    }
    Ok((result?.into(), counted))
}

async fn over(shared: &Shared, id: LinkId, address: &Address) -> Result<Way, OpenError> {
    let link = shared.view().links.get(&id).cloned().ok_or(OpenError::Gone)?;
    let counted = Counted::new(Opens(link.clone()));
    let streams = open(&link, address).await?;
    Ok(Way {
        end: streams.into(),
        route: format!("link {}", link.name),
        counted: Box::new(counted),
    })
}
