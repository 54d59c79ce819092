//! Prometheus' custom resources → jobs, as Prometheus Operator writes them. Pure: what Secrets hold is looked up in
//! what is known of them, and what is not known yet is noted.
//!
//! ```text
//! ServiceMonitor ┐
//! PodMonitor     ├─▶ a scrape configuration as JSON ─▶ read as any other ─▶ ScrapeConfig, or why it is refused
//! Probe          │
//! ScrapeConfig   ┘
//! ```

mod auth;
mod classes;
mod job;
mod pod;
mod probe;
mod rules;
mod scrape_config;
mod secrets;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use karez_document::{Origin, yaml};
use karez_scrape::config::ScrapeConfig;
use karez_scrape::config::document::{Options, read_one};
use karez_scrape::config::values::format_duration;
use serde_json::Value;

use crate::config::PrometheusResources;
pub(crate) use secrets::{Known, Reference, Secrets};

/// A kind of resource, in the order of [`PrometheusResources::kinds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    ServiceMonitor,
    PodMonitor,
    Probe,
    ScrapeConfig,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [
        Kind::ServiceMonitor,
        Kind::PodMonitor,
        Kind::Probe,
        Kind::ScrapeConfig,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::ServiceMonitor => "ServiceMonitor",
            Kind::PodMonitor => "PodMonitor",
            Kind::Probe => "Probe",
            Kind::ScrapeConfig => "ScrapeConfig",
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Kind::ServiceMonitor => "servicemonitors",
            Kind::PodMonitor => "podmonitors",
            Kind::Probe => "probes",
            Kind::ScrapeConfig => "scrapeconfigs",
        }
    }

    pub(crate) fn version(self) -> &'static str {
        match self {
            Kind::ScrapeConfig => "v1alpha1",
            _ => "v1",
        }
    }
}

/// A resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a Value,
}

/// Why a resource gives no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A Secret or ConfigMap has not been asked for yet.
    Pending,
    /// It is wrong.
    Wrong(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Refusal::Wrong(reason)
    }
}

/// What conversion needs beside the resource.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a PrometheusResources,
    pub(crate) secrets: &'a Secrets,
}

/// The jobs of a resource: all of them or none.
pub(crate) fn jobs(
    kind: Kind,
    resource: Resource<'_>,
    cx: &Context<'_>,
) -> Result<Vec<ScrapeConfig>, Refusal> {
    let written = match kind {
        Kind::ServiceMonitor => service::jobs(resource, cx)?,
        Kind::PodMonitor => pod::jobs(resource, cx)?,
        Kind::Probe => vec![probe::job(resource, cx)?],
        Kind::ScrapeConfig => vec![scrape_config::job(resource, cx)?],
    };
    written.into_iter().map(|job| read(job, cx)).collect()
}

/// The jobs of a custom resource, for who looks at one before it is in a cluster. Every Secret and ConfigMap that it names
/// is taken to hold `held`.
///
/// # Errors
/// Why it would be refused.
pub fn jobs_of(object: &Value, held: &BTreeMap<String, String>) -> Result<Vec<ScrapeConfig>, String> {
    let kind = text(object, "kind");
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let known = known.ok_or_else(|| format!("`{kind}` is no kind of monitor"))?;
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let config = PrometheusResources {
        scrape_interval: Duration::from_secs(30),
        scrape_protocols: Vec::new(),
        scrape_classes: Vec::new(),
        allow_namespaces: Vec::new(),
        deny_namespaces: Vec::new(),
        secret_namespaces: Vec::new(),
        deny_files: false,
        kinds: Default::default(),
    };
    let mut secrets = Secrets::allowed_in(&[]);
    loop {
        let resource = Resource {
            namespace: text(metadata, "namespace"),
            name: text(metadata, "name"),
            spec: object.get("spec").unwrap_or(&Value::Null),
        };
        let cx = Context {
            config: &config,
            secrets: &secrets,
        };
        match jobs(known, resource, &cx) {
            Ok(jobs) => return Ok(jobs),
            Err(Refusal::Wrong(reason)) => return Err(reason),
            Err(Refusal::Pending) => {}
        }
        let wanted = secrets.take_wanted();
        let before = secrets.known.len();
        secrets
            .known
            .extend(wanted.into_iter().map(|reference| (reference, Ok(held.clone()))));
        if secrets.known.len() == before {
            return Err("it names a Secret that cannot be looked up".to_owned());
        }
    }
}

fn read(mut job: Value, cx: &Context<'_>) -> Result<ScrapeConfig, Refusal> {
    if let Value::Object(job) = &mut job {
        let interval = format_duration(cx.config.scrape_interval);
        job.entry("scrape_interval").or_insert_with(|| interval.into());
        let protocols = cx.config.scrape_protocols.clone();
        job.entry("scrape_protocols").or_insert_with(|| protocols.into());
    }
    let text = job.to_string();
    let wrong = |diagnosis: karez_document::Diagnosis| {
        Refusal::Wrong(format!("{}: {}", diagnosis.key, diagnosis.message))
    };
    let nodes = yaml::parse(&text, &Origin::file("resource")).map_err(wrong)?;
    let Some(node) = nodes.first() else {
        return Err(Refusal::Wrong("says nothing".to_owned()));
    };
    let mut diagnoses = Vec::new();
    let read = read_one(node, "", Options::default(), &mut diagnoses);
    if let Some(diagnosis) = diagnoses.into_iter().find(karez_document::Diagnosis::is_error) {
        return Err(wrong(diagnosis));
    }
    let read = read.ok_or_else(|| Refusal::Wrong("is no scrape configuration".to_owned()))?;
    match cx.config.deny_files.then(|| reads_file(&read)).flatten() {
        Some(file) => Err(Refusal::Wrong(format!(
            "reads the file `{file}`, which `deny_fs_access_through_sms` forbids"
        ))),
        None => Ok(read),
    }
}

/// A file of the collector that a job would have it read.
fn reads_file(job: &ScrapeConfig) -> Option<&str> {
    let tls = &job.http.tls;
    let files = [&tls.ca_file, &tls.cert_file, &tls.key_file].into_iter();
    let files = files.chain(job.http.authorization.iter().map(|a| &a.credentials_file));
    let mut files = files.chain(job.http.basic_auth.iter().map(|basic| &basic.password_file));
    files.find(|file| !file.is_empty()).map(String::as_str)
}

/// A text of a resource; empty if it is not there.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}
