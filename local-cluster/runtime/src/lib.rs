//! What kubelet, kube-proxy, cluster DNS and the workload controllers do, as far as a site on one machine needs it, and
//! as ordinary controllers over any [`kube::Client`].
//!
//! ```text
//!  Deployments, StatefulSets, … ──▶ controllers (pure planners) ──▶ Pods, EndpointSlices, statuses
//!  Pods of our Node ──▶ pods: an address, volumes as files, environment ──▶ child processes of one binary
//!                   ◀── status, logs, Events ◀── exits, probes
//!  Services, Pods, EndpointSlices ──▶ names file ──▶ the resolver (karez-net) of every process
//! ```
//!
//! Beside a real API server with its controller-manager only the lower two lines run (`controllers: false`).

mod access;
mod addresses;
mod controllers;
mod events;
mod names;
mod node;
mod observe;
mod pods;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use karez_lifecycle::Shutdown;
use kube::Client;

pub use access::PodAccess;
pub use addresses::{AddressPool, PodAddress, PoolError};

/// The names file's name in the state folder.
pub const NAMES_FILE: &str = "names.json";

/// What the runtime needs.
#[derive(Clone)]
pub struct RuntimeOptions {
    /// The API.
    pub client: Client,
    /// The folder for `pods/`, `logs/`, `claims/` and the names file.
    pub state: PathBuf,
    /// The name of the one Node.
    pub node_name: String,
    /// Where Pods' addresses come from.
    pub addresses: AddressPool,
    /// The address at which other sites reach this one.
    pub external: IpAddr,
    /// The program that runs for containers that are ours.
    pub binary: PathBuf,
    /// How Pods are given access to the API.
    pub kubeconfig_for_pods: PodAccess,
    /// Whether to do the workload controllers' and the endpoint controllers' work too: not beside real ones.
    pub controllers: bool,
}

/// Why the runtime does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state folder cannot be used.
    #[error("the state folder {} cannot be used: {source}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program that should run the Pods is not there.
    #[error("the program {} that should run the Pods is not there: {source}", path.display())]
    Binary {
        /// The program.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Runs until the shutdown; then every child has ended.
///
/// # Errors
/// When the state folder or the binary cannot be used. What fails later is reported where it belongs, in the Pods'
/// statuses, and tried again.
pub async fn run(options: RuntimeOptions, shutdown: Shutdown) -> Result<(), RunError> {
    let state = usable_state(&options)?;
    let (objects, followers) =
        observe::Objects::follow(&options.client, options.controllers, &shutdown).await;
    if shutdown.is_triggered() {
        return Ok(());
    }
    let names_file = state.join(NAMES_FILE);
    // Before the first Pod starts, so that none finds the file missing.
    names::write(&objects, &names_file, &mut None);
    let host = Arc::new(pods::Host {
        client: options.client.clone(),
        objects: objects.clone(),
        state,
        names_file: names_file.clone(),
        node: options.node_name.clone(),
        addresses: options.addresses,
        external: options.external,
        binary: options.binary,
        access: options.kubeconfig_for_pods,
    });
    let place = controllers::Place {
        node: options.node_name.clone(),
        external: options.external,
    };
    let controllers = async {
        if options.controllers {
            let changes = objects.listen();
            controllers::run::run(
                options.client.clone(),
                objects.clone(),
                changes,
                place,
                shutdown.clone(),
            )
            .await;
        }
    };
    tokio::join!(
        node::keep(
            options.client.clone(),
            options.node_name,
            options.external,
            shutdown.clone()
        ),
        names::keep(objects.clone(), objects.listen(), names_file, shutdown.clone()),
        pods::manage(host, shutdown.clone()),
        controllers,
    );
    followers.join_all().await;
    Ok(())
}

/// The state folder's absolute path, since a child works in a folder of its own.
fn usable_state(options: &RuntimeOptions) -> Result<PathBuf, RunError> {
    let failed = |source| RunError::State {
        path: options.state.clone(),
        source,
    };
    for part in ["pods", "logs", "claims"] {
        pods::files::make(&options.state.join(part)).map_err(failed)?;
    }
    let missing = |source| RunError::Binary {
        path: options.binary.clone(),
        source,
    };
    options.binary.metadata().map_err(missing)?;
    options.state.canonicalize().map_err(failed)
}
