//! `zipkin`: spans to a Zipkin collector, as JSON or protobuf of its version 2.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::StatusCode;
use karez_collector_config::common::Sending;
use karez_collector_config::endpoint::http_url;
use karez_collector_config::exporters::Encoding;
use karez_collector_config::zipkin::ZipkinExporter;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;

use crate::batch::Batch;
use crate::client::HttpClient;
use crate::component::{ComponentContext, Exporter, Outcome, StartError};
use crate::registry::BuiltExporter;
use crate::zipkin::{from_otlp, proto};

/// The exporter.
pub struct Zipkin {
    client: HttpClient,
    format: Encoding,
    default_service: String,
}

/// Makes the exporter.
pub fn build(config: &ZipkinExporter, cx: &ComponentContext) -> Result<BuiltExporter, StartError> {
    let url = http_url(&config.client.endpoint).map_err(|wrong| {
        let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
        StartError::config("endpoint", message, mend)
    })?;
    let settings = &config.settings;
    let exporter = Zipkin {
        client: HttpClient::new(&config.client, url, cx)?,
        format: settings.format,
        default_service: settings.default_service_name.clone(),
    };
    Ok(BuiltExporter {
        exporter: Arc::new(exporter),
        sending: Some(Sending {
            timeout: config.client.timeout,
            retry_on_failure: settings.retry_on_failure.clone(),
            sending_queue: settings.sending_queue.clone(),
        }),
    })
}

impl Exporter for Zipkin {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let (content_type, body) = match self.encode(&batch) {
                Ok(encoded) => encoded,
                Err(reason) => return Outcome::Refused { reason },
            };
            let url = self.client.url();
            match self.client.post(content_type, body.into()).await {
                Ok(answer) if answer.status.is_success() => Outcome::Delivered,
                Ok(answer) => {
                    let reason = format!("{url}: HTTP {}", answer.status);
                    match answer.status {
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                            Outcome::Retry { after: None, reason }
                        }
                        status if status.is_server_error() => Outcome::Retry { after: None, reason },
                        _ => Outcome::Refused { reason },
                    }
                }
                Err(error) => Outcome::Retry {
                    after: None,
                    reason: format!("{url}: {error}"),
                },
            }
        })
    }
}

impl Zipkin {
    fn encode(&self, batch: &Batch) -> Result<(&'static str, Vec<u8>), String> {
        let data: TracesData = batch.decode().map_err(|error| error.to_string())?;
        let spans = from_otlp::spans(data.resource_spans, &self.default_service);
        match self.format {
            Encoding::Json => {
                let json = serde_json::to_vec(&spans).map_err(|error| error.to_string())?;
                Ok(("application/json", json))
            }
            Encoding::Proto => {
                let list = proto::ListOfSpans {
                    spans: spans.into_iter().map(Into::into).collect(),
                };
                Ok(("application/x-protobuf", list.encode_to_vec()))
            }
        }
    }
}
