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

use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::http;
use crate::support::site::Site;
use crate::support::stage::Stage;
use crate::support::wait::{wait_for, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "divided::scaling_collectors_moves_targets_with_secrets",
        &[],
        scaling_moves_targets,
    )]
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

fn collector(exporters: &Exporters) -> Value {
    let targets: Vec<String> = exporters.addresses.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
        "metadata": {"name": "divided"},
        "spec": {
            "mode": "statefulset", "replicas": 2,
            "targetAllocator": {"enabled": true, "replicas": 2},
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
        serde_json::to_string_pretty(&collector(&exporters))?,
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
