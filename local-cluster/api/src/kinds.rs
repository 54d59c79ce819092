//! Which kinds there are: the fixed list, those that CustomResourceDefinitions add, and those that are only stored.

use crate::schema::Schema;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// Where a kind's schema comes from.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A compiled-in definition.
    Builtin(&'static str),
    /// `openAPIV3Schema` of a CustomResourceDefinition's version.
    Custom(Value),
    /// Anything goes: a kind that is stored and reported, no more.
    Open,
}

/// A printer column of a custom resource.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// A kind in one version, with the names it goes by.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: bool,
    pub(crate) shape: Shape,
    pub(crate) columns: Vec<PrinterColumn>,
    /// What a definition lets field selectors name.
    pub(crate) fields: Vec<String>,
}

impl Kind {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(crate) fn schema(&self) -> Option<Schema<'_>> {
        match &self.shape {
            Shape::Builtin(name) => Schema::named(name),
            Shape::Custom(schema) => Some(Schema::new(schema)),
            Shape::Open => Some(Schema::new(&OPEN)),
        }
    }

    /// The paths that field selectors may name.
    pub(crate) fn selectable(&self) -> Vec<&str> {
        let own: &[&str] = match (self.group.as_str(), self.kind.as_str()) {
            ("", "Pod") => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            ("", "Event") => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            ("events.k8s.io", "Event") => &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ],
            ("", "Secret") => &["type"],
            ("", "Service") => &["spec.clusterIP", "spec.type"],
            ("", "Namespace") => &["status.phase"],
            ("", "Node") => &["spec.unschedulable"],
            ("apps", "ReplicaSet") => &["status.replicas"],
            ("batch", "Job") => &["status.successful"],
            _ => &[],
        };
        ["metadata.name", "metadata.namespace"]
            .iter()
            .chain(own)
            .copied()
            .chain(self.fields.iter().map(String::as_str))
            .collect()
    }

    pub(crate) fn is_builtin(&self) -> bool {
        matches!(self.shape, Shape::Builtin(_))
    }

    /// `deployments.apps`.
    pub(crate) fn qualified(&self) -> String {
        crate::error::qualified(&self.group, &self.plural)
    }
}

/// Of a kind that is only stored, the metadata is known.
static OPEN: LazyLock<Value> = LazyLock::new(|| {
    serde_json::json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"metadata": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}},
    })
});

const API: &str = "io.k8s.api.";

/// group, version, kind, plural, short names (comma), categories, namespaced, status, scale, schema after `io.k8s.api.`
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    bool,
    bool,
    &'static str,
);

#[rustfmt::skip]
const BUILTIN: &[Row] = &[
    ("", "v1", "ConfigMap", "configmaps", "cm", "", true, false, false, "io.k8s.api.core.v1.ConfigMap"),
    ("", "v1", "Endpoints", "endpoints", "ep", "", true, false, false, "io.k8s.api.core.v1.Endpoints"),
    ("", "v1", "Event", "events", "ev", "", true, false, false, "io.k8s.api.core.v1.Event"),
    ("", "v1", "LimitRange", "limitranges", "limits", "", true, false, false, "io.k8s.api.core.v1.LimitRange"),
    ("", "v1", "Namespace", "namespaces", "ns", "", false, true, false, "io.k8s.api.core.v1.Namespace"),
    ("", "v1", "Node", "nodes", "no", "", false, true, false, "io.k8s.api.core.v1.Node"),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", "", false, true, false, "io.k8s.api.core.v1.PersistentVolume"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "", true, true, false, "io.k8s.api.core.v1.PersistentVolumeClaim"),
    ("", "v1", "Pod", "pods", "po", "all", true, true, false, "io.k8s.api.core.v1.Pod"),
    ("", "v1", "ResourceQuota", "resourcequotas", "quota", "", true, true, false, "io.k8s.api.core.v1.ResourceQuota"),
    ("", "v1", "Secret", "secrets", "", "", true, false, false, "io.k8s.api.core.v1.Secret"),
    ("", "v1", "Service", "services", "svc", "all", true, true, false, "io.k8s.api.core.v1.Service"),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", "", true, false, false, "io.k8s.api.core.v1.ServiceAccount"),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", "", "", true, false, false, "io.k8s.api.apps.v1.ControllerRevision"),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", "all", true, true, false, "io.k8s.api.apps.v1.DaemonSet"),
    ("apps", "v1", "Deployment", "deployments", "deploy", "all", true, true, true, "io.k8s.api.apps.v1.Deployment"),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", "all", true, true, true, "io.k8s.api.apps.v1.ReplicaSet"),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", "all", true, true, true, "io.k8s.api.apps.v1.StatefulSet"),
    ("batch", "v1", "CronJob", "cronjobs", "cj", "all", true, true, false, "io.k8s.api.batch.v1.CronJob"),
    ("batch", "v1", "Job", "jobs", "", "all", true, true, false, "io.k8s.api.batch.v1.Job"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "all", true, true, false, "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", "", true, false, false, "io.k8s.api.discovery.v1.EndpointSlice"),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", "", true, false, false, "io.k8s.api.coordination.v1.Lease"),
    ("events.k8s.io", "v1", "Event", "events", "ev", "", true, false, false, "io.k8s.api.events.v1.Event"),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", "", true, true, false, "io.k8s.api.networking.v1.Ingress"),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", "", false, false, false, "io.k8s.api.networking.v1.IngressClass"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", "", true, false, false, "io.k8s.api.networking.v1.NetworkPolicy"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "", true, true, false, "io.k8s.api.policy.v1.PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", "", false, false, false, "io.k8s.api.rbac.v1.ClusterRole"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", "", false, false, false, "io.k8s.api.rbac.v1.ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", "", true, false, false, "io.k8s.api.rbac.v1.Role"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", "", true, false, false, "io.k8s.api.rbac.v1.RoleBinding"),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", "", false, false, false, "io.k8s.api.scheduling.v1.PriorityClass"),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", "", false, false, false, "io.k8s.api.storage.v1.StorageClass"),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "api-extensions", false, false, false, "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "api-extensions", false, false, false, "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd,crds", "api-extensions", false, true, false, "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"),
];

fn list(comma: &str) -> Vec<String> {
    comma
        .split(',')
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect()
}

fn builtin(row: &Row) -> Kind {
    let &(group, version, kind, plural, short, categories, namespaced, status, scale, schema) = row;
    debug_assert!(schema.starts_with(API) || schema.starts_with("io.k8s."));
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short: list(short),
        categories: list(categories),
        namespaced,
        status,
        scale,
        shape: Shape::Builtin(schema),
        columns: Vec::new(),
        fields: Vec::new(),
    }
}

/// The kinds that are served now.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// By group and plural; the versions that are served, best first.
    kinds: BTreeMap<(String, String), Vec<Arc<Kind>>>,
}

impl Registry {
    pub(crate) fn builtin() -> Self {
        let mut registry = Self {
            kinds: BTreeMap::new(),
        };
        for row in BUILTIN {
            registry.put(vec![builtin(row)]);
        }
        registry
    }

    /// Serves a kind in these versions, in place of what was served for it.
    pub(crate) fn put(&mut self, versions: Vec<Kind>) {
        if let Some(first) = versions.first() {
            let key = (first.group.clone(), first.plural.clone());
            self.kinds
                .insert(key, versions.into_iter().map(Arc::new).collect());
        }
    }

    pub(crate) fn remove(&mut self, group: &str, plural: &str) {
        self.kinds.remove(&(group.to_owned(), plural.to_owned()));
    }

    /// The kind behind a path's group, version and resource.
    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let versions = self.kinds.get(&(group.to_owned(), plural.to_owned()))?;
        versions.iter().find(|k| k.version == version).cloned()
    }

    /// Any served version of a resource.
    pub(crate) fn any_version(&self, group: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds
            .get(&(group.to_owned(), plural.to_owned()))?
            .first()
            .cloned()
    }

    /// The kind that an object's `apiVersion` and `kind` name.
    pub(crate) fn named(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.all()
            .find(|k| k.group == group && k.version == version && k.kind == kind)
            .cloned()
    }

    /// The kind of that name in a group, in its best version.
    pub(crate) fn in_group(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.all().find(|k| k.group == group && k.kind == kind).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values().flatten()
    }

    /// Group → versions, best first; the core group is `""`.
    pub(crate) fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for kind in self.all() {
            let versions = groups.entry(&kind.group).or_default();
            if !versions.contains(&kind.version.as_str()) {
                versions.push(&kind.version);
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        }
        groups
    }
}

/// `apps/v1` → (`apps`, `v1`); `v1` → (``, `v1`).
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Orders versions as Kubernetes does: `v2` before `v1` before `v1beta2` before `v1alpha1` before other words.
pub(crate) fn version_rank(version: &str) -> (u8, u64, u64) {
    let number = |text: &str| text.parse::<u64>().ok();
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    if let Some(major) = number(rest) {
        return (3, major, 0);
    }
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (rank, major, minor);
        }
    }
    (0, 0, 0)
}

/// The plural that a kind without a definition is stored under.
pub(crate) fn guess_plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    if lower.ends_with('s') || lower.ends_with('x') || lower.ends_with("ch") || lower.ends_with("sh") {
        return format!("{lower}es");
    }
    match lower.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{lower}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_kind_has_its_schema() {
        for kind in Registry::builtin().all() {
            let Shape::Builtin(name) = kind.shape else {
                panic!("{} is built in", kind.kind)
            };
            assert!(crate::schema::builtin().contains_key(name), "{name}");
        }
    }

    #[test]
    fn orders_versions_as_kubernetes_does() {
        let mut versions = vec!["v1alpha1", "foo", "v1", "v2beta1", "v10", "v1beta1"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v1", "v2beta1", "v1beta1", "v1alpha1", "foo"]);
    }

    #[test]
    fn guesses_plurals() {
        assert_eq!(guess_plural("ClusterIssuer"), "clusterissuers");
        assert_eq!(guess_plural("NetworkPolicy"), "networkpolicies");
        assert_eq!(guess_plural("Gateway"), "gateways");
        assert_eq!(guess_plural("Ingress"), "ingresses");
    }
}
