//! Which cluster a command acts on: what `kubectl` flags say, else a local site.
//!
//! `--kubeconfig`, `--context` → as kubectl; `--site NAME` → that local site; nothing → the only local site that
//! runs, else `KUBECONFIG` where it is set; otherwise the answer lists what there is.

use std::path::PathBuf;

use karez_kubernetes::{ClientError, ClientOptions};
use kube::Client;

use crate::records::{self, SiteRecord};

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--namespace`
    pub namespace: Option<String>,
    /// `--site`
    pub site: Option<String>,
}

/// Why no cluster is chosen.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// `--site` names none that runs, or more than one.
    #[error("{count} local site called \"{name}\" runs; {running}")]
    NoSuchSite {
        /// The name.
        name: String,
        /// `no` or a number.
        count: String,
        /// What runs.
        running: String,
    },
    /// Nothing was named, and it is not clear which.
    #[error("which site? {running}; name one with --site NAME, or a cluster with --kubeconfig FILE")]
    Unclear {
        /// What runs.
        running: String,
    },
    /// The cluster's client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Chooses the cluster and makes its client; gives the namespace too.
///
/// # Errors
/// When it is not clear which cluster is meant, or its kubeconfig cannot be used.
pub async fn connect(options: &AccessOptions) -> Result<(Client, String), AccessError> {
    let explicit = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    match choose(options, &records::running(), explicit)? {
        Some(record) => {
            let namespace = options.namespace.clone().or(Some(record.namespace));
            let client = ClientOptions {
                kubeconfig: Some(record.kubeconfig),
                context: None,
                namespace,
            };
            Ok(karez_kubernetes::client(&client).await?)
        }
        None => Ok(karez_kubernetes::client(&ClientOptions {
            kubeconfig: options.kubeconfig.clone(),
            context: options.context.clone(),
            namespace: options.namespace.clone(),
        })
        .await?),
    }
}

/// A local site, or nothing for "as kubectl would".
fn choose(
    options: &AccessOptions,
    running: &[SiteRecord],
    kubeconfig_set: bool,
) -> Result<Option<SiteRecord>, AccessError> {
    if options.kubeconfig.is_some() || options.context.is_some() {
        return Ok(None);
    }
    if let Some(name) = &options.site {
        let matching: Vec<&SiteRecord> = running.iter().filter(|site| &site.name == name).collect();
        return match matching.as_slice() {
            [site] => Ok(Some((*site).clone())),
            others => {
                let count = if others.is_empty() {
                    "no".to_owned()
                } else {
                    format!("more than one ({})", others.len())
                };
                Err(AccessError::NoSuchSite {
                    name: name.clone(),
                    count,
                    running: list(running),
                })
            }
        };
    }
    match running {
        _ if kubeconfig_set => Ok(None),
        [site] => Ok(Some(site.clone())),
        _ => Err(AccessError::Unclear {
            running: list(running),
        }),
    }
}

fn list(running: &[SiteRecord]) -> String {
    if running.is_empty() {
        return "no local site runs (start one with `karez site run DIR`)".to_owned();
    }
    let sites: Vec<String> = running
        .iter()
        .map(|site| format!("{} (state {})", site.name, site.state.display()))
        .collect();
    format!("these run: {}", sites.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteRecord {
        SiteRecord {
            name: name.into(),
            state: format!("/s/{name}").into(),
            kubeconfig: format!("/s/{name}/kubeconfig").into(),
            namespace: "default".into(),
            pid: 1,
        }
    }

    #[test]
    fn takes_the_only_one_that_runs() {
        let options = AccessOptions::default();
        assert_eq!(choose(&options, &[site("a")], false).unwrap(), Some(site("a")));
    }

    #[test]
    fn lists_what_there_is_when_unclear() {
        let options = AccessOptions::default();
        let error = choose(&options, &[site("a"), site("b")], false)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "which site? these run: a (state /s/a), b (state /s/b); name one with --site NAME, or a cluster with --kubeconfig FILE"
        );
        let named = AccessOptions {
            site: Some("c".into()),
            ..AccessOptions::default()
        };
        assert!(
            choose(&named, &[site("a")], false)
                .unwrap_err()
                .to_string()
                .contains("no local site called \"c\"")
        );
    }

    #[test]
    fn kubectl_flags_win() {
        let options = AccessOptions {
            context: Some("x".into()),
            ..AccessOptions::default()
        };
        assert_eq!(choose(&options, &[site("a")], false).unwrap(), None);
        assert_eq!(
            choose(&AccessOptions::default(), &[site("a")], true).unwrap(),
            None
        );
    }
}
