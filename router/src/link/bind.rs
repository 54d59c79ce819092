//! Binding a port that peers link to: UDP for QUIC, TCP for TLS on the same number.

use std::net::{IpAddr, SocketAddr};

use karez_identity::TlsMaterial;
use karez_router_config::{AcceptConfig, Transport};

use super::transport::listener::Listener;
use super::transport::quic::QuicListener;
use super::transport::tls::TlsListener;
use crate::listener::endpoint;
use crate::shared::Shared;

/// Where links are accepted, each address once.
pub(super) fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in listeners
        .iter()
        .filter_map(|listener| listener.local_address().ok())
    {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Binds UDP, and TCP on the same number.
pub(super) async fn bind(
    shared: &Shared,
    config: &AcceptConfig,
    material: &TlsMaterial,
) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    let mut port = config.port;
    if config.transport != Transport::Tls {
        listeners = bind_quic(shared, config, material)?;
        port = addresses(&listeners).first().map_or(port, SocketAddr::port);
    }
    if config.transport != Transport::Quic {
        listeners.extend(bind_tls(shared, config, port, material).await?);
    }
    Ok(listeners)
}

async fn bind_tls(
    shared: &Shared,
    config: &AcceptConfig,
    port: u16,
    material: &TlsMaterial,
) -> Result<Vec<Listener>, String> {
    let wanted = endpoint(&config.host, port);
    let bound = shared
        .net
        .listen_tcp(&wanted)
        .await
        .map_err(|error| error.to_string())?;
    let mut sockets = bound.into_listeners();
    let local: Vec<SocketAddr> = sockets
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .collect();
    if let Some(external) = external(shared, &local) {
        let port = local.first().map_or(port, SocketAddr::port);
        let outside = shared.net.listen_tcp_at(SocketAddr::new(external, port)).await;
        sockets.extend(outside.map_err(|error| error.to_string())?.into_listeners());
    }
    let settings = shared.settings(config.congestion);
    let made = sockets
        .into_iter()
        .map(|socket| TlsListener::new(socket, material, settings).map(Listener::Tls));
    made.collect::<Result<_, _>>()
        .map_err(|error| format!("{wanted}: {error}"))
}

/// On the local cluster peers come to the site's own address, not to the Pod's: it, unless it is bound already.
fn external(shared: &Shared, bound: &[SocketAddr]) -> Option<IpAddr> {
    let (pod, external) = (shared.net.pod_address()?, shared.net.external_address()?);
    let taken = |address: &SocketAddr| address.ip() == external || address.ip().is_unspecified();
    (external != pod && !bound.iter().any(taken)).then_some(external)
}

fn bind_quic(
    shared: &Shared,
    config: &AcceptConfig,
    material: &TlsMaterial,
) -> Result<Vec<Listener>, String> {
    let wanted = endpoint(&config.host, config.port);
    let mut sockets = shared.net.bind_udp(&wanted).map_err(|error| error.to_string())?;
    let bound: Vec<SocketAddr> = sockets
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .collect();
    if let Some(external) = external(shared, &bound) {
        let port = bound.first().map_or(config.port, SocketAddr::port);
        let outside = shared.net.bind_udp_at(SocketAddr::new(external, port));
        sockets.push(outside.map_err(|error| error.to_string())?);
    }
    let settings = shared.settings(config.congestion);
    let made = sockets
        .into_iter()
        .map(|socket| QuicListener::new(socket, material, settings).map(Listener::Quic));
    made.collect::<Result<_, _>>()
        .map_err(|error| format!("{wanted}: {error}"))
}
