//! `service.telemetry`: how the collector reports on itself.

mod push;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use karez_document::yaml::{Node, closest, join_key};
use karez_document::{Diagnosis, Place};

pub use push::{Push, PushExporter};

use crate::endpoint::listen_endpoint;

/// How the collector reports on itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// `debug`, `info`, `warn`, `error`; absent if not written.
    pub log_level: Option<String>,
    /// Log as JSON.
    pub log_json: bool,
    /// Where its metrics are served; none with level `none`.
    pub metrics: Vec<String>,
    /// Where its metrics are pushed to.
    pub pushes: Vec<Push>,
    /// Attributes of the collector itself, over those that it has anyway; one without a value is left out.
    pub resource: IndexMap<String, Option<String>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            log_level: None,
            log_json: false,
            metrics: vec!["localhost:8888".to_owned()],
            pushes: Vec::new(),
            resource: IndexMap::new(),
        }
    }
}

const KEY: &str = "service.telemetry";
const LOGS: &[&str] = &[
    "level",
    "development",
    "encoding",
    "disable_caller",
    "disable_stacktrace",
    "sampling",
    "output_paths",
    "error_output_paths",
    "initial_fields",
    "processors",
    "disable_zap_resource",
];

/// Reads the block.
pub(crate) fn read(node: Option<&Node>, diagnoses: &mut Vec<Diagnosis>) -> Telemetry {
    let mut telemetry = Telemetry::default();
    let Some(node) = node else { return telemetry };
    known(node, KEY, &["logs", "metrics", "traces", "resource"], diagnoses);
    if let Some(logs) = node.get("logs") {
        let key = join_key(KEY, "logs");
        known(logs, &key, LOGS, diagnoses);
        let level = logs
            .get("level")
            .and_then(Node::as_str)
            .map(str::to_ascii_lowercase);
        if let Some(level) = &level
            && !matches!(
                level.as_str(),
                "debug" | "info" | "warn" | "error" | "dpanic" | "panic" | "fatal"
            )
        {
            let message = format!("`{level}` is no log level");
            let place = logs.key_place("level");
            diagnoses.push(Diagnosis::error(
                place,
                join_key(&key, "level"),
                message,
                "write debug, info, warn or error",
            ));
        }
        telemetry.log_level = level;
        telemetry.log_json = logs.get("encoding").and_then(Node::as_str) == Some("json");
    }
    if let Some(metrics) = node.get("metrics") {
        read_metrics(metrics, &mut telemetry, diagnoses);
    }
    if let Some(resource) = node.get("resource") {
        telemetry.resource = read_resource(resource, diagnoses);
    }
    for path in [
        ["logs", "processors"],
        ["traces", "processors"],
        ["metrics", "views"],
    ] {
        if let Some(found) = node
            .at_path(&path)
            .filter(|found| !found.is_null() && !found.items().is_empty())
        {
            let key = join_key(KEY, &path.join("."));
            let message =
                "is not supported: the collector's log goes to standard error, its metrics as they are";
            diagnoses.push(Diagnosis::error(found.place(), key, message, "remove it"));
        }
    }
    telemetry
}

/// Scalars by name; `null` leaves an attribute out.
fn read_resource(node: &Node, diagnoses: &mut Vec<Diagnosis>) -> IndexMap<String, Option<String>> {
    let key = join_key(KEY, "resource");
    let mut resource = IndexMap::new();
    for entry in node.entries() {
        let value = &entry.value;
        if !value.is_null() && value.as_str().is_none() {
            let (place, key) = (node.key_place(&entry.key), join_key(&key, &entry.key));
            let mend = "write `NAME: VALUE` for each attribute";
            diagnoses.push(Diagnosis::error(place, key, "is no text", mend));
            continue;
        }
        let text = value.as_str().filter(|_| !value.is_null());
        resource.insert(entry.key.clone(), text.map(str::to_owned));
    }
    resource
}

fn read_metrics(node: &Node, telemetry: &mut Telemetry, diagnoses: &mut Vec<Diagnosis>) {
    let key = join_key(KEY, "metrics");
    known(node, &key, &["level", "readers", "address", "views"], diagnoses);
    if node
        .get("level")
        .and_then(Node::as_str)
        .is_some_and(|l| l.eq_ignore_ascii_case("none"))
    {
        telemetry.metrics = Vec::new();
        return;
    }
    let mut endpoints = Vec::new();
    if let Some(address) = node.get("address").and_then(Node::as_str) {
        let place = node.key_place("address");
        let key = join_key(&key, "address");
        match listen_endpoint(address) {
            Ok(()) => {
                let mend = "write `readers: [{pull: {exporter: {prometheus: {host: …, port: …}}}}]`";
                diagnoses.push(Diagnosis::warning(place, key, "is an old spelling", mend));
                endpoints.push(address.to_owned());
            }
            Err(wrong) => {
                let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "write HOST:PORT"));
                diagnoses.push(Diagnosis::error(place, key, message, mend));
            }
        }
    }
    let readers = node.get("readers").filter(|_| endpoints.is_empty());
    let readers = readers.map_or(&[][..], Node::items);
    for (index, reader) in readers.iter().enumerate() {
        let key = format!("{key}.readers[{index}]");
        if let Some(periodic) = reader.get("periodic") {
            telemetry
                .pushes
                .extend(push::read(periodic, &join_key(&key, "periodic"), diagnoses));
        } else if let Some(prometheus) = reader.at_path(&["pull", "exporter", "prometheus"]) {
            endpoints.push(pulled_at(prometheus));
        } else {
            let message =
                "is not supported: Karez has readers of `pull` for Prometheus and `periodic` for OTLP";
            let mend = "write `pull: {exporter: {prometheus: {…}}}` or `periodic: {exporter: {otlp: {…}}}`";
            diagnoses.push(Diagnosis::error(reader.place(), key, message, mend));
        }
    }
    if !(endpoints.is_empty() && readers.is_empty()) {
        telemetry.metrics = endpoints;
    }
}

fn pulled_at(prometheus: &Node) -> String {
    let host = prometheus
        .get("host")
        .and_then(Node::as_str)
        .unwrap_or("localhost");
    let port = prometheus.get("port").and_then(Node::as_str).unwrap_or("8888");
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn known(node: &Node, key: &str, known: &[&str], diagnoses: &mut Vec<Diagnosis>) {
    for entry in node.entries().iter().filter(|e| !known.contains(&e.key.as_str())) {
        let mend = match closest(&entry.key, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let place = Place {
            column: None,
            ..node.key_place(&entry.key)
        };
        diagnoses.push(Diagnosis::error(
            place,
            join_key(key, &entry.key),
            "unknown key",
            mend,
        ));
    }
}
