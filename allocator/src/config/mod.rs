//! The allocator's document, as the OpenTelemetry allocator reads it, and what Karez adds below `karez:`.
//!
//! ```text
//! text ─▶ yaml ─▶ Document (what is written) ─▶ flags, environment ─▶ AllocatorConfig (what is meant)
//! ```

mod document;
mod selector;
mod telemetry;

use std::time::Duration;

use karez_allocation::{Collector, Settings};
use karez_scrape::config::ScrapeConfig;

pub(crate) use document::CollectorDocument;
pub use document::read;
pub use selector::LabelSelector;
pub(crate) use telemetry::Push;

/// Given on the command line, where it counts before the document.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen-addr`
    pub listen_addr: Option<String>,
    /// `--enable-prometheus-cr-watcher`
    pub watch_prometheus: bool,
    /// `--kubeconfig-path`
    pub kubeconfig: Option<String>,
    /// `--enable-https-server`
    pub https: bool,
    /// `--listen-addr-https`
    pub https_listen_addr: Option<String>,
    /// `--https-ca-file`
    pub https_ca_file: Option<String>,
    /// `--https-tls-cert-file`
    pub https_cert_file: Option<String>,
    /// `--https-tls-key-file`
    pub https_key_file: Option<String>,
    /// `--allow-insecure-auth-secrets`
    pub allow_insecure_secrets: bool,
    /// Environment `OTELCOL_NAMESPACE`.
    pub namespace: Option<String>,
}

/// What is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocatorConfig {
    /// Where HTTP is served.
    pub listen: String,
    /// Where HTTPS is served, and with what.
    pub https: Option<Https>,
    /// A kubeconfig; found as `kubectl` finds it without one.
    pub kubeconfig: Option<String>,
    /// Who the collectors are.
    pub collectors: Collectors,
    /// For how long one that is not ready keeps its targets; zero does not ask.
    pub grace: Duration,
    /// How targets are divided.
    pub settings: Settings,
    /// How often `weighted` evens out.
    pub rebalance: Duration,
    /// Secrets are given over plain HTTP, too.
    pub allow_insecure_secrets: bool,
    /// Prometheus' custom resources.
    pub prometheus: Option<PrometheusResources>,
    /// Several allocators of which one leads.
    pub lease: Option<LeaseConfig>,
    /// Where its own figures are pushed to.
    pub push: Vec<Push>,
    /// The jobs that the document holds.
    pub jobs: Vec<ScrapeConfig>,
}

/// HTTPS with client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    /// Where.
    pub listen: String,
    /// Whom we believe.
    pub ca_file: String,
    /// What we present.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
}

/// How allocators agree on who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// For how long it is held without being renewed.
    pub duration: Duration,
    /// The host by which other allocators reach this one; found by itself without it.
    pub advertise: Option<String>,
}

/// Who the collectors are.
#[derive(Debug, Clone, PartialEq)]
pub enum Collectors {
    /// These.
    Fixed(Vec<Collector>),
    /// Those that a file lists.
    File(String),
    /// Pods.
    Pods {
        /// Where.
        namespace: String,
        /// Which; without a selector none.
        selector: Option<LabelSelector>,
    },
}

/// Which custom resources are followed.
#[derive(Debug, Clone, PartialEq)]
pub struct PrometheusResources {
    /// Interval of what says none.
    pub scrape_interval: Duration,
    /// Formats that are asked for where a resource says none, as the document writes them.
    pub scrape_protocols: Vec<String>,
    /// `ScrapeClass`es as written.
    pub scrape_classes: Vec<serde_json::Value>,
    /// Only these namespaces; empty for all.
    pub allow_namespaces: Vec<String>,
    /// Not these.
    pub deny_namespaces: Vec<String>,
    /// Namespaces whose Secrets may be read.
    pub secret_namespaces: Vec<String>,
    /// Refuse what reads files of the collector.
    pub deny_files: bool,
    /// Which ServiceMonitors, PodMonitors, Probes and ScrapeConfigs; no selector selects none.
    pub kinds: [Selection; 4],
}

/// Which objects of a kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// By their labels; `None` selects none.
    pub objects: Option<LabelSelector>,
    /// By the labels of their namespaces; `None` selects all.
    pub namespaces: Option<LabelSelector>,
}
