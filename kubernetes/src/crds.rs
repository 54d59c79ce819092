//! The definitions of the custom resources, as an API server wants them.
//!
//! Schemas name the fields a controller decides by and let everything else through: manifests in the wild carry
//! fields of many releases, and none of them may be refused.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// Every custom resource that Karez serves.
///
/// Both versions of `OpenTelemetryCollector` are served without conversion: they differ only in whether
/// `spec.config` is text or an object, and one type reads both.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [collector(), jaeger(), target_allocator()]
        .into_iter()
        .map(|value| serde_json::from_value(value).expect("the literals below are well-formed definitions"))
        .collect()
}

/// The same as YAML documents, for `kubectl apply -f -`; `deploy/kubernetes/10-crds.yaml` is this text.
#[must_use]
pub fn crds_yaml() -> String {
    crds()
        .iter()
        .map(|crd| {
            let value = serde_json::to_value(crd).expect("definitions have only string keys");
            let text =
                serde_saphyr::to_string(&value).expect("JSON values are plain scalars, lists and maps");
            format!("---\n{}\n", text.trim_end())
        })
        .collect()
}

fn open() -> Value {
    json!({"x-kubernetes-preserve-unknown-fields": true})
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path})
}

fn schema(spec: &Value) -> Value {
    json!({"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    }})
}

fn collector() -> Value {
    let spec = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "mode": {"type": "string", "enum": ["daemonset", "deployment", "sidecar", "statefulset"]},
            "config": open(),
            "replicas": {"type": "integer", "format": "int32"},
            "image": {"type": "string"},
            "imagePullPolicy": {"type": "string"},
            "serviceAccount": {"type": "string"},
            "managementState": {"type": "string", "enum": ["managed", "unmanaged"]},
            "args": {"type": "object", "additionalProperties": {"type": "string"}},
            "podAnnotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
            "hostNetwork": {"type": "boolean"},
        },
    });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": schema(&spec),
            "subresources": {
                "status": {},
                "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.scale.replicas",
                    "labelSelectorPath": ".status.scale.selector",
                },
            },
            "additionalPrinterColumns": [
                column("Mode", "string", ".spec.mode"),
                column("Version", "string", ".status.version"),
                column("Ready", "string", ".status.scale.statusReplicas"),
                column("Age", "date", ".metadata.creationTimestamp"),
                column("Image", "string", ".status.image"),
                column("Management", "string", ".spec.managementState"),
            ],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "opentelemetrycollectors.opentelemetry.io"},
        "spec": {
            "group": "opentelemetry.io",
            "scope": "Namespaced",
            "conversion": {"strategy": "None"},
            "names": {
                "kind": "OpenTelemetryCollector", "listKind": "OpenTelemetryCollectorList",
                "plural": "opentelemetrycollectors", "singular": "opentelemetrycollector",
                "shortNames": ["otelcol", "otelcols"],
            },
            "versions": [version("v1alpha1", false), version("v1beta1", true)],
        },
    })
}

fn jaeger() -> Value {
    let spec = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"strategy": {"type": "string"}},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "jaegers.jaegertracing.io"},
        "spec": {
            "group": "jaegertracing.io",
            "scope": "Namespaced",
            "names": {"kind": "Jaeger", "listKind": "JaegerList", "plural": "jaegers", "singular": "jaeger"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": schema(&spec),
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Status", "string", ".status.phase"),
                    column("Version", "string", ".status.version"),
                    column("Strategy", "string", ".spec.strategy"),
                    column("Storage", "string", ".spec.storage.type"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                ],
            }],
        },
    })
}

fn target_allocator() -> Value {
    let spec = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "replicas": {"type": "integer", "format": "int32"},
            "image": {"type": "string"},
            "serviceAccount": {"type": "string"},
            "managementState": {"type": "string", "enum": ["managed", "unmanaged"]},
            "allocationStrategy": {"type": "string"},
            "filterStrategy": {"type": "string"},
            "scrapeConfigs": {"type": "array", "items": open()},
            "global": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "targetallocators.opentelemetry.io"},
        "spec": {
            "group": "opentelemetry.io",
            "scope": "Namespaced",
            "names": {
                "kind": "TargetAllocator", "listKind": "TargetAllocatorList",
                "plural": "targetallocators", "singular": "targetallocator",
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": schema(&spec),
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Age", "date", ".metadata.creationTimestamp"),
                    column("Image", "string", ".status.image"),
                    column("Management", "string", ".spec.managementState"),
                ],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_keep_what_they_were_written_with() {
        let crds = crds();
        assert_eq!(crds.len(), 3);
        let collector = serde_json::to_value(&crds[0]).unwrap();
        assert_eq!(collector, super::collector());
        let versions = collector["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.iter().filter(|v| v["storage"] == true).count(), 1);
        assert_eq!(serde_json::to_value(&crds[1]).unwrap(), super::jaeger());
        assert_eq!(serde_json::to_value(&crds[2]).unwrap(), super::target_allocator());
    }

    #[test]
    fn the_deployed_file_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes/10-crds.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text == crds_yaml(),
            "{path} is out of date: karez site-controller --print-crds > deploy/kubernetes/10-crds.yaml"
        );
        let read: Vec<Value> = text
            .split("---\n")
            .filter(|part| !part.is_empty())
            .map(|part| serde_saphyr::from_str(part).unwrap())
            .collect();
        assert_eq!(
            read,
            [super::collector(), super::jaeger(), super::target_allocator()]
        );
    }
}
