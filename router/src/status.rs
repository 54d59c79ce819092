//! What the router says about itself: its state in, the local API's JSON out.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use karez_identity::CertificateFacts;
use karez_router_config::api::{
    AcceptStatus, CarriesStatus, ConnectorStatus, Direction, LinkState, LinkStatus, ListenerStatus,
    PeerStatus, RenewalStatus, RenewedStatus, SealedStatus, ServiceStatus, SiteStatus, Status, TargetStatus,
};
use karez_router_config::{ConnectorConfig, Mode};
use karez_topology::{Address, Announcement, Site};

use crate::link::LiveLink;
use crate::listener::virtual_address;
use crate::shared::{DialState, Shared, State};

/// Requests for renewal that are shown at once: their answers must fit into one ConfigMap.
const RENEWALS: usize = 64;

/// The status as of now.
pub(crate) fn status(shared: &Shared) -> Status {
    let generation = *shared.generation().borrow();
    shared.read(|state| Status {
        generation,
        document: state.document.clone(),
        site: state.config.as_ref().map(|config| config.site.clone()),
        links: links(state),
        renewals: renewals(state),
        refusals: state.refusals.iter().cloned().collect(),
        accepts: accepts(state),
        listeners: listeners(state),
        connectors: connectors(state),
        sites: sites(state),
    })
}

fn links(state: &State) -> Vec<LinkStatus> {
    let dialled = state
        .dialled
        .iter()
        .filter_map(|(name, dial)| outgoing(state, name, dial));
    let incoming = state
        .live
        .values()
        .filter(|link| link.direction == Direction::Incoming);
    dialled.chain(incoming.map(|link| accepted(link))).collect()
}

fn outgoing(state: &State, name: &str, dial: &DialState) -> Option<LinkStatus> {
    let config = state.config.as_ref()?.links.get(name)?;
    let mut made = state.live.values();
    let live = made.rfind(|link| link.direction == Direction::Outgoing && link.name == name);
    Some(LinkStatus {
        name: name.to_owned(),
        role: config.role,
        host: config.host.clone(),
        port: config.port,
        cost: config.cost,
        direction: Direction::Outgoing,
        peer: dial.peer.as_ref().map(peer),
        state: dial.state,
        error: dial.error.clone(),
        since: dial.since.to_string(),
        token: dial.token.clone(),
        transport: live.map(|link| link.transport().as_str().to_owned()),
        carries: live.map(|link| carries(link)),
        fingerprint: None,
        renewed: renewed(state, name),
    })
}

fn accepted(link: &LiveLink) -> LinkStatus {
    LinkStatus {
        name: link.name.clone(),
        role: link.role,
        host: link.remote.ip().to_string(),
        port: link.remote.port(),
        cost: link.cost.load(Ordering::Relaxed),
        direction: Direction::Incoming,
        peer: Some(peer(&link.peer)),
        state: LinkState::Active,
        error: None,
        since: link.since.to_string(),
        token: Some(link.name.clone()),
        transport: Some(link.transport().as_str().to_owned()),
        carries: Some(carries(link)),
        fingerprint: link
            .credential
            .admission()
            .map(|admission| admission.fingerprint.clone()),
        renewed: None,
    }
}

fn carries(link: &LiveLink) -> CarriesStatus {
    let statistics = link.connection.statistics();
    let facts = link
        .connection
        .peer_certificate()
        .and_then(|certificate| CertificateFacts::from_der(&certificate).ok());
    CarriesStatus {
        round_trip_micros: u64::try_from(statistics.round_trip.as_micros()).unwrap_or(u64::MAX),
        packets_sent: statistics.packets_sent,
        packets_lost: statistics.packets_lost,
        connections: link.open.load(Ordering::Relaxed),
        transport_connections: link.connections() as u64,
        certificate_expiry: facts.map(|facts| facts.not_after.to_string()),
    }
}

/// What the peer of a link that we made sent last.
fn renewed(state: &State, name: &str) -> Option<RenewedStatus> {
    let links = state.live.values();
    let mut links = links.filter(|link| link.direction == Direction::Outgoing && link.name == name);
    links
        .find_map(|link| link.credential.renewed())
        .map(|renewed| (*renewed).clone())
}

/// Requests that wait for the site's controllers, as many as one document can answer.
fn renewals(state: &State) -> Vec<RenewalStatus> {
    let asked = state.live.values().filter_map(|link| link.credential.asked());
    asked.take(RENEWALS).map(|asked| (*asked).clone()).collect()
}

fn peer(site: &Site) -> PeerStatus {
    PeerStatus {
        site_id: site.id.clone(),
        site_name: site.name.clone(),
        namespace: site.namespace.clone(),
        version: site.version.clone(),
    }
}

fn accepts(state: &State) -> Vec<AcceptStatus> {
    let accepts = state.accepts.iter().map(|(name, bound)| AcceptStatus {
        name: name.clone(),
        addresses: bound.addresses.iter().map(SocketAddr::to_string).collect(),
        error: bound.error.clone(),
    });
    accepts.collect()
}

fn listeners(state: &State) -> Vec<ListenerStatus> {
    let listeners = state.listeners.iter().map(|(name, listener)| {
        let bound = listener.bound.addresses.first();
        let asked = state
            .config
            .as_ref()
            .and_then(|config| config.listeners.get(name));
        let said = match (bound, listener.reachable) {
            (None, _) => "failed",
            (Some(_), Some(true)) => "listening",
            (Some(_), _) => "unreachable",
        };
        ListenerStatus {
            name: name.clone(),
            address: format!("{}:{}", listener.address.service(), listener.address.port),
            protocol: asked.map(|asked| asked.protocol).unwrap_or_default(),
            host: bound
                .map(|at| at.ip().to_string())
                .or(asked.map(|asked| asked.host.clone()))
                .unwrap_or_default(),
            port: bound
                .map(SocketAddr::port)
                .or(asked.map(|asked| asked.port))
                .unwrap_or_default(),
            sealed: asked.and_then(|asked| offered_sealed(state, &listener.address, asked.sealed)),
            state: said.to_owned(),
            error: listener.bound.error.clone(),
            connections: listener.open.load(Ordering::Relaxed),
        }
    });
    listeners.collect()
}

fn connectors(state: &State) -> Vec<ConnectorStatus> {
    let mut connectors: Vec<_> = state
        .connectors
        .values()
        .map(|connector| ConnectorStatus {
            name: connector.name.to_string(),
            address: connector.config.address.to_string(),
            host: connector.config.host.clone(),
            port: connector.config.port,
            protocol: connector.config.protocol,
            target: connector.config.target.clone(),
            sealed: served_sealed(state, &connector.config),
            error: connector.error(),
            connections: connector.open.load(Ordering::Relaxed),
        })
        .collect();
    connectors.sort_by(|a, b| a.name.cmp(&b.name));
    connectors
}

/// Whether connections of a listener are sealed, and whether they can be.
fn offered_sealed(state: &State, address: &Address, only: bool) -> Option<SealedStatus> {
    let table = state.topology.table();
    let offered = table.find(address).map_or(&[][..], |ways| &ways.sealed);
    match state.seal.outgoing(address, only, offered) {
        Ok(None) => None,
        Ok(Some(_)) => Some(SealedStatus::default()),
        Err(error) => Some(SealedStatus { error: Some(error) }),
    }
}

/// Whether a target takes sealed connections only, and whether it can take them.
fn served_sealed(state: &State, config: &ConnectorConfig) -> Option<SealedStatus> {
    let address = virtual_address(&config.address, config.protocol);
    config.sealed.then(|| SealedStatus {
        error: state.seal.incoming(&address, true, true).err(),
    })
}

fn sites(state: &State) -> Vec<SiteStatus> {
    if state.config.is_none() {
        return Vec::new();
    }
    state.topology.sites().iter().map(site).collect()
}

fn site(said: &Announcement) -> SiteStatus {
    let services = said.services.iter().map(|service| ServiceStatus {
        address: service.address.clone(),
        protocol: service.protocol.clone(),
        ports: service.ports.clone(),
        sealed: service.sealed,
        targets: service
            .targets
            .iter()
            .map(|name| TargetStatus { name: name.clone() })
            .collect(),
    });
    SiteStatus {
        id: said.site.id.clone(),
        name: said.site.name.clone(),
        namespace: said.site.namespace.clone(),
        version: said.site.version.clone(),
        mode: if said.site.edge {
            Mode::Edge
        } else {
            Mode::Interior
        },
        links: said.links.clone(),
        services: services.collect(),
    }
}
