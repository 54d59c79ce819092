//! The credential by which a Pod's process speaks to the API: a kubeconfig in the Pod's folder, of mode 0600.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::pods::files::write_whole;

/// How Pods are given access to the API.
#[derive(Clone, Debug, Default)]
pub enum PodAccess {
    /// Not at all.
    #[default]
    None,
    /// With this kubeconfig, the namespace set to the Pod's.
    Kubeconfig(PathBuf),
    /// With a token of the Pod's service account, renewed before it ends.
    TokenRequest {
        /// The API server's URL.
        server: String,
        /// The API server's authority, PEM.
        ca_pem: Option<String>,
    },
}

/// How long a token is asked for, and when it is asked for anew.
const TOKEN_LIFETIME: i64 = 3600;
const RENEWAL: Duration = Duration::from_secs(2400);

/// Why a Pod has no credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("the kubeconfig {} cannot be read: {source}", path.display())]
    Kubeconfig {
        path: PathBuf,
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("no token for ServiceAccount {account:?}: {source}")]
    Token {
        account: String,
        source: Box<kube::Error>,
    },
    #[error("the credential cannot be written to {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A Pod's credential, as far as it was made.
#[derive(Debug, Default)]
pub(crate) struct Credential {
    token: Option<(String, Instant)>,
}

impl Credential {
    /// The service account's token, where Pods get one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|(token, _)| token.as_str())
    }

    /// Asks for a token where Pods have one, unless there is a fresh one.
    pub(crate) async fn renew(
        &mut self,
        access: &PodAccess,
        client: &Client,
        namespace: &str,
        account: &str,
        folder: &Path,
    ) -> Result<(), AccessError> {
        let PodAccess::TokenRequest { .. } = access else {
            return Ok(());
        };
        if self
            .token
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() < RENEWAL)
        {
            return Ok(());
        }
        let failed = |source| AccessError::Token {
            account: account.to_owned(),
            source: Box::new(source),
        };
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_LIFETIME),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let answer: TokenRequest = accounts
            .create_subresource("token", account, &PostParams::default(), &request)
            .await
            .map_err(failed)?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        write_file(&folder.join("token"), token.as_bytes())?;
        self.token = Some((token, Instant::now()));
        Ok(())
    }

    /// Writes the kubeconfig; none where Pods have no access.
    pub(crate) fn write(
        &self,
        access: &PodAccess,
        namespace: &str,
        folder: &Path,
    ) -> Result<Option<PathBuf>, AccessError> {
        let value = match access {
            PodAccess::None => return Ok(None),
            PodAccess::Kubeconfig(path) => {
                let read = Kubeconfig::read_from(path);
                let kubeconfig = read.map_err(|source| AccessError::Kubeconfig {
                    path: path.clone(),
                    source: Box::new(source),
                })?;
                within(kubeconfig, namespace)
            }
            PodAccess::TokenRequest { server, ca_pem } => {
                let authority = folder.join("ca.crt");
                if let Some(pem) = ca_pem {
                    write_file(&authority, pem.as_bytes())?;
                }
                let authority = ca_pem.as_ref().map(|_| authority.as_path());
                with_token(server, authority, &folder.join("token"), namespace)
            }
        };
        let path = folder.join("kubeconfig");
        // JSON is YAML.
        write_file(&path, value.to_string().as_bytes())?;
        Ok(Some(path))
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), AccessError> {
    write_whole(path, bytes, 0o600).map_err(|source| AccessError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// The same kubeconfig, every context's namespace the Pod's.
fn within(kubeconfig: Kubeconfig, namespace: &str) -> Value {
    let mut value = serde_json::to_value(kubeconfig).unwrap_or_default();
    let contexts = value.get_mut("contexts").and_then(Value::as_array_mut);
    for context in contexts
        .into_iter()
        .flatten()
        .filter_map(|named| named.get_mut("context"))
    {
        if let Some(fields) = context.as_object_mut() {
            fields.insert("namespace".into(), json!(namespace));
        }
    }
    value
}

fn with_token(server: &str, authority: Option<&Path>, token: &Path, namespace: &str) -> Value {
    let mut cluster = json!({"server": server});
    if let Some(authority) = authority {
        cluster["certificate-authority"] = json!(authority);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod", "namespace": namespace}}],
        "clusters": [{"name": "pod", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": token}}],
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pod_gets_the_kubeconfig_in_its_own_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: x, user: u, namespace: default}}], clusters: [{name: x, cluster: {server: 'https://127.9.8.1:1'}}], users: [{name: u, user: {client-key-data: c2VjcmV0}}]}";
        std::fs::write(&site, text).unwrap();
        let path = Credential::default()
            .write(&PodAccess::Kubeconfig(site), "other", folder.path())
            .unwrap()
            .unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["contexts"][0]["context"]["namespace"], "other");
        assert_eq!(value["users"][0]["user"]["client-key-data"], "c2VjcmV0", "{text}");
        Kubeconfig::read_from(&path).unwrap();
    }

    #[test]
    fn a_token_is_read_from_its_file() {
        let value = with_token("https://x", Some(Path::new("/ca")), Path::new("/token"), "n");
        let kubeconfig: Kubeconfig = serde_json::from_value(value).unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.clone().unwrap();
        assert_eq!(user.token_file.as_deref(), Some("/token"));
    }
}
