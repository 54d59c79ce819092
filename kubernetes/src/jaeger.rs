//! `Jaeger`: the trace store as its operator declares it. Karez runs the all-in-one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Volume, VolumeMount};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a Jaeger should be; an empty one is an all-in-one in memory.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "jaegertracing.io",
    version = "v1",
    kind = "Jaeger",
    plural = "jaegers",
    namespaced,
    status = "JaegerStatus",
    derive = "PartialEq",
    derive = "Default",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct JaegerSpec {
    /// `allinone` (also `all-in-one`), `production`, `streaming`.
    pub strategy: Option<String>,
    /// The all-in-one.
    pub all_in_one: JaegerComponent,
    /// The query service.
    pub query: JaegerComponent,
    /// The collector.
    pub collector: JaegerComponent,
    /// Where spans are kept.
    pub storage: JaegerStorage,
    /// Annotations of the workload and its pods.
    pub annotations: BTreeMap<String, String>,
    /// Labels of the workload and its pods.
    pub labels: BTreeMap<String, String>,
    /// Resources of the container.
    pub resources: Option<ResourceRequirements>,
    /// Account to run under; one of its own when absent.
    pub service_account: Option<String>,
    /// Volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Mounts of the container.
    pub volume_mounts: Vec<VolumeMount>,
}

/// One part of a Jaeger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JaegerComponent {
    /// The image; ours when absent.
    pub image: Option<String>,
    /// Flags without dashes, nested or dotted.
    pub options: Option<Value>,
    /// Type of its Service.
    pub service_type: Option<String>,
    /// Resources of the container.
    pub resources: Option<ResourceRequirements>,
}

/// Where spans are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JaegerStorage {
    /// `memory` when absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Flags without dashes.
    pub options: Option<Value>,
}

/// What became of a Jaeger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JaegerStatus {
    /// `Running` or `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Version that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}
