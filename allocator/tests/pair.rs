//! Two allocators and one Lease, over the local cluster's API: one decides, both answer the same, and nothing moves when
//! the one that decides is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};
use karez_allocator::{AllocatorOptions, Flags, run};
use karez_identity::{Authority, Subject, Usage};
use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use karez_net::Net;
use karez_scrape::client::{Answer, Client};
use karez_scrape::config::HttpConfig;
use karez_scrape::config::http::Tls;
use serde_json::{Value, json};

const COLLECTORS: [&str; 3] = ["c-0", "c-1", "c-2"];

struct Allocator {
    client: Client,
    address: String,
    stop: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A document in a folder of its own, with the rest shared.
fn start(shared: &Path, own: &str, cluster: &Arc<LocalCluster>, strategy: &str) -> Allocator {
    start_with(shared, own, cluster, strategy, "6s", "")
}

fn start_with(
    shared: &Path,
    own: &str,
    cluster: &Arc<LocalCluster>,
    strategy: &str,
    lasts: &str,
    further: &str,
) -> Allocator {
    let port = free_port();
    let folder = shared.display();
    let document = format!(
        "listen_addr: 127.0.0.1:{port}
allocation_strategy: {strategy}
karez: {{collectors_file: '{folder}/collectors.yaml', lease: allocators, lease_duration: {lasts}, settle: 10m, weighted: {{interval: 10m}}}}
config: {{scrape_configs: [{{job_name: a, file_sd_configs: [{{files: ['{folder}/*.json']}}]}}]}}
{further}"
    );
    let config = shared.join(own);
    std::fs::write(&config, document).expect("the folder is ours");
    let stop = Shutdown::new();
    let options = AllocatorOptions {
        config,
        flags: Flags {
            namespace: Some("default".to_owned()),
            ..Flags::default()
        },
        net: Net::system(),
        client: Some(cluster.client()),
    };
    let stopping = stop.clone();
    let task = tokio::spawn(async move { run(options, stopping).await.expect("the document is right") });
    Allocator {
        client: Client::new(&HttpConfig::default(), &Net::system()).expect("it needs no files"),
        address: format!("http://127.0.0.1:{port}"),
        stop,
        task,
    }
}

impl Allocator {
    async fn get(&self, path: &str) -> Option<Answer> {
        let url = format!("{}{path}", self.address);
        let headers = HeaderMap::new();
        let answer = self.client.get(&url, &headers, 0, Duration::from_secs(40)).await;
        answer.ok().filter(|answer| answer.status == StatusCode::OK)
    }

    async fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.get(path).await?.body).ok()
    }

    async fn leads(&self) -> bool {
        let text = self
            .get("/metrics")
            .await
            .map(|answer| answer.body)
            .unwrap_or_default();
        String::from_utf8_lossy(&text).contains("allocator_leading 1")
    }

    /// What each collector is told, with the tags of the answers.
    async fn lists(&self) -> BTreeMap<String, (Vec<String>, String)> {
        let mut all = BTreeMap::new();
        for name in COLLECTORS {
            let Some(answer) = self.get(&format!("/jobs/a/targets?collector_id={name}")).await else {
                continue;
            };
            let tag = answer.header(header::ETAG).unwrap_or_default().to_owned();
            let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let items = list.as_array().into_iter().flatten();
            let mut targets: Vec<String> = items
                .filter_map(|item| item["targets"][0].as_str().map(str::to_owned))
                .collect();
            targets.sort_unstable();
            all.insert(name.to_owned(), (targets, tag));
        }
        all
    }

    /// What it has itself, whoever leads.
    async fn own(&self) -> Option<Value> {
        let mut all = self.json("/jobs/a/targets").await?;
        for (_, collector) in all.as_object_mut()? {
            let list = collector["targets"].as_array_mut()?;
            list.sort_by_key(|target| target["targets"][0].as_str().map(str::to_owned));
        }
        Some(all)
    }

    async fn end(self) {
        self.stop.trigger();
        self.task.await.expect("it ends by itself");
    }
}

fn count(lists: &BTreeMap<String, (Vec<String>, String)>) -> usize {
    lists.values().map(|(targets, _)| targets.len()).sum()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn write(folder: &Path, targets: std::ops::Range<usize>, collectors: &[&str]) {
    let targets: Vec<String> = targets.map(|number| format!("h:{number}")).collect();
    std::fs::write(folder.join("collectors.yaml"), format!("{collectors:?}")).expect("the folder is ours");
    std::fs::write(
        folder.join("t.json.new"),
        json!([{"targets": targets, "labels": {}}]).to_string(),
    )
    .expect("the folder is ours");
    std::fs::rename(folder.join("t.json.new"), folder.join("t.json")).expect("the folder is ours");
}

/// What the next allocator would not do by itself: targets that came before their collectors did.
async fn with_a_history(folder: &Path, first: &Allocator) {
    write(folder, 0..30, &COLLECTORS[..2]);
    until("thirty targets are given", async || {
        count(&first.lists().await) == 30
    })
    .await;
    write(folder, 0..30, &COLLECTORS);
    until("the third collector is there", async || {
        let all = first.json("/jobs/a/targets").await.unwrap_or_default();
        all.get("c-2").is_some()
    })
    .await;
    write(folder, 0..36, &COLLECTORS);
    until("six more are given", async || count(&first.lists().await) >= 36).await;
}

async fn nothing_moves_when_the_leader_is_killed(strategy: &str) {
    let cluster_folder = tempfile::tempdir().expect("there is room");
    let folder = tempfile::tempdir().expect("there is room");
    let cluster =
        LocalCluster::open(LocalClusterOptions::new(cluster_folder.path())).expect("the folder is ours");
    write(folder.path(), 0..1, &COLLECTORS[..2]);
    let first = start(folder.path(), "one.yaml", &cluster, strategy);
    until("the first leads", async || first.leads().await).await;
    with_a_history(folder.path(), &first).await;

    let second = start(folder.path(), "two.yaml", &cluster, strategy);
    until("the second is ready", async || {
        second.get("/readyz").await.is_some()
    })
    .await;
    assert!(!second.leads().await && first.leads().await);
    let before = first.lists().await;
    assert_eq!(second.lists().await, before, "both give the same answer");
    until("the second has the same itself", async || {
        let own = first.own().await;
        own.is_some() && second.own().await == own
    })
    .await;

    // What a collector says to one that follows, the leader hears.
    let news = second
        .json("/collectors/c-2/changes")
        .await
        .expect("the leader answers through it");
    let since = news["since"].as_str().expect("it says up to where");
    let told = first
        .json(&format!("/collectors/c-2/changes?since={since}"))
        .await;
    assert_eq!(told.expect("it answers")["since"], since, "they count alike");

    // Killed: nothing is given back, nobody is told.
    first.task.abort();
    let _ = first.task.await;
    let alone = second.lists().await;
    assert_eq!(
        alone
            .values()
            .map(|(targets, _)| targets.clone())
            .collect::<Vec<_>>(),
        before
            .values()
            .map(|(targets, _)| targets.clone())
            .collect::<Vec<_>>(),
        "until another leads nothing changes"
    );
    until("the second leads", async || second.leads().await).await;
    assert_eq!(second.lists().await, before, "nothing moves");
    let third = start(folder.path(), "three.yaml", &cluster, strategy);
    until("the third is ready", async || {
        third.get("/readyz").await.is_some()
    })
    .await;
    assert_eq!(third.lists().await, before);
    // Now the leader goes in peace, and the next one leads without waiting for the Lease to run out.
    second.end().await;
    until("the third leads", async || third.leads().await).await;
    assert_eq!(third.lists().await, before);
    write(folder.path(), 0..37, &COLLECTORS);
    until("one more is given", async || {
        count(&third.lists().await) == count(&before) + 1
    })
    .await;
    let after = third.lists().await;
    for (name, (targets, _)) in &before {
        assert!(targets.iter().all(|target| after[name].0.contains(target)));
    }
    third.end().await;
}

/// Certificates of an authority, as the site-controller issues them.
fn issue(folder: &Path) {
    let now = jiff::Timestamp::now();
    let life = Duration::from_secs(86_400);
    let authority = Authority::new("allocators", now, life).expect("it can be made");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the folder is ours");
    write("ca.crt", authority.certificate_pem());
    for (name, hosts, usage) in [
        ("server", vec!["ta".to_owned()], Usage::Both),
        ("client", Vec::new(), Usage::Client),
    ] {
        let subject = Subject {
            common_name: name.to_owned(),
            dns_names: hosts,
            usage,
            lifetime: life,
            uri: None,
        };
        let issued = authority.issue(&subject, now).expect("it can be issued");
        write(&format!("{name}.crt"), &issued.certificate_pem);
        write(&format!("{name}.key"), &issued.key_pem);
    }
}

/// A client that asks over mutual TLS.
fn proven(folder: &Path) -> Client {
    let file = |name: &str| folder.join(name).display().to_string();
    let config = HttpConfig {
        tls: Tls {
            ca_file: file("ca.crt"),
            cert_file: file("client.crt"),
            key_file: file("client.key"),
            server_name: "ta".to_owned(),
            ..Tls::default()
        },
        ..HttpConfig::default()
    };
    Client::new(&config, &Net::system()).expect("the files are there")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_passes_secrets_on_over_mutual_tls_only() {
    let cluster_folder = tempfile::tempdir().expect("there is room");
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path();
    let cluster =
        LocalCluster::open(LocalClusterOptions::new(cluster_folder.path())).expect("the folder is ours");
    write(path, 0..4, &COLLECTORS[..2]);
    issue(path);
    let https = |port: u16| {
        let file = |name: &str| path.join(name).display().to_string();
        format!(
            "https: {{enabled: true, listen_addr: '127.0.0.1:{port}', ca_file_path: '{}', tls_cert_file_path: '{}', \
             tls_key_file_path: '{}'}}\n",
            file("ca.crt"),
            file("server.crt"),
            file("server.key")
        )
    };
    let ports = [free_port(), free_port()];
    let mut first = start_with(
        path,
        "one.yaml",
        &cluster,
        "least-weighted",
        "6s",
        &https(ports[0]),
    );
    until("the first leads", async || first.leads().await).await;
    // Only the leader's document has the job with the secret, so that it shows who answers.
    let document = std::fs::read_to_string(path.join("one.yaml")).expect("it was written");
    let secret = "basic_auth: {username: u, password: wonderland}, job_name: secret, static_configs: [{targets: ['s:1']}]";
    let document = document.replace("scrape_configs: [", &format!("scrape_configs: [{{{secret}}}, "));
    std::fs::write(path.join("one.yaml"), document).expect("the folder is ours");
    let mut second = start_with(
        path,
        "two.yaml",
        &cluster,
        "least-weighted",
        "6s",
        &https(ports[1]),
    );
    until("the second is ready", async || {
        second.get("/readyz").await.is_some()
    })
    .await;
    for allocator in [&first, &second] {
        let plain = allocator.get("/scrape_configs").await.expect("it answers");
        assert!(!String::from_utf8_lossy(&plain.body).contains("wonderland"));
    }
    for (allocator, port) in [(&mut first, ports[0]), (&mut second, ports[1])] {
        allocator.address = format!("https://127.0.0.1:{port}");
        allocator.client = proven(path);
    }
    until("the first has the job with the secret", async || {
        let jobs = first.json("/scrape_configs").await.unwrap_or_default();
        jobs["secret"]["basic_auth"]["password"] == "wonderland"
    })
    .await;
    let jobs = second.json("/scrape_configs").await.expect("it answers");
    assert_eq!(jobs["secret"]["basic_auth"]["password"], "wonderland");
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_is_followed_at_once_however_long_the_lease_lasts() {
    let cluster_folder = tempfile::tempdir().expect("there is room");
    let folder = tempfile::tempdir().expect("there is room");
    let cluster =
        LocalCluster::open(LocalClusterOptions::new(cluster_folder.path())).expect("the folder is ours");
    write(folder.path(), 0..20, &COLLECTORS);
    let lasting = |own: &str| start_with(folder.path(), own, &cluster, "weighted", "10m", "");
    let mut leader = lasting("one.yaml");
    until("the first leads", async || leader.leads().await).await;
    until("all are given", async || count(&leader.lists().await) == 20).await;
    let before = leader.lists().await;
    // As a rollout does it: the next is ready before the one before it ends.
    for own in ["two.yaml", "three.yaml"] {
        let next = lasting(own);
        until("the next is ready", async || next.get("/readyz").await.is_some()).await;
        let ending = tokio::spawn(leader.end());
        until("the next leads", async || {
            let meanwhile = next.lists().await;
            let same = |name: &str| meanwhile[name].0 == before[name].0;
            assert!(
                COLLECTORS.into_iter().all(same),
                "{meanwhile:?} is not {before:?}"
            );
            next.leads().await
        })
        .await;
        ending.await.expect("the one before ends");
        assert_eq!(next.lists().await, before);
        leader = next;
    }
    leader.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_by_least_weighted() {
    nothing_moves_when_the_leader_is_killed("least-weighted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_by_weight() {
    nothing_moves_when_the_leader_is_killed("weighted").await;
}
