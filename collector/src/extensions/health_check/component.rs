//! The health check as a component.

use futures::future::BoxFuture;
use karez_collector_config::extensions as config;

use super::{Health, HealthOptions, router};
use crate::component::{ComponentContext, Extension, Running, StartError};
use crate::server::Server;

/// Extension `health_check`.
pub struct HealthCheckExtension {
    config: config::HealthCheck,
    health: Health,
}

impl HealthCheckExtension {
    /// Takes its configuration; the pipelines are taken not to run until it hears otherwise.
    pub fn new(config: config::HealthCheck) -> Self {
        Self {
            config,
            health: Health::default(),
        }
    }

    async fn begin(&self, cx: &ComponentContext) -> Result<Running, StartError> {
        let settings = &self.config.settings;
        let bodies = settings.response_body.as_ref();
        let options = HealthOptions {
            path: settings.path.clone(),
            bodies: bodies.map(|bodies| (bodies.healthy.clone(), bodies.unhealthy.clone())),
        };
        let server = Server::http(&self.config.server, "localhost:13133", "");
        server.serve(router(self.health.clone(), options), cx).await
    }
}

impl Extension for HealthCheckExtension {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(self.begin(cx))
    }

    fn pipelines_ready(&self, ready: bool) {
        self.health.set(ready);
    }
}
