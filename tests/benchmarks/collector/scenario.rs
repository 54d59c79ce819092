//! What is measured: one document for each, the same for both programs.

use std::net::SocketAddr;
use std::path::Path;

use clap::ValueEnum;

use super::options::Options;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Who {
    /// `karez collector`.
    Karez,
    /// The OpenTelemetry Collector.
    Otelcol,
}

impl Who {
    pub(crate) const ALL: [Who; 2] = [Who::Karez, Who::Otelcol];
}

/// A load and a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// OTLP, `batch`, OTLP.
    Pass,
    /// The same, compressed on both sides.
    Gzip,
    /// With `attributes` and `resource` between.
    Edit,
    /// With a queue on disk.
    Persistent,
    /// Prometheus targets, to OTLP.
    Scrape,
}

impl Scenario {
    pub(crate) fn compressed(self) -> bool {
        self == Scenario::Gzip
    }

    /// How many times fewer CPU seconds an item it should cost than the OpenTelemetry Collector.
    pub(crate) fn bar(self) -> f64 {
        match self {
            Scenario::Gzip => 1.5,
            Scenario::Edit => 3.0,
            Scenario::Pass | Scenario::Persistent | Scenario::Scrape => 4.0,
        }
    }

    /// The document. `folder` is where a queue may be.
    pub(crate) fn document(self, options: &Options, at: &Addresses, folder: &Path) -> String {
        let (receiver, name) = match self {
            Scenario::Scrape => (scrape(options, at), "prometheus"),
            _ => (
                format!(
                    "  otlp: {{protocols: {{grpc: {{endpoint: '{}'}}}}}}\n",
                    at.receiver
                ),
                "otlp",
            ),
        };
        let processors = match self {
            Scenario::Edit => "attributes, resource, batch",
            _ => "batch",
        };
        let (extensions, queue) = match self {
            Scenario::Persistent => (
                format!(
                    "extensions: {{file_storage: {{directory: '{}'}}}}\n",
                    folder.display()
                ),
                "    sending_queue: {storage: file_storage}\n",
            ),
            _ => (String::new(), ""),
        };
        let enabled = if extensions.is_empty() { "" } else { "file_storage" };
        let compression = if self.compressed() { "gzip" } else { "none" };
        let signal = if self == Scenario::Scrape {
            "metrics"
        } else {
            "traces"
        };
        format!(
            "{extensions}receivers:\n{receiver}processors:\n  batch:\n{EDITS}exporters:\n  otlp:\n    endpoint: '{}'\n    \
             compression: {compression}\n    tls: {{insecure: true}}\n{queue}service:\n  extensions: [{enabled}]\n  \
             telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    {signal}: {{receivers: [{name}], processors: \
             [{processors}], exporters: [otlp]}}\n",
            at.sink,
        )
    }
}

const EDITS: &str = "  attributes:
    actions:
      - {key: deployment.zone, value: north, action: insert}
      - {key: http.request.method, value: GET, action: upsert}
      - {key: user.email, action: delete}
  resource:
    attributes:
      - {key: k8s.cluster.name, value: edge-1, action: upsert}
      - {key: host.id, action: delete}
";

fn scrape(options: &Options, at: &Addresses) -> String {
    let targets: Vec<String> = (0..options.targets)
        .map(|index| {
            format!(
                "'127.1.{}.{}:{}'",
                index / 250,
                index % 250 + 1,
                at.targets.port()
            )
        })
        .collect();
    format!(
        "  prometheus:\n    config:\n      scrape_configs:\n        - job_name: bench\n          scrape_interval: {}s\n          \
         static_configs: [{{targets: [{}]}}]\n",
        options.interval,
        targets.join(", ")
    )
}

/// Where everything is.
pub(crate) struct Addresses {
    /// Where the program under test receives.
    pub(crate) receiver: SocketAddr,
    /// Where it sends to.
    pub(crate) sink: SocketAddr,
    /// Where targets are; any address of 127.0.0.0/8.
    pub(crate) targets: SocketAddr,
}
