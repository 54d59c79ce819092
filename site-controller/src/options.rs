//! What the two programs are told at their start.

use std::time::Duration;

use karez_router_config::Mode;

/// Options of the site-level controller.
#[derive(Clone, Debug)]
pub struct SiteControllerOptions {
    /// The only namespace to look at; all when absent (`WATCH_NAMESPACE`).
    pub watch_namespace: Option<String>,
    /// Offer the Service port 55681 → 4318 that older exporters use.
    pub legacy_otlp_port: bool,
    /// Serve the sidecar webhook (in a cluster; the local one injects by itself).
    pub webhook: Option<WebhookOptions>,
}

impl Default for SiteControllerOptions {
    fn default() -> Self {
        Self {
            watch_namespace: None,
            legacy_otlp_port: true,
            webhook: None,
        }
    }
}

/// Options of the sidecar webhook.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Where to listen, `0.0.0.0:9443`.
    pub listen: String,
    /// The namespace that the controller runs in, where its certificate is kept.
    pub namespace: String,
    /// The Service by which the API server reaches it.
    pub service: String,
}

/// Options of the service-level controller of one site.
#[derive(Clone, Debug)]
pub struct ServiceControllerOptions {
    /// The site's namespace (`SKUPPER_NAMESPACE`).
    pub namespace: String,
    /// The site's name (`SKUPPER_SITE_NAME`).
    pub site_name: String,
    /// The site's id (`SKUPPER_SITE_ID`).
    pub site_id: String,
    /// Interior or edge (`SKUPPER_ROUTER_MODE`).
    pub mode: Mode,
    /// Take no part in the exchange of definitions (`SKUPPER_DISABLE_SERVICE_SYNC`).
    pub disable_service_sync: bool,
    /// How long definitions of a site that is not reachable are kept when its ConfigMap does not say.
    pub site_ttl: Duration,
}

/// Why the service-level controller cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{variable} is not set; the site-controller sets it on Deployment skupper-service-controller")]
pub struct OptionsError {
    /// The variable.
    pub variable: &'static str,
}

impl ServiceControllerOptions {
    /// From the environment that the site-level controller gives its Deployment.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_env() -> Result<Self, OptionsError> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let required = |name: &'static str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(OptionsError { variable: name })
        };
        let mode = variable("SKUPPER_ROUTER_MODE").unwrap_or_default();
        Ok(Self {
            namespace: required("SKUPPER_NAMESPACE")?,
            site_name: required("SKUPPER_SITE_NAME")?,
            site_id: required("SKUPPER_SITE_ID")?,
            mode: if mode == "edge" {
                Mode::Edge
            } else {
                Mode::Interior
            },
            disable_service_sync: variable("SKUPPER_DISABLE_SERVICE_SYNC")
                .is_some_and(|value| value == "true"),
            site_ttl: Duration::from_secs(180),
        })
    }
}

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The webhook cannot be served.
    #[error("sidecar webhook: {0}")]
    Webhook(#[from] crate::webhook::WebhookError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_is_named() {
        let error = ServiceControllerOptions::from_variables(&|_| None).unwrap_err();
        assert_eq!(error.variable, "SKUPPER_NAMESPACE");
        let options = ServiceControllerOptions::from_variables(&|name| {
            Some(
                if name == "SKUPPER_ROUTER_MODE" {
                    "edge"
                } else {
                    "x"
                }
                .to_owned(),
            )
        })
        .unwrap();
        assert_eq!(options.mode, Mode::Edge);
    }
}
