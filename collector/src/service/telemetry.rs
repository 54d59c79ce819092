//! `/metrics` and `/status`, where the document says.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use karez_collector_config::ComponentId;
use prometheus_client::encoding::text::encode;
use tokio::time::Instant;

use super::graph::Surroundings;
use crate::component::Running;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::server::Server;

/// The servers of the collector's own metrics.
#[derive(Default)]
pub(crate) struct MetricsServer {
    endpoints: Vec<String>,
    running: Vec<Running>,
}

impl MetricsServer {
    /// Serves on these endpoints. One that cannot be had is reported; pipelines do not depend on it.
    pub(crate) async fn follow(&mut self, endpoints: &[String], around: &Surroundings) {
        if self.endpoints == endpoints {
            return;
        }
        for running in self.running.drain(..) {
            running.stop(Instant::now()).await;
        }
        self.endpoints = endpoints.to_vec();
        let id = ComponentId {
            kind: "metrics".to_owned(),
            name: String::new(),
        };
        let cx = around.context("service.telemetry", &id);
        for endpoint in endpoints {
            let metrics = around.metrics.clone();
            let router = axum::Router::new().route("/metrics", get(move || show(metrics.clone())));
            let ledger = around.metrics.ledger();
            let router = router.route("/status", get(move || status(ledger.clone())));
            let server = Server {
                endpoint,
                default_endpoint: "",
                transport: "",
                tls: None,
                auth: None,
                max_streams: 0,
                keepalive: None,
                key: "",
            };
            match server.serve(router, &cx).await {
                Ok(running) => self.running.push(running),
                Err(error) => {
                    let mend = "choose another with `service.telemetry.metrics` or --metrics-addr";
                    tracing::error!(
                        endpoint,
                        "the collector's own metrics are not served: {error}; {mend}"
                    );
                }
            }
        }
    }

    pub(crate) async fn stop(&mut self, deadline: Instant) {
        for running in self.running.drain(..) {
            running.stop(deadline).await;
        }
    }
}

async fn status(ledger: Arc<Ledger>) -> Response {
    axum::Json(super::status::Status::of(&ledger)).into_response()
}

async fn show(metrics: Arc<Metrics>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &metrics.registry()) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
