//! `zpages`: pages about the collector for a person at a browser: `/debug/servicez`, `/debug/pipelinez`,
//! `/debug/extensionz`, `/debug/featurez`, `/debug/tracez` and, if it is asked for, `/debug/expvarz`.

use std::sync::Arc;

use axum::response::{Html, IntoResponse};
use axum::routing::get;
use futures::future::BoxFuture;
use karez_collector_config::credentials as config;
use prometheus_client::encoding::text::encode;
use tokio::time::Instant;

use crate::component::{ComponentContext, Extension, Extensions, Running, StartError};
use crate::metrics::Metrics;
use crate::server::Server;
use crate::service::Status;

/// Extension `zpages`.
pub struct ZPagesExtension {
    config: config::ZPages,
}

impl ZPagesExtension {
    /// Takes its configuration.
    pub fn new(config: config::ZPages) -> Self {
        ZPagesExtension { config }
    }
}

/// What the pages are about.
#[derive(Clone)]
struct About {
    metrics: Arc<Metrics>,
    extensions: Extensions,
    since: Instant,
}

impl Extension for ZPagesExtension {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async {
            let about = About {
                metrics: cx.metrics.clone(),
                extensions: cx.extensions.clone(),
                since: Instant::now(),
            };
            let page = |content: fn(&About) -> String, title: &'static str| {
                let about = about.clone();
                get(move || async move { Html(page(title, &content(&about))) })
            };
            let mut router = axum::Router::new()
                .route("/debug/servicez", page(service, "Service"))
                .route("/debug/pipelinez", page(pipelines, "Pipelines"))
                .route("/debug/extensionz", page(extensions, "Extensions"))
                .route("/debug/featurez", page(features, "Features"))
                .route("/debug/tracez", page(traces, "Traces"));
            if self.config.settings.expvar.enabled {
                let metrics = cx.metrics.clone();
                router = router.route(
                    "/debug/expvarz",
                    get(move || async move { axum::Json(variables(&metrics)).into_response() }),
                );
            }
            Server::http(&self.config.server, "localhost:55679", "")
                .serve(router, cx)
                .await
        })
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn page(title: &str, content: &str) -> String {
    let links = ["servicez", "pipelinez", "extensionz", "featurez", "tracez"]
        .map(|name| format!("<a href=\"/debug/{name}\">{name}</a>"))
        .join(" · ");
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title><h1>{title}</h1><p>{links}</p><pre>{}</pre>",
        escaped(content)
    )
}

fn service(about: &About) -> String {
    format!(
        "Karez collector {}\nrunning for {:?}\n",
        env!("CARGO_PKG_VERSION"),
        std::time::Duration::from_secs(about.since.elapsed().as_secs())
    )
}

fn pipelines(about: &About) -> String {
    Status::of(&about.metrics.ledger()).render()
}

fn extensions(about: &About) -> String {
    about
        .extensions
        .0
        .iter()
        .map(|(id, _)| format!("{id}\n"))
        .collect()
}

fn features(_: &About) -> String {
    "Feature gates are accepted and have no effect.\n".to_owned()
}

fn traces(_: &About) -> String {
    "The collector keeps no spans about itself.\n".to_owned()
}

/// Each of the collector's own metrics by its name and labels.
fn variables(metrics: &Metrics) -> serde_json::Value {
    let mut text = String::new();
    if encode(&mut text, &metrics.registry()).is_err() {
        return serde_json::Value::Null;
    }
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse::<f64>().ok()?.into()))
    });
    serde_json::Value::Object(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_what_there_is() {
        let about = About {
            metrics: Metrics::new(),
            extensions: Extensions::default(),
            since: Instant::now(),
        };
        let account = about
            .metrics
            .ledger()
            .account("traces/<a>", &"debug".parse().unwrap());
        account.accept(3);
        let shown = page("Pipelines", &pipelines(&about));
        assert!(
            shown.contains("traces/&lt;a&gt;") && !shown.contains("<a>"),
            "{shown}"
        );
        assert!(service(&about).contains("Karez collector"));
        let up = variables(&about.metrics);
        assert!(
            up.as_object()
                .unwrap()
                .keys()
                .any(|name| name.starts_with("otelcol_process_uptime")),
            "{up}"
        );
    }
}
