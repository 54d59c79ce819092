//! `otlphttp`: to another collector over HTTP, as protobuf (the payload as it is) or JSON.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use karez_collector_config::Signal;
use karez_collector_config::common::Sending;
use karez_collector_config::endpoint::http_url;
use karez_collector_config::exporters::{Encoding, OtlpHttpExporter};
use prost::Message;

use crate::batch::Batch;
use crate::batch_name;
use crate::client::{Answer, HttpClient};
use crate::component::{BatchName, ComponentContext, Exporter, Outcome, StartError};
use crate::exporters::otlp::report_partial_success;
use crate::json;
use crate::registry::BuiltExporter;
use crate::rpc::RpcStatus;

/// The exporter.
pub struct OtlpHttp {
    clients: [Option<HttpClient>; 3],
    encoding: Encoding,
    key: String,
}

/// Makes the exporter.
pub fn build(config: &OtlpHttpExporter, cx: &ComponentContext) -> Result<BuiltExporter, StartError> {
    let settings = &config.settings;
    let mut clients = [None, None, None];
    for signal in Signal::ALL {
        let (own, key) = match signal {
            Signal::Traces => (&settings.traces_endpoint, "traces_endpoint"),
            Signal::Metrics => (&settings.metrics_endpoint, "metrics_endpoint"),
            Signal::Logs => (&settings.logs_endpoint, "logs_endpoint"),
        };
        let (endpoint, key) = match (own.is_empty(), config.client.endpoint.is_empty()) {
            (false, _) => (own.clone(), key),
            (true, true) => continue,
            (true, false) => (
                format!("{}/v1/{signal}", config.client.endpoint.trim_end_matches('/')),
                "endpoint",
            ),
        };
        let url = http_url(&endpoint).map_err(|wrong| {
            let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
            StartError::config(key, message, mend)
        })?;
        clients[signal as usize] = Some(HttpClient::new(&config.client, url, cx)?);
    }
    let exporter = OtlpHttp {
        clients,
        encoding: settings.encoding,
        key: cx.key.clone(),
    };
    let sending = Sending {
        timeout: config.client.timeout,
        retry_on_failure: settings.retry_on_failure.clone(),
        sending_queue: settings.sending_queue.clone(),
    };
    Ok(BuiltExporter {
        exporter: Arc::new(exporter),
        sending: Some(sending),
    })
}

impl Exporter for OtlpHttp {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        self.send(batch, None)
    }

    fn export_named(&self, batch: Batch, name: BatchName) -> BoxFuture<'_, Outcome> {
        self.send(batch, Some(name))
    }
}

impl OtlpHttp {
    fn send(&self, batch: Batch, name: Option<BatchName>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(client) = &self.clients[batch.signal as usize] else {
                return Outcome::Refused {
                    reason: format!("no endpoint for {} is given", batch.signal),
                };
            };
            let (content_type, body) = match self.encoding {
                Encoding::Proto => ("application/x-protobuf", batch.payload.clone()),
                Encoding::Json => match json::from_batch(&batch) {
                    Ok(body) => ("application/json", body.into()),
                    Err(reason) => return Outcome::Refused { reason },
                },
            };
            match client
                .post_with(
                    content_type,
                    body,
                    name.and_then(|name| batch_name::header(&name)),
                )
                .await
            {
                Ok(answer) => self.outcome(client, batch.signal, &answer),
                Err(error) => Outcome::Retry {
                    after: None,
                    reason: format!("{}: {error}", client.url()),
                },
            }
        })
    }

    fn outcome(&self, client: &HttpClient, signal: Signal, answer: &Answer) -> Outcome {
        if answer.status.is_success() {
            if self.encoding == Encoding::Proto {
                report_partial_success(&self.key, signal, &answer.body);
            }
            return Outcome::Delivered;
        }
        let said = RpcStatus::decode(answer.body.clone())
            .map(|status| status.message)
            .unwrap_or_default();
        let reason = format!("{}: HTTP {}: {said}", client.url(), answer.status);
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Outcome::Retry {
                after: retry_after(&answer.headers),
                reason,
            },
            _ => Outcome::Refused { reason },
        }
    }
}

/// `Retry-After` in seconds. A date is left to our own back-off.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}
