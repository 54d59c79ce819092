//! Collectors that declare a target allocator, on one machine: what is made runs, secrets come over mutual TLS, and
//! `kubectl scale` moves targets.
//!
//! ```text
//! this test: exporters (they want a password) ◀─ scrapes ─ collectors ◀─ mutual TLS ─ two allocators, one Lease
//!                └─ scale 2 → 3 → 1 ─▶ OpenTelemetryCollector
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::real_cluster::{Controller, ONE_AT_A_TIME};
use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::http;
use crate::support::kubernetes::{Kubernetes, PodRuntime};
use crate::support::site::Site;
use crate::support::stage::{Need, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const CLUSTER: &[Need] = &[
        Need::Peer("kubectl"),
        Need::Peer("etcd"),
        Need::Peer("kube-apiserver"),
        Need::Peer("kube-controller-manager"),
    ];
    vec![
        trial(
            "divided::scaling_collectors_moves_targets_with_secrets",
            &[],
            scaling_moves_targets,
        ),
        trial(
            "divided::the_rules_that_are_asked_for_suffice_in_a_real_cluster",
            CLUSTER,
            the_rules_suffice,
        ),
    ]
}

/// How many exporters there are: so many that none of three collectors gets none by chance.
const EXPORTERS: usize = 40;
/// `prometheus:wonderland`
const AUTHORIZATION: &str = "basic cHJvbWV0aGV1czp3b25kZXJsYW5k";

/// Exporters that want a password, and when each was asked last with it.
struct Exporters {
    addresses: Vec<SocketAddr>,
    scraped: Arc<Mutex<BTreeMap<SocketAddr, Instant>>>,
}

impl Exporters {
    fn start() -> Outcome<Self> {
        let scraped = Arc::new(Mutex::new(BTreeMap::new()));
        let mut addresses = Vec::new();
        for _ in 0..EXPORTERS {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            addresses.push(address);
            let scraped = scraped.clone();
            // It ends with the process, as it holds nothing that outlives it.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let scraped = scraped.clone();
                    thread::spawn(move || {
                        // A collector that goes away in the middle is no fault of an exporter.
                        let _ = serve(stream, address, &scraped);
                    });
                }
            });
        }
        Ok(Exporters { addresses, scraped })
    }

    /// Whether each was scraped after an instant.
    fn all_since(&self, since: Instant) -> bool {
        let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        self.addresses
            .iter()
            .all(|address| scraped.get(address).is_some_and(|at| *at > since))
    }
}

fn serve(
    mut stream: TcpStream,
    own: SocketAddr,
    scraped: &Mutex<BTreeMap<SocketAddr, Instant>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut knows) = (String::new(), false);
    while reader.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            let (status, body) = match knows {
                true => ("200 OK", "up_and_well 1\n"),
                false => ("401 Unauthorized", "who are you?\n"),
            };
            if knows {
                let mut scraped = scraped.lock().unwrap_or_else(PoisonError::into_inner);
                scraped.insert(own, Instant::now());
            }
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            knows = false;
        }
        let header = line.trim().to_ascii_lowercase();
        knows |= header == format!("authorization: {}", AUTHORIZATION.to_ascii_lowercase());
        line.clear();
    }
    Ok(())
}

fn collector(exporters: &Exporters, resources: &Value) -> Value {
    let targets: Vec<String> = exporters.addresses.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
        "metadata": {"name": "divided"},
        "spec": {
            "mode": "statefulset", "replicas": 2,
            "targetAllocator": {"enabled": true, "replicas": 2, "prometheusCR": resources},
            "config": {
                "receivers": {"prometheus": {"config": {"scrape_configs": [{
                    "job_name": "exporters", "scrape_interval": "1s",
                    "basic_auth": {"username": "prometheus", "password": "wonderland"},
                    "static_configs": [{"targets": targets}],
                }]}}},
                "exporters": {"debug": {}},
                "service": {"pipelines": {"metrics": {"receivers": ["prometheus"], "exporters": ["debug"]}}},
            },
        },
    })
}

/// Where each allocator that is ready answers over plain HTTP.
fn allocators(cluster: &Cluster) -> Outcome<Vec<SocketAddr>> {
    let pods = cluster.list("/api/v1/namespaces/default/pods")?;
    let ours = pods.iter().filter(|pod| {
        text(pod, "/metadata/labels/app.kubernetes.io~1component") == "opentelemetry-targetallocator"
            && pod["metadata"].get("deletionTimestamp").is_none()
    });
    let addresses = ours.filter_map(|pod| format!("{}:8080", text(pod, "/status/podIP")).parse().ok());
    let addresses: Vec<SocketAddr> = addresses.collect();
    Ok(addresses
        .into_iter()
        .filter(|address| http::get(*address, "/readyz").is_ok_and(|(status, _)| status == 200))
        .collect())
}

/// How many targets each collector has, as an allocator tells it.
fn division(allocator: SocketAddr) -> Outcome<BTreeMap<String, usize>> {
    let (status, body) = http::get(allocator, "/jobs/exporters/targets")?;
    ensure!(status == 200, "{status}: {body}");
    let all: BTreeMap<String, Value> = serde_json::from_str(&body).context(body)?;
    let count = |collector: &Value| collector["targets"].as_array().map_or(0, Vec::len);
    Ok(all.iter().map(|(name, has)| (name.clone(), count(has))).collect())
}

/// Waits until every allocator says that so many collectors have everything, each exporter once, and all are scraped.
fn wait_divided(cluster: &Cluster, exporters: &Exporters, collectors: usize) -> Outcome {
    wait_for(format!("{collectors} collectors with all targets"), 90, || {
        let answering = allocators(cluster)?;
        if answering.len() != 2 {
            return Ok(Err(format!("{} allocators are ready", answering.len())));
        }
        for allocator in answering {
            let Ok(division) = division(allocator) else {
                return Ok(Err(format!("{allocator} does not answer")));
            };
            let all: usize = division.values().sum();
            let idle = division.values().any(|count| *count == 0);
            if division.len() != collectors || all != EXPORTERS || idle {
                return Ok(Err(format!("{allocator} says {division:?}")));
            }
        }
        Ok(Ok(()))
    })?;
    let now = Instant::now();
    wait_until("each exporter to be scraped with its password", 60, || {
        Ok(exporters.all_since(now))
    })
}

fn scaling_moves_targets(stage: &Stage) -> Outcome {
    let exporters = Exporters::start()?;
    let manifests = stage.folder("manifests")?;
    fs::write(
        manifests.join("collector.yaml"),
        serde_json::to_string_pretty(&collector(&exporters, &Value::Null))?,
    )?;
    let site = Site::start(stage, "local", &manifests)?;
    let cluster = site.cluster()?;
    wait_divided(&cluster, &exporters, 2)?;
    for allocator in allocators(&cluster)? {
        let (_, body) = http::get(allocator, "/scrape_configs")?;
        ensure!(
            !body.contains("wonderland") && !body.contains("exporters"),
            "plain HTTP gives the job: {body}"
        );
    }
    let path = "/apis/opentelemetry.io/v1beta1/namespaces/default/opentelemetrycollectors/divided/scale";
    for replicas in [3, 1] {
        cluster.merge(path, &json!({"spec": {"replicas": replicas}}))?;
        wait_divided(&cluster, &exporters, replicas)?;
    }
    Ok(())
}

/// Where the runtime offers what wants a load balancer; nothing does here.
const BALANCER: &str = "127.83.1.4";
const MONITOR: &str = "/jobs/serviceMonitor%2Fdefault%2Fmonitored%2F0/targets";

/// The definition of ServiceMonitors, as far as an API server needs it.
const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, plural: servicemonitors, singular: servicemonitor}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// A Service without Pods, its addresses, and who wants it scraped.
const MONITORED: &str = "
apiVersion: v1
kind: Service
metadata: {name: monitored, namespace: default, labels: {app: monitored}}
spec: {ports: [{name: metrics, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: monitored-1, namespace: default, labels: {kubernetes.io/service-name: monitored}}
addressType: IPv4
ports: [{name: metrics, port: 9999}]
endpoints: [{addresses: [10.9.8.7], conditions: {ready: true}}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: monitored, namespace: default}
spec: {selector: {matchLabels: {app: monitored}}, endpoints: [{port: metrics}]}
";

/// The rules that an allocator's page asks for.
fn rules_asked_for(allocator: SocketAddr) -> Outcome<Option<String>> {
    let (_, page) = http::get(allocator, "/")?;
    let shown = page
        .split_once("<h2>Rights that are missing</h2>")
        .and_then(|(_, rest)| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split_once("</pre>"));
    Ok(shown.map(|(rules, _)| rules.replace("&quot;", "\"")))
}

/// Grants the rules to the letter, to the account that the allocators run under.
fn grant(cluster: &Cluster, rules: &str, name: &str) -> Outcome {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in rules.lines().filter(|line| !line.is_empty()) {
        match (line.strip_suffix(':'), sections.last_mut()) {
            (Some(head), _) => sections.push((head.to_owned(), String::new())),
            (None, Some((_, rules))) => *rules += &format!("{line}\n"),
            (None, None) => anyhow::bail!("a rule of no role: {line}"),
        }
    }
    for (head, rules) in sections {
        let (kind, place) = match head.strip_prefix("Role in namespace ") {
            Some(namespace) => ("Role", format!(", namespace: {namespace}")),
            None => ("ClusterRole", String::new()),
        };
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}{place}}}\nrules:\n{rules}---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}Binding\nmetadata: {{name: {name}{place}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {name}}}\n\
             subjects: [{{kind: ServiceAccount, name: divided-targetallocator, namespace: default}}]\n"
        );
        cluster.kubectl(&["apply", "-f", "-"], &role)?;
    }
    Ok(())
}

/// Grants whatever is asked for until nothing is any more and the condition holds.
fn grant_until(cluster: &Cluster, what: &str, holds: impl Fn(SocketAddr) -> Outcome<bool>) -> Outcome {
    let mut granted: Vec<String> = Vec::new();
    wait_for(what, 150, || {
        let answering = allocators(cluster)?;
        for allocator in &answering {
            if let Some(rules) = rules_asked_for(*allocator)?
                && !granted.contains(&rules)
            {
                grant(
                    cluster,
                    &rules,
                    &format!("asked-for-{}-{}", what.len(), granted.len()),
                )?;
                granted.push(rules);
            }
        }
        if granted.is_empty() {
            return Ok(Err("nothing is asked for".to_owned()));
        }
        for allocator in &answering {
            if let Some(rules) = rules_asked_for(*allocator)? {
                return Ok(Err(format!("{allocator} asks for {rules}")));
            }
            if !holds(*allocator)? {
                return Ok(Err(format!("{allocator} does not have it")));
            }
        }
        Ok(if answering.len() == 2 {
            Ok(())
        } else {
            Err(format!("{} allocators are ready", answering.len()))
        })
    })
}

fn the_rules_suffice(stage: &Stage) -> Outcome {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let exporters = Exporters::start()?;
    let kubernetes = Kubernetes::start(stage)?;
    let cluster = &kubernetes.admin;
    let _controller = Controller::start(stage, &kubernetes)?;
    let _runtime = PodRuntime::start(stage, &kubernetes, BALANCER)?;
    let resources = json!({"enabled": true, "serviceMonitorSelector": {}, "podMonitorSelector": {}});
    let declared = collector(&exporters, &resources);
    cluster.kubectl(&["apply", "-f", "-"], &declared.to_string())?;
    // What the site-controller grants suffices for its own jobs: one leads, secrets go over TLS.
    wait_divided(cluster, &exporters, 2)?;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/divided-targetallocator";
    let lease = cluster.wait(lease, 30)?;
    ensure!(
        text(&lease, "/spec/holderIdentity").starts_with("divided-targetallocator-"),
        "{lease}"
    );
    // No kind of Prometheus is installed; what they need is asked for all the same.
    grant_until(cluster, "the first rules", |_| Ok(true))?;
    cluster.kubectl(&["apply", "-f", "-"], DEFINITION)?;
    let established = "--for=condition=Established";
    cluster.kubectl(
        &[
            "wait",
            established,
            "crd/servicemonitors.monitoring.coreos.com",
            "--timeout=30s",
        ],
        "",
    )?;
    cluster.kubectl(&["apply", "-f", "-"], MONITORED)?;
    grant_until(cluster, "the rules of what the monitor finds", |allocator| {
        let (_, body) = http::get(allocator, MONITOR)?;
        Ok(body.contains("10.9.8.7:9999"))
    })?;
    let log = fs::read_to_string(stage.path("site-controller.log"))?;
    let forbidden = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
    ensure!(
        forbidden.is_none(),
        "the site-controller lacks rights: {forbidden:?}"
    );
    Ok(())
}
