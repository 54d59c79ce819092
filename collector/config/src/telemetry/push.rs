//! `service.telemetry.metrics.readers[].periodic`: where the collector's own metrics are pushed to, in the spellings of
//! the OpenTelemetry configuration: `otlp` with its `protocol`, or `otlp_http` and `otlp_grpc`.

use std::time::Duration;

use indexmap::IndexMap;
use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use serde::Deserialize;

use crate::common::{ClientTls, GrpcClient, HttpClient, Sending};
use crate::endpoint::{grpc_target, http_url};
use crate::exporters::{GrpcExporter, OtlpHttpExporter, OtlpHttpSettings};
use crate::values::{Compression, Secret};

/// A place that the collector's own metrics are pushed to.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The exporter's key, for messages.
    pub key: String,
    /// How often.
    pub interval: Duration,
    /// How.
    pub exporter: PushExporter,
}

/// How metrics are pushed.
#[derive(Debug, Clone, PartialEq)]
pub enum PushExporter {
    /// OTLP over gRPC.
    Grpc(Box<GrpcExporter>),
    /// OTLP over HTTP, as protobuf.
    Http(Box<OtlpHttpExporter>),
}

impl PushExporter {
    /// The endpoint.
    pub fn endpoint(&self) -> &str {
        match self {
            PushExporter::Grpc(exporter) => &exporter.client.endpoint,
            PushExporter::Http(exporter) => &exporter.settings.metrics_endpoint,
        }
    }
}

/// Durations are milliseconds here, as in the OpenTelemetry configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Periodic {
    interval: Option<u64>,
    timeout: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Otlp {
    protocol: Option<String>,
    endpoint: String,
    certificate: String,
    client_certificate: String,
    client_key: String,
    insecure: bool,
    tls: Option<Tls>,
    headers: Headers,
    headers_list: Secret,
    compression: Option<String>,
    encoding: Option<String>,
    timeout: Option<u64>,
    temporality_preference: Option<String>,
    default_histogram_aggregation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tls {
    ca_file: String,
    cert_file: String,
    key_file: String,
    insecure: bool,
}

/// A list of names and values, or a mapping as before.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Headers {
    List(Vec<Header>),
    Map(IndexMap<String, Secret>),
}

impl Default for Headers {
    fn default() -> Self {
        Headers::List(Vec::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    value: Secret,
}

/// Reads `periodic:`.
pub(super) fn read(periodic: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Push> {
    super::known(periodic, key, &["interval", "timeout", "exporter"], diagnoses);
    let times: Periodic = decode_at(periodic, key, diagnoses)?;
    let exporters = periodic.get("exporter").map(Node::entries).unwrap_or_default();
    let below = join_key(key, "exporter");
    let [exporter] = exporters else {
        let place = periodic.key_place("exporter");
        let mend = "write `otlp: {protocol: grpc, endpoint: …}` below it";
        diagnoses.push(Diagnosis::error(place, below, "there is not exactly one", mend));
        return None;
    };
    let kind = exporter.key.as_str();
    if !matches!(kind, "otlp" | "otlp_http" | "otlp_grpc") {
        let place = periodic.get("exporter")?.key_place(kind);
        let message = "is not supported: Karez pushes its own metrics by OTLP";
        let mend = "write `otlp`, or look at /metrics of a `pull` reader";
        diagnoses.push(Diagnosis::error(place, join_key(&below, kind), message, mend));
        return None;
    }
    let at = At {
        node: &exporter.value,
        key: join_key(&below, kind),
    };
    let written: Otlp = decode_at(at.node, &at.key, diagnoses)?;
    let exporter = at.exporter(kind, written, times.timeout, diagnoses)?;
    Some(Push {
        key: at.key,
        interval: Duration::from_millis(times.interval.unwrap_or(60_000).max(100)),
        exporter,
    })
}

/// The exporter's block.
struct At<'a> {
    node: &'a Node,
    key: String,
}

impl At<'_> {
    fn wrong(&self, name: &str, message: &str, mend: &str, diagnoses: &mut Vec<Diagnosis>) {
        let place = self.node.key_place(name);
        diagnoses.push(Diagnosis::error(place, join_key(&self.key, name), message, mend));
    }

    fn exporter(
        &self,
        kind: &str,
        written: Otlp,
        timeout: Option<u64>,
        diagnoses: &mut Vec<Diagnosis>,
    ) -> Option<PushExporter> {
        let grpc = match (kind, written.protocol.as_deref()) {
            ("otlp", Some("grpc")) | ("otlp_grpc", None) => true,
            ("otlp", Some("http/protobuf")) | ("otlp_http", None) => false,
            ("otlp", _) => {
                let message = "Karez pushes by `grpc` or `http/protobuf`";
                self.wrong("protocol", message, "write one of them", diagnoses);
                return None;
            }
            _ => {
                let message = "the exporter's name says it";
                self.wrong("protocol", message, "remove it", diagnoses);
                return None;
            }
        };
        self.check(&written, diagnoses);
        let compression = match written.compression.as_deref() {
            None | Some("" | "none") => Compression::None,
            Some("gzip") => Compression::Gzip,
            Some(_) => {
                self.wrong("compression", "is not known", "write gzip or none", diagnoses);
                return None;
            }
        };
        let waits = timeout
            .unwrap_or(30_000)
            .min(written.timeout.unwrap_or(10_000))
            .max(100);
        let timeout = Duration::from_millis(waits);
        let headers = self.headers(&written, diagnoses);
        let tls = tls(&written);
        match grpc {
            true => self.grpc(written.endpoint, compression, tls, headers, timeout, diagnoses),
            false => self.http(&written.endpoint, compression, tls, headers, timeout, diagnoses),
        }
    }

    /// What is accepted only as it is anyway.
    fn check(&self, written: &Otlp, diagnoses: &mut Vec<Diagnosis>) {
        if !matches!(
            written.temporality_preference.as_deref(),
            None | Some("cumulative")
        ) {
            let message = "Karez counts from its start on";
            self.wrong("temporality_preference", message, "write `cumulative`", diagnoses);
        }
        if !matches!(written.encoding.as_deref(), None | Some("protobuf")) {
            let message = "Karez pushes protobuf";
            self.wrong("encoding", message, "write `protobuf`", diagnoses);
        }
        // None of the collector's own metrics is a histogram.
        if !matches!(
            written.default_histogram_aggregation.as_deref(),
            None | Some("explicit_bucket_histogram" | "base2_exponential_bucket_histogram")
        ) {
            let message = "is no aggregation";
            let mend = "write `explicit_bucket_histogram`, or remove it";
            self.wrong("default_histogram_aggregation", message, mend, diagnoses);
        }
    }

    /// `headers` win over `headers_list`.
    fn headers(&self, written: &Otlp, diagnoses: &mut Vec<Diagnosis>) -> IndexMap<String, Secret> {
        let mut headers = IndexMap::new();
        for pair in written.headers_list.expose().split(',') {
            let pair = pair.trim();
            match pair.split_once('=') {
                Some((name, value)) => {
                    headers.insert(name.trim().to_owned(), Secret::new(value.trim()));
                }
                None if pair.is_empty() => {}
                None => {
                    let message = "is no list of NAME=VALUE";
                    self.wrong("headers_list", message, "separate pairs by commas", diagnoses);
                }
            }
        }
        match &written.headers {
            Headers::List(list) => headers.extend(list.iter().map(|h| (h.name.clone(), h.value.clone()))),
            Headers::Map(map) => {
                headers.extend(map.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        headers
    }

    fn grpc(
        &self,
        endpoint: String,
        compression: Compression,
        tls: ClientTls,
        headers: IndexMap<String, Secret>,
        timeout: Duration,
        diagnoses: &mut Vec<Diagnosis>,
    ) -> Option<PushExporter> {
        if let Err(wrong) = grpc_target(&endpoint) {
            let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "write HOST:PORT"));
            self.wrong("endpoint", message, mend, diagnoses);
            return None;
        }
        let client = GrpcClient {
            endpoint,
            compression,
            tls,
            headers,
            ..GrpcClient::default()
        };
        let sending = Sending {
            timeout,
            ..Sending::default()
        };
        Some(PushExporter::Grpc(Box::new(GrpcExporter { client, sending })))
    }

    fn http(
        &self,
        endpoint: &str,
        compression: Compression,
        tls: ClientTls,
        headers: IndexMap<String, Secret>,
        timeout: Duration,
        diagnoses: &mut Vec<Diagnosis>,
    ) -> Option<PushExporter> {
        let url = match http_url(endpoint) {
            Ok(url) => url,
            Err(wrong) => {
                let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
                self.wrong("endpoint", message, mend, diagnoses);
                return None;
            }
        };
        // A path is taken as it is; without one it is the usual one.
        let metrics_endpoint = match url.path() {
            "" | "/" => format!("{}/v1/metrics", endpoint.trim().trim_end_matches('/')),
            _ => endpoint.trim().to_owned(),
        };
        let client = HttpClient {
            endpoint: String::new(),
            compression,
            tls,
            headers,
            timeout,
            ..HttpClient::default()
        };
        let settings = OtlpHttpSettings {
            metrics_endpoint,
            ..OtlpHttpSettings::default()
        };
        Some(PushExporter::Http(Box::new(OtlpHttpExporter {
            client,
            settings,
        })))
    }
}

fn tls(written: &Otlp) -> ClientTls {
    let own = written.tls.as_ref();
    let file = |of: fn(&Tls) -> &String, old: &String| {
        let own = own.map(of).filter(|file| !file.is_empty());
        own.unwrap_or(old).clone()
    };
    ClientTls {
        insecure: written.insecure || own.is_some_and(|tls| tls.insecure),
        ca_file: file(|tls| &tls.ca_file, &written.certificate),
        cert_file: file(|tls| &tls.cert_file, &written.client_certificate),
        key_file: file(|tls| &tls.key_file, &written.client_key),
        ..ClientTls::default()
    }
}
