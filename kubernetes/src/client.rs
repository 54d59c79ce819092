//! How a client of a Kubernetes API is made: from flags, `KUBECONFIG`, or the Pod it runs in.

use std::path::{Path, PathBuf};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// What a command line says about the API server to use. Empty means: as `kubectl` would find it.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// `--kubeconfig`: a file, instead of `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`: a context of that file, instead of its current one.
    pub context: Option<String>,
    /// `--namespace`: instead of the context's.
    pub namespace: Option<String>,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file that was named cannot be read or understood.
    #[error("kubeconfig {path}: {source}; name another with --kubeconfig")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a Pod's service account is there.
    #[error(
        "no Kubernetes API is known: neither KUBECONFIG nor ~/.kube/config can be used ({kubeconfig}), \
         nor is this a Pod ({in_cluster}); name one with --kubeconfig"
    )]
    Nowhere {
        /// Why the usual kubeconfig cannot be used.
        kubeconfig: Box<KubeconfigError>,
        /// Why this is not a Pod with a service account.
        #[source]
        in_cluster: Box<InClusterError>,
    },
    /// The configuration was read but no client can be built from it.
    #[error("cannot build a client for {server}: {source}")]
    Build {
        /// The server's address.
        server: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Makes a client and says which namespace it is for.
///
/// Order: the named kubeconfig; else `KUBECONFIG` when set; else the Pod's service account when this is a
/// Pod; else `~/.kube/config`.
///
/// # Errors
/// When nothing usable is found, or what was named cannot be read.
pub async fn client(options: &ClientOptions) -> Result<(Client, String), ClientError> {
    let config = config(options).await?;
    let namespace = options
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|source| ClientError::Build {
        server,
        source: Box::new(source),
    })?;
    Ok((client, namespace))
}

async fn config(options: &ClientOptions) -> Result<Config, ClientError> {
    let choice = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &options.kubeconfig {
        return from_file(path, &choice).await;
    }
    let named = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    // One file whose path has a colon is one file, not a list of two.
    if let Some(path) = named.as_ref().map(Path::new).filter(|path| path.is_file()) {
        return from_file(path, &choice).await;
    }
    if named.is_none()
        && options.context.is_none()
        && let Ok(config) = Config::incluster()
    {
        return Ok(config);
    }
    match Config::from_kubeconfig(&choice).await {
        Ok(config) => Ok(config),
        Err(kubeconfig) => Config::incluster().map_err(|in_cluster| ClientError::Nowhere {
            kubeconfig: Box::new(kubeconfig),
            in_cluster: Box::new(in_cluster),
        }),
    }
}

async fn from_file(path: &Path, choice: &KubeConfigOptions) -> Result<Config, ClientError> {
    let failed = |source| ClientError::File {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(file, choice).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut future = std::pin::pin!(future);
        loop {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let options = ClientOptions {
            kubeconfig: Some("/nowhere/config".into()),
            ..ClientOptions::default()
        };
        let error = run(config(&options)).unwrap_err();
        assert!(error.to_string().contains("/nowhere/config"), "{error}");
    }
}
