//! From a container to the process that runs for it: arguments, environment, files.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod};
use karez_net::variables;
use kube::ResourceExt;
use tokio::sync::Mutex as AsyncMutex;

use super::Host;
use super::board::Board;
use super::env::{Missing, environment, expand};
use super::fields::{View, service_account};
use super::files::{Folder, write_whole};
use super::image::{self, Program, program};
use super::process::{Launch, log_path};
use super::volumes;
use crate::access::{AccessError, Credential};

/// One Pod while it has a worker.
pub(crate) struct Unit {
    pub(crate) host: Arc<Host>,
    pub(crate) address: IpAddr,
    pub(crate) board: Board,
    /// As the API had it last.
    pod: Mutex<Arc<Pod>>,
    inside: AsyncMutex<Inside>,
}

struct Inside {
    folder: Folder,
    credential: Credential,
}

/// Why a container cannot start yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("{0}")]
    Missing(#[from] Missing),
    #[error("{0}")]
    Access(#[from] AccessError),
    #[error("the Pod's files cannot be written: {0}")]
    Files(#[from] io::Error),
}

impl LaunchError {
    /// The reason that the container's status shows.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "CreateContainerConfigError",
            Self::Access(_) | Self::Files(_) => "CreateContainerError",
        }
    }
}

impl Unit {
    pub(crate) fn new(host: Arc<Host>, pod: Arc<Pod>, address: IpAddr, board: Board, folder: Folder) -> Self {
        let inside = Inside {
            folder,
            credential: Credential::default(),
        };
        Self {
            host,
            address,
            board,
            pod: Mutex::new(pod),
            inside: AsyncMutex::new(inside),
        }
    }

    /// The Pod as the API had it last.
    pub(crate) fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.pod.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a newer state of the Pod in.
    pub(crate) fn update(&self, pod: Arc<Pod>) {
        *self.pod.lock().unwrap_or_else(PoisonError::into_inner) = pod;
    }

    /// Brings the credential and the volumes up to date with the API.
    pub(crate) async fn refresh(&self) -> Result<(), LaunchError> {
        self.fill(&mut *self.inside.lock().await).await
    }

    async fn fill(&self, inside: &mut Inside) -> Result<(), LaunchError> {
        let pod = self.pod();
        let view = self.view(&pod);
        let Inside { folder, credential } = inside;
        let (access, client) = (&self.host.access, &self.host.client);
        credential
            .renew(
                access,
                client,
                &view.namespace(),
                service_account(&pod),
                folder.path(),
            )
            .await?;
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes {
            let source = volumes::source(&view, volume, &self.host.objects, credential.token())?;
            if folder.put(&volume.name, source)? {
                tracing::debug!(pod = pod.name_any(), volume = volume.name, "volume written");
            }
        }
        Ok(())
    }

    fn view<'a>(&self, pod: &'a Pod) -> View<'a> {
        View {
            pod,
            address: self.address,
            host: self.host.external,
        }
    }

    /// What to start for `container`.
    pub(crate) async fn launch(&self, container: &Container) -> Result<Launch, LaunchError> {
        let mut inside = self.inside.lock().await;
        self.fill(&mut inside).await?;
        let pod = self.pod();
        let view = self.view(&pod);
        let mut env = environment(&view, container, &self.host.objects)?;
        let known: BTreeMap<String, String> = env.iter().cloned().collect();
        let args = match program(container) {
            Program::Karez(args) => args.iter().map(|text| expand(text, &known)).collect(),
            Program::AllInOne => {
                let path = inside.folder.path().join(format!("{}.yaml", container.name));
                write_whole(&path, image::all_in_one(&known).as_bytes(), 0o600)?;
                vec!["collector".to_owned(), format!("--config={}", path.display())]
            }
            Program::Other(message) => return Err(LaunchError::Files(io::Error::other(message))),
        };
        if !known.contains_key("HOSTNAME") {
            env.push(("HOSTNAME".into(), hostname(&pod)));
        }
        let kubeconfig =
            inside
                .credential
                .write(&self.host.access, &view.namespace(), inside.folder.path())?;
        env.extend(kubeconfig.map(|path| ("KUBECONFIG".to_owned(), path.display().to_string())));
        let mounts = inside.folder.mounts(container, &known)?;
        env.push((karez_lifecycle::volumes::VARIABLE.into(), mounts.to_env()));
        env.extend(self.variables(&pod, container));
        let log = log_path(
            &self.host.state,
            &view.namespace(),
            &pod.name_any(),
            &container.name,
        );
        let folder = inside.folder.path().to_path_buf();
        Ok(Launch {
            binary: self.host.binary.clone(),
            args,
            env,
            folder,
            log,
        })
    }

    /// Where the process is, for `karez-net`.
    fn variables(&self, pod: &Pod, container: &Container) -> Vec<(String, String)> {
        let mut all = vec![
            (variables::POD_ADDRESS, self.address.to_string()),
            (variables::EXTERNAL_ADDRESS, self.host.external.to_string()),
            (variables::NAMES, self.host.names_file.display().to_string()),
            (variables::NAMESPACE, pod.namespace().unwrap_or_default()),
        ];
        if image::takes_host_ports(pod, container) {
            all.push((variables::HOST_PORTS, "1".into()));
        }
        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Removes what the Pod had on disk.
    pub(crate) fn remove(self) {
        self.inside.into_inner().folder.remove();
    }
}

fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    given
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| pod.name_any())
}
