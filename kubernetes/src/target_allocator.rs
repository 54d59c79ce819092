//! `TargetAllocator`: an allocator that collectors name by a label, rather than one inside of a collector.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What an allocator should be. Its fields are those of `spec.targetAllocator` of a collector and `scrapeConfigs` and
/// `global` beside; one piece of code reads both, so they are kept as they were written.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "opentelemetry.io",
    version = "v1alpha1",
    kind = "TargetAllocator",
    plural = "targetallocators",
    namespaced,
    status = "TargetAllocatorStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
pub struct TargetAllocatorSpec {
    /// As written.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetAllocatorStatus {
    /// The version that runs.
    pub version: Option<String>,
    /// The image that runs.
    pub image: Option<String>,
}

impl TargetAllocator {
    /// Whether its owner wants it left alone.
    #[must_use]
    pub fn is_unmanaged(&self) -> bool {
        self.spec.fields.get("managementState").and_then(Value::as_str) == Some("unmanaged")
    }
}
