//! What the router cannot do, from its status, as notes on its Deployment: a person reads Events, not a Pod's log.

use karez_router_config::api::Status;

use super::Note;
use crate::object::reference;
use crate::snapshot::ServiceSnapshot;

/// What is wrong with the router as its status tells it.
pub(crate) fn notes(snapshot: &ServiceSnapshot) -> Vec<Note> {
    let (Some(status), Some(router)) = (&snapshot.status, &snapshot.router) else {
        return Vec::new();
    };
    let note = |(reason, message)| Note {
        about: reference("apps/v1", "Deployment", router),
        warning: true,
        reason,
        message,
    };
    troubles(status).map(note).collect()
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
