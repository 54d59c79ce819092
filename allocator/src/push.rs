//! The allocator's own figures, pushed by OTLP over HTTP as JSON: the same that `/metrics` shows.
//!
//! ```text
//! /metrics, as text ─▶ families ─▶ OTLP: gauges, sums, histograms ─▶ POST, every so often
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use karez_exposition::text::{Format, parse};
use karez_exposition::{Histogram, Kind, Meta, Sample, Sink, series};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_scrape::client::Client;
use karez_scrape::config::HttpConfig;
use karez_scrape::config::http::Header;
use serde_json::{Value, json};

use crate::config::Push;
use crate::shared::Shared;

/// Cumulative, as OTLP numbers it.
const CUMULATIVE: u8 = 2;

/// Pushes until the shutdown. What is not taken is pushed again with the next figures, which hold it.
pub(crate) async fn push(to: Push, net: Net, shared: Arc<Shared>, shutdown: Shutdown) {
    let headers = to.headers.iter().map(|(name, value)| {
        let header = Header {
            secrets: vec![value.clone()],
            ..Header::default()
        };
        (name.clone(), header)
    });
    let config = HttpConfig {
        headers: headers.collect(),
        ..HttpConfig::default()
    };
    let client = match Client::new(&config, &net) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(url = shown(&to.url), %error, "no figures are pushed");
            return;
        }
    };
    let begun = now();
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(to.interval) => {}
            () = shutdown.triggered() => return,
        }
        let body = request(&shared.figures(), begun, now()).to_string();
        let sent = client.post_json(&to.url, body.into_bytes(), to.timeout).await;
        let reason = match sent {
            Ok(status) if status.is_success() => None,
            Ok(status) => Some(format!("the answer is {status}")),
            Err(error) => Some(error.to_string()),
        };
        match &reason {
            Some(reason) if !failing => {
                tracing::warn!(
                    url = shown(&to.url),
                    reason,
                    "figures cannot be pushed; trying again"
                );
            }
            None if failing => tracing::info!(url = shown(&to.url), "figures are pushed again"),
            _ => {}
        }
        failing = reason.is_some();
    }
}

/// An address without what may be secret in it.
fn shown(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else {
        return String::new();
    };
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The figures of a page as a request of OTLP.
fn request(text: &str, begun: Duration, now: Duration) -> Value {
    let mut families = Families::default();
    // The page is our own.
    let _ = parse(text, Format::Prometheus, &mut families);
    let (begun, now) = (begun.as_nanos().to_string(), now.as_nanos().to_string());
    let metrics: Vec<Value> = families
        .0
        .iter()
        .filter_map(|(name, family)| family.metric(name, &begun, &now))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({"resourceMetrics": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "target-allocator"}},
            {"key": "service.version", "value": {"stringValue": version}},
        ]},
        "scopeMetrics": [{"scope": {"name": "targetallocator"}, "metrics": metrics}],
    }]})
}

/// Labels, without those of buckets.
type Labels = BTreeMap<String, String>;

/// A histogram as its series tell it.
#[derive(Default)]
struct Buckets {
    /// Upper bounds and how many are up to them.
    bounds: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

#[derive(Default)]
struct Family {
    kind: Kind,
    help: String,
    values: Vec<(Labels, f64)>,
    histograms: BTreeMap<Labels, Buckets>,
}

#[derive(Default)]
struct Families(BTreeMap<String, Family>);

impl Sink for Families {
    type Stop = Infallible;

    fn meta(&mut self, family: &str, meta: Meta<'_>) -> Result<(), Infallible> {
        let family = self.0.entry(family.to_owned()).or_default();
        match meta {
            Meta::Help(help) => help.clone_into(&mut family.help),
            Meta::Kind(kind) => family.kind = kind,
            Meta::Unit(_) => {}
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), Infallible> {
        let mut labels = Labels::new();
        let name = series::parse(sample.series, |name, value| {
            labels.insert(name.into_owned(), value.into_owned());
        });
        let Ok(name) = name else { return Ok(()) };
        if let Some(family) = self.0.get_mut(&*name) {
            family.values.push((labels, sample.value));
            return Ok(());
        }
        let Some((base, part)) = name.rsplit_once('_') else {
            return Ok(());
        };
        let Some(family) = self.0.get_mut(base) else {
            return Ok(());
        };
        let bound = labels.remove("le");
        let buckets = family.histograms.entry(labels).or_default();
        match part {
            "bucket" => {
                // The last one, which has no bound, is the count.
                let bound = bound.and_then(|bound| bound.parse().ok());
                let bound = bound.filter(|bound: &f64| bound.is_finite());
                buckets.bounds.extend(bound.map(|bound| (bound, sample.value)));
            }
            "sum" => buckets.sum = sample.value,
            "count" => buckets.count = sample.value,
            _ => {}
        }
        Ok(())
    }

    fn histogram(&mut self, _: &Histogram<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

fn attributes(labels: &Labels) -> Vec<Value> {
    let attribute = |(key, value): (&String, &String)| json!({"key": key, "value": {"stringValue": value}});
    labels.iter().map(attribute).collect()
}

impl Family {
    /// As OTLP has it; nothing where there is none.
    fn metric(&self, name: &str, begun: &str, now: &str) -> Option<Value> {
        let point = |(labels, value): &(Labels, f64)| json!({"attributes": attributes(labels), "startTimeUnixNano": begun, "timeUnixNano": now, "asDouble": value});
        let points: Vec<Value> = match self.kind {
            Kind::Histogram => self
                .histograms
                .iter()
                .map(|(labels, buckets)| buckets.point(labels, begun, now))
                .collect(),
            _ => self.values.iter().map(point).collect(),
        };
        if points.is_empty() {
            return None;
        }
        let (kind, data) = match self.kind {
            Kind::Histogram => (
                "histogram",
                json!({"aggregationTemporality": CUMULATIVE, "dataPoints": points}),
            ),
            Kind::Counter => (
                "sum",
                json!({"aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points}),
            ),
            _ => ("gauge", json!({"dataPoints": points})),
        };
        // OTLP names what is counted, and leaves it to exporters to say that it is a total.
        let name = name.strip_suffix("_total").unwrap_or(name);
        Some(json!({"name": name, "description": self.help, kind: data}))
    }
}

impl Buckets {
    fn point(&self, labels: &Labels, begun: &str, now: &str) -> Value {
        let bounds: Vec<f64> = self.bounds.iter().map(|(bound, _)| *bound).collect();
        let mut before = 0.0;
        let all = self.bounds.iter().map(|(_, up_to)| *up_to).chain([self.count]);
        let counts: Vec<String> = all
            .map(|up_to| format!("{:.0}", (up_to - std::mem::replace(&mut before, up_to)).max(0.0)))
            .collect();
        json!({
            "attributes": attributes(labels), "startTimeUnixNano": begun, "timeUnixNano": now,
            "count": format!("{:.0}", self.count), "sum": self.sum, "bucketCounts": counts, "explicitBounds": bounds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_the_page_says() {
        let text = "# HELP a_targets Targets.
# TYPE a_targets gauge
a_targets{job_name=\"x\\\"y\"} 3
# TYPE a_events_total counter
a_events_total 7
# TYPE a_seconds histogram
a_seconds_bucket{path=\"/\",le=\"0.5\"} 2
a_seconds_bucket{path=\"/\",le=\"1\"} 2
a_seconds_bucket{path=\"/\",le=\"+Inf\"} 5
a_seconds_sum{path=\"/\"} 9.5
a_seconds_count{path=\"/\"} 5
# TYPE a_nothing gauge
";
        let request = request(text, Duration::from_secs(1), Duration::from_secs(2));
        let metrics = &request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let names: Vec<&str> = metrics
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|metric| metric["name"].as_str())
            .collect();
        assert_eq!(names, ["a_events", "a_seconds", "a_targets"]);
        assert_eq!(metrics[0]["sum"]["isMonotonic"], true);
        assert_eq!(metrics[0]["sum"]["dataPoints"][0]["asDouble"], 7.0);
        let point = &metrics[1]["histogram"]["dataPoints"][0];
        assert_eq!(point["bucketCounts"], json!(["2", "0", "3"]));
        assert_eq!(
            (point["explicitBounds"][1].as_f64(), point["count"].as_str()),
            (Some(1.0), Some("5"))
        );
        assert_eq!(point["attributes"][0]["value"]["stringValue"], "/");
        let point = &metrics[2]["gauge"]["dataPoints"][0];
        assert_eq!(point["attributes"][0]["value"]["stringValue"], "x\"y");
        assert_eq!(point["timeUnixNano"], "2000000000");
    }
}
