//! Jaeger behind ours: it shows of a request that came by our exporters what it shows of the same request sent to it
//! without us.
//!
//! ```text
//! test ─┬───────────────────────────────────▶ Jaeger ─ query API ─▶ test
//!       └─▶ ours: otlp, otlphttp, jaeger, zipkin ─▶ │
//! ```
//!
//! This peer is built only when it is named (`tests/peers/build jaeger`), so the tests are there only where it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};

use super::data::requests;
use crate::support::Outcome;
use crate::support::backend::post;
use crate::support::cluster::text;
use crate::support::daemon::{Daemon, free, peer};
use crate::support::http::trace;
use crate::support::peers::locate;
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Peer("jaeger")];
    match locate("jaeger") {
        Some(_) => vec![trial("interop::jaeger_shows_what_ours_sends", NEEDS, shows)],
        None => Vec::new(),
    }
}

/// Jaeger with all its doors.
struct Jaeger {
    grpc: SocketAddr,
    otlp_grpc: SocketAddr,
    otlp_http: SocketAddr,
    zipkin: SocketAddr,
    query: SocketAddr,
    _daemon: Daemon,
}

impl Jaeger {
    fn start(stage: &Stage) -> Outcome<Self> {
        let mut command = peer("jaeger")?;
        let mut open = Vec::new();
        for flag in [
            "collector.grpc-server",
            "collector.otlp.grpc",
            "collector.otlp.http",
            "collector.zipkin",
            "query.http-server",
            "collector.http-server",
            "query.grpc-server",
            "admin.http",
        ] {
            let at = free()?;
            command.arg(format!("--{flag}.host-port={at}"));
            open.push(at);
        }
        command.env("SPAN_STORAGE_TYPE", "memory");
        let daemon = Daemon::start(stage, "jaeger", &mut command)?.listens(&open)?;
        Ok(Jaeger {
            grpc: open[0],
            otlp_grpc: open[1],
            otlp_http: open[2],
            zipkin: open[3],
            query: open[4],
            _daemon: daemon,
        })
    }
}

/// The way on which a request comes, which is the first byte of its traces' identifiers.
const DIRECT: u8 = 0x10;
const WAYS: [(u8, &str); 4] = [
    (0x20, "otlp"),
    (0x30, "otlphttp"),
    (0x40, "jaeger"),
    (0x50, "zipkin"),
];

/// The usual request with traces of its own, in which no two spans have the same identifier.
fn request(way: u8) -> Outcome<(Vec<u8>, Vec<String>)> {
    let mut request = ExportTraceServiceRequest::decode(requests()[0].as_slice())?;
    let mut ids = Vec::new();
    for (number, resource) in (0_u8..).zip(&mut request.resource_spans) {
        for span in resource
            .scope_spans
            .iter_mut()
            .flat_map(|scoped| &mut scoped.spans)
        {
            span.trace_id[0] = way;
            span.span_id[0] = number + 1;
            let id = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Ok((request.encode_to_vec(), ids))
}

fn shows(stage: &Stage) -> Outcome {
    let jaeger = Jaeger::start(stage)?;
    let mut entries = BTreeMap::new();
    let (mut receivers, mut pipelines) = (String::new(), String::new());
    for (_, name) in WAYS {
        let at = free()?;
        receivers.push_str(&format!(
            "  otlp/{name}: {{protocols: {{http: {{endpoint: '{at}'}}}}}}\n"
        ));
        pipelines.push_str(&format!(
            "    traces/{name}: {{receivers: [otlp/{name}], exporters: [{name}]}}\n"
        ));
        entries.insert(name, at);
    }
    let document = format!(
        "receivers:\n{receivers}exporters:
  otlp: {{endpoint: '{}', tls: {{insecure: true}}}}
  otlphttp: {{endpoint: 'http://{}'}}
  jaeger: {{endpoint: '{}', tls: {{insecure: true}}}}
  zipkin: {{endpoint: 'http://{}/api/v2/spans'}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:\n{pipelines}",
        jaeger.otlp_grpc, jaeger.otlp_http, jaeger.grpc, jaeger.zipkin
    );
    let open: Vec<SocketAddr> = entries.values().copied().collect();
    let _ours = Daemon::karez(stage, "ours", &document)?.listens(&open)?;
    let (sent, direct) = request(DIRECT)?;
    export(jaeger.otlp_http, &sent)?;
    for (way, name) in WAYS {
        let (sent, ids) = request(way)?;
        export(entries[name], &sent)?;
        for (id, direct) in ids.iter().zip(&direct) {
            let expected = shown(jaeger.query, direct, name)?;
            let found = shown(jaeger.query, id, name)?;
            for (expected, found) in expected.iter().zip(&found) {
                ensure!(
                    expected == found,
                    "{name}: Jaeger shows\n{found:#}\nand of what is sent to it without us\n{expected:#}"
                );
            }
        }
    }
    Ok(())
}

fn export(to: SocketAddr, body: &[u8]) -> Outcome {
    let (status, said) = post(to, "/v1/traces", "Content-Type: application/x-protobuf\r\n", body)?;
    ensure!(status == 200, "{to}: {status}: {said}");
    Ok(())
}

/// The three spans of a trace as Jaeger shows them, as far as this way carries them.
fn shown(query: SocketAddr, id: &str, way: &str) -> Outcome<Vec<Value>> {
    wait_for(format_args!("the trace {id} ({way})"), 30, || {
        let Some(trace) = trace(query, id)? else {
            return Ok(Err("it is not there".to_owned()));
        };
        let spans = trace["spans"].as_array().context("spans")?;
        let mut shown: Vec<Value> = spans.iter().map(|span| plain(&trace, span, way)).collect();
        shown.sort_by_key(|span| text(span, "/id").to_owned());
        Ok(match shown.len() {
            3 => Ok(shown),
            other => Err(format!("it has {other} spans")),
        })
    })
}

fn plain(trace: &Value, span: &Value, way: &str) -> Value {
    let process = &trace["processes"][text(span, "/processID")];
    let mut plain = json!({
        "id": span["spanID"], "name": span["operationName"], "start": span["startTime"], "took": span["duration"],
        "service": process["serviceName"],
    });
    if way == "zipkin" {
        // Everything else is text there.
        return plain;
    }
    let own = text(trace, "/traceID");
    let references = span["references"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|reference| {
            let to = match text(reference, "/traceID") {
                id if id == own => "own",
                other => other,
            };
            format!(
                "{} {to} {}",
                text(reference, "/refType"),
                text(reference, "/spanID")
            )
        });
    let logs = span["logs"].as_array().into_iter().flatten();
    plain["references"] = references.collect();
    plain["tags"] = tags(&span["tags"]);
    plain["process"] = tags(&process["tags"]);
    plain["logs"] = logs
        .map(|log| json!({"at": log["timestamp"], "fields": tags(&log["fields"])}))
        .collect();
    plain
}

/// Tags in the order of their names.
fn tags(tags: &Value) -> Value {
    let mut tags: Vec<String> = tags
        .as_array()
        .into_iter()
        .flatten()
        .map(|tag| format!("{} {} {}", text(tag, "/key"), text(tag, "/type"), tag["value"]))
        // Jaeger's own note on the door by which a span came.
        .filter(|tag| !tag.starts_with("@jaeger@format "))
        .collect();
    tags.sort();
    tags.into()
}
