//! `telemetry.metrics.readers`: where the allocator's own figures are pushed to.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use serde::Deserialize;

/// A place that figures are pushed to.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The whole address.
    pub url: String,
    /// Headers, which may hold secrets.
    pub headers: Vec<(String, karez_scrape::config::values::Secret)>,
    /// How often.
    pub interval: Duration,
    /// How long a push may take.
    pub timeout: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Periodic {
    interval: Option<u64>,
    timeout: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Exporter {
    endpoint: String,
    headers: Vec<Header>,
    temporality_preference: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    name: String,
    value: karez_scrape::config::values::Secret,
}

/// Reads the block.
pub(super) fn read(document: &Node, diagnoses: &mut Vec<Diagnosis>) -> Vec<Push> {
    let readers = document
        .get("telemetry")
        .and_then(|block| block.get("metrics"))
        .and_then(|block| block.get("readers"));
    let readers = readers
        .into_iter()
        .flat_map(|readers| readers.items())
        .enumerate();
    let read = readers.filter_map(|(number, reader)| {
        let key = format!("telemetry.metrics.readers[{number}]");
        self::reader(reader, &key, diagnoses)
    });
    read.collect()
}

fn reader(reader: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Push> {
    let mut wrong = |node: &Node, key: &str, name: &str, message: &str, mend: &str| {
        diagnoses.push(Diagnosis::error(
            node.key_place(name),
            join_key(key, name),
            message,
            mend,
        ));
    };
    let Some(periodic) = reader.get("periodic") else {
        wrong(
            reader,
            key,
            "periodic",
            "is missing",
            "write `periodic: {exporter: …}`",
        );
        return None;
    };
    let key = join_key(key, "periodic");
    let exporters = periodic.get("exporter").map(Node::entries).unwrap_or_default();
    let [exporter] = exporters else {
        wrong(
            periodic,
            &key,
            "exporter",
            "there is not exactly one",
            "write `otlp_http: {endpoint: …}`",
        );
        return None;
    };
    if exporter.key != "otlp_http" {
        let message = "Karez pushes by `otlp_http` only";
        wrong(
            periodic,
            &key,
            "exporter",
            message,
            "use it, or scrape /metrics, which has the same figures",
        );
        return None;
    }
    let times: Periodic = decode_at(periodic, &key, diagnoses)?;
    let key = join_key(&join_key(&key, "exporter"), "otlp_http");
    let written: Exporter = decode_at(&exporter.value, &key, diagnoses)?;
    let mut wrong = |name: &str, message: &str, mend: &str| {
        let place = exporter.value.key_place(name);
        diagnoses.push(Diagnosis::error(place, join_key(&key, name), message, mend));
    };
    let url = address(&written.endpoint);
    if url.is_none() {
        wrong(
            "endpoint",
            "is no address for HTTP",
            "write such as http://otel:4318",
        );
    }
    if written
        .temporality_preference
        .is_some_and(|preference| preference != "cumulative")
    {
        wrong(
            "temporality_preference",
            "Karez counts from the start on",
            "write `cumulative`",
        );
    }
    Some(Push {
        url: url?,
        headers: written
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
        interval: Duration::from_millis(times.interval.unwrap_or(60_000).max(1000)),
        timeout: Duration::from_millis(times.timeout.unwrap_or(30_000).max(100)),
    })
}

/// The address of metrics, also where only that of the server is written.
fn address(endpoint: &str) -> Option<String> {
    let url = url::Url::parse(endpoint).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return None;
    }
    Some(match url.path() {
        "" | "/" => format!("{}/v1/metrics", endpoint.trim_end_matches('/')),
        _ => endpoint.to_owned(),
    })
}
