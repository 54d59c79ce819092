//! The query API as a component.

use futures::future::BoxFuture;
use karez_collector_config::common::HttpServer;
use karez_collector_config::extensions as config;

use super::router;
use crate::component::{ComponentContext, Extension, Running, StartError};
use crate::server::Server;

/// Extension `jaeger_query`; the storage extension has to be started before it.
pub struct JaegerQueryExtension {
    config: config::JaegerQuery,
}

impl JaegerQueryExtension {
    /// Takes its configuration.
    pub fn new(config: config::JaegerQuery) -> Self {
        Self { config }
    }

    async fn begin(&self, cx: &ComponentContext) -> Result<Running, StartError> {
        let name = &self.config.storage.traces;
        let store = cx.trace_store(name).ok_or_else(|| {
            let message = format!("there is no trace store `{name}`");
            let mend =
                "name a backend of the jaeger_storage extension, and list that extension in service.extensions";
            StartError::config("storage.traces", message, mend)
        })?;
        let standard = HttpServer::default();
        let http = self.config.http.as_ref().unwrap_or(&standard);
        let mut server = Server::http(http, "localhost:16686", "http");
        server.auth = server.auth.or(self.config.auth.as_ref());
        server.serve(router(store, &self.config.base_path), cx).await
    }
}

impl Extension for JaegerQueryExtension {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(self.begin(cx))
    }
}
