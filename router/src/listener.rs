//! A virtual address offered on this site: accepts clients and sends each on its way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use karez_net::TcpListeners;
use karez_router_config::ListenerConfig;
use karez_topology::{Address, NextHop, TargetId};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::carry::{End, carry, reset};
use crate::connector::{Connector, Counted, Opens};
use crate::link::{LiveLink, OpenError, Wanted, open};
use crate::metrics::{Ending, Fault};
use crate::record::{Client, ConnectionRecord};
use crate::shared::{BoundState, ListenerState, Shared};

/// How long to wait before a socket that could not be bound is tried again.
pub(crate) const BIND_AGAIN: Duration = Duration::from_secs(3);
/// Ways that are tried for one connection before its client is reset.
const ATTEMPTS: usize = 4;

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
    let own = slots(config.max_connections);
    loop {
        let (Ok(slot), Ok(own)) = (
            own.clone().acquire_owned().await,
            shared.slots.clone().acquire_owned().await,
        ) else {
            return;
        };
        match listeners.accept().await {
            Ok((client, from)) => {
                let (shared, address) = (shared.clone(), address.clone());
                let counted = Counted::new(Opens(opens.clone()));
                shared.clone().carried.spawn(async move {
                    serve(&shared, client, from, address).await;
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
async fn find_way(shared: &Arc<Shared>, address: &Address) -> Result<Way, Option<String>> {
    let (mut tried, mut full) = (Vec::new(), Vec::new());
    let mut last_resort = false;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let view = shared.view();
        let mut next = view.decide(address, 1, &tried).next();
        if next.is_none() && !full.is_empty() {
            // All ways are saturated: then it is the cheapest one's turn all the same.
            last_resort = true;
            tried.retain(|way| !full.contains(way));
            full.clear();
            next = view.decide(address, 1, &tried).next();
        }
        let Some(next) = next else { break };
        let wanted = Wanted {
            address,
            last_resort: last_resort || view.is_saturated(&next, address),
        };
        tried.push(next.clone());
        match take(shared, &next, &wanted).await {
            Ok(way) => return Ok(way),
            Err(Untaken::Saturated) => {
                full.push(next);
                last = Some("all targets are busy".to_owned());
            }
            Err(Untaken::Failed(error)) => last = Some(error),
        }
    }
    Err(last)
}

/// Why a way did not take a connection.
enum Untaken {
    /// It has as many as it should have.
    Saturated,
    /// It could not.
    Failed(String),
}

async fn take(shared: &Arc<Shared>, next: &NextHop, wanted: &Wanted<'_>) -> Result<Way, Untaken> {
    match next {
        NextHop::Local(target) => {
            let (end, counted) = dial(shared, target).await.map_err(Untaken::Failed)?;
            Ok(Way {
                end,
                route: format!("target {target}"),
                counted: Box::new(counted),
            })
        }
        NextHop::Link(id) => {
            let gone = || Untaken::Failed(OpenError::Gone.to_string());
            let link = shared.view().links.get(id).cloned().ok_or_else(gone)?;
            over(&link, wanted).await.map_err(|error| match error {
                OpenError::Saturated => {
                    link.saturation.note(next, wanted.address);
                    Untaken::Saturated
                }
                error => Untaken::Failed(error.to_string()),
            })
        }
    }
}

/// Dials a local target.
pub(crate) async fn dial(
    shared: &Arc<Shared>,
    target: &TargetId,
) -> Result<(End, Counted<Opens<Connector>>), String> {
    let connector = shared.view().connectors.get(target).cloned();
    let connector = connector.ok_or_else(|| format!("target {target} was removed"))?;
    // Counted before the dial, so that connections that are made at once spread.
    let counted = Counted::new(Opens(connector.clone()));
    let stream = connector.dial(shared).await?;
    Ok((stream.into(), counted))
}

async fn over(link: &Arc<LiveLink>, wanted: &Wanted<'_>) -> Result<Way, OpenError> {
    let counted = Counted::new(Opens(link.clone()));
    let streams = open(link, wanted).await?;
    Ok(Way {
        end: streams.into(),
        route: format!("link {}", link.name),
        counted: Box::new(counted),
    })
}
