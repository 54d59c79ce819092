//! What is known of a Pod, as attributes: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karez_collector_config::k8s_attributes as config;
use regex::Regex;

use crate::component::StartError;

/// The attributes that are made where the document does not say which.
const USUAL: &[&str] = &[
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.start_time",
    "k8s.node.name",
    "k8s.deployment.name",
    "container.image.name",
    "container.image.tag",
];
/// Annotations of Pods that name resource attributes themselves.
const OTEL_ANNOTATION: &str = "resource.opentelemetry.io/";

/// Attribute → value.
pub(super) type Facts = BTreeMap<String, String>;

/// What to make attributes of, compiled.
#[derive(Debug)]
pub(super) struct Rules {
    metadata: Vec<String>,
    labels: Vec<Rule>,
    annotations: Vec<Rule>,
    otel_annotations: bool,
}

#[derive(Debug)]
struct Rule {
    from: config::From,
    matcher: Matcher,
    name: String,
}

#[derive(Debug)]
enum Matcher {
    Key(String),
    Regex(Regex),
}

impl Rules {
    pub(super) fn new(extract: &config::Extract) -> Result<Self, StartError> {
        let compile = |fields: &[config::Field], kind| {
            let rules = fields.iter().map(|field| Rule::new(field, kind));
            rules.collect::<Result<Vec<_>, _>>()
        };
        let metadata = extract.metadata.clone();
        Ok(Rules {
            metadata: metadata.unwrap_or_else(|| USUAL.iter().map(|name| (*name).to_owned()).collect()),
            labels: compile(&extract.labels, "labels")?,
            annotations: compile(&extract.annotations, "annotations")?,
            otel_annotations: extract.otel_annotations,
        })
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.metadata.iter().any(|wanted| wanted == name)
    }

    /// Whether labels or annotations of those are asked for.
    pub(super) fn asks(&self, from: config::From) -> bool {
        self.labels
            .iter()
            .chain(&self.annotations)
            .any(|rule| rule.from == from)
    }

    /// The attributes of a Pod by its labels, annotations and metadata, without its containers'.
    pub(super) fn of_pod(&self, pod: &Pod) -> Facts {
        let mut facts = all_of(pod);
        facts.retain(|name, _| self.wants(name));
        facts.extend(self.of(config::From::Pod, &pod.metadata));
        if self.otel_annotations {
            let annotations = pod.metadata.annotations.iter().flatten();
            facts.extend(annotations.filter_map(|(key, value)| {
                let name = key.strip_prefix(OTEL_ANNOTATION)?;
                Some((name.to_owned(), value.clone()))
            }));
        }
        facts
    }

    /// The attributes by labels and annotations of a Pod, a namespace or a node.
    pub(super) fn of(&self, from: config::From, meta: &ObjectMeta) -> Facts {
        let mut facts = Facts::new();
        for (rules, entries) in [
            (&self.labels, &meta.labels),
            (&self.annotations, &meta.annotations),
        ] {
            for rule in rules.iter().filter(|rule| rule.from == from) {
                rule.take(entries.iter().flatten(), &mut facts);
            }
        }
        facts
    }
}

impl Rule {
    fn new(field: &config::Field, kind: &str) -> Result<Self, StartError> {
        let from = match field.from {
            config::From::Pod => "pod",
            config::From::Namespace => "namespace",
            config::From::Node => "node",
        };
        let name = match (&field.tag_name, &field.key) {
            (name, _) if !name.is_empty() => name.clone(),
            (_, key) if !key.is_empty() => format!("k8s.{from}.{kind}.{key}"),
            _ => format!("k8s.{from}.{kind}.$0"),
        };
        let matcher = match field.key.is_empty() {
            false => Matcher::Key(field.key.clone()),
            true => {
                let whole = format!("^(?:{})$", field.key_regex);
                Matcher::Regex(Regex::new(&whole).map_err(|error| {
                    let message = format!("is no regular expression: {error}");
                    StartError::config(format!("extract.{kind}"), message, "correct the `key_regex`")
                })?)
            }
        };
        Ok(Rule {
            from: field.from,
            matcher,
            name,
        })
    }

    fn take<'a>(&self, entries: impl Iterator<Item = (&'a String, &'a String)>, facts: &mut Facts) {
        for (key, value) in entries {
            let name = match &self.matcher {
                Matcher::Key(wanted) if wanted == key => self.name.clone(),
                Matcher::Key(_) => continue,
                Matcher::Regex(regex) => match regex.captures(key) {
                    Some(captures) => {
                        let mut name = String::new();
                        captures.expand(&self.name, &mut name);
                        name
                    }
                    None => continue,
                },
            };
            facts.insert(name, value.clone());
        }
    }
}

/// Everything about a Pod that has a name, but for its containers.
pub(super) fn all_of(pod: &Pod) -> Facts {
    let (meta, spec, status) = (&pod.metadata, pod.spec.as_ref(), pod.status.as_ref());
    let mut facts = Facts::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.insert(name.to_owned(), value);
        }
    };
    put("k8s.namespace.name", meta.namespace.clone());
    put("k8s.pod.name", meta.name.clone());
    put("k8s.pod.uid", meta.uid.clone());
    let hostname = spec
        .and_then(|spec| spec.hostname.clone())
        .or_else(|| meta.name.clone());
    put("k8s.pod.hostname", hostname);
    put("k8s.pod.ip", status.and_then(|status| status.pod_ip.clone()));
    let started = status.and_then(|status| status.start_time.as_ref());
    put("k8s.pod.start_time", started.map(|time| time.0.to_string()));
    put("k8s.node.name", spec.and_then(|spec| spec.node_name.clone()));
    for owner in meta.owner_references.iter().flatten() {
        let kind = owner.kind.to_ascii_lowercase();
        if !["replicaset", "statefulset", "daemonset", "job"].contains(&kind.as_str()) {
            continue;
        }
        put(&format!("k8s.{kind}.name"), Some(owner.name.clone()));
        put(&format!("k8s.{kind}.uid"), Some(owner.uid.clone()));
        match kind.as_str() {
            "replicaset" => put("k8s.deployment.name", deployment_of(&owner.name, meta)),
            "job" => put("k8s.cronjob.name", cron_job_of(&owner.name)),
            _ => {}
        }
    }
    facts
}

/// A Deployment names its ReplicaSets `<own name>-<hash of the template>`, and the Pods carry that hash as a label.
fn deployment_of(replica_set: &str, pod: &ObjectMeta) -> Option<String> {
    let hash = pod.labels.as_ref()?.get("pod-template-hash")?;
    let name = replica_set.strip_suffix(hash)?.strip_suffix('-')?;
    Some(name.to_owned())
}

/// A CronJob names its Jobs `<own name>-<minutes since 1970>`.
fn cron_job_of(job: &str) -> Option<String> {
    let (name, minute) = job.rsplit_once('-')?;
    let is_minute = minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit());
    is_minute.then(|| name.to_owned())
}

/// A container of a Pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    /// Without the runtime's prefix; empty while it has not started.
    pub(super) id: String,
}

impl Container {
    /// Its image without tag and digest, and its tag.
    pub(super) fn image_parts(&self) -> (&str, Option<&str>) {
        let image = self.image.split('@').next().unwrap_or_default();
        // A colon before the last slash belongs to the registry's port.
        match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (image, Some("latest").filter(|_| !self.image.contains('@'))),
        }
    }
}

/// A Pod's containers.
pub(super) fn containers(pod: &Pod) -> Vec<Container> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let id_of = |name: &str| {
        let status = statuses?.iter().find(|status| status.name == name)?;
        let id = status.container_id.as_deref()?;
        Some(id.rsplit("://").next().unwrap_or(id).to_owned())
    };
    let spec = pod.spec.iter().flat_map(|spec| &spec.containers);
    let containers = spec.map(|container| Container {
        id: id_of(&container.name).unwrap_or_default(),
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
    });
    containers.collect()
}
