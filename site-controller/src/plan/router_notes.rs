//! How the router is doing, from its status, as notes: what it cannot do about its Deployment, how each link is about
//! the link's token. A person reads Events, not a Pod's log.

use k8s_openapi::api::core::v1::Secret;
use karez_router_config::api::{Direction, LinkState, LinkStatus, Status};

use super::Note;
use crate::object::reference;
use crate::snapshot::ServiceSnapshot;

/// What the router's status tells.
pub(crate) fn notes(snapshot: &ServiceSnapshot) -> Vec<Note> {
    let (Some(status), Some(router)) = (&snapshot.status, &snapshot.router) else {
        return Vec::new();
    };
    let trouble = |(reason, message)| Note {
        about: reference("apps/v1", "Deployment", router),
        warning: true,
        reason,
        message,
    };
    let links = status
        .links
        .iter()
        .filter_map(|link| note_link(link, &snapshot.tokens));
    troubles(status).map(trouble).chain(links).collect()
}

/// How a link is, said about the Secret that it is made of.
fn note_link(link: &LinkStatus, tokens: &[Secret]) -> Option<Note> {
    let secret = link.token.as_ref().unwrap_or(&link.name);
    let by_name = |name: &String| {
        tokens
            .iter()
            .find(|token| token.metadata.name.as_ref() == Some(name))
    };
    let token = by_name(&link.name).or_else(|| by_name(secret))?;
    let name = &link.name;
    let site = link.peer.as_ref().map_or("", |peer| &peer.site_name);
    let (warning, reason, message) = match (link.state, link.direction) {
        (LinkState::Active, Direction::Outgoing) => (
            false,
            "LinkActive",
            format!("link {name} to site {site} is active"),
        ),
        (LinkState::Active, Direction::Incoming) => {
            let message = format!("a link from site {site} with token {name} is active");
            (false, "LinkActive", message)
        }
        (LinkState::Refused | LinkState::Down, _) => {
            let error = link.error.as_ref()?;
            (
                true,
                "LinkNotActive",
                format!("link {name} is not active: {error}"),
            )
        }
        (LinkState::Connecting, _) => return None,
    };
    Some(Note {
        about: reference("v1", "Secret", &token.metadata),
        warning,
        reason,
        message,
    })
}

fn troubles(status: &Status) -> impl Iterator<Item = (&'static str, String)> {
    let documents = status
        .document
        .errors
        .iter()
        .map(|error| ("DocumentRefused", error.clone()));
    let ports = status.accepts.iter().filter_map(|port| {
        let error = port.error.as_ref()?;
        let message = format!("links cannot be accepted at port \"{}\": {error}", port.name);
        Some(("LinkPortNotBound", message))
    });
    let listeners = status.listeners.iter().filter_map(|listener| {
        let error = listener.error.as_ref()?;
        let message = format!("address {} cannot be offered here: {error}", listener.address);
        Some(("AddressNotBound", message))
    });
    documents.chain(ports).chain(listeners)
}
