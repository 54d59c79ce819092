//! A whole allocator on one machine, asked over HTTP.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use karez_allocator::{AllocatorOptions, Flags, run};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_scrape::client::{Answer, Client};
use karez_scrape::config::HttpConfig;
use karez_scrape::config::http::Tls;
use serde_json::{Value, json};

struct Running {
    client: Client,
    address: String,
    stop: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

fn start(folder: &Path, document: &str) -> Running {
    let port = free_port();
    let file = folder.join("allocator.yaml");
    std::fs::write(&file, format!("listen_addr: 127.0.0.1:{port}\n{document}")).expect("the folder is ours");
    let stop = Shutdown::new();
    let options = AllocatorOptions {
        config: file,
        flags: Flags::default(),
        net: Net::system(),
        client: None,
    };
    let stopping = stop.clone();
    let task = tokio::spawn(async move { run(options, stopping).await.expect("the document is right") });
    Running {
        client: Client::new(&HttpConfig::default(), &Net::system()).expect("it needs no files"),
        address: format!("http://127.0.0.1:{port}"),
        stop,
        task,
    }
}

impl Running {
    async fn get(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let url = format!("{}{path}", self.address);
        self.client
            .get(&url, headers, 0, Duration::from_secs(20))
            .await
            .ok()
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path, &HeaderMap::new()).await.expect("it answers");
        serde_json::from_slice(&answer.body).expect("it answers JSON")
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut last = Value::Null;
        while Instant::now() < deadline {
            let answer = self.get(path, &HeaderMap::new()).await;
            if let Some(answer) = answer.filter(|answer| answer.status == StatusCode::OK) {
                last = serde_json::from_slice(&answer.body).unwrap_or_default();
                if holds(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path} is still {last}");
    }

    async fn end(self) {
        self.stop.trigger();
        self.task.await.expect("it ends by itself");
    }
}

fn addresses(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    let mut all: Vec<&str> = items.filter_map(|item| item["targets"][0].as_str()).collect();
    all.sort_unstable();
    all
}

const DOCUMENT: &str = "
allocation_strategy: least-weighted
karez: {collectors_file: FOLDER/collectors.yaml}
config:
  scrape_configs:
  - job_name: a/b c
    file_sd_configs: [{files: ['FOLDER/*.json']}]
    relabel_configs:
    - {source_labels: [drop], regex: 'yes', action: drop}
    - {source_labels: [__meta_filepath], target_label: file}
  - job_name: secret
    basic_auth: {username: u, password: hidden}
    static_configs: [{targets: ['s:1']}]
";

fn write(folder: &Path, targets: &[&str], collectors: &[&str]) {
    let groups = json!([{"targets": targets, "labels": {"env": "test"}}, {"targets": ["gone:1"], "labels": {"drop": "yes"}}]);
    std::fs::write(folder.join("collectors.yaml"), format!("{collectors:?}")).expect("the folder is ours");
    std::fs::write(folder.join("t.json.new"), groups.to_string()).expect("the folder is ours");
    std::fs::rename(folder.join("t.json.new"), folder.join("t.json")).expect("the folder is ours");
}

const JOB: &str = "/jobs/a%2Fb+c/targets";

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_the_original_does() {
    let folder = tempfile::tempdir().expect("there is room");
    write(folder.path(), &["h:1", "h:2", "h:3", "h:4"], &["c-0", "c-1"]);
    let document = DOCUMENT.replace("FOLDER", &folder.path().display().to_string());
    let running = start(folder.path(), &document);
    let count = |list: &Value, name: &str| list[name]["targets"].as_array().map_or(0, Vec::len);
    let all = running
        .until(JOB, |all| count(all, "c-0") + count(all, "c-1") == 4)
        .await;
    assert_eq!(count(&all, "c-0"), 2);
    assert_eq!(all["c-0"]["_link"], format!("{JOB}?collector_id=c-0"));
    let labels = &all["c-0"]["targets"][0]["labels"];
    assert_eq!(labels["env"], "test");
    assert!(
        labels["__meta_filepath"].is_string() && labels.get("file").is_none(),
        "{labels}"
    );

    assert_eq!(running.json("/jobs").await["a/b c"]["_link"], JOB);
    assert_eq!(
        running.json("/jobs/none/targets?collector_id=c-0").await,
        json!([])
    );
    assert_eq!(running.json(&format!("{JOB}?collector_id=none")).await, json!([]));
    let jobs = running
        .get("/scrape_configs", &HeaderMap::new())
        .await
        .expect("it answers");
    assert_eq!(
        jobs.headers
            .get("x-karez-withheld-jobs")
            .map(HeaderValue::as_bytes),
        Some(&b"1"[..])
    );
    assert!(
        !String::from_utf8_lossy(&jobs.body).contains("hidden"),
        "a secret went over plain HTTP"
    );
    let jobs: Value = serde_json::from_slice(&jobs.body).expect("it is JSON");
    assert_eq!(
        (jobs["a/b c"]["metrics_path"].as_str(), jobs.get("secret")),
        (Some("/metrics"), None)
    );

    let list = running
        .get(&format!("{JOB}?collector_id=c-0"), &HeaderMap::new())
        .await
        .expect("it answers");
    let tag = list.header(header::ETAG).expect("lists are tagged").to_owned();
    let known = HeaderMap::from_iter([(
        header::IF_NONE_MATCH,
        HeaderValue::from_str(&tag).expect("it was a header"),
    )]);
    let same = running
        .get(&format!("{JOB}?collector_id=c-0"), &known)
        .await
        .expect("it answers");
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let found = |text: &[u8], what: &str| String::from_utf8_lossy(text).contains(what);
    let html = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("text/html,*/*"))]);
    let shown = running.get("/scrape_configs", &html).await.expect("it answers");
    assert!(found(&shown.body, "<table>") && !found(&shown.body, "hidden"));
    let shown = running.get("/debug/targets", &html).await.expect("it answers");
    assert!(found(&shown.body, "h:3") && !found(&shown.body, "gone:1"));
    let text = String::from_utf8_lossy(&shown.body);
    let hash = text
        .split("target_hash=")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let path = format!("/debug/target?target_hash={}", hash.expect("targets are linked"));
    let shown = running.get(&path, &html).await.expect("it answers");
    assert!(found(&shown.body, "__meta_filepath"), "{path}");
    for (path, status) in [
        ("/debug/jobs", 200),
        ("/debug/scrape_configs", 200),
        ("/debug/collector?collector_id=c-0", 200),
        ("/debug/collector?collector_id=none", 404),
        ("/debug/collector", 400),
        ("/debug/job?job_id=a%2Fb+c", 200),
        ("/debug/job?job_id=none", 404),
        ("/debug/job", 400),
        ("/debug/target?target_hash=1", 404),
        ("/debug/target?target_hash=x", 400),
        ("/debug/target", 400),
        ("/debug/none", 404),
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 200),
        ("/none", 404),
        ("/explain", 400),
    ] {
        let answer = running.get(path, &HeaderMap::new()).await.expect("it answers");
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    let explained = running.json("/explain?target=gone:1").await;
    assert_eq!(explained[0]["outcome"], json!({"fate": "dropped", "rule": 0}));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hands_over_when_the_new_owner_says_so() {
    let folder = tempfile::tempdir().expect("there is room");
    let targets: Vec<String> = (0..40).map(|number| format!("h:{number}")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    write(folder.path(), &targets, &["c-0", "c-1"]);
    let document = DOCUMENT.replace("FOLDER", &folder.path().display().to_string());
    // Who says nothing is not believed before this test is over.
    let document = document
        .replace("karez: {", "karez: {settle: 10m, ")
        .replace("least-weighted", "consistent-hashing");
    let running = start(folder.path(), &document);
    let of = |name: &str| format!("{JOB}?collector_id={name}");
    running
        .until(JOB, |all| {
            ["c-0", "c-1"]
                .iter()
                .map(|name| all[*name]["targets"].as_array().map_or(0, Vec::len))
                .sum::<usize>()
                == 40
        })
        .await;
    let before = running.json(&of("c-0")).await;
    let news = running.json("/collectors/c-2/changes").await;
    let question = format!(
        "/collectors/c-2/changes?since={}&configs={}&wait=30s",
        news["since"].as_str().unwrap_or_default(),
        news["configs"].as_str().unwrap_or_default()
    );
    // The answer is held back until the collector that asks gets something.
    let (told, ()) = tokio::join!(running.json(&question), async {
        write(folder.path(), &targets, &["c-0", "c-1", "c-2"]);
    });
    let jobs = told["jobs"].as_array().expect("it is a list");
    assert!(jobs.contains(&json!("a/b c")), "{told}");
    let new = running.json(&of("c-2")).await;
    assert!(!addresses(&new).is_empty());
    let kept = running.json(&of("c-0")).await;
    assert!(
        addresses(&before)
            .iter()
            .all(|address| addresses(&kept).contains(address)),
        "nobody lost one before another had it"
    );
    // Asking on says that it has what it was told.
    let question = format!(
        "/collectors/c-2/changes?since={}&configs={}",
        told["since"].as_str().unwrap_or_default(),
        told["configs"].as_str().unwrap_or_default()
    );
    running.json(&question).await;
    running
        .until(&of("c-0"), |list| {
            !addresses(list)
                .iter()
                .any(|address| addresses(&new).contains(address))
        })
        .await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_go_to_who_proves_who_it_is() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = rcgen::KeyPair::generate().expect("keys can be made");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are right");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&authority).expect("it can be signed");
    let issuer = rcgen::Issuer::new(parameters, authority);
    std::fs::write(path("ca.crt"), certificate.pem()).expect("the folder is ours");
    for name in ["server", "client"] {
        let key = rcgen::KeyPair::generate().expect("keys can be made");
        let parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("it is a name");
        let signed = parameters.signed_by(&key, &issuer).expect("it can be signed");
        std::fs::write(path(&format!("{name}.crt")), signed.pem()).expect("the folder is ours");
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).expect("the folder is ours");
    }
    write(folder.path(), &["h:1"], &["c-0"]);
    let port = free_port();
    let document = DOCUMENT.replace("FOLDER", &folder.path().display().to_string());
    let document = format!(
        "{document}\nhttps: {{enabled: true, listen_addr: '127.0.0.1:{port}', ca_file_path: {}, tls_cert_file_path: {}, tls_key_file_path: {}}}\n",
        path("ca.crt"),
        path("server.crt"),
        path("server.key")
    );
    let mut running = start(folder.path(), &document);
    running.until("/jobs", |jobs| jobs.get("secret").is_some()).await;
    running.address = format!("https://localhost:{port}");
    let client = |cert: &str| HttpConfig {
        tls: Tls {
            ca_file: path("ca.crt"),
            cert_file: if cert.is_empty() {
                String::new()
            } else {
                path(&format!("{cert}.crt"))
            },
            key_file: if cert.is_empty() {
                String::new()
            } else {
                path(&format!("{cert}.key"))
            },
            ..Tls::default()
        },
        ..HttpConfig::default()
    };
    running.client = Client::new(&client("client"), &Net::system()).expect("the files are there");
    assert_eq!(
        running.json("/scrape_configs").await["secret"]["basic_auth"]["password"],
        "hidden"
    );
    running.client = Client::new(&client(""), &Net::system()).expect("the files are there");
    let refused = running.get("/scrape_configs", &HeaderMap::new()).await;
    assert!(refused.is_none(), "who has no certificate is served");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_pushed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().expect("there is room");
    write(folder.path(), &["h:1"], &["c-0"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let to = listener.local_addr().expect("it is bound");
    let document = DOCUMENT.replace("FOLDER", &folder.path().display().to_string());
    let exporter = format!("{{endpoint: 'http://{to}', headers: [{{name: x-key, value: sesame}}]}}");
    let reader = format!("{{periodic: {{interval: 1000, exporter: {{otlp_http: {exporter}}}}}}}");
    let running = start(
        folder.path(),
        &format!("{document}\ntelemetry: {{metrics: {{readers: [{reader}]}}}}\n"),
    );
    let received = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&text).contains("opentelemetry_allocator_collectors_discovered") {
            let read = stream.read(&mut part).await.expect("it is sent");
            assert!(read > 0, "it ends early: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&part[..read]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .expect("it is read");
        String::from_utf8_lossy(&text).into_owned()
    };
    let received = tokio::time::timeout(Duration::from_secs(60), received)
        .await
        .expect("it comes in time");
    assert!(
        received.starts_with("POST /v1/metrics HTTP/1.1\r\n"),
        "{received}"
    );
    assert!(received.contains("x-key: sesame\r\n"), "{received}");
    running.end().await;
}
