//! Every component's type name, and how its block is read: the one list of what the collector knows.

use karez_document::yaml::{Node, Parts, decode_at, join_key};
use karez_document::{Diagnosis, Place};

use crate::common::Sending;
use crate::credentials::{self, HeadersSetter, OAuth2Client, ZPages};
use crate::exporters::{
    DebugExporter, GrpcExporter, JaegerStorageExporter, LoggingExporter, OtlpHttpExporter, OtlpHttpSettings,
};
use crate::extensions::{
    self, BasicAuth, BearerTokenAuth, FileStorage, HealthCheck, JaegerQuery, JaegerStorage, Oidc,
};
use crate::file::{self, FileExporter};
use crate::filter::{self, Filter};
use crate::k8s_attributes::{self, K8sAttributes};
use crate::load_balancing::{self, LoadBalancing};
use crate::metrics_transform::{self, MetricsTransform};
use crate::probabilistic_sampler::{self, ProbabilisticSampler};
use crate::processors::{self, AttributesProcessor, BatchProcessor, MemoryLimiter, ResourceProcessor};
use crate::prometheus::{self, PrometheusExporter, PrometheusReceiver, RemoteWriteExporter};
use crate::receivers::{self, JaegerReceiver, OtlpReceiver};
use crate::values::{ComponentId, Signal};
use crate::zipkin::{self, ZipkinExporter, ZipkinReceiver};

/// A component of the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Component<T> {
    /// Its id.
    pub id: ComponentId,
    /// What it is told.
    pub config: T,
    /// Where its key stands.
    pub place: Place,
    /// Why it cannot work as it is configured (an endpoint that cannot be dialled). The others run.
    pub fault: Option<Diagnosis>,
}

/// A receiver.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiverConfig {
    /// `otlp`
    Otlp(OtlpReceiver),
    /// `jaeger`
    Jaeger(JaegerReceiver),
    /// `prometheus`
    Prometheus(Box<PrometheusReceiver>),
    /// `zipkin`
    Zipkin(Box<ZipkinReceiver>),
}

/// A processor.
#[derive(Debug, Clone, PartialEq)]
// There are a handful of these in a document: an indirection would save nothing.
#[allow(clippy::large_enum_variant)]
pub enum ProcessorConfig {
    /// `batch`
    Batch(BatchProcessor),
    /// `memory_limiter`
    MemoryLimiter(MemoryLimiter),
    /// `resource`
    Resource(ResourceProcessor),
    /// `attributes`
    Attributes(AttributesProcessor),
    /// `k8sattributes`, `k8s_attributes`
    K8sAttributes(K8sAttributes),
    /// `probabilistic_sampler`
    ProbabilisticSampler(ProbabilisticSampler),
    /// `filter`
    Filter(Box<Filter>),
    /// `metricstransform`
    MetricsTransform(MetricsTransform),
}

/// An exporter.
#[derive(Debug, Clone, PartialEq)]
pub enum ExporterConfig {
    /// `otlp`, `otlp_grpc`
    Otlp(GrpcExporter),
    /// `otlphttp`, `otlp_http`
    OtlpHttp(OtlpHttpExporter),
    /// `debug`
    Debug(DebugExporter),
    /// `logging`
    Logging(LoggingExporter),
    /// `jaeger`
    Jaeger(GrpcExporter),
    /// `jaeger_storage_exporter`
    JaegerStorage(JaegerStorageExporter),
    /// `prometheus`
    Prometheus(PrometheusExporter),
    /// `prometheusremotewrite`
    PrometheusRemoteWrite(RemoteWriteExporter),
    /// `file`
    File(FileExporter),
    /// `zipkin`
    Zipkin(ZipkinExporter),
    /// `loadbalancing`
    LoadBalancing(Box<LoadBalancing>),
}

/// An extension.
#[derive(Debug, Clone, PartialEq)]
// There are a handful of these in a document: an indirection would save nothing.
#[allow(clippy::large_enum_variant)]
pub enum ExtensionConfig {
    /// `basicauth`
    BasicAuth(BasicAuth),
    /// `bearertokenauth`
    BearerTokenAuth(BearerTokenAuth),
    /// `oidc`
    Oidc(Oidc),
    /// `file_storage`
    FileStorage(FileStorage),
    /// `health_check`
    HealthCheck(HealthCheck),
    /// `jaeger_storage`
    JaegerStorage(JaegerStorage),
    /// `jaeger_query`
    JaegerQuery(JaegerQuery),
    /// `oauth2client`
    OAuth2Client(Box<OAuth2Client>),
    /// `headers_setter`
    HeadersSetter(HeadersSetter),
    /// `zpages`
    ZPages(Box<ZPages>),
}

/// A kind of component: which types there are and how one is read.
pub trait Kind: Sized {
    /// `receiver`, for messages; with an `s`, the section.
    const WORD: &'static str;
    /// The types that Karez has.
    const KNOWN: &'static [&'static str];
    /// Types of the OpenTelemetry Collector's distributions that Karez does not have yet.
    const ELSEWHERE: &'static [&'static str];

    /// Reads a block of a type; `None` for an unknown type or a block of the wrong shape.
    fn read(kind: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self>;

    /// The signals that a type carries.
    fn signals(kind: &str) -> &'static [Signal] {
        let _ = kind;
        &Signal::ALL
    }
}

impl Kind for ReceiverConfig {
    const WORD: &'static str = "receiver";
    const KNOWN: &'static [&'static str] = &["otlp", "jaeger", "prometheus", "zipkin"];
    const ELSEWHERE: &'static [&'static str] = &[
        "prometheus_simple",
        "k8s_events",
        "k8s_cluster",
        "k8sobjects",
        "kubeletstats",
        "kubelet_stats",
        "hostmetrics",
        "host_metrics",
        "filelog",
        "file_log",
        "kafka",
        "opencensus",
        "statsd",
        "syslog",
        "fluentforward",
        "influxdb",
        "nop",
    ];

    fn read(kind: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self> {
        match kind {
            "otlp" => receivers::otlp(node, key, diagnoses).map(ReceiverConfig::Otlp),
            "jaeger" => {
                let receiver: JaegerReceiver = decode_at(node, key, diagnoses)?;
                let p = &receiver.protocols;
                let named = [
                    p.grpc.is_some(),
                    p.thrift_http.is_some(),
                    p.thrift_compact.is_some(),
                    p.thrift_binary.is_some(),
                ];
                if !named.contains(&true) {
                    let message = "a Jaeger receiver needs at least one protocol";
                    let mend = "write such as `protocols: {grpc: {}, thrift_compact: {}}`";
                    diagnoses.push(Diagnosis::error(node.place(), key, message, mend));
                }
                Some(ReceiverConfig::Jaeger(receiver))
            }
            "prometheus" => prometheus::receiver(node, key, diagnoses)
                .map(Box::new)
                .map(ReceiverConfig::Prometheus),
            "zipkin" => zipkin::receiver(node, key, diagnoses)
                .map(Box::new)
                .map(ReceiverConfig::Zipkin),
            _ => None,
        }
    }

    fn signals(kind: &str) -> &'static [Signal] {
        match kind {
            "jaeger" | "zipkin" => &[Signal::Traces],
            "prometheus" => &[Signal::Metrics],
            _ => &Signal::ALL,
        }
    }
}

impl Kind for ProcessorConfig {
    const WORD: &'static str = "processor";
    const KNOWN: &'static [&'static str] = &[
        "batch",
        "memory_limiter",
        "resource",
        "attributes",
        "k8sattributes",
        "k8s_attributes",
        "probabilistic_sampler",
        "filter",
        "metricstransform",
        "metrics_transform",
    ];
    const ELSEWHERE: &'static [&'static str] = &[
        "k8s_tagger",
        "transform",
        "tail_sampling",
        "groupbytrace",
        "groupbyattrs",
        "resourcedetection",
        "resource_detection",
        "span",
        "spanmetrics",
        "cumulativetodelta",
        "deltatorate",
        "routing",
        "redaction",
    ];

    fn read(kind: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self> {
        match kind {
            "batch" => {
                let batch: BatchProcessor = decode_at(node, key, diagnoses)?;
                if batch.send_batch_max_size > 0 && batch.send_batch_max_size < batch.send_batch_size {
                    diagnoses.push(Diagnosis::error(
                        node.key_place("send_batch_max_size"),
                        join_key(key, "send_batch_max_size"),
                        format!("is less than send_batch_size ({})", batch.send_batch_size),
                        "make it at least as large, or lower send_batch_size",
                    ));
                }
                Some(ProcessorConfig::Batch(batch))
            }
            "memory_limiter" => {
                let limiter: MemoryLimiter = decode_at(node, key, diagnoses)?;
                if let Some((part, message, mend)) = processors::memory_limiter_fault(&limiter) {
                    diagnoses.push(Diagnosis::error(
                        node.key_place(part),
                        join_key(key, part),
                        message,
                        mend,
                    ));
                }
                Some(ProcessorConfig::MemoryLimiter(limiter))
            }
            "resource" => {
                let resource = decode_at(node, key, diagnoses)?;
                processors::check_actions(node.get("attributes"), &join_key(key, "attributes"), diagnoses);
                Some(ProcessorConfig::Resource(resource))
            }
            "attributes" => {
                let attributes = decode_at(node, key, diagnoses)?;
                processors::check_actions(node.get("actions"), &join_key(key, "actions"), diagnoses);
                Some(ProcessorConfig::Attributes(attributes))
            }
            "k8sattributes" | "k8s_attributes" => {
                let config: K8sAttributes = decode_at(node, key, diagnoses)?;
                k8s_attributes::check(&config, node, key, diagnoses);
                Some(ProcessorConfig::K8sAttributes(config))
            }
            "probabilistic_sampler" => {
                probabilistic_sampler::read(node, key, diagnoses).map(ProcessorConfig::ProbabilisticSampler)
            }
            "filter" => filter::read(node, key, diagnoses)
                .map(Box::new)
                .map(ProcessorConfig::Filter),
            "metricstransform" | "metrics_transform" => {
                metrics_transform::read(node, key, diagnoses).map(ProcessorConfig::MetricsTransform)
            }
            _ => None,
        }
    }

    fn signals(kind: &str) -> &'static [Signal] {
        match kind {
            "probabilistic_sampler" => &[Signal::Traces, Signal::Logs],
            "metricstransform" | "metrics_transform" => &[Signal::Metrics],
            _ => &Signal::ALL,
        }
    }
}

impl Kind for ExporterConfig {
    const WORD: &'static str = "exporter";
    const KNOWN: &'static [&'static str] = &[
        "otlp",
        "otlphttp",
        "debug",
        "logging",
        "jaeger",
        "jaeger_storage_exporter",
        "otlp_grpc",
        "otlp_http",
        "prometheus",
        "prometheusremotewrite",
        "prometheus_remote_write",
        "file",
        "zipkin",
        "loadbalancing",
        "load_balancing",
    ];
    const ELSEWHERE: &'static [&'static str] = &[
        "kafka",
        "loki",
        "nop",
        "opencensus",
        "elasticsearch",
        "jaeger_thrift",
    ];

    fn read(kind: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self> {
        match kind {
            "otlp" | "otlp_grpc" => grpc_exporter(node, key, diagnoses).map(ExporterConfig::Otlp),
            "jaeger" => grpc_exporter(node, key, diagnoses).map(ExporterConfig::Jaeger),
            "otlphttp" | "otlp_http" => {
                let mut parts = Parts::of(node, key);
                let client = parts.take(diagnoses);
                let settings: Option<OtlpHttpSettings> = parts.take(diagnoses);
                parts.finish(diagnoses);
                let exporter = client.zip(settings).map(|(client, mut settings)| {
                    settings.retry_on_failure.for_queue(&settings.sending_queue, node);
                    OtlpHttpExporter { client, settings }
                });
                exporter.map(ExporterConfig::OtlpHttp)
            }
            "debug" => decode_at::<DebugExporter>(node, key, diagnoses).map(ExporterConfig::Debug),
            "logging" => decode_at::<LoggingExporter>(node, key, diagnoses).map(ExporterConfig::Logging),
            "jaeger_storage_exporter" => {
                decode_at::<JaegerStorageExporter>(node, key, diagnoses).map(ExporterConfig::JaegerStorage)
            }
            "prometheus" => prometheus::exporter(node, key, diagnoses).map(ExporterConfig::Prometheus),
            "prometheusremotewrite" | "prometheus_remote_write" => {
                prometheus::remote_write(node, key, diagnoses).map(ExporterConfig::PrometheusRemoteWrite)
            }
            "file" => file::read(node, key, diagnoses).map(ExporterConfig::File),
            "zipkin" => zipkin::exporter(node, key, diagnoses).map(ExporterConfig::Zipkin),
            "loadbalancing" | "load_balancing" => load_balancing::read(node, key, diagnoses)
                .map(Box::new)
                .map(ExporterConfig::LoadBalancing),
            _ => None,
        }
    }

    fn signals(kind: &str) -> &'static [Signal] {
        match kind {
            "jaeger" | "jaeger_storage_exporter" | "zipkin" => &[Signal::Traces],
            "prometheus" | "prometheusremotewrite" | "prometheus_remote_write" => &[Signal::Metrics],
            _ => &Signal::ALL,
        }
    }
}

fn grpc_exporter(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<GrpcExporter> {
    let mut parts = Parts::of(node, key);
    let client = parts.take(diagnoses);
    let sending: Option<Sending> = parts.take(diagnoses);
    parts.finish(diagnoses);
    client.zip(sending).map(|(client, mut sending)| {
        sending.retry_on_failure.for_queue(&sending.sending_queue, node);
        GrpcExporter { client, sending }
    })
}

impl Kind for ExtensionConfig {
    const WORD: &'static str = "extension";
    const KNOWN: &'static [&'static str] = &[
        "basicauth",
        "bearertokenauth",
        "oidc",
        "file_storage",
        "health_check",
        "jaeger_storage",
        "jaeger_query",
        "oauth2client",
        "oauth2_client",
        "headers_setter",
        "zpages",
    ];
    const ELSEWHERE: &'static [&'static str] = &[
        "pprof",
        "memory_ballast",
        "memory_limiter",
        "k8s_observer",
        "sigv4auth",
        "opamp",
        "remote_sampling",
        "jaeger_remote_sampling",
    ];

    fn read(kind: &str, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Self> {
        match kind {
            "basicauth" => {
                let auth: BasicAuth = decode_at(node, key, diagnoses)?;
                if auth.htpasswd.is_some() == auth.client_auth.is_some() {
                    let message = "exactly one of `htpasswd` (for receivers) and `client_auth` (for exporters) is needed";
                    diagnoses.push(Diagnosis::error(node.place(), key, message, "write one of them"));
                }
                Some(ExtensionConfig::BasicAuth(auth))
            }
            "bearertokenauth" => {
                let auth: BearerTokenAuth = decode_at(node, key, diagnoses)?;
                if auth.token.is_empty() && auth.tokens.is_empty() && auth.filename.is_empty() {
                    let message = "no token is given";
                    diagnoses.push(Diagnosis::error(
                        node.place(),
                        key,
                        message,
                        "write `token:` or `filename:`",
                    ));
                }
                Some(ExtensionConfig::BearerTokenAuth(auth))
            }
            "oidc" => {
                let oidc: Oidc = decode_at(node, key, diagnoses)?;
                extensions::check_oidc(&oidc, node, key, diagnoses);
                Some(ExtensionConfig::Oidc(oidc))
            }
            "file_storage" => {
                let storage: FileStorage = decode_at(node, key, diagnoses)?;
                if u32::from_str_radix(&storage.directory_permissions, 8).is_err() {
                    diagnoses.push(Diagnosis::error(
                        node.key_place("directory_permissions"),
                        join_key(key, "directory_permissions"),
                        format!("`{}` is no octal mode", storage.directory_permissions),
                        "write such as \"0750\"",
                    ));
                }
                Some(ExtensionConfig::FileStorage(storage))
            }
            "health_check" => {
                let mut parts = Parts::of(node, key);
                let server = parts.take(diagnoses);
                let settings = parts.take(diagnoses);
                parts.finish(diagnoses);
                let check = server
                    .zip(settings)
                    .map(|(server, settings)| HealthCheck { server, settings });
                check.map(ExtensionConfig::HealthCheck)
            }
            "jaeger_storage" => {
                decode_at::<JaegerStorage>(node, key, diagnoses).map(ExtensionConfig::JaegerStorage)
            }
            "jaeger_query" => {
                decode_at::<JaegerQuery>(node, key, diagnoses).map(ExtensionConfig::JaegerQuery)
            }
            "oauth2client" | "oauth2_client" => credentials::oauth2(node, key, diagnoses)
                .map(Box::new)
                .map(ExtensionConfig::OAuth2Client),
            "headers_setter" => {
                credentials::headers_setter(node, key, diagnoses).map(ExtensionConfig::HeadersSetter)
            }
            "zpages" => credentials::zpages(node, key, diagnoses)
                .map(Box::new)
                .map(ExtensionConfig::ZPages),
            _ => None,
        }
    }
}
