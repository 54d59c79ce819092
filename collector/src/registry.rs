//! The one list of components: configuration → component.

use std::sync::Arc;

use karez_collector_config::common::Sending;
use karez_collector_config::{
    ConnectorConfig, ExporterConfig, ExtensionConfig, ProcessorConfig, ReceiverConfig,
};

use crate::component::{ComponentContext, Connector, Exporter, Extension, Processor, Receiver, StartError};
use crate::connectors;
use crate::exporters;
use crate::extensions;
use crate::processors;
use crate::receivers;

/// An exporter with what is to stand around it.
pub struct BuiltExporter {
    /// The exporter, which tries once.
    pub exporter: Arc<dyn Exporter>,
    /// Timeout, retry and queue; `None` for one that needs none of them.
    pub sending: Option<Sending>,
}

/// Makes a receiver.
pub fn receiver(config: &ReceiverConfig) -> Result<Box<dyn Receiver>, StartError> {
    match config {
        ReceiverConfig::Otlp(config) => Ok(Box::new(receivers::otlp::OtlpReceiver::new(config.clone()))),
        ReceiverConfig::Jaeger(config) => {
            Ok(Box::new(receivers::jaeger::JaegerReceiver::new(config.clone())))
        }
        ReceiverConfig::Prometheus(config) => Ok(Box::new(receivers::prometheus::PrometheusReceiver::new(
            (**config).clone(),
        ))),
        ReceiverConfig::Zipkin(config) => Ok(Box::new(receivers::zipkin::ZipkinReceiver::new(
            (**config).clone(),
        ))),
    }
}

/// Makes a processor.
pub fn processor(config: &ProcessorConfig) -> Result<Box<dyn Processor>, StartError> {
    Ok(match config {
        ProcessorConfig::Batch(config) => Box::new(processors::batch::BatchProcessor::new(config.clone())),
        ProcessorConfig::MemoryLimiter(config) => {
            Box::new(processors::memory_limiter::MemoryLimiter::new(config))
        }
        ProcessorConfig::Resource(config) => Box::new(processors::edit::Editor::resource(config)?),
        ProcessorConfig::K8sAttributes(config) => {
            Box::new(processors::k8sattributes::K8sAttributes::new(config.clone())?)
        }
        ProcessorConfig::Attributes(config) => Box::new(processors::edit::Editor::attributes(config)?),
        ProcessorConfig::ProbabilisticSampler(config) => Box::new(
            processors::probabilistic_sampler::ProbabilisticSampler::new(config.clone()),
        ),
        ProcessorConfig::Filter(config) => Box::new(processors::filter::Filter::new((**config).clone())?),
        ProcessorConfig::MetricsTransform(config) => {
            Box::new(processors::metricstransform::MetricsTransform::new(config)?)
        }
    })
}

/// Makes a connector.
pub fn connector(config: &ConnectorConfig) -> Box<dyn Connector> {
    match config {
        ConnectorConfig::Forward => Box::new(connectors::forward::Forward),
        ConnectorConfig::Count(config) => Box::new(connectors::count::Count::new(config)),
        ConnectorConfig::SpanMetrics(config) => Box::new(connectors::spanmetrics::SpanMetrics::new(config)),
    }
}

/// Makes an exporter.
pub fn exporter(config: &ExporterConfig, cx: &ComponentContext) -> Result<BuiltExporter, StartError> {
    match config {
        ExporterConfig::Otlp(config) => exporters::otlp::build(config, cx),
        ExporterConfig::OtlpHttp(config) => exporters::otlp_http::build(config, cx),
        ExporterConfig::Debug(config) => Ok(exporters::debug::build(config, cx)),
        ExporterConfig::Logging(config) => Ok(exporters::debug::build_logging(config, cx)),
        ExporterConfig::Jaeger(config) => {
            let exporter = exporters::jaeger::JaegerExporter::new(config, cx)?;
            Ok(BuiltExporter {
                exporter: Arc::new(exporter),
                sending: Some(config.sending.clone()),
            })
        }
        ExporterConfig::Prometheus(config) => exporters::prometheus::build(config, cx),
        ExporterConfig::PrometheusRemoteWrite(config) => exporters::remote_write::build(config, cx),
        ExporterConfig::File(config) => Ok(exporters::file::build(config, cx)),
        ExporterConfig::Zipkin(config) => exporters::zipkin::build(config, cx),
        ExporterConfig::LoadBalancing(config) => exporters::load_balancing::build(config, cx),
        ExporterConfig::JaegerStorage(config) => {
            let exporter = exporters::jaeger_storage::JaegerStorageExporter::new(config, cx)?;
            Ok(BuiltExporter {
                exporter: Arc::new(exporter),
                sending: None,
            })
        }
    }
}

/// Makes an extension.
pub fn extension(config: &ExtensionConfig) -> Result<Arc<dyn Extension>, StartError> {
    Ok(match config {
        ExtensionConfig::BasicAuth(config) => {
            Arc::new(extensions::auth::BasicAuthExtension::new(config.clone()))
        }
        ExtensionConfig::BearerTokenAuth(config) => {
            Arc::new(extensions::auth::BearerTokenAuthExtension::new(config.clone()))
        }
        ExtensionConfig::Oidc(config) => Arc::new(extensions::auth::OidcExtension::new(config.clone())),
        ExtensionConfig::FileStorage(config) => Arc::new(
            extensions::file_storage::FileStorageExtension::new(config.clone()),
        ),
        ExtensionConfig::JaegerStorage(config) => {
            Arc::new(extensions::jaeger_storage::JaegerStorageExtension::new(config))
        }
        ExtensionConfig::HealthCheck(config) => Arc::new(
            extensions::health_check::HealthCheckExtension::new(config.clone()),
        ),
        ExtensionConfig::OAuth2Client(config) => {
            Arc::new(extensions::auth::OAuth2ClientExtension::new((**config).clone()))
        }
        ExtensionConfig::HeadersSetter(config) => {
            Arc::new(extensions::auth::HeadersSetterExtension::new(config.clone()))
        }
        ExtensionConfig::ZPages(config) => {
            Arc::new(extensions::zpages::ZPagesExtension::new((**config).clone()))
        }
        ExtensionConfig::JaegerQuery(config) => Arc::new(
            extensions::jaeger_query::JaegerQueryExtension::new(config.clone()),
        ),
    })
}
