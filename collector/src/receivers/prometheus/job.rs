//! A job: its configuration, the client of its targets, the headers of its requests.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use karez_exposition::text::Format;
use karez_net::Net;
use karez_scrape::client::{Client, ClientError};
use karez_scrape::config::ScrapeConfig;
use karez_scrape::config::values::Protocol;

use super::follow::Sampled;

/// What the targets of a job have in common.
pub(super) struct Job {
    pub(super) config: Arc<ScrapeConfig>,
    pub(super) client: Client,
    pub(super) headers: HeaderMap,
    /// `report_extra_scrape_metrics`
    pub(super) extra: bool,
    /// Where an allocator is told from how much scrapes give.
    pub(super) sampled: Option<Sampled>,
}

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposed {
    Text(Format),
    Protobuf,
}

impl Job {
    pub(super) fn new(config: ScrapeConfig, net: &Net, extra: bool) -> Result<Self, ClientError> {
        let client = Client::new(&config.http, net)?;
        let mut headers = HeaderMap::new();
        if let Ok(accept) = HeaderValue::from_str(&accept(&config.protocols)) {
            headers.insert(header::ACCEPT, accept);
        }
        if config.compression {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Ok(seconds) = HeaderValue::from_str(&config.timeout.as_secs_f64().to_string()) {
            headers.insert("x-prometheus-scrape-timeout-seconds", seconds);
        }
        Ok(Job {
            config: Arc::new(config),
            client,
            headers,
            extra,
            sampled: None,
        })
    }

    /// The format that an answer says it has; what says nothing that is known is read as the fallback.
    pub(super) fn exposed(&self, content_type: &str) -> Exposed {
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        match media.as_str() {
            "application/openmetrics-text" => Exposed::Text(Format::OpenMetrics),
            "text/plain" => Exposed::Text(Format::Prometheus),
            "application/vnd.google.protobuf" => Exposed::Protobuf,
            _ => match self.config.fallback_protocol {
                Some(Protocol::PrometheusProto) => Exposed::Protobuf,
                Some(Protocol::OpenMetricsText001 | Protocol::OpenMetricsText100) => {
                    Exposed::Text(Format::OpenMetrics)
                }
                _ => Exposed::Text(Format::Prometheus),
            },
        }
    }
}

/// The first protocol weighs most.
fn accept(protocols: &[Protocol]) -> String {
    let mut text = String::new();
    for (index, protocol) in protocols.iter().enumerate() {
        let weight = protocols.len() + 1 - index;
        text.push_str(&format!("{};q=0.{weight},", protocol.media_type()));
    }
    text.push_str("*/*;q=0.1");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_weighs_most() {
        let accept = accept(&[Protocol::OpenMetricsText100, Protocol::PrometheusText004]);
        assert_eq!(
            accept,
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
    }
}
