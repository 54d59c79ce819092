//! What the `zipkin` receiver and exporter are told.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts};
use serde::Deserialize;

use crate::common::{HttpClient, HttpServer, Queue, Retry};
use crate::exporters::Encoding;
use crate::values::Compression;

/// Receiver `zipkin`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ZipkinReceiver {
    /// Where; without an endpoint localhost:9411.
    pub server: HttpServer,
    /// What.
    pub settings: ZipkinReceiverSettings,
}

/// What the receiver has beside its server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZipkinReceiverSettings {
    /// Tags that look like numbers or truths become such.
    pub parse_string_tags: bool,
}

/// Exporter `zipkin`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ZipkinExporter {
    /// Where to (`http://host:9411/api/v2/spans`) and how.
    pub client: HttpClient,
    /// What.
    pub settings: ZipkinExporterSettings,
}

/// What the exporter has beside its client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZipkinExporterSettings {
    /// The encoding of spans.
    pub format: Encoding,
    /// The service of spans that name none.
    pub default_service_name: String,
    /// What happens after a failure.
    pub retry_on_failure: Retry,
    /// What happens before.
    pub sending_queue: Queue,
}

impl Default for ZipkinExporterSettings {
    fn default() -> Self {
        ZipkinExporterSettings {
            format: Encoding::Json,
            default_service_name: "<missing service name>".to_owned(),
            retry_on_failure: Retry::default(),
            sending_queue: Queue::default(),
        }
    }
}

pub(crate) fn receiver(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<ZipkinReceiver> {
    let mut parts = Parts::of(node, key);
    let server = parts.take(diagnoses);
    let settings = parts.take(diagnoses);
    parts.finish(diagnoses);
    let receiver = server.zip(settings);
    receiver.map(|(server, settings)| ZipkinReceiver { server, settings })
}

pub(crate) fn exporter(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<ZipkinExporter> {
    let mut parts = Parts::of(node, key);
    let client: Option<HttpClient> = parts.take(diagnoses);
    let settings: Option<ZipkinExporterSettings> = parts.take(diagnoses);
    parts.finish(diagnoses);
    client.zip(settings).map(|(mut client, mut settings)| {
        settings.retry_on_failure.for_queue(&settings.sending_queue, node);
        // What other exporters over HTTP do unless told otherwise, this one does not.
        if node.get("compression").is_none() {
            client.compression = Compression::None;
        }
        if node.get("timeout").is_none() {
            client.timeout = Duration::from_secs(5);
        }
        ZipkinExporter { client, settings }
    })
}
