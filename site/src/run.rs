//! `site run`: one site on one machine, from a directory of manifests.
//!
//! ```text
//! LocalSite ─┬─ state folder, locked and announced
//!            ├─ local cluster: the Kubernetes API, in process and on a loopback port
//!            ├─ loader ─► objects          (manifests)
//!            ├─ site-controller            (in process; sidecars are injected as an admission step)
//!            ├─ runtime ─► child processes (router, service-controller, collectors)
//!            └─ report ─► console
//! ```
//! What starts last stops first: the children, then the controllers, then the API.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use karez_local_runtime::{AddressPool, PodAccess, RuntimeOptions};
use karez_site_controller::SiteControllerOptions;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::apply::Applier;
use crate::console::Console;
use crate::inject::Sidecars;
use crate::loader::Loader;
use crate::records::{Announced, SiteRecord, StateError, StateLock, state_home};
use crate::report;

/// What `site run` is told.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// The manifests.
    pub directory: PathBuf,
    /// The state folder; by its name below the state home if left out.
    pub state: Option<PathBuf>,
    /// The local name; the directory's if left out.
    pub name: Option<String>,
    /// Address at which others reach the site; loopback if left out.
    pub host: Option<IpAddr>,
    /// Namespace of manifests that name none.
    pub namespace: String,
}

/// Why a site does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No such directory.
    #[error("cannot read the manifests in {path}: {source}; name a directory of YAML files")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The local cluster does not start.
    #[error("cannot start the local cluster: {0}")]
    Cluster(String),
    /// No addresses for Pods.
    #[error("cannot choose addresses for Pods: {0}")]
    Addresses(String),
    /// The namespace or the kinds of resources cannot be made.
    #[error("cannot prepare the local cluster: {0}")]
    Prepare(#[from] kube::Error),
}

/// A site that runs in this process.
pub struct LocalSite {
    /// Its local name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its state folder.
    pub state: PathBuf,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// Its first address: where links and the API are.
    pub address: IpAddr,
    /// Speaks to its API.
    pub client: Client,
    controllers: JoinSet<()>,
    programs: JoinSet<()>,
    stop_programs: Shutdown,
    stop_controllers: Shutdown,
    _announced: Announced,
    _lock: StateLock,
}

/// The port of the API on the site's first address; another one where it is taken.
const API_PORT: u16 = 6443;
/// How long the site's programs have to stop.
const STOP: std::time::Duration = std::time::Duration::from_secs(15);

impl LocalSite {
    /// Starts a site. It runs until [`LocalSite::stop`].
    ///
    /// # Errors
    /// When its manifests, its state or its addresses cannot be had.
    pub async fn start(options: SiteOptions, console: Console) -> Result<LocalSite, StartError> {
        let directory = readable(&options.directory)?;
        let name = options.name.clone().unwrap_or_else(|| local_name(&directory));
        let state = match &options.state {
            Some(state) => absolute(state),
            None => state_home()?.join(&name),
        };
        let lock = StateLock::take(&state)?;
        let addresses =
            AddressPool::choose(&state).map_err(|error| StartError::Addresses(error.to_string()))?;
        let address = options.host.unwrap_or(addresses.first());
        let stop_controllers = Shutdown::new();
        let cluster = open(&state)?;
        let client = cluster.client();
        // Before anybody can ask: who finds the port finds the kinds.
        prepare(&client, &options.namespace).await?;
        let kubeconfig = serve(&cluster, addresses.first(), &stop_controllers).await?;
        let record = SiteRecord {
            name: name.clone(),
            state: state.clone(),
            kubeconfig: kubeconfig.clone(),
            namespace: options.namespace.clone(),
            pid: std::process::id(),
        };
        let mut site = LocalSite {
            name,
            namespace: options.namespace,
            state,
            kubeconfig,
            address,
            client,
            controllers: JoinSet::new(),
            programs: JoinSet::new(),
            stop_programs: Shutdown::new(),
            stop_controllers,
            _announced: Announced::write(&record)?,
            _lock: lock,
        };
        console.good(&format!(
            "site {} at {}, network {}",
            site.name,
            site.address,
            addresses.network()
        ));
        console.line(&format!(
            "  kubectl --kubeconfig {} get pods",
            site.kubeconfig.display()
        ));
        console.line(&format!("  state in {}", site.state.display()));
        site.run_reports(&console);
        site.run_controllers(addresses);
        site.run_loader(directory, cluster, &console);
        Ok(site)
    }

    fn run_reports(&mut self, console: &Console) {
        let (client, shutdown) = (&self.client, &self.stop_controllers);
        self.controllers
            .spawn(report::events(console.clone(), client.clone(), shutdown.clone()));
        self.controllers
            .spawn(report::pods(console.clone(), client.clone(), shutdown.clone()));
    }

    fn run_controllers(&mut self, addresses: AddressPool) {
        let (client, shutdown) = (self.client.clone(), self.stop_controllers.clone());
        self.controllers.spawn(async move {
            let outcome = karez_site_controller::run_site_controller(
                client,
                SiteControllerOptions::default(),
                shutdown,
            )
            .await;
            if let Err(error) = outcome {
                tracing::error!(%error, "the site-controller ended");
            }
        });
        let options = RuntimeOptions {
            client: self.client.clone(),
            state: self.state.clone(),
            node_name: self.name.clone(),
            addresses,
            external: self.address,
            binary: std::env::current_exe().unwrap_or_else(|_| "karez".into()),
            kubeconfig_for_pods: PodAccess::Kubeconfig(self.kubeconfig.clone()),
            controllers: true,
        };
        let shutdown = self.stop_programs.clone();
        self.programs.spawn(async move {
            if let Err(error) = karez_local_runtime::run(options, shutdown).await {
                tracing::error!(%error, "the runtime ended");
            }
        });
    }

    fn run_loader(&mut self, directory: PathBuf, cluster: Arc<LocalCluster>, console: &Console) {
        let accept = move |api_version: &str, kind: &str| {
            cluster.accept_unknown_kind(api_version, kind, true);
            Ok(())
        };
        let applier = Applier::new(
            self.client.clone(),
            self.namespace.clone(),
            Some(Box::new(accept)),
        );
        let (sender, notices) = mpsc::unbounded_channel();
        let loader = Loader::new(
            directory,
            self.state.join("manifests.json"),
            Arc::new(applier),
            sender,
        );
        self.controllers.spawn(report::notices(console.clone(), notices));
        self.controllers.spawn(loader.run(self.stop_programs.clone()));
    }

    /// Stops the site: its programs first, then what controls them, then its API.
    pub async fn stop(mut self) {
        self.stop_programs.trigger();
        let ended =
            tokio::time::timeout(STOP, async { while self.programs.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::error!(
                site = self.name,
                "the site's programs did not stop in time and are left to the parent's pipe"
            );
        }
        self.stop_controllers.trigger();
        self.controllers.abort_all();
        while self.controllers.join_next().await.is_some() {}
    }
}

fn readable(directory: &Path) -> Result<PathBuf, StartError> {
    let failed = |source| StartError::Directory {
        path: directory.to_owned(),
        source,
    };
    std::fs::read_dir(directory).map_err(failed)?;
    Ok(directory.to_owned())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The directory's own name, also of `.`.
fn local_name(directory: &Path) -> String {
    let full = directory.canonicalize().unwrap_or_else(|_| absolute(directory));
    full.file_name()
        .map_or_else(|| "site".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn open(state: &Path) -> Result<Arc<LocalCluster>, StartError> {
    let mut options = LocalClusterOptions::new(state);
    options.admission.push(Arc::new(Sidecars));
    LocalCluster::open(options).map_err(|error| StartError::Cluster(error.to_string()))
}

async fn serve(
    cluster: &Arc<LocalCluster>,
    first: IpAddr,
    shutdown: &Shutdown,
) -> Result<PathBuf, StartError> {
    for port in [API_PORT, 0] {
        match cluster
            .serve(SocketAddr::new(first, port), shutdown.clone())
            .await
        {
            Ok(serving) => return Ok(serving.kubeconfig),
            Err(error) if port == 0 => return Err(StartError::Cluster(error.to_string())),
            Err(error) => tracing::warn!(%error, "the API takes another port"),
        }
    }
    unreachable!("port 0 returns either way")
}

/// Makes the kinds of resources known and the namespace exist.
async fn prepare(client: &Client, namespace: &str) -> Result<(), StartError> {
    use k8s_openapi::api::core::v1::Namespace;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Patch, PatchParams};
    use kube::{Api, ResourceExt};
    let params = PatchParams::apply(crate::apply::FIELD_MANAGER).force();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in karez_kubernetes::crds() {
        definitions
            .patch(&definition.name_any(), &params, &Patch::Apply(&definition))
            .await?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces.get_opt(namespace).await?.is_none() {
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        namespaces
            .patch(namespace, &params, &Patch::Apply(&object))
            .await?;
    }
    Ok(())
}
