//! What the exporters are told.

use serde::Deserialize;

use crate::common::{GrpcClient, HttpClient, Queue, Retry, Sending};

/// `otlp` (also `otlp_grpc`), and `jaeger`, which has the same keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GrpcExporter {
    /// Where to and how.
    pub client: GrpcClient,
    /// Timeout, retry, queue.
    pub sending: Sending,
}

/// `otlphttp` (also `otlp_http`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtlpHttpExporter {
    /// Where to and how.
    pub client: HttpClient,
    /// Endpoints, encoding, retry, queue.
    pub settings: OtlpHttpSettings,
}

/// What the `otlphttp` exporter has beside its client.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpHttpSettings {
    /// For traces, taken as it is.
    pub traces_endpoint: String,
    /// For metrics, taken as it is.
    pub metrics_endpoint: String,
    /// For logs, taken as it is.
    pub logs_endpoint: String,
    /// For profiles (not yet).
    pub profiles_endpoint: String,
    /// The encoding of bodies.
    pub encoding: Encoding,
    /// What happens after a failure.
    pub retry_on_failure: Retry,
    /// What happens before.
    pub sending_queue: Queue,
}

/// The encoding of OTLP/HTTP bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// protobuf.
    #[default]
    Proto,
    /// JSON.
    Json,
}

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verbosity {
    /// A line a batch.
    #[default]
    #[serde(alias = "Basic")]
    Basic,
    /// A line an item.
    #[serde(alias = "Normal")]
    Normal,
    /// Everything.
    #[serde(alias = "Detailed")]
    Detailed,
}

/// `debug`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DebugExporter {
    /// How much is written.
    pub verbosity: Verbosity,
    /// Lines of a kind that are written each second before sampling starts.
    pub sampling_initial: u32,
    /// Then every so many is written; 1 writes all.
    pub sampling_thereafter: u32,
    /// Through the collector's own log (else to standard output).
    pub use_internal_logger: bool,
    /// `stdout` or `stderr`, without the internal logger.
    pub output_paths: Vec<String>,
    /// Accepted; writing needs no queue.
    pub sending_queue: Option<Queue>,
}

impl Default for DebugExporter {
    fn default() -> Self {
        DebugExporter {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
            output_paths: Vec::new(),
            sending_queue: None,
        }
    }
}

/// `logging`, what `debug` was called; its `loglevel` became `verbosity`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingExporter {
    /// How much is written.
    pub verbosity: Verbosity,
    /// Lines of a kind that are written each second before sampling starts.
    pub sampling_initial: u32,
    /// Then every so many is written; 1 writes all.
    pub sampling_thereafter: u32,
}

impl Default for LoggingExporter {
    fn default() -> Self {
        LoggingExporter {
            verbosity: Verbosity::Normal,
            sampling_initial: 2,
            sampling_thereafter: 500,
        }
    }
}

/// `jaeger_storage_exporter`: into a store of the `jaeger_storage` extension.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerStorageExporter {
    /// The store's name.
    pub trace_storage: String,
    /// Accepted; a store in memory needs no queue.
    #[serde(default)]
    pub sending_queue: Option<Queue>,
    /// Accepted; a store in memory does not fail.
    #[serde(default)]
    pub retry_on_failure: Option<Retry>,
}
