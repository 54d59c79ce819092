//! Prometheus beside ours: it scrapes us, it receives our remote write, and it reads the node exporter as we do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use super::data::{PATHS, requests};
use crate::support::Outcome;
use crate::support::backend::{Backend, post};
use crate::support::daemon::{Daemon, free, peer};
use crate::support::http::get;
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const PROMETHEUS: &[Need] = &[Need::Peer("prometheus")];
    const NODE: &[Need] = &[
        Need::Peer("prometheus"),
        Need::Program("prometheus-node-exporter"),
    ];
    vec![
        trial("interop::prometheus_scrapes_ours", PROMETHEUS, scrapes_ours),
        trial(
            "interop::prometheus_receives_our_remote_write",
            PROMETHEUS,
            remote_write,
        ),
        trial(
            "interop::the_node_exporter_reads_as_prometheus_reads_it",
            NODE,
            node_exporter,
        ),
    ]
}

/// Prometheus on a free port.
struct Prometheus {
    at: SocketAddr,
    _daemon: Daemon,
}

impl Prometheus {
    fn start(stage: &Stage, scrape_configs: &str) -> Outcome<Self> {
        let at = free()?;
        let config = stage.path("prometheus.yaml");
        std::fs::write(&config, format!("scrape_configs: [{scrape_configs}]\n"))?;
        let mut command = peer("prometheus")?;
        command.args([
            "--web.enable-remote-write-receiver",
            "--enable-feature=native-histograms",
        ]);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", stage.path("tsdb").display()));
        command.arg(format!("--web.listen-address={at}"));
        let daemon = Daemon::start(stage, "prometheus", &mut command)?.listens(&[at])?;
        Ok(Prometheus { at, _daemon: daemon })
    }

    /// The series that a selector finds now, with their values.
    fn query(&self, selector: &str) -> Outcome<BTreeMap<String, String>> {
        let encoded: String = selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (status, body) = get(self.at, &format!("/api/v1/query?query={encoded}"))?;
        ensure!(status == 200, "{selector}: {status}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let found = answer["data"]["result"].as_array().context("a result")?;
        let series = found.iter().map(|series| {
            let labels: BTreeMap<String, Value> = serde_json::from_value(series["metric"].clone())?;
            let value = match &series["histogram"] {
                Value::Null => series["value"][1].as_str().unwrap_or_default().to_owned(),
                histogram => histogram[1].to_string(),
            };
            Ok((serde_json::to_string(&labels)?, value))
        });
        series.collect()
    }

    /// Waits until a query finds one value.
    fn expect(&self, selector: &str, value: &str) -> Outcome {
        wait_for(format_args!("{selector} to be {value}"), 30, || {
            let found = self.query(selector)?;
            let values: Vec<&String> = found.values().collect();
            Ok(if values == [value] {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            })
        })
    }
}

/// Ours, which receives OTLP and has these exporters for metrics.
fn ours(
    stage: &Stage,
    exporter: &str,
    keys: &str,
    opens: Option<SocketAddr>,
) -> Outcome<(Daemon, SocketAddr)> {
    let entry = free()?;
    let document = format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{entry}'}}}}}}}}
exporters: {{{exporter}: {{{keys}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{metrics: {{receivers: [otlp], exporters: [{exporter}]}}}}
"
    );
    let open: Vec<SocketAddr> = [entry].into_iter().chain(opens).collect();
    Ok((
        Daemon::karez(stage, "collector", &document)?.listens(&open)?,
        entry,
    ))
}

/// What arrived is of now: Prometheus takes nothing that is old.
fn metrics_of_now() -> Outcome<Vec<u8>> {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = u64::try_from(now.as_nanos())?;
    let mut request = ExportMetricsServiceRequest::decode(requests()[1].as_slice())?;
    request.resource_metrics.truncate(1);
    let scoped = request
        .resource_metrics
        .iter_mut()
        .flat_map(|one| &mut one.scope_metrics);
    for data in scoped
        .flat_map(|scoped| &mut scoped.metrics)
        .filter_map(|metric| metric.data.as_mut())
    {
        macro_rules! renew {
            ($points:expr) => {
                for point in $points {
                    (point.start_time_unix_nano, point.time_unix_nano) = (now - 60_000_000_000, now);
                }
            };
        }
        match data {
            Data::Gauge(data) => renew!(&mut data.data_points),
            Data::Sum(data) => renew!(&mut data.data_points),
            Data::Histogram(data) => renew!(&mut data.data_points),
            Data::ExponentialHistogram(data) => renew!(&mut data.data_points),
            Data::Summary(data) => renew!(&mut data.data_points),
        }
    }
    Ok(request.encode_to_vec())
}

fn send_metrics(to: SocketAddr) -> Outcome {
    let (status, said) = post(
        to,
        PATHS[1],
        "Content-Type: application/x-protobuf\r\n",
        &metrics_of_now()?,
    )?;
    ensure!(status == 200, "{status}: {said}");
    Ok(())
}

fn scrapes_ours(stage: &Stage) -> Outcome {
    let at = free()?;
    let (_daemon, entry) = ours(stage, "prometheus", &format!("endpoint: '{at}'"), Some(at))?;
    let job = format!("{{job_name: ours, scrape_interval: 1s, static_configs: [{{targets: ['{at}']}}]}}");
    let prometheus = Prometheus::start(stage, &job)?;
    send_metrics(entry)?;
    prometheus.expect("up{job=\"ours\"}", "1")?;
    prometheus.expect("level_bytes{shard=\"0\"}", "-2.5")?;
    prometheus.expect("requests_bytes_total{shard=\"0\"}", "42")?;
    prometheus.expect("requests_bytes_total{shard=\"1\"}", "0.5")?;
    prometheus.expect("latency_bytes_bucket{le=\"2.5\"}", "3")?;
    prometheus.expect("latency_bytes_bucket{le=\"+Inf\"}", "6")?;
    prometheus.expect("latency_bytes_sum", "12.5")?;
    prometheus.expect("quantiles_bytes{quantile=\"0.99\"}", "9.9")
}

fn remote_write(stage: &Stage) -> Outcome {
    let prometheus = Prometheus::start(stage, "")?;
    let keys = format!("endpoint: 'http://{}/api/v1/write'", prometheus.at);
    let (_daemon, entry) = ours(stage, "prometheusremotewrite", &keys, None)?;
    send_metrics(entry)?;
    prometheus.expect("level_bytes{shard=\"0\"}", "-2.5")?;
    prometheus.expect("requests_bytes_total{shard=\"0\"}", "42")?;
    prometheus.expect("latency_bytes_bucket{le=\"2.5\"}", "3")?;
    prometheus.expect("latency_bytes_count", "6")?;
    prometheus.expect("quantiles_bytes{quantile=\"0.99\"}", "9.9")?;
    prometheus.expect("histogram_count(size_bytes)", "310")?;
    prometheus.expect("histogram_sum(size_bytes)", "20")
}

/// A page of the node exporter that does not change meanwhile is read by both; what we read goes to Prometheus by
/// remote write. Every series is there twice, with the same value.
fn node_exporter(stage: &Stage) -> Outcome {
    let node = free()?;
    let mut command = Command::new("prometheus-node-exporter");
    command.arg(format!("--web.listen-address={node}"));
    let _node = Daemon::start(stage, "node-exporter", &mut command)?.listens(&[node])?;
    let (status, page) = get(node, "/metrics")?;
    ensure!(status == 200 && page.lines().count() > 200, "{status}: {page}");
    let frozen = Backend::start()?;
    frozen.page("/metrics", "text/plain; version=0.0.4; charset=utf-8", page);
    let job = format!(
        "job_name: node, scrape_interval: 1s, static_configs: [{{targets: ['{}']}}]",
        frozen.address()
    );
    let prometheus = Prometheus::start(stage, &format!("{{{job}}}"))?;
    let document = format!(
        "receivers: {{prometheus: {{config: {{scrape_configs: [{{{job}}}]}}}}}}
exporters:
  prometheusremotewrite:
    endpoint: 'http://{}/api/v1/write'
    external_labels: {{via: karez}}
    target_info: {{enabled: false}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{metrics: {{receivers: [prometheus], exporters: [prometheusremotewrite]}}}}
",
        prometheus.at
    );
    let _ours = Daemon::karez(stage, "collector", &document)?;
    wait_for("the same series by both ways", 40, || {
        let theirs = prometheus.query("{job=\"node\", via=\"\", __name__!~\"scrape_.*\"}")?;
        let ours = prometheus.query("{job=\"node\", via=\"karez\", __name__!~\"scrape_.*\"}")?;
        let ours: BTreeMap<String, String> = ours
            .into_iter()
            .map(|(labels, value)| (numbers_alike(&labels.replace(",\"via\":\"karez\"", "")), value))
            .collect();
        let theirs: BTreeMap<String, String> = theirs
            .into_iter()
            .map(|(labels, value)| (numbers_alike(&labels), value))
            .collect();
        if theirs.len() < 200 || ours.len() < theirs.len() {
            return Ok(Err(format!("{} and {} series", theirs.len(), ours.len())));
        }
        let differing = theirs
            .iter()
            .find(|(labels, value)| ours.get(*labels) != Some(value));
        let more = ours.keys().find(|labels| !theirs.contains_key(*labels));
        Ok(match (differing, more) {
            (None, None) => Ok(()),
            (Some((labels, value)), _) => Err(format!(
                "{labels} is {value} there and {:?} here",
                ours.get(labels)
            )),
            (None, Some(labels)) => Err(format!("{labels} is only here")),
        })
    })
}

/// Labels with `le` and `quantile` in one spelling: Prometheus 3 writes `0.0` for what it scrapes itself where the
/// exporter, and so a remote write, says `0`.
fn numbers_alike(labels: &str) -> String {
    let mut labels = labels.to_owned();
    for name in ["\"le\":\"", "\"quantile\":\""] {
        let Some(start) = labels.find(name).map(|at| at + name.len()) else {
            continue;
        };
        let end = labels[start..]
            .find('"')
            .map_or(labels.len(), |length| start + length);
        if let Ok(number) = labels[start..end].parse::<f64>() {
            labels.replace_range(start..end, &number.to_string());
        }
    }
    labels
}
