//! What the `prometheus` receiver, and the exporters `prometheus` and `prometheusremotewrite`, are told.

use std::time::Duration;

use indexmap::IndexMap;
use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, join_key};
use karez_scrape_config::{Options, ScrapeConfig};
use serde::Deserialize;

use crate::common::{HttpClient, HttpServer, Retry};
use crate::values::duration;

/// Receiver `prometheus`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrometheusReceiver {
    /// `config.scrape_configs`, with what `config.global` says.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Where more jobs and their targets come from.
    pub target_allocator: Option<TargetAllocator>,
    /// Three more metrics a scrape.
    pub report_extra_scrape_metrics: bool,
}

/// `target_allocator`
#[derive(Debug, Clone, PartialEq)]
pub struct TargetAllocator {
    /// Where and how.
    pub client: HttpClient,
    /// How often its jobs are asked for.
    pub interval: Duration,
    /// By which it knows this collector; without one, `POD_NAME`.
    pub collector_id: String,
    /// How often targets are asked for; as `interval`, at most 30 s, without it.
    pub refresh: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReceiverKeys {
    trim_metric_suffixes: bool,
    use_start_time_metric: bool,
    start_time_metric_regex: String,
    report_extra_scrape_metrics: bool,
    ignore_metadata: bool,
    api_server: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AllocatorKeys {
    #[serde(deserialize_with = "duration")]
    interval: Duration,
    collector_id: String,
    http_sd_config: Option<SdKeys>,
}

impl Default for AllocatorKeys {
    fn default() -> Self {
        AllocatorKeys {
            interval: Duration::from_secs(30),
            collector_id: String::new(),
            http_sd_config: None,
        }
    }
}

/// What of an HTTP discovery's keys has a meaning here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SdKeys {
    #[serde(deserialize_with = "duration")]
    refresh_interval: Duration,
    /// Ignored, as the Collector does.
    url: String,
}

/// Keys of Prometheus' own configuration that say nothing about scrapes.
const NO_SCRAPE: [&str; 4] = ["otlp", "storage", "tracing", "runtime"];
/// Keys that the Collector refuses.
const REFUSED: [&str; 5] = [
    "alerting",
    "remote_read",
    "remote_write",
    "rule_files",
    "scrape_config_files",
];

/// Reads the receiver's block.
pub(crate) fn receiver(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<PrometheusReceiver> {
    let mut parts = Parts::of(node, key);
    let keys: Option<ReceiverKeys> = parts.take(diagnoses);
    parts.knows(&["config", "target_allocator"]);
    parts.finish(diagnoses);
    let keys = keys?;
    let mut receiver = PrometheusReceiver {
        report_extra_scrape_metrics: keys.report_extra_scrape_metrics,
        ..PrometheusReceiver::default()
    };
    let unsupported = [
        ("trim_metric_suffixes", keys.trim_metric_suffixes),
        ("use_start_time_metric", keys.use_start_time_metric),
        (
            "start_time_metric_regex",
            !keys.start_time_metric_regex.is_empty(),
        ),
        ("ignore_metadata", keys.ignore_metadata),
        ("api_server", keys.api_server.is_some()),
    ];
    for (name, _) in unsupported.into_iter().filter(|(_, written)| *written) {
        error(
            node,
            key,
            name,
            "Karez does not support this key",
            "remove it",
            diagnoses,
        );
    }
    if let Some(config) = node.get("config").filter(|config| !config.is_null()) {
        let key = join_key(key, "config");
        for name in REFUSED.into_iter().filter(|name| config.get(name).is_some()) {
            error(
                config,
                &key,
                name,
                "a receiver only scrapes",
                "remove it",
                diagnoses,
            );
        }
        let mut parts = Parts::of(config, &key);
        parts.knows(&["global", "scrape_configs"]);
        parts.knows(&NO_SCRAPE);
        parts.knows(&REFUSED);
        parts.finish(diagnoses);
        receiver.scrape_configs = karez_scrape_config::read(config, &key, Options::default(), diagnoses);
    }
    if let Some(block) = node.get("target_allocator").filter(|block| !block.is_null()) {
        receiver.target_allocator = allocator(block, &join_key(key, "target_allocator"), diagnoses);
    }
    if receiver.scrape_configs.is_empty() && node.get("target_allocator").is_none() {
        let message = "there is nothing to scrape";
        let mend = "write `config: {scrape_configs: […]}` or `target_allocator:`";
        diagnoses.push(Diagnosis::error(node.place(), key, message, mend));
    }
    Some(receiver)
}

fn error(node: &Node, key: &str, name: &str, message: &str, mend: &str, diagnoses: &mut Vec<Diagnosis>) {
    diagnoses.push(Diagnosis::error(
        node.key_place(name),
        join_key(key, name),
        message,
        mend,
    ));
}

fn allocator(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<TargetAllocator> {
    let mut parts = Parts::of(node, key);
    let client: Option<HttpClient> = parts.take(diagnoses);
    let keys: Option<AllocatorKeys> = parts.take(diagnoses);
    parts.finish(diagnoses);
    let (client, keys) = (client?, keys?);
    if let Err(wrong) = crate::endpoint::http_url(&client.endpoint) {
        let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
        error(node, key, "endpoint", message, mend, diagnoses);
    }
    if keys.interval.is_zero() {
        error(
            node,
            key,
            "interval",
            "cannot be 0",
            "write such as 30s",
            diagnoses,
        );
    }
    if keys.collector_id.contains("${") {
        error(
            node,
            key,
            "collector_id",
            "holds a reference that is not resolved",
            "set the variable",
            diagnoses,
        );
    }
    if client.auth.is_some() {
        error(
            node,
            key,
            "auth",
            "Karez asks the allocator without an extension",
            "use `tls` or `headers`",
            diagnoses,
        );
    }
    if !client.proxy_url.is_empty() {
        error(
            node,
            key,
            "proxy_url",
            "Karez asks the allocator without a proxy",
            "remove it",
            diagnoses,
        );
    }
    let refresh = keys.http_sd_config.map(|sd| sd.refresh_interval);
    Some(TargetAllocator {
        client,
        interval: keys.interval,
        collector_id: keys.collector_id,
        refresh: refresh.filter(|refresh| !refresh.is_zero()),
    })
}

/// `resource_to_telemetry_conversion`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceToTelemetry {
    /// Attributes of the resource become labels of each series.
    pub enabled: bool,
    /// Not supported.
    pub exclude_service_attributes: bool,
}

/// Exporter `prometheus`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrometheusExporter {
    /// Where it is served.
    pub server: HttpServer,
    /// How series are made.
    pub settings: PrometheusSettings,
}

/// What the `prometheus` exporter has beside its server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusSettings {
    /// Stands before each name.
    pub namespace: String,
    /// Labels of each series.
    pub const_labels: IndexMap<String, String>,
    /// Whether samples have timestamps.
    pub send_timestamps: bool,
    /// A series is served so long after its last point.
    #[serde(deserialize_with = "duration")]
    pub metric_expiration: Duration,
    /// Attributes of the resource as labels.
    pub resource_to_telemetry_conversion: ResourceToTelemetry,
    /// Whether OpenMetrics is served to who asks for it.
    pub enable_open_metrics: bool,
    /// Whether units and `_total` end names.
    pub add_metric_suffixes: bool,
    /// How names are made; over `add_metric_suffixes`.
    pub translation_strategy: TranslationStrategy,
    /// Series have no `otel_scope_…` labels.
    pub without_scope_info: bool,
}

impl Default for PrometheusSettings {
    fn default() -> Self {
        PrometheusSettings {
            namespace: String::new(),
            const_labels: IndexMap::new(),
            send_timestamps: false,
            metric_expiration: Duration::from_secs(300),
            resource_to_telemetry_conversion: ResourceToTelemetry::default(),
            enable_open_metrics: false,
            add_metric_suffixes: true,
            translation_strategy: TranslationStrategy::default(),
            without_scope_info: false,
        }
    }
}

/// `translation_strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TranslationStrategy {
    /// `add_metric_suffixes` decides.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// `[a-zA-Z0-9_:]`, with suffixes.
    UnderscoreEscapingWithSuffixes,
    /// The same without.
    UnderscoreEscapingWithoutSuffixes,
    /// Any UTF-8, with suffixes.
    NoUTF8EscapingWithSuffixes,
    /// As it is.
    NoTranslation,
}

/// Exporter `prometheusremotewrite`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RemoteWriteExporter {
    /// Where to and how.
    pub client: HttpClient,
    /// How series are made and sent.
    pub settings: RemoteWriteSettings,
}

/// What the `prometheusremotewrite` exporter has beside its client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteWriteSettings {
    /// Stands before each name.
    pub namespace: String,
    /// Labels of each series.
    pub external_labels: IndexMap<String, String>,
    /// Whether units and `_total` end names.
    pub add_metric_suffixes: bool,
    /// How names are made; over `add_metric_suffixes`.
    pub translation_strategy: TranslationStrategy,
    /// Whether types and helps are sent.
    pub send_metadata: bool,
    /// `target_info`
    pub target_info: TargetInfo,
    /// What happens before.
    pub remote_write_queue: RemoteWriteQueue,
    /// Attributes of the resource as labels.
    pub resource_to_telemetry_conversion: ResourceToTelemetry,
    /// Not supported.
    pub wal: Option<serde_json::Value>,
    /// The largest request before compression.
    pub max_batch_size_bytes: u64,
    /// Only the first version.
    pub protobuf_message: String,
    /// What happens after a failure.
    pub retry_on_failure: Retry,
}

/// `target_info`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetInfo {
    /// Attributes of the resource are sent as `target_info`.
    pub enabled: bool,
}

impl Default for TargetInfo {
    fn default() -> Self {
        TargetInfo { enabled: true }
    }
}

/// `remote_write_queue`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteWriteQueue {
    /// Whether data is queued before it is sent.
    pub enabled: bool,
    /// Batches that it holds.
    pub queue_size: u64,
    /// Requests at once.
    pub num_consumers: u32,
}

impl Default for RemoteWriteQueue {
    fn default() -> Self {
        RemoteWriteQueue {
            enabled: true,
            queue_size: 10_000,
            num_consumers: 5,
        }
    }
}

impl Default for RemoteWriteSettings {
    fn default() -> Self {
        RemoteWriteSettings {
            namespace: String::new(),
            external_labels: IndexMap::new(),
            add_metric_suffixes: true,
            translation_strategy: TranslationStrategy::default(),
            send_metadata: false,
            target_info: TargetInfo::default(),
            remote_write_queue: RemoteWriteQueue::default(),
            resource_to_telemetry_conversion: ResourceToTelemetry::default(),
            wal: None,
            max_batch_size_bytes: 3_000_000,
            protobuf_message: String::new(),
            retry_on_failure: Retry {
                initial_interval: Duration::from_millis(50),
                max_interval: Duration::from_millis(200),
                max_elapsed_time: Duration::from_secs(60),
                ..Retry::default()
            },
        }
    }
}

impl TranslationStrategy {
    /// Whether names keep to `[a-zA-Z0-9_:]`.
    pub fn escapes(self) -> bool {
        !matches!(
            self,
            TranslationStrategy::NoUTF8EscapingWithSuffixes | TranslationStrategy::NoTranslation
        )
    }

    /// Whether units and `_total` end names.
    pub fn suffixes(self, add_metric_suffixes: bool) -> bool {
        match self {
            TranslationStrategy::Unset => add_metric_suffixes,
            TranslationStrategy::UnderscoreEscapingWithSuffixes
            | TranslationStrategy::NoUTF8EscapingWithSuffixes => true,
            TranslationStrategy::UnderscoreEscapingWithoutSuffixes | TranslationStrategy::NoTranslation => {
                false
            }
        }
    }
}

/// Reads the `prometheus` exporter's block.
pub(crate) fn exporter(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<PrometheusExporter> {
    let mut parts = Parts::of(node, key);
    let server: Option<HttpServer> = parts.take(diagnoses);
    let settings: Option<PrometheusSettings> = parts.take(diagnoses);
    parts.finish(diagnoses);
    let (server, settings) = (server?, settings?);
    if server.endpoint.is_empty() {
        let mend = "write where it is served, such as `endpoint: 0.0.0.0:8889`";
        error(node, key, "endpoint", "is missing", mend, diagnoses);
    }
    excluded(node, key, &settings.resource_to_telemetry_conversion, diagnoses);
    Some(PrometheusExporter { server, settings })
}

fn excluded(node: &Node, key: &str, conversion: &ResourceToTelemetry, diagnoses: &mut Vec<Diagnosis>) {
    if conversion.exclude_service_attributes {
        let key = join_key(key, "resource_to_telemetry_conversion");
        let block = node.get("resource_to_telemetry_conversion").unwrap_or(node);
        error(
            block,
            &key,
            "exclude_service_attributes",
            "Karez does not support this key",
            "remove it",
            diagnoses,
        );
    }
}

/// Reads the `prometheusremotewrite` exporter's block.
pub(crate) fn remote_write(
    node: &Node,
    key: &str,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<RemoteWriteExporter> {
    let mut parts = Parts::of(node, key);
    // Its bodies are always packed with snappy; the key is known and says nothing here.
    let client: Option<HttpClient> = parts.take(diagnoses);
    let settings: Option<RemoteWriteSettings> = parts.take(diagnoses);
    parts.finish(diagnoses);
    let (client, settings) = (client?, settings?);
    if settings.wal.is_some() {
        let mend = "remove it; a queue on disk is `sending_queue.storage` of the exporters that have one";
        error(
            node,
            key,
            "wal",
            "Karez does not support this key",
            mend,
            diagnoses,
        );
    }
    if !matches!(settings.protobuf_message.as_str(), "" | "prometheus.WriteRequest") {
        let message = "only the first version of remote write is sent";
        error(
            node,
            key,
            "protobuf_message",
            message,
            "write prometheus.WriteRequest",
            diagnoses,
        );
    }
    if settings.send_metadata {
        error(
            node,
            key,
            "send_metadata",
            "Karez sends no metadata",
            "remove it",
            diagnoses,
        );
    }
    excluded(node, key, &settings.resource_to_telemetry_conversion, diagnoses);
    Some(RemoteWriteExporter { client, settings })
}
