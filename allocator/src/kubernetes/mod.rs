//! What the allocator takes from a Kubernetes API, beside the Pods of its collectors.

pub(crate) mod resources;
pub(crate) mod rights;

use karez_kubernetes::{ClientError, ClientOptions};
use karez_scrape::config::DiscoveryConfig;
use kube::Client;
use kube::runtime::watcher;

use crate::config::{AllocatorConfig, Collectors};

/// Why a watch fails, with the rule that a Role lacks if that is why.
pub(crate) fn reason(error: &watcher::Error, group: &str, resource: &str) -> String {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        _ => 0,
    };
    match code {
        404 => format!(
            "{resource} are not served: the CustomResourceDefinition is not installed; they are followed as soon as it is"
        ),
        403 => format!(
            "{resource} may not be read: add to the Role of this ServiceAccount \
             `{{apiGroups: [\"{group}\"], resources: [{resource}], verbs: [get, list, watch]}}`"
        ),
        _ => error.to_string(),
    }
}

/// The client, where the document needs one: what is given, what the document names, or as `kubectl` finds it. A source
/// that names its own API needs none.
pub(crate) async fn client_for(
    config: &AllocatorConfig,
    given: Option<Client>,
) -> Result<Option<Client>, ClientError> {
    let discovers = |source: &DiscoveryConfig| matches!(source, DiscoveryConfig::Kubernetes(of) if of.kubeconfig_file.is_empty() && of.api_server.is_empty());
    let needed = matches!(config.collectors, Collectors::Pods { .. })
        || config.prometheus.is_some()
        || config.lease.is_some()
        || config.jobs.iter().any(|job| job.discovery.iter().any(discovers));
    if given.is_some() || !needed {
        return Ok(given);
    }
    // What is named and not there means the Pod's own, as the original has it.
    let named = config
        .kubeconfig
        .clone()
        .map(std::path::PathBuf::from)
        .filter(|path| path.is_file());
    let options = ClientOptions {
        kubeconfig: named,
        ..ClientOptions::default()
    };
    karez_kubernetes::client(&options)
        .await
        .map(|(client, _)| Some(client))
}
