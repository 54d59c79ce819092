//! `OpenTelemetryCollector`: one type that reads v1alpha1 (configuration as text) and v1beta1 (as an object).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EnvFromSource, EnvVar, Lifecycle, PersistentVolumeClaim,
    PodSecurityContext, ResourceRequirements, SecurityContext, ServicePort, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a collector should be. Fields without meaning for Karez are kept by the API and ignored here.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "opentelemetry.io",
    version = "v1beta1",
    kind = "OpenTelemetryCollector",
    plural = "opentelemetrycollectors",
    shortname = "otelcol",
    shortname = "otelcols",
    namespaced,
    status = "CollectorStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetryCollectorSpec {
    /// How it runs; deployment when absent.
    pub mode: Option<CollectorMode>,
    /// The Collector's configuration.
    pub config: Option<CollectorConfig>,
    /// How many.
    pub replicas: Option<i32>,
    /// The image; ours when absent.
    pub image: Option<String>,
    /// When to pull it.
    pub image_pull_policy: Option<String>,
    /// `managed` or `unmanaged`.
    pub management_state: Option<String>,
    /// More command-line flags, without their dashes.
    pub args: BTreeMap<String, String>,
    /// Environment of the container.
    pub env: Vec<EnvVar>,
    /// Environment from ConfigMaps and Secrets.
    pub env_from: Vec<EnvFromSource>,
    /// Ports of the Services beyond those that follow from the configuration.
    pub ports: Vec<ServicePort>,
    /// Resources of the container.
    pub resources: Option<ResourceRequirements>,
    /// Security context of the container.
    pub security_context: Option<SecurityContext>,
    /// Security context of the pod.
    pub pod_security_context: Option<PodSecurityContext>,
    /// Annotations of the pod.
    pub pod_annotations: BTreeMap<String, String>,
    /// ServiceAccount to run under; one of its own when absent.
    pub service_account: Option<String>,
    /// Which nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Which taints are tolerated.
    pub tolerations: Vec<Toleration>,
    /// Where it likes to be.
    pub affinity: Option<Affinity>,
    /// How it spreads.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pod.
    pub priority_class_name: Option<String>,
    /// How long it may take to stop.
    pub termination_grace_period_seconds: Option<i64>,
    /// Hooks of the container.
    pub lifecycle: Option<Lifecycle>,
    /// Run in the node's network.
    pub host_network: Option<bool>,
    /// Share the process namespace.
    pub share_process_namespace: Option<bool>,
    /// Containers that run before.
    pub init_containers: Vec<Container>,
    /// Containers that run beside.
    pub additional_containers: Vec<Container>,
    /// Volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Mounts of the container.
    pub volume_mounts: Vec<VolumeMount>,
    /// Claims of a StatefulSet.
    pub volume_claim_templates: Vec<PersistentVolumeClaim>,
    /// Timings of the liveness probe.
    pub liveness_probe: Option<ProbeTimings>,
    /// `automatic` or `none`; kept for completeness.
    pub upgrade_strategy: Option<String>,
    /// The embedded target allocator.
    pub target_allocator: Option<Value>,
    /// An Ingress, not made yet.
    pub ingress: Option<Value>,
    /// Autoscaling, not made yet.
    pub autoscaler: Option<Value>,
    /// Disruption budget, not made yet.
    pub pod_disruption_budget: Option<Value>,
}

/// How a collector runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectorMode {
    /// A Deployment.
    #[default]
    Deployment,
    /// One on each node.
    DaemonSet,
    /// A StatefulSet.
    StatefulSet,
    /// Beside the containers of other pods.
    Sidecar,
}

impl std::fmt::Display for CollectorMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deployment => "deployment",
            Self::DaemonSet => "daemonset",
            Self::StatefulSet => "statefulset",
            Self::Sidecar => "sidecar",
        })
    }
}

/// The configuration as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CollectorConfig {
    /// v1alpha1: YAML text, kept to the letter.
    Text(String),
    /// v1beta1: an object.
    Object(Value),
}

/// Timings of a probe, without what it asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeTimings {
    /// Seconds before the first.
    pub initial_delay_seconds: Option<i32>,
    /// Seconds one may take.
    pub timeout_seconds: Option<i32>,
    /// Seconds between two.
    pub period_seconds: Option<i32>,
    /// Successes until healthy.
    pub success_threshold: Option<i32>,
    /// Failures until unhealthy.
    pub failure_threshold: Option<i32>,
    /// Seconds to stop after a failed probe.
    pub termination_grace_period_seconds: Option<i64>,
}

/// What became of a collector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CollectorStatus {
    /// Scale, for `kubectl scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleStatus>,
    /// Version that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Image that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Scale of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleStatus {
    /// Selector of the pods, `k=v,…`.
    pub selector: String,
    /// Replicas wanted.
    pub replicas: i32,
    /// `ready/wanted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_replicas: Option<String>,
}

/// The name of the account a collector runs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAccountName {
    /// Named by the resource; somebody else makes it.
    Given(String),
    /// Made for the resource.
    Own(String),
}

impl OpenTelemetryCollector {
    /// How it runs.
    #[must_use]
    pub fn mode(&self) -> CollectorMode {
        self.spec.mode.unwrap_or_default()
    }

    /// The account it runs under.
    #[must_use]
    pub fn service_account(&self, workload: &str) -> ServiceAccountName {
        match self.spec.service_account.as_deref() {
            Some(name) if !name.is_empty() => ServiceAccountName::Given(name.to_owned()),
            _ => ServiceAccountName::Own(workload.to_owned()),
        }
    }

    /// Whether the controller is to keep its hands off.
    #[must_use]
    pub fn is_unmanaged(&self) -> bool {
        self.spec.management_state.as_deref() == Some("unmanaged")
    }
}

/// A Service's port as a container's port, for what a resource lists itself.
impl OpenTelemetryCollectorSpec {
    /// The listed Service ports as container ports; unnamed ones stay unnamed.
    #[must_use]
    pub fn container_ports(&self) -> Vec<ContainerPort> {
        self.ports
            .iter()
            .map(|port| ContainerPort {
                name: port.name.clone(),
                container_port: port.port,
                protocol: port.protocol.clone(),
                ..ContainerPort::default()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_both_versions() {
        let alpha: OpenTelemetryCollector = serde_json::from_value(json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "a"}, "spec": {"mode": "sidecar", "config": "receivers:\n", "unknown": 1}
        }))
        .unwrap();
        assert_eq!(alpha.mode(), CollectorMode::Sidecar);
        assert_eq!(
            alpha.spec.config,
            Some(CollectorConfig::Text("receivers:\n".into()))
        );
        let beta: OpenTelemetryCollector = serde_json::from_value(json!({
            "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "a"}, "spec": {"config": {"receivers": {"otlp": null}}}
        }))
        .unwrap();
        assert_eq!(beta.mode(), CollectorMode::Deployment);
        assert_eq!(
            beta.spec.config,
            Some(CollectorConfig::Object(json!({"receivers": {"otlp": null}})))
        );
    }
}
