//! The columns of the built-in kinds, and their cells.

use super::{
    core,
    row::{Row, or_none, some},
    workloads,
};
use serde_json::{Value, json};

/// The columns of a kind; those after the bar are for `-o wide`.
pub(super) fn header(group: &str, kind: &str) -> &'static str {
    match (group, kind) {
        ("", "Pod") => "Name,Ready,Status,Restarts,Age|IP,Node,Nominated Node,Readiness Gates",
        ("", "Service") => "Name,Type,Cluster-IP,External-IP,Port(s),Age|Selector",
        ("", "ConfigMap") => "Name,Data,Age",
        ("", "Secret") => "Name,Type,Data,Age",
        ("", "ServiceAccount") => "Name,Secrets,Age",
        ("", "Namespace") => "Name,Status,Age",
        ("", "Node") => {
            "Name,Status,Roles,Age,Version|Internal-IP,External-IP,OS-Image,Kernel-Version,Container-Runtime"
        }
        (_, "Event") => "Last Seen,Type,Reason,Object,+Subobject,+Source,Message,+First Seen,+Count,+Name",
        ("", "Endpoints") => "Name,Endpoints,Age",
        ("", "PersistentVolumeClaim") => {
            "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age|VolumeMode"
        }
        ("apps", "Deployment") => "Name,Ready,Up-to-date,Available,Age|Containers,Images,Selector",
        ("apps", "ReplicaSet") => "Name,Desired,Current,Ready,Age|Containers,Images,Selector",
        ("apps", "StatefulSet") => "Name,Ready,Age|Containers,Images",
        ("apps", "DaemonSet") => {
            "Name,Desired,Current,Ready,Up-to-date,Available,Node Selector,Age|Containers,Images,Selector"
        }
        ("batch", "Job") => "Name,Status,Completions,Duration,Age|Containers,Images,Selector",
        ("batch", "CronJob") => {
            "Name,Schedule,Timezone,Suspend,Active,Last Schedule,Age|Containers,Images,Selector"
        }
        ("discovery.k8s.io", "EndpointSlice") => "Name,AddressType,Ports,Endpoints,Age",
        ("networking.k8s.io", "Ingress") => "Name,Class,Hosts,Address,Ports,Age",
        ("networking.k8s.io", "IngressClass") => "Name,Controller,Parameters,Age",
        ("networking.k8s.io", "NetworkPolicy") => "Name,Pod-Selector,Age",
        ("coordination.k8s.io", "Lease") => "Name,Holder,Age",
        ("policy", "PodDisruptionBudget") => "Name,Min Available,Max Unavailable,Allowed Disruptions,Age",
        ("autoscaling", "HorizontalPodAutoscaler") => "Name,Reference,Targets,MinPods,MaxPods,Replicas,Age",
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            "Name,Role,Age|Users,Groups,ServiceAccounts"
        }
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => "Name,Created At",
        ("admissionregistration.k8s.io", _) => "Name,Webhooks,Age",
        _ => "Name,Age",
    }
}

/// The cells in the order of the columns.
pub(super) fn cells(group: &str, kind: &str, row: Row<'_>) -> Vec<Value> {
    match (group, kind) {
        (_, "Event") => core::event(row),
        ("", _) => core::cells(kind, row),
        ("apps" | "batch", _) => workloads::cells(kind, row),
        ("discovery.k8s.io" | "networking.k8s.io", _) => network(kind, row),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(row),
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => {
            vec![row.name(), json!(row.text("/metadata/creationTimestamp"))]
        }
        ("admissionregistration.k8s.io", _) => vec![row.name(), json!(row.size("/webhooks")), row.age()],
        ("coordination.k8s.io", _) => vec![row.name(), json!(row.text("/spec/holderIdentity")), row.age()],
        ("policy", "PodDisruptionBudget") => vec![
            row.name(),
            applicable(row, "/spec/minAvailable"),
            applicable(row, "/spec/maxUnavailable"),
            row.number("/status/disruptionsAllowed"),
            row.age(),
        ],
        ("autoscaling", "HorizontalPodAutoscaler") => vec![
            row.name(),
            json!(format!(
                "{}/{}",
                row.text("/spec/scaleTargetRef/kind"),
                row.text("/spec/scaleTargetRef/name")
            )),
            json!("<unknown>"),
            row.number("/spec/minReplicas"),
            row.number("/spec/maxReplicas"),
            row.number("/status/currentReplicas"),
            row.age(),
        ],
        _ => vec![row.name(), row.age()],
    }
}

/// A number or percentage, or `N/A`.
fn applicable(row: Row<'_>, pointer: &str) -> Value {
    match row.object.pointer(pointer) {
        None | Some(Value::Null) => json!("N/A"),
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
    }
}

fn network(kind: &str, row: Row<'_>) -> Vec<Value> {
    match kind {
        "EndpointSlice" => {
            let ports: Vec<String> = row.list("/ports").map(|p| p.object["port"].to_string()).collect();
            let addresses: Vec<&str> = row
                .list("/endpoints")
                .flat_map(|e| e.texts("/addresses"))
                .collect();
            let shown = |items: String| {
                json!(if items.is_empty() {
                    "<unset>".to_owned()
                } else {
                    items
                })
            };
            vec![
                row.name(),
                json!(row.text("/addressType")),
                shown(some(&ports)),
                shown(some(&addresses)),
                row.age(),
            ]
        }
        "Ingress" => {
            let hosts: Vec<&str> = row
                .list("/spec/rules")
                .map(|r| r.text("/host"))
                .filter(|h| !h.is_empty())
                .collect();
            let hosts = if hosts.is_empty() {
                "*".to_owned()
            } else {
                hosts.join(",")
            };
            let ports = if row.size("/spec/tls") > 0 {
                "80, 443"
            } else {
                "80"
            };
            let address = row.balancers().join(",");
            let class = row.words("/spec/ingressClassName");
            vec![
                row.name(),
                class,
                json!(hosts),
                json!(address),
                json!(ports),
                row.age(),
            ]
        }
        "IngressClass" => {
            let controller = json!(row.text("/spec/controller"));
            vec![
                row.name(),
                controller,
                row.words("/spec/parameters/name"),
                row.age(),
            ]
        }
        "NetworkPolicy" => vec![
            row.name(),
            json!(row.pairs("/spec/podSelector/matchLabels")),
            row.age(),
        ],
        _ => vec![row.name(), row.age()],
    }
}

fn binding(row: Row<'_>) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = row
            .list("/subjects")
            .filter(|s| s.text("/kind") == kind)
            .map(|s| match s.text("/namespace") {
                "" => s.text("/name").to_owned(),
                namespace => format!("{namespace}/{}", s.text("/name")),
            })
            .collect();
        json!(names.join(", "))
    };
    let role = format!(
        "{}/{}",
        row.text("/roleRef/kind"),
        or_none(row.text("/roleRef/name"))
    );
    vec![
        row.name(),
        json!(role),
        row.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
