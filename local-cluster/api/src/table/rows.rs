//! The columns of the built-in kinds, and their cells.

use super::age;
use crate::store::text;
use jiff::Timestamp;
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
        ("", "Event") => "Last Seen,Type,Reason,Object,Message|Subobject,Source,First Seen,Count,Name",
        ("events.k8s.io", "Event") => {
            "Last Seen,Type,Reason,Object,Message|Subobject,Source,First Seen,Count,Name"
        }
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
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") | ("apiextensions.k8s.io", _) => {
            "Name,Created At"
        }
        ("admissionregistration.k8s.io", _) => "Name,Webhooks,Age",
        _ => "Name,Age",
    }
}

pub(super) fn cells(group: &str, kind: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = json!(text(object, "/metadata/name"));
    let since = json!(age(text(object, "/metadata/creationTimestamp"), now));
    let number = |pointer: &str| json!(object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0));
    let size = |pointer: &str| count(object, pointer);
    let words = |pointer: &str| json!(or_none(text(object, pointer)));
    match (group, kind) {
        ("", "Pod") => pod(object, name, since),
        ("", "Service") => service(object, name, since),
        ("", "ConfigMap") => vec![name, json!(size("/data") + size("/binaryData")), since],
        ("", "Secret") => vec![name, json!(text(object, "/type")), json!(size("/data")), since],
        ("", "ServiceAccount") => vec![name, json!(size("/secrets")), since],
        ("", "Namespace") => vec![name, json!(text(object, "/status/phase")), since],
        ("", "Node") => node(object, name, since),
        (_, "Event") => event(object, now),
        ("", "Endpoints") => vec![name, json!(endpoints(object)), since],
        ("", "PersistentVolumeClaim") => vec![
            name,
            json!(text(object, "/status/phase")),
            json!(text(object, "/spec/volumeName")),
            json!(text(object, "/status/capacity/storage")),
            json!(joined(object.pointer("/spec/accessModes"))),
            json!(text(object, "/spec/storageClassName")),
            json!("<unset>"),
            since,
            json!(text(object, "/spec/volumeMode")),
        ],
        ("apps", "Deployment") => {
            let ready = format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas"));
            let mut cells = vec![
                name,
                json!(ready),
                number("/status/updatedReplicas"),
                number("/status/availableReplicas"),
                since,
            ];
            cells.extend(template(object));
            cells
        }
        ("apps", "ReplicaSet") => {
            let mut cells = vec![
                name,
                number("/spec/replicas"),
                number("/status/replicas"),
                number("/status/readyReplicas"),
                since,
            ];
            cells.extend(template(object));
            cells
        }
        ("apps", "StatefulSet") => {
            let ready = format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas"));
            let mut cells = vec![name, json!(ready), since];
            cells.extend(template(object).into_iter().take(2));
            cells
        }
        ("apps", "DaemonSet") => {
            let counts = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ];
            let mut cells = vec![name];
            cells.extend(counts.iter().map(|c| number(&format!("/status/{c}"))));
            cells.push(json!(or_none(&pairs(
                object.pointer("/spec/template/spec/nodeSelector")
            ))));
            cells.push(since);
            cells.extend(template(object));
            cells
        }
        ("batch", "Job") => {
            let done = format!("{}/{}", number("/status/succeeded"), number("/spec/completions"));
            let state = if number("/status/succeeded") == number("/spec/completions") {
                "Complete"
            } else {
                "Running"
            };
            let mut cells = vec![name, json!(state), json!(done), json!(""), since];
            cells.extend(template(object));
            cells
        }
        ("batch", "CronJob") => {
            let last = text(object, "/status/lastScheduleTime");
            let last = if last.is_empty() {
                "<none>".to_owned()
            } else {
                age(last, now)
            };
            let suspended = object
                .pointer("/spec/suspend")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let suspended = if suspended { "True" } else { "False" };
            let mut cells = vec![
                name,
                json!(text(object, "/spec/schedule")),
                words("/spec/timeZone"),
                json!(suspended),
                json!(size("/status/active")),
                json!(last),
                since,
            ];
            cells.extend(template(
                object.pointer("/spec/jobTemplate").unwrap_or(&Value::Null),
            ));
            cells
        }
        _ => others(group, kind, object, name, since),
    }
}

fn others(group: &str, kind: &str, object: &Value, name: Value, since: Value) -> Vec<Value> {
    let words = |pointer: &str| json!(or_none(text(object, pointer)));
    let value = |pointer: &str| match object.pointer(pointer) {
        None | Some(Value::Null) => json!("N/A"),
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
    };
    match (group, kind) {
        ("discovery.k8s.io", "EndpointSlice") => {
            let ports: Vec<String> = list(object, "/ports").map(|p| p["port"].to_string()).collect();
            let addresses: Vec<&str> = list(object, "/endpoints")
                .flat_map(|e| list(e, "/addresses"))
                .filter_map(Value::as_str)
                .collect();
            vec![
                name,
                json!(text(object, "/addressType")),
                json!(some(&ports)),
                json!(some(&addresses)),
                since,
            ]
        }
        ("networking.k8s.io", "Ingress") => {
            let hosts: Vec<&str> = list(object, "/spec/rules")
                .map(|r| text(r, "/host"))
                .filter(|h| !h.is_empty())
                .collect();
            let ports = if count(object, "/spec/tls") > 0 {
                "80, 443"
            } else {
                "80"
            };
            let hosts = if hosts.is_empty() {
                "*".to_owned()
            } else {
                hosts.join(",")
            };
            vec![
                name,
                words("/spec/ingressClassName"),
                json!(hosts),
                json!(balancers(object).join(",")),
                json!(ports),
                since,
            ]
        }
        ("networking.k8s.io", "IngressClass") => vec![
            name,
            json!(text(object, "/spec/controller")),
            words("/spec/parameters/name"),
            since,
        ],
        ("networking.k8s.io", "NetworkPolicy") => {
            vec![
                name,
                json!(or_none(&pairs(object.pointer("/spec/podSelector/matchLabels")))),
                since,
            ]
        }
        ("coordination.k8s.io", "Lease") => vec![name, json!(text(object, "/spec/holderIdentity")), since],
        ("policy", "PodDisruptionBudget") => {
            let allowed = object
                .pointer("/status/disruptionsAllowed")
                .cloned()
                .unwrap_or(json!(0));
            vec![
                name,
                value("/spec/minAvailable"),
                value("/spec/maxUnavailable"),
                allowed,
                since,
            ]
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            let target = format!(
                "{}/{}",
                text(object, "/spec/scaleTargetRef/kind"),
                text(object, "/spec/scaleTargetRef/name")
            );
            let number = |p: &str| json!(object.pointer(p).and_then(Value::as_i64).unwrap_or(0));
            vec![
                name,
                json!(target),
                json!("<unknown>"),
                number("/spec/minReplicas"),
                number("/spec/maxReplicas"),
                number("/status/currentReplicas"),
                since,
            ]
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            let role = format!(
                "{}/{}",
                text(object, "/roleRef/kind"),
                text(object, "/roleRef/name")
            );
            let of = |kind: &str| {
                let subjects = list(object, "/subjects").filter(|s| text(s, "/kind") == kind);
                let names: Vec<String> = subjects
                    .map(|s| match text(s, "/namespace") {
                        "" => text(s, "/name").to_owned(),
                        namespace => format!("{namespace}/{}", text(s, "/name")),
                    })
                    .collect();
                json!(names.join(", "))
            };
            vec![
                name,
                json!(role),
                since,
                of("User"),
                of("Group"),
                of("ServiceAccount"),
            ]
        }
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => {
            vec![name, json!(text(object, "/metadata/creationTimestamp"))]
        }
        ("admissionregistration.k8s.io", _) => vec![name, json!(count(object, "/webhooks")), since],
        _ => vec![name, since],
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

fn joined(list: Option<&Value>) -> String {
    let items: Vec<&str> = list
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    items.join(",")
}

fn pairs(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object);
    let pairs: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    pairs.join(",")
}

/// Up to three, and how many more.
fn some<T: AsRef<str>>(items: &[T]) -> String {
    const SHOWN: usize = 3;
    if items.is_empty() {
        return "<unset>".to_owned();
    }
    let shown: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if items.len() > SHOWN {
        format!(" + {} more...", items.len() - SHOWN)
    } else {
        String::new()
    };
    shown.join(",") + &more
}

/// Containers, images, selector of what makes Pods.
fn template(object: &Value) -> Vec<Value> {
    let containers = || list(object, "/spec/template/spec/containers");
    let names: Vec<&str> = containers().map(|c| text(c, "/name")).collect();
    let images: Vec<&str> = containers().map(|c| text(c, "/image")).collect();
    let selector = pairs(object.pointer("/spec/selector/matchLabels"));
    vec![
        json!(names.join(",")),
        json!(images.join(",")),
        json!(or_none(&selector)),
    ]
}

fn pod(object: &Value, name: Value, since: Value) -> Vec<Value> {
    let total = count(object, "/spec/containers");
    let statuses = || list(object, "/status/containerStatuses");
    let ready = statuses().filter(|s| s["ready"] == true).count();
    let restarts: i64 = statuses().filter_map(|s| s["restartCount"].as_i64()).sum();
    let node = or_none(text(object, "/spec/nodeName"));
    let ip = or_none(text(object, "/status/podIP"));
    vec![
        name,
        json!(format!("{ready}/{total}")),
        json!(pod_status(object)),
        json!(restarts.to_string()),
        since,
        json!(ip),
        json!(node),
        json!(or_none(text(object, "/status/nominatedNodeName"))),
        json!("<none>"),
    ]
}

/// The phase, unless a container or the Pod itself says something more exact.
fn pod_status(object: &Value) -> String {
    let reason = text(object, "/status/reason");
    let mut words = if reason.is_empty() {
        text(object, "/status/phase")
    } else {
        reason
    }
    .to_owned();
    for status in list(object, "/status/initContainerStatuses") {
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() && waiting != "PodInitializing" {
            words = format!("Init:{waiting}");
        }
    }
    let mut running = false;
    for status in list(object, "/status/containerStatuses") {
        let (waiting, ended) = (
            text(status, "/state/waiting/reason"),
            text(status, "/state/terminated/reason"),
        );
        if !waiting.is_empty() {
            words = waiting.to_owned();
        } else if !ended.is_empty() {
            words = ended.to_owned();
        } else if let Some(code) = status.pointer("/state/terminated/exitCode") {
            words = format!("ExitCode:{code}");
        }
        running |= status["ready"] == true && status.pointer("/state/running").is_some();
    }
    if words == "Completed" && running {
        words = "Running".to_owned();
    }
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        return "Terminating".to_owned();
    }
    if words.is_empty() {
        "Unknown".to_owned()
    } else {
        words
    }
}

fn balancers(object: &Value) -> Vec<&str> {
    list(object, "/status/loadBalancer/ingress")
        .map(|i| {
            if text(i, "/ip").is_empty() {
                text(i, "/hostname")
            } else {
                text(i, "/ip")
            }
        })
        .collect()
}

fn service(object: &Value, name: Value, since: Value) -> Vec<Value> {
    let kind = text(object, "/spec/type");
    let mut external: Vec<&str> = list(object, "/spec/externalIPs")
        .filter_map(Value::as_str)
        .collect();
    if kind == "LoadBalancer" {
        external.extend(balancers(object));
    }
    let external = match kind {
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" if external.is_empty() => "<pending>".to_owned(),
        _ => or_none(&external.join(",")).to_owned(),
    };
    let ports: Vec<String> = list(object, "/spec/ports")
        .map(|p| match p["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{}", p["port"], text(p, "/protocol")),
            _ => format!("{}/{}", p["port"], text(p, "/protocol")),
        })
        .collect();
    let selector = pairs(object.pointer("/spec/selector"));
    vec![
        name,
        json!(kind),
        json!(or_none(text(object, "/spec/clusterIP"))),
        json!(external),
        json!(or_none(&ports.join(","))),
        since,
        json!(or_none(&selector)),
    ]
}

fn node(object: &Value, name: Value, since: Value) -> Vec<Value> {
    let ready = list(object, "/status/conditions").find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status += ",SchedulingDisabled";
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = |kind: &str| {
        let found = list(object, "/status/addresses").find(|a| text(a, "/type") == kind);
        json!(or_none(found.map_or("", |a| text(a, "/address"))))
    };
    let info = |field: &str| {
        let found = text(object, &format!("/status/nodeInfo/{field}"));
        json!(if found.is_empty() { "<unknown>" } else { found })
    };
    let version = json!(text(object, "/status/nodeInfo/kubeletVersion"));
    vec![
        name,
        json!(status),
        json!(or_none(&roles.join(","))),
        since,
        version,
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        for address in list(subset, "/addresses") {
            for port in list(subset, "/ports") {
                all.push(format!("{}:{}", text(address, "/ip"), port["port"]));
            }
        }
    }
    if all.is_empty() {
        "<none>".to_owned()
    } else {
        some(&all)
    }
}

/// Events of both kinds: the newer one has other names for the same.
fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let first_of = |pointers: &[&str]| {
        pointers
            .iter()
            .map(|p| text(object, p))
            .find(|t| !t.is_empty())
            .unwrap_or("")
            .to_owned()
    };
    let last = first_of(&[
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ]);
    let first = first_of(&[
        "/firstTimestamp",
        "/deprecatedFirstTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ]);
    let about = if object.get("involvedObject").is_some() {
        "/involvedObject"
    } else {
        "/regarding"
    };
    let part = |field: &str| text(object, &format!("{about}/{field}"));
    let source = first_of(&[
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ]);
    let count = ["/series/count", "/count", "/deprecatedCount"]
        .iter()
        .find_map(|p| object.pointer(p)?.as_i64())
        .unwrap_or(1);
    vec![
        json!(age(&last, now)),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(format!("{}/{}", part("kind").to_lowercase(), part("name"))),
        json!(first_of(&["/message", "/note"]).trim()),
        json!(part("fieldPath")),
        json!(source),
        json!(age(&first, now)),
        json!(count),
        json!(text(object, "/metadata/name")),
    ]
}
