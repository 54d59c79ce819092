//! Real senders: the SDKs for Go, Rust and Python, and telemetrygen.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::ensure;
use libtest_mimic::Trial;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric;
use prost::Message;

use crate::support::Outcome;
use crate::support::backend::Backend;
use crate::support::daemon::{Daemon, free, peer, run};
use crate::support::peers::send;
use crate::support::stage::{Need, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("interop::the_sdk_for_go_sends", &[Need::Peer("send")], go),
        trial(
            "interop::the_sdk_for_rust_sends",
            &[Need::Peer("send-rust")],
            rust,
        ),
        trial(
            "interop::the_sdk_for_python_sends",
            &[Need::Peer("python")],
            python,
        ),
        trial(
            "interop::telemetrygen_sends",
            &[Need::Peer("telemetrygen")],
            telemetrygen,
        ),
    ]
}

/// A collector of ours that hands everything to a backend.
struct Ours {
    grpc: SocketAddr,
    http: SocketAddr,
    backend: Backend,
    _daemon: Daemon,
}

impl Ours {
    fn start(stage: &Stage) -> Outcome<Self> {
        let (grpc, http, backend) = (free()?, free()?, Backend::start()?);
        let document = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{grpc}'}}, http: {{endpoint: '{http}'}}}}}}}}
exporters: {{otlphttp: {{endpoint: 'http://{}', compression: none}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlphttp]}}
    metrics: {{receivers: [otlp], exporters: [otlphttp]}}
    logs: {{receivers: [otlp], exporters: [otlphttp]}}
",
            backend.address()
        );
        let daemon = Daemon::karez(stage, "collector", &document)?.listens(&[grpc, http])?;
        Ok(Ours {
            grpc,
            http,
            backend,
            _daemon: daemon,
        })
    }

    /// What came of a service: span names, attributes `number` of data points, bodies of records; in order of time.
    fn come(&self, service: &str) -> Outcome<[Vec<String>; 3]> {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for body in self.backend.came("/v1/traces") {
            for one in ExportTraceServiceRequest::decode(body)?.resource_spans {
                if is_of(one.resource.map(|resource| resource.attributes), service) {
                    let spans = one.scope_spans.into_iter().flat_map(|scoped| scoped.spans);
                    all[0].extend(spans.map(|span| span.name));
                }
            }
        }
        for body in self.backend.came("/v1/metrics") {
            for one in ExportMetricsServiceRequest::decode(body)?.resource_metrics {
                if is_of(one.resource.map(|resource| resource.attributes), service) {
                    let metrics = one.scope_metrics.into_iter().flat_map(|scoped| scoped.metrics);
                    for data in metrics.filter_map(|metric| metric.data) {
                        let points = match data {
                            metric::Data::Sum(sum) => sum.data_points,
                            metric::Data::Gauge(gauge) => gauge.data_points,
                            _ => Vec::new(),
                        };
                        all[1].extend(points.iter().map(|point| number(&point.attributes)));
                    }
                }
            }
        }
        for body in self.backend.came("/v1/logs") {
            for one in ExportLogsServiceRequest::decode(body)?.resource_logs {
                if is_of(one.resource.map(|resource| resource.attributes), service) {
                    let records = one.scope_logs.into_iter().flat_map(|scoped| scoped.log_records);
                    all[2].extend(records.map(|record| text(record.body.and_then(|body| body.value))));
                }
            }
        }
        Ok(all)
    }
}

fn is_of(resource: Option<Vec<KeyValue>>, service: &str) -> bool {
    let name = resource
        .into_iter()
        .flatten()
        .find(|attribute| attribute.key == "service.name");
    name.is_some_and(|name| text(name.value.and_then(|value| value.value)) == service)
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

fn number(attributes: &[KeyValue]) -> String {
    let number = attributes.iter().find(|attribute| attribute.key == "number");
    match number.and_then(|number| number.value.as_ref()?.value.as_ref()) {
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn go(stage: &Stage) -> Outcome {
    sdk(stage, "send")
}

fn rust(stage: &Stage) -> Outcome {
    sdk(stage, "send-rust")
}

/// A program with an SDK sends all three signals over both protocols, compressed and not; each item arrives once.
fn sdk(stage: &Stage, program: &str) -> Outcome {
    let ours = Ours::start(stage)?;
    let count = 7;
    for (protocol, at) in [("grpc", ours.grpc), ("http", ours.http)] {
        for compression in ["none", "gzip"] {
            let service = format!("{program}-{protocol}-{compression}");
            run(peer(program)?.args([
                protocol,
                &at.to_string(),
                &service,
                &count.to_string(),
                compression,
            ]))?;
            let expected = [
                (0..count)
                    .map(|number| format!("span-{number}"))
                    .collect::<Vec<_>>(),
                (0..count).map(|number| number.to_string()).collect(),
                (0..count).map(|number| format!("record {number}")).collect(),
            ];
            wait_for(format_args!("all of {service}"), 30, || {
                let mut come = ours.come(&service)?;
                come.iter_mut().for_each(|each| each.sort());
                Ok(if come == expected {
                    Ok(())
                } else {
                    Err(format!("{come:?}"))
                })
            })?;
        }
    }
    Ok(())
}

fn python(stage: &Stage) -> Outcome {
    let ours = Ours::start(stage)?;
    for (protocol, at) in [("otlp-grpc", ours.grpc), ("otlp-http", ours.http)] {
        let ids: BTreeSet<String> = send(protocol, at, protocol, 4)?.into_iter().collect();
        wait_until(
            format_args!("both spans of each trace over {protocol}"),
            30,
            || Ok(ours.come(protocol)?[0].len() == 8),
        )?;
        let mut come = BTreeSet::new();
        for body in ours.backend.came("/v1/traces") {
            let request = ExportTraceServiceRequest::decode(body)?;
            let scoped = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
            for span in scoped.flat_map(|scoped| scoped.spans) {
                let id: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
                come.insert(id);
            }
        }
        ensure!(ids.is_subset(&come), "{ids:?} were sent, {come:?} came");
    }
    Ok(())
}

fn telemetrygen(stage: &Stage) -> Outcome {
    let ours = Ours::start(stage)?;
    for (protocol, at) in [("grpc", ours.grpc), ("http", ours.http)] {
        let service = format!("generated-{protocol}");
        for (signal, count) in [
            ("traces", "--traces=5"),
            ("metrics", "--metrics=5"),
            ("logs", "--logs=5"),
        ] {
            let mut command = peer("telemetrygen")?;
            command.args([signal, "--otlp-insecure", &format!("--otlp-endpoint={at}"), count]);
            command.args(["--workers=1", "--rate=0", &format!("--service={service}")]);
            if protocol == "http" {
                command.arg("--otlp-http");
            }
            run(&mut command)?;
        }
        wait_for(format_args!("all of {service}"), 30, || {
            let come = ours.come(&service)?.map(|each| each.len());
            // A trace has a span of the client and one of the server.
            Ok(if come == [10, 5, 5] {
                Ok(())
            } else {
                Err(format!("{come:?}"))
            })
        })?;
    }
    Ok(())
}
