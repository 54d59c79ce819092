//! Cells of the core group's kinds.

use super::{
    age,
    row::{Row, or_none, some},
};
use serde_json::{Value, json};

pub(super) fn cells(kind: &str, row: Row<'_>) -> Vec<Value> {
    match kind {
        "Pod" => pod(row),
        "Service" => service(row),
        "ConfigMap" => vec![
            row.name(),
            json!(row.size("/data") + row.size("/binaryData")),
            row.age(),
        ],
        "Secret" => vec![
            row.name(),
            json!(row.text("/type")),
            json!(row.size("/data")),
            row.age(),
        ],
        "ServiceAccount" => vec![row.name(), json!(row.size("/secrets")), row.age()],
        "Namespace" => vec![row.name(), json!(row.text("/status/phase")), row.age()],
        "Node" => node(row),
        "Endpoints" => vec![row.name(), json!(endpoints(row)), row.age()],
        "PersistentVolumeClaim" => vec![
            row.name(),
            json!(row.text("/status/phase")),
            json!(row.text("/spec/volumeName")),
            json!(row.text("/status/capacity/storage")),
            json!(row.texts("/spec/accessModes").join(",")),
            json!(row.text("/spec/storageClassName")),
            json!("<unset>"),
            row.age(),
            json!(row.text("/spec/volumeMode")),
        ],
        _ => vec![row.name(), row.age()],
    }
}

fn pod(row: Row<'_>) -> Vec<Value> {
    let statuses = || row.list("/status/containerStatuses");
    let ready = statuses().filter(|s| s.flag("/ready")).count();
    let restarts: i64 = statuses().filter_map(|s| s.object["restartCount"].as_i64()).sum();
    vec![
        row.name(),
        json!(format!("{ready}/{}", row.size("/spec/containers"))),
        json!(pod_status(row)),
        json!(restarts.to_string()),
        row.age(),
        row.words("/status/podIP"),
        row.words("/spec/nodeName"),
        row.words("/status/nominatedNodeName"),
        json!("<none>"),
    ]
}

/// The phase, unless a container or the Pod itself says something more exact.
fn pod_status(row: Row<'_>) -> String {
    if !row.text("/metadata/deletionTimestamp").is_empty() {
        return "Terminating".to_owned();
    }
    let reason = row.text("/status/reason");
    let mut words = if reason.is_empty() {
        row.text("/status/phase")
    } else {
        reason
    }
    .to_owned();
    for status in row.list("/status/initContainerStatuses") {
        let waiting = status.text("/state/waiting/reason");
        if !waiting.is_empty() && waiting != "PodInitializing" {
            words = format!("Init:{waiting}");
        }
    }
    let mut running = false;
    for status in row.list("/status/containerStatuses") {
        let (waiting, ended) = (
            status.text("/state/waiting/reason"),
            status.text("/state/terminated/reason"),
        );
        if !waiting.is_empty() || !ended.is_empty() {
            words = if waiting.is_empty() { ended } else { waiting }.to_owned();
        } else if let Some(code) = status.object.pointer("/state/terminated/exitCode") {
            words = format!("ExitCode:{code}");
        }
        running |= status.flag("/ready") && status.object.pointer("/state/running").is_some();
    }
    match words.as_str() {
        "Completed" if running => "Running".to_owned(),
        "" => "Unknown".to_owned(),
        _ => words,
    }
}

fn service(row: Row<'_>) -> Vec<Value> {
    let kind = row.text("/spec/type");
    let mut external = row.texts("/spec/externalIPs");
    if kind == "LoadBalancer" {
        external.extend(row.balancers());
    }
    let external = match kind {
        "ExternalName" => row.text("/spec/externalName").to_owned(),
        "LoadBalancer" if external.is_empty() => "<pending>".to_owned(),
        _ => or_none(&external.join(",")).to_owned(),
    };
    let port = |p: Row<'_>| match p.object["nodePort"].as_i64() {
        Some(node) if node > 0 => format!("{}:{node}/{}", p.object["port"], p.text("/protocol")),
        _ => format!("{}/{}", p.object["port"], p.text("/protocol")),
    };
    let ports: Vec<String> = row.list("/spec/ports").map(port).collect();
    vec![
        row.name(),
        json!(kind),
        row.words("/spec/clusterIP"),
        json!(external),
        json!(or_none(&ports.join(","))),
        row.age(),
        json!(row.pairs("/spec/selector")),
    ]
}

fn node(row: Row<'_>) -> Vec<Value> {
    let ready = row
        .list("/status/conditions")
        .find(|c| c.text("/type") == "Ready");
    let mut status = match ready.map(|c| c.text("/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if row.flag("/spec/unschedulable") {
        status += ",SchedulingDisabled";
    }
    let labels = row.object.pointer("/metadata/labels").and_then(Value::as_object);
    let role = |(k, _): (&String, _)| k.strip_prefix("node-role.kubernetes.io/").map(str::to_owned);
    let roles: Vec<String> = labels.into_iter().flatten().filter_map(role).collect();
    let address = |kind: &str| {
        let found = row.list("/status/addresses").find(|a| a.text("/type") == kind);
        json!(or_none(found.map_or("", |a| a.text("/address"))))
    };
    let info = |field: &str| {
        let found = row.text(&format!("/status/nodeInfo/{field}"));
        json!(if found.is_empty() { "<unknown>" } else { found })
    };
    vec![
        row.name(),
        json!(status),
        json!(or_none(&roles.join(","))),
        row.age(),
        json!(row.text("/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn endpoints(row: Row<'_>) -> String {
    let mut all = Vec::new();
    for subset in row.list("/subsets") {
        for address in subset.list("/addresses") {
            let ports = subset.list("/ports");
            all.extend(ports.map(|port| format!("{}:{}", address.text("/ip"), port.object["port"])));
        }
    }
    or_none(&some(&all)).to_owned()
}

/// Events of both kinds: the newer one has other names for the same.
pub(super) fn event(row: Row<'_>) -> Vec<Value> {
    let first_of = |pointers: &[&str]| {
        let mut texts = pointers.iter().map(|pointer| row.text(pointer));
        texts.find(|text| !text.is_empty()).unwrap_or("")
    };
    let last = first_of(&[
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
    ]);
    let first = first_of(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let about = if row.object.get("involvedObject").is_some() {
        "/involvedObject"
    } else {
        "/regarding"
    };
    let part = |field: &str| row.text(&format!("{about}/{field}"));
    let sources = [
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ];
    let counts = ["/series/count", "/count", "/deprecatedCount"];
    let count = counts
        .iter()
        .find_map(|pointer| row.object.pointer(pointer)?.as_i64())
        .unwrap_or(1);
    vec![
        json!(age(last, row.now)),
        json!(row.text("/type")),
        json!(row.text("/reason")),
        json!(format!("{}/{}", part("kind").to_lowercase(), part("name"))),
        json!(part("fieldPath")),
        json!(first_of(&sources)),
        json!(first_of(&["/message", "/note"]).trim()),
        json!(age(first, row.now)),
        json!(count),
        row.name(),
    ]
}
