//! What Kubernetes discovery finds on a real API server, beside what Prometheus finds there: the same targets with the
//! same labels, for every role, with what can be attached to it, before and after changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::world::{self, Call, create, merge};
use super::{Allocator, ask};
use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::daemon::{Daemon, free, peer};
use crate::support::kubernetes::Kubernetes;
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[
        Need::Peer("prometheus"),
        Need::Peer("etcd"),
        Need::Peer("kube-apiserver"),
        Need::Peer("kube-controller-manager"),
    ];
    vec![trial(
        "allocator::kubernetes_targets_are_prometheus",
        NEEDS,
        as_prometheus,
    )]
}

const SHOP: &str = "shop";

/// What each job says of its discovery.
const JOBS: [(&str, &str); 11] = [
    ("node", "role: node"),
    ("pod", "role: pod"),
    (
        "pod-attached",
        "role: pod, attach_metadata: {node: true, namespace: true}",
    ),
    (
        "pod-selected",
        "role: pod, selectors: [{role: pod, label: 'app in (web,db)', field: spec.nodeName=node-1}]",
    ),
    ("service", "role: service"),
    (
        "service-of-one",
        "role: service, namespaces: {names: [shop]}, attach_metadata: {namespace: true}",
    ),
    ("endpoints", "role: endpoints"),
    ("endpointslice", "role: endpointslice"),
    (
        "slice-attached",
        "role: endpointslice, attach_metadata: {node: true, namespace: true}",
    ),
    (
        "slice-selected",
        "role: endpointslice, selectors: [{role: service, label: app=web}, {role: pod, label: app=web}]",
    ),
    ("ingress", "role: ingress"),
];

/// Jobs whose targets are shown with all the labels that were found. There what is dropped is, and twins are not made one;
/// here what is kept is, by all of its labels, with an address or without.
fn jobs(kubeconfig: &str, rules: &str) -> String {
    let mut text = String::from("scrape_configs:\n");
    for (name, discovery) in JOBS {
        let _ = writeln!(
            text,
            "- job_name: {name}\n  kubernetes_sd_configs: [{{{discovery}, kubeconfig_file: '{kubeconfig}'}}]\n  \
             relabel_configs: [{rules}]"
        );
    }
    text
}

const DROP: &str = "{source_labels: [job], regex: '.*', action: drop}";
const KEEP: &str = "{action: labelmap, regex: '__(meta_.+|address__)', replacement: 'm_$1'}, {target_label: __address__, replacement: x}";

fn pod(name: &str, app: &str, node: &str, owner: &str, containers: &Value) -> Call {
    create(
        world::core(SHOP, "pods"),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": {"app": app, "example.com/tier-1": "back"}, "annotations": {"a.b/c-d": "Wert ü"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner, "controller": true}],
            },
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false, "containers": containers,
                "initContainers": [{"name": "first", "image": "example.com/first", "ports": [{"name": "init", "containerPort": 7000}]}],
            },
        }),
    )
}

fn status(name: &str, ip: &str, phase: &str, ready: bool) -> Call {
    let ready = if ready { "True" } else { "False" };
    let mut status = json!({
        "phase": phase, "hostIP": "10.255.0.1",
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [{"name": "web", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{name}")}],
    });
    if !ip.is_empty() {
        status["podIP"] = json!(ip);
        status["podIPs"] = json!([{"ip": ip}]);
    }
    merge(
        world::core(SHOP, "pods") + &format!("/{name}/status"),
        json!({"status": status}),
    )
}

fn service(name: &str, spec: &Value) -> Call {
    create(
        world::core(SHOP, "services"),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "labels": {"app": name}, "annotations": {"scrape": "true"}}, "spec": spec}),
    )
}

fn furnish(cluster: &Cluster) -> Outcome {
    world::furnish(cluster, &[SHOP.to_owned(), "other".to_owned()])?;
    let web = json!([
        {"name": "web", "image": "example.com/web:1", "ports": [
            {"name": "web", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}, {"containerPort": 53, "protocol": "UDP"}]},
        {"name": "side", "image": "example.com/side:1"},
    ]);
    // Whose owner is not there is collected.
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    let owner = cluster.create(&world::core(SHOP, "configmaps"), &owner)?;
    let owner = text(&owner, "/metadata/uid");
    let bare = json!([{"name": "web", "image": "example.com/db:1"}]);
    world::all(
        cluster,
        vec![
            merge(
                format!("/api/v1/namespaces/{SHOP}"),
                json!({"metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}}}),
            ),
            pod("web-1", "web", "node-0", owner, &web),
            pod("web-2", "web", "node-1", owner, &web),
            pod("web-3", "web", "node-1", owner, &web),
            pod("db-1", "db", "node-1", owner, &bare),
            pod("waits", "web", "node-2", owner, &web),
            service(
                "web",
                &json!({"selector": {"app": "web"}, "ports": [
                {"name": "web", "port": 80, "targetPort": "web"}, {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"}]}),
            ),
            service(
                "db",
                &json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 5432}]}),
            ),
            service(
                "away",
                &json!({"type": "ExternalName", "externalName": "db.example.com", "ports": [{"name": "p", "port": 1}]}),
            ),
            service(
                "open",
                &json!({"type": "LoadBalancer", "loadBalancerIP": "192.0.2.9", "ports": [{"name": "a", "port": 443}, {"name": "b", "port": 444}]}),
            ),
        ],
    )?;
    world::all(
        cluster,
        vec![
            status("web-1", "10.0.0.1", "Running", true),
            status("web-2", "10.0.0.2", "Running", false),
            status("web-3", "fd00::3", "Running", true),
            status("db-1", "10.0.0.4", "Running", true),
            status("waits", "", "Pending", false),
            create(
                format!("/apis/discovery.k8s.io/v1/namespaces/{SHOP}/endpointslices"),
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv6",
                    "metadata": {"name": "open-by-hand", "labels": {"kubernetes.io/service-name": "open"}, "annotations": {"by": "hand"}},
                    "endpoints": [
                        {"addresses": ["fd00::9"], "hostname": "nine", "nodeName": "node-0", "zone": "z",
                            "conditions": {"ready": false, "serving": true, "terminating": true}},
                        {"addresses": ["fd00::a"], "targetRef": {"kind": "Node", "name": "node-1"}},
                    ],
                    "ports": [{"name": "a", "port": 443, "protocol": "TCP", "appProtocol": "https"}, {"name": "b", "port": 444}],
                }),
            ),
            create(
                format!("/apis/networking.k8s.io/v1/namespaces/{SHOP}/ingresses"),
                json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                    "metadata": {"name": "front", "labels": {"a": "b"}, "annotations": {"c": "d"}},
                    "spec": {
                        "ingressClassName": "nginx", "tls": [{"hosts": ["*.example.com", "b.test"]}],
                        "rules": [
                            rule("a.example.com", &["/", "/x"]), rule("b.test", &["/y"]), rule("plain.test", &["/z"]),
                            {"http": {"paths": [backend("/any")]}}, {"host": "no-paths.test"},
                        ],
                    },
                }),
            ),
        ],
    )
}

fn rule(host: &str, paths: &[&str]) -> Value {
    let paths: Vec<Value> = paths.iter().map(|path| backend(path)).collect();
    json!({"host": host, "http": {"paths": paths}})
}

fn backend(path: &str) -> Value {
    json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "web"}}}})
}

type Labels = BTreeMap<String, String>;
/// How many targets of a job have these labels.
type Found = BTreeMap<(String, Labels), usize>;

/// Labels that every target has there, and that are not of its discovery.
fn is_discovered(name: &str) -> bool {
    name == "__address__" || name == "instance" || name.starts_with("__meta_")
}

fn add(found: &mut Found, job: &str, labels: &Value) {
    let labels = labels.as_object().into_iter().flatten();
    let labels = labels.filter(|(name, value)| is_discovered(name) && value.as_str() != Some(""));
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    *found.entry((job.to_owned(), labels.collect())).or_default() += 1;
}

fn theirs(at: SocketAddr) -> Outcome<Found> {
    let mut found = Found::new();
    let answer = ask(at, "/api/v1/targets?state=dropped")?;
    for target in answer["data"]["droppedTargets"].as_array().into_iter().flatten() {
        let labels = &target["discoveredLabels"];
        add(&mut found, labels["job"].as_str().unwrap_or_default(), labels);
    }
    Ok(found)
}

fn ours(at: SocketAddr) -> Outcome<Found> {
    let mut found = Found::new();
    for (job, _) in JOBS {
        let answer = ask(at, &format!("/jobs/{job}/targets?collector_id=only"))?;
        for target in answer.as_array().into_iter().flatten() {
            add(&mut found, job, &target["labels"]);
        }
    }
    Ok(found)
}

/// The first targets that differ: each beside the one of its job there that is most like it, as the labels that differ.
fn difference(ours: &Found, theirs: &Found) -> String {
    let mut text = format!("{} targets here, {} there\n", ours.len(), theirs.len());
    for (what, a, b) in [("here", ours, theirs), ("there", theirs, ours)] {
        let only = a.iter().filter(|(target, count)| b.get(target) != Some(count));
        for ((job, labels), count) in only.take(6) {
            let unlike = |other: &Labels| -> Vec<String> {
                let lacks = labels
                    .iter()
                    .filter(|(name, value)| other.get(*name) != Some(value));
                let has = other
                    .iter()
                    .filter(|(name, value)| labels.get(*name) != Some(value));
                let lacks = lacks.map(|(name, value)| format!("+{name}={value}"));
                lacks
                    .chain(has.map(|(name, value)| format!("-{name}={value}")))
                    .collect()
            };
            let others = b.keys().filter(|(other, _)| other == job);
            let nearest = others.map(|(_, other)| unlike(other)).min_by_key(Vec::len);
            let address = labels.get("__address__");
            let _ = writeln!(text, "only {what}: {count} × {job} {address:?} {nearest:?}");
        }
    }
    text
}

fn same(what: &str, ours_at: SocketAddr, theirs_at: SocketAddr) -> Outcome<usize> {
    wait_for(format_args!("the same targets {what}"), 60, || {
        let (ours, theirs) = (ours(ours_at)?, theirs(theirs_at)?);
        let jobs: std::collections::BTreeSet<&String> = ours.keys().map(|(job, _)| job).collect();
        Ok(match ours == theirs && jobs.len() == JOBS.len() {
            true => Ok(ours.len()),
            false => Err(difference(&ours, &theirs)),
        })
    })
}

fn as_prometheus(stage: &Stage) -> Outcome {
    let kubernetes = Kubernetes::start(stage)?;
    let cluster = &kubernetes.admin;
    let _kubelets = world::Kubelets::start(cluster);
    furnish(cluster)?;
    let kubeconfig = cluster.kubeconfig.display().to_string();
    let (ours_at, theirs_at) = (free()?, free()?);
    let indented = jobs(&kubeconfig, KEEP).replace('\n', "\n  ");
    let document = format!("karez: {{collectors: [only]}}\nconfig:\n  {indented}\n");
    let allocator = Allocator::start(stage, "allocator", ours_at, &document, Some(&cluster.kubeconfig))?;
    let config = stage.path("prometheus.yaml");
    std::fs::write(&config, jobs(&kubeconfig, DROP))?;
    let mut command = peer("prometheus")?;
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", stage.path("tsdb").display()));
    command.arg(format!("--web.listen-address={theirs_at}"));
    let _prometheus = Daemon::start(stage, "prometheus", &mut command)?.listens(&[theirs_at])?;
    let first = same("at first", ours_at, theirs_at)?;
    world::all(
        cluster,
        vec![
            world::delete(world::core(SHOP, "pods/web-1"), 0),
            merge(
                world::core(SHOP, "pods/web-2"),
                json!({"metadata": {"labels": {"new": "label"}, "annotations": {"a.b/c-d": null}}}),
            ),
            status("waits", "10.0.0.5", "Running", true),
            merge(
                world::core(SHOP, "services/web"),
                json!({"metadata": {"labels": {"changed": "yes"}}}),
            ),
            merge(
                "/api/v1/nodes/node-1",
                json!({"metadata": {"labels": {"zone": "moved"}}}),
            ),
            merge(
                format!("/api/v1/namespaces/{SHOP}"),
                json!({"metadata": {"labels": {"team": "z"}}}),
            ),
            world::delete(world::core(SHOP, "services/db"), 0),
        ],
    )?;
    // Both are behind the changes for a while, and may agree on what was before.
    wait_for("the changes to be seen", 30, || {
        let found = ours(ours_at)?;
        let has = |label: &str| found.keys().any(|(_, labels)| labels.contains_key(label));
        Ok(
            match has("__meta_kubernetes_pod_label_new") && has("__meta_kubernetes_service_label_changed") {
                true => Ok(()),
                false => Err("they are not".to_owned()),
            },
        )
    })?;
    let then = same("after changes", ours_at, theirs_at)?;
    eprintln!("{first} targets at first, {then} after changes");
    allocator.stop()
}
