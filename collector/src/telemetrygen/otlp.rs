//! Traces as OTLP, over gRPC or HTTP, as `telemetrygen traces` sends them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use karez_net::Net;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::time::{Instant, MissedTickBehavior};

use super::client::{Client, ClientError};
use super::shape::{self, Trace};

/// Traces in one request when no rate is asked for.
const TRACES_PER_REQUEST: usize = 100;
/// Identifiers that a report keeps.
const KEPT_IDS: usize = 100_000;

/// How traces travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// OTLP over gRPC, port 4317.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf bodies, port 4318.
    Http,
}

/// How the connection is secured.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// No TLS at all.
    pub insecure: bool,
    /// TLS without looking at the server's certificate.
    pub skip_verify: bool,
    /// Authorities to trust instead of the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// Our certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must have, if not the endpoint's.
    pub server_name: Option<String>,
}

/// What to send where.
#[derive(Clone, Debug)]
pub struct TracesOptions {
    /// `HOST:PORT`, or a URL whose scheme overrides [`TlsOptions::insecure`].
    pub endpoint: String,
    /// How.
    pub transport: Transport,
    /// How secured.
    pub tls: TlsOptions,
    /// Request headers (for gRPC, metadata).
    pub headers: BTreeMap<String, String>,
    /// The path of HTTP requests.
    pub url_path: String,
    /// How many traces; ignored when there is a duration.
    pub traces: usize,
    /// How long to send.
    pub duration: Option<Duration>,
    /// Traces a second; 0 for as many as go.
    pub rate: f64,
    /// The service's name.
    pub service: String,
    /// More attributes of the resource.
    pub attributes: BTreeMap<String, String>,
    /// How long one request may take.
    pub timeout: Duration,
}

impl Default for TracesOptions {
    fn default() -> Self {
        Self {
            endpoint: "localhost:4317".to_owned(),
            transport: Transport::Grpc,
            tls: TlsOptions::default(),
            headers: BTreeMap::new(),
            url_path: "/v1/traces".to_owned(),
            traces: 1,
            duration: None,
            rate: 0.0,
            service: "telemetrygen".to_owned(),
            attributes: BTreeMap::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// What was sent and taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TracesReport {
    /// How many traces.
    pub traces: usize,
    /// How many spans.
    pub spans: usize,
    /// The traces' identifiers, 32 hexadecimal digits each; of very many the first.
    pub trace_ids: Vec<String>,
}

/// Why traces could not be delivered.
#[derive(Debug, thiserror::Error)]
#[error("after {} traces, {endpoint} {source}", .sent.traces)]
pub struct GenerateError {
    /// Where to.
    pub endpoint: String,
    /// What had been delivered by then.
    pub sent: TracesReport,
    /// What went wrong.
    pub source: ClientError,
}

/// Sends traces of two spans each and waits until the receiver has taken them. Dropping the future stops it.
pub async fn traces(options: TracesOptions, net: &Net) -> Result<TracesReport, GenerateError> {
    let mut report = TracesReport::default();
    match send_all(&options, net, &mut report).await {
        Ok(()) => Ok(report),
        Err(source) => Err(GenerateError {
            endpoint: options.endpoint,
            sent: report,
            source,
        }),
    }
}

async fn send_all(options: &TracesOptions, net: &Net, report: &mut TracesReport) -> Result<(), ClientError> {
    let client = Client::new(options, net)?;
    let until = options.duration.map(|duration| Instant::now() + duration);
    let mut pace = (options.rate > 0.0).then(|| {
        let mut ticks =
            tokio::time::interval(Duration::from_secs_f64((1.0 / options.rate).clamp(1e-6, 3_600.0)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    });
    loop {
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
        let left = match until {
            Some(_) => usize::MAX,
            None => options.traces.saturating_sub(report.traces),
        };
        if left == 0 {
            return Ok(());
        }
        let count = match &mut pace {
            None => left.min(TRACES_PER_REQUEST),
            Some(ticks) => {
                ticks.tick().await;
                1
            }
        };
        let batch: Vec<Trace> = (0..count).map(|_| Trace::random(SystemTime::now())).collect();
        client.export(request(&batch, options)).await?;
        report.traces += count;
        report.spans += 2 * count;
        let room = KEPT_IDS.saturating_sub(report.trace_ids.len());
        report
            .trace_ids
            .extend(batch.iter().take(room).map(|trace| hex::encode(trace.trace_id)));
    }
}

fn request(traces: &[Trace], options: &TracesOptions) -> ExportTraceServiceRequest {
    let mut attributes = vec![attribute("service.name", &options.service)];
    attributes.extend(
        options
            .attributes
            .iter()
            .map(|(key, value)| attribute(key, value)),
    );
    let scope = InstrumentationScope {
        name: "telemetrygen".to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: traces.iter().flat_map(spans).collect(),
        ..ScopeSpans::default()
    };
    let resource = Resource {
        attributes,
        ..Resource::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value.to_owned())),
    });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

fn spans(trace: &Trace) -> [Span; 2] {
    let span = |id: [u8; 8], name: &str, kind: SpanKind, peer: &str, start: u64, micros: u64| Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: id.to_vec(),
        flags: 1,
        name: name.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: start * 1_000,
        end_time_unix_nano: (start + micros) * 1_000,
        attributes: vec![
            attribute("net.peer.ip", shape::PEER_ADDRESS),
            attribute("peer.service", peer),
        ],
        ..Span::default()
    };
    let inner = trace.start + (shape::CLIENT_MICROS - shape::SERVER_MICROS) / 2;
    let client = span(
        trace.client,
        shape::CLIENT_NAME,
        SpanKind::Client,
        "telemetrygen-server",
        trace.start,
        shape::CLIENT_MICROS,
    );
    let mut server = span(
        trace.server,
        shape::SERVER_NAME,
        SpanKind::Server,
        "telemetrygen-client",
        inner,
        shape::SERVER_MICROS,
    );
    server.parent_span_id = trace.client.to_vec();
    [client, server]
}
