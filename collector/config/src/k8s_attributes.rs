//! What the `k8sattributes` processor is told.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, join_key};
use regex::Regex;
use serde::Deserialize;

use crate::values::duration;

/// The names that `extract.metadata` may hold.
pub const METADATA: &[&str] = &[
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.hostname",
    "k8s.pod.ip",
    "k8s.pod.start_time",
    "k8s.node.name",
    "k8s.deployment.name",
    "k8s.replicaset.name",
    "k8s.replicaset.uid",
    "k8s.statefulset.name",
    "k8s.statefulset.uid",
    "k8s.daemonset.name",
    "k8s.daemonset.uid",
    "k8s.job.name",
    "k8s.job.uid",
    "k8s.cronjob.name",
    "k8s.container.name",
    "container.id",
    "container.image.name",
    "container.image.tag",
];

/// `k8sattributes`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct K8sAttributes {
    /// `serviceAccount` or `kubeConfig`.
    pub auth_type: AuthType,
    /// The kubeconfig's context.
    pub context: String,
    /// Only note the Pod's address; a collector behind this one does the rest.
    pub passthrough: bool,
    /// What becomes an attribute.
    pub extract: Extract,
    /// Which Pods are looked at.
    pub filter: Filter,
    /// How data finds its Pod; the first that finds one holds.
    pub pod_association: Vec<Association>,
    /// Pods that are left out.
    pub exclude: Exclude,
    /// Hold data back until the Pods are known.
    pub wait_for_metadata: bool,
    /// But not longer than this.
    #[serde(deserialize_with = "duration")]
    pub wait_for_metadata_timeout: Duration,
}

impl Default for K8sAttributes {
    fn default() -> Self {
        K8sAttributes {
            auth_type: AuthType::ServiceAccount,
            context: String::new(),
            passthrough: false,
            extract: Extract::default(),
            filter: Filter::default(),
            pod_association: Vec::new(),
            exclude: Exclude::default(),
            wait_for_metadata: false,
            wait_for_metadata_timeout: Duration::from_secs(10),
        }
    }
}

/// How the API is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AuthType {
    /// As the Pod's service account.
    #[serde(rename = "serviceAccount")]
    ServiceAccount,
    /// By `KUBECONFIG` or `~/.kube/config`.
    #[serde(rename = "kubeConfig")]
    KubeConfig,
}

/// What becomes an attribute.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extract {
    /// Names out of [`METADATA`]; the usual ones if absent.
    pub metadata: Option<Vec<String>>,
    /// Annotations.
    pub annotations: Vec<Field>,
    /// Labels.
    pub labels: Vec<Field>,
    /// Annotations `resource.opentelemetry.io/<attribute>` of Pods.
    pub otel_annotations: bool,
    /// Accepted: a Deployment's name is always made from its ReplicaSet's.
    pub deployment_name_from_replicaset: bool,
}

/// A label or annotation.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Field {
    /// The attribute; made of the key if empty. With `key_regex` it may hold `$1`.
    pub tag_name: String,
    /// The key.
    pub key: String,
    /// Or every key that this matches as a whole.
    pub key_regex: String,
    /// Whose.
    pub from: From,
}

/// Whose labels or annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The Pod's.
    #[default]
    Pod,
    /// Its namespace's.
    Namespace,
    /// Its node's.
    Node,
}

/// Which Pods are looked at.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Those of a node.
    pub node: String,
    /// Those of the node that this variable names.
    pub node_from_env_var: String,
    /// Those of a namespace.
    pub namespace: String,
    /// By fields.
    pub fields: Vec<Selector>,
    /// By labels.
    pub labels: Vec<Selector>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// The field or label.
    pub key: String,
    /// The value.
    pub value: String,
    /// How they are compared.
    pub op: Operator,
}

/// How a field or label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// It is the value.
    #[default]
    #[serde(alias = "")]
    Equals,
    /// It is not the value.
    NotEquals,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Filter {
    /// The label selector of this.
    pub fn label_selector(&self) -> String {
        select(&self.labels)
    }

    /// The field selector of this, with the node that was found for it.
    pub fn field_selector(&self, node: &str) -> String {
        let node = (!node.is_empty()).then(|| format!("spec.nodeName={node}"));
        let fields = Some(select(&self.fields)).filter(|fields| !fields.is_empty());
        node.into_iter().chain(fields).collect::<Vec<_>>().join(",")
    }
}

fn select(selectors: &[Selector]) -> String {
    let terms = selectors.iter().map(|selector| {
        let Selector { key, value, op } = selector;
        match op {
            Operator::Equals => format!("{key}={value}"),
            Operator::NotEquals => format!("{key}!={value}"),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

/// A way to a Pod: all of its sources must agree with it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Association {
    /// What must agree.
    pub sources: Vec<Source>,
    /// What stood here before there was `sources`.
    pub from: Option<SourceFrom>,
    /// What stood here before there was `sources`.
    pub name: String,
}

impl Association {
    /// Its sources, also in the old spelling.
    pub fn all(&self) -> Vec<Source> {
        match self.from {
            Some(from) if self.sources.is_empty() => vec![Source {
                from,
                name: self.name.clone(),
            }],
            _ => self.sources.clone(),
        }
    }
}

/// One thing that must agree.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Where it is found in the data.
    pub from: SourceFrom,
    /// The attribute's name.
    #[serde(default)]
    pub name: String,
}

/// Where something is found in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFrom {
    /// The caller's address, which is the Pod's.
    Connection,
    /// An attribute of the resource.
    ResourceAttribute,
}

/// Pods that are left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exclude {
    /// By name.
    pub pods: Vec<ExcludedPod>,
}

impl Default for Exclude {
    fn default() -> Self {
        let pods = ["jaeger-agent", "jaeger-collector"].map(|name| ExcludedPod { name: name.into() });
        Exclude { pods: pods.into() }
    }
}

/// Pods that are left out.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExcludedPod {
    /// A regular expression of their name.
    pub name: String,
}

/// What is wrong beyond the keys.
pub(crate) fn check(config: &K8sAttributes, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let mut fault = |path: &[&str], below: String, message: String, mend: &str| {
        let place = path.iter().try_fold(node, |node, key| node.get(key));
        let place = place.unwrap_or(node).place();
        diagnoses.push(Diagnosis::error(place, join_key(key, &below), message, mend));
    };
    let metadata = config.extract.metadata.iter().flatten().enumerate();
    for (index, name) in metadata.filter(|(_, name)| !METADATA.contains(&name.as_str())) {
        let below = format!("extract.metadata[{index}]");
        let message = format!("`{name}` is not known here");
        let mend = format!("known: {}", METADATA.join(", "));
        fault(&["extract", "metadata"], below, message, &mend);
    }
    let lists = [
        ("labels", &config.extract.labels),
        ("annotations", &config.extract.annotations),
    ];
    for (list, fields) in lists {
        for (index, field) in fields.iter().enumerate() {
            let below = format!("extract.{list}[{index}]");
            if field.key.is_empty() == field.key_regex.is_empty() {
                let mend = "write `key:` or `key_regex:`, and not both";
                fault(&["extract", list], below, "needs one key".into(), mend);
            } else if let Err(error) = Regex::new(&field.key_regex) {
                let message = format!("is no regular expression: {error}");
                fault(
                    &["extract", list],
                    format!("{below}.key_regex"),
                    message,
                    "correct it",
                );
            }
        }
    }
    for (index, association) in config.pod_association.iter().enumerate() {
        let sources = association.all();
        let nameless =
            |source: &Source| source.from == SourceFrom::ResourceAttribute && source.name.is_empty();
        let message = match sources.len() {
            0 => "names no source",
            1..=4 if sources.iter().any(nameless) => "a source names no attribute",
            1..=4 => continue,
            _ => "has more than four sources",
        };
        let mend = "write such as `sources: [{from: resource_attribute, name: k8s.pod.uid}]`";
        let below = format!("pod_association[{index}].sources");
        fault(&["pod_association"], below, message.into(), mend);
    }
    for (index, pod) in config.exclude.pods.iter().enumerate() {
        if let Err(error) = Regex::new(&pod.name) {
            let message = format!("is no regular expression: {error}");
            fault(
                &["exclude"],
                format!("exclude.pods[{index}].name"),
                message,
                "correct it",
            );
        }
    }
}
