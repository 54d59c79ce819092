//! Active and dropped targets, their final labels and URLs, beside a real Prometheus: the same sets.
//!
//! `KAREZ_PROMETHEUS` names the program; else the one on the path is asked. Without any nothing is compared, and that is said.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use karez_document::{Origin, yaml};
use karez_scrape_config::{Assembler, DiscoveryConfig, Fate, Labels, Options, ScrapeConfig, read};
use serde_json::Value;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const NAMES: [&str; 8] = [
    "a",
    "b",
    "env",
    "team",
    "__tmp_x",
    "__meta_zone",
    "__meta_name",
    "job",
];
const VALUES: [&str; 12] = [
    "prod",
    "PROD",
    "dev-12",
    "x",
    "",
    "web;db",
    "10.0.0.1:80",
    "日本",
    "a.b",
    "__x",
    "1m",
    "x x",
];
const PATTERNS: [&str; 16] = [
    "(.*)",
    "(.+)",
    "prod",
    "(?i)prod",
    r"(\w+)-(\d+)",
    "[[:alpha:]]+",
    "x{1,2}",
    ".*;.*",
    r"[^;]+;?(.*)",
    "",
    r"\d+.*",
    "(a|x).*",
    "__meta_(.+)",
    r"(?P<first>.)(.*)",
    r"[\p{L}]+",
    "a.b",
];
const TARGETS: [&str; 12] = [
    "a",
    "b",
    "env",
    "new",
    "__address__",
    "__metrics_path__",
    "__scheme__",
    "__param_module",
    "job",
    "instance",
    "copy",
    "__tmp_y",
];
const REPLACEMENTS: [&str; 9] = [
    "$1", "${1}-x", "fixed", "", "$2$1", "$$", "/m", "https", "${first}",
];

fn rule(numbers: &mut Numbers) -> String {
    let sources = |numbers: &mut Numbers| {
        let count = 1 + numbers.below(3);
        let names: Vec<&str> = (0..count).map(|_| numbers.one(&NAMES)).collect();
        format!("[{}]", names.join(", "))
    };
    let source = sources(numbers);
    let pattern = format!("'{}'", numbers.one(&PATTERNS));
    let target = numbers.one(&TARGETS);
    let plain = numbers.one(&["a", "b", "env", "team", "new"]);
    match numbers.below(14) {
        0 => format!("{{action: keep, source_labels: {source}, regex: '.*'}}"),
        1 => format!("{{action: drop, source_labels: {source}, regex: {pattern}}}"),
        2 => format!(
            "{{action: hashmod, source_labels: {source}, target_label: {plain}, modulus: {}}}",
            1 + numbers.below(7)
        ),
        3 => format!(
            "{{action: labelmap, regex: '__meta_(.+)', replacement: '{}'}}",
            numbers.one(&["$1", "m_${1}", "fixed"])
        ),
        4 => "{action: labeldrop, regex: 'te.*'}".to_owned(),
        5 => format!(
            "{{action: {}, source_labels: {source}, target_label: {plain}}}",
            numbers.one(&["lowercase", "uppercase"])
        ),
        6 => format!(
            "{{action: {}, source_labels: {source}, target_label: {plain}}}",
            numbers.one(&["dropequal"])
        ),
        7 => format!("{{source_labels: {source}, separator: '-', target_label: {plain}}}"),
        _ => format!(
            "{{source_labels: {source}, regex: {pattern}, target_label: '{target}', replacement: '{}'}}",
            numbers.one(&REPLACEMENTS)
        ),
    }
}

fn job(number: usize, numbers: &mut Numbers) -> String {
    let mut text = format!("- job_name: job-{number}\n  scrape_interval: 1h\n");
    if numbers.below(3) == 0 {
        text.push_str("  params: {module: [one, two], 'x y': ['&']}\n  metrics_path: /probe\n");
    }
    if numbers.below(4) == 0 {
        text.push_str("  scheme: https\n");
    }
    text.push_str("  relabel_configs:\n  - {source_labels: [never], regex: nothing, action: drop}\n");
    for _ in 0..numbers.below(6) {
        let _ = writeln!(text, "  - {}", rule(numbers));
    }
    text.push_str("  static_configs:\n");
    for _ in 0..4 {
        let addresses: Vec<String> = (0..4)
            .map(|_| {
                format!(
                    "'{}:{}'",
                    numbers.one(&["127.0.0.1", "localhost", "host", "[::1]"]),
                    1 + numbers.below(9)
                )
            })
            .collect();
        let labels: Vec<String> = (0..numbers.below(5))
            .map(|at| format!("{}: '{}'", NAMES[at], numbers.one(&VALUES)))
            .collect();
        let _ = writeln!(
            text,
            "  - {{targets: [{}], labels: {{{}}}}}",
            addresses.join(", "),
            labels.join(", ")
        );
    }
    text
}

/// What people have tripped over.
const BY_HAND: &str = "
- job_name: urls
  scrape_interval: 1h
  relabel_configs:
  - {source_labels: [__address__], target_label: __param_target}
  - {source_labels: [__param_target], target_label: instance}
  - {target_label: __address__, replacement: 'blackbox:9115'}
  static_configs: [{targets: ['https://a.example/x', 'http://b.example']}]
- job_name: no-port
  scrape_interval: 1h
  static_configs: [{targets: ['plain', '10.0.0.1']}]
- job_name: empty-address
  scrape_interval: 1h
  relabel_configs: [{target_label: __address__, replacement: ''}]
  static_configs: [{targets: ['x:1']}]
- job_name: interval
  relabel_configs: [{target_label: __scrape_interval__, replacement: 2h}, {target_label: __scrape_timeout__, replacement: 7s}]
  static_configs: [{targets: ['x:1']}]
- job_name: twins
  scrape_interval: 1h
  relabel_configs: [{regex: tmp, action: labeldrop}]
  static_configs: [{targets: ['x:1'], labels: {tmp: a}}, {targets: ['x:1'], labels: {tmp: b}}]
- job_name: sharded
  scrape_interval: 1h
  relabel_configs:
  - {source_labels: [__address__], modulus: 3, target_label: __tmp_hash, action: hashmod}
  - {source_labels: [__tmp_hash], regex: '1', action: keep}
  static_configs: [{targets: ['h:1', 'h:2', 'h:3', 'h:4', 'h:5', 'h:6', 'h:7', 'h:8', 'h:9']}]
";

/// Job, labels, URL of each active target; job and address of each dropped one.
type Sets = (BTreeSet<(String, String, String)>, BTreeSet<String>);

fn ours(jobs: &[ScrapeConfig]) -> Sets {
    let (mut active, mut dropped) = Sets::default();
    for job in jobs {
        let mut assembler = Assembler::new(job);
        for source in &job.discovery {
            let DiscoveryConfig::Static(groups) = source else {
                continue;
            };
            for (group, target) in groups
                .iter()
                .flat_map(|group| group.targets.iter().map(move |target| (group, target)))
            {
                match assembler.assemble(group, target) {
                    Fate::Kept(kept) => {
                        let labels = Labels::of(kept.series_labels());
                        active.insert((job.job_name.clone(), labels.to_string(), kept.url(job)));
                    }
                    Fate::Dropped => {
                        let labels = assembler.discovered(group, target);
                        dropped.insert(named(&labels));
                    }
                    Fate::Wrong(_) => {}
                }
            }
        }
    }
    (active, dropped)
}

/// What a dropped target is known by: releases before 3.0 show labels without those that a rule took away before.
fn named(labels: &Labels) -> String {
    format!("{} {}", labels.get("job"), labels.get("__address__"))
}

fn labels(value: &Value) -> Labels {
    serde_json::from_value(value.clone()).expect("labels are a map of texts")
}

fn theirs(answer: &Value) -> Sets {
    let list = |name: &str| answer["data"][name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let active = list("activeTargets").into_iter().map(|target| {
        let labels = labels(&target["labels"]).to_string();
        (text(&target["scrapePool"]), labels, text(&target["scrapeUrl"]))
    });
    let dropped = list("droppedTargets")
        .into_iter()
        .map(|target| named(&labels(&target["discoveredLabels"])));
    (active.collect(), dropped.collect())
}

struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(program: &str, folder: &Path, config: &str) -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // As releases from 3.0 do by themselves.
            .arg("--enable-feature=no-default-scrape-port")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Prometheus { child, port })
    }

    fn targets(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(
            stream,
            "GET /api/v1/targets?state=any HTTP/1.0\r\nhost: x\r\n\r\n"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        serde_json::from_slice(&answer[head + 4..]).ok()
    }
}

fn difference<T: Ord + std::fmt::Debug>(what: &str, ours: &BTreeSet<T>, theirs: &BTreeSet<T>) -> String {
    let only = |a: &BTreeSet<T>, b: &BTreeSet<T>| -> String {
        a.difference(b)
            .take(10)
            .map(|one| format!("  {one:?}\n"))
            .collect()
    };
    format!(
        "{what} only here:\n{}{what} only there:\n{}",
        only(ours, theirs),
        only(theirs, ours)
    )
}

#[test]
fn targets_are_prometheus() {
    let program = std::env::var("KAREZ_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
    let mut numbers = Numbers(42);
    let mut config = String::from("scrape_configs:\n");
    config.push_str(BY_HAND.trim_start());
    (0..150).for_each(|number| config.push_str(&job(number, &mut numbers)));
    let node = yaml::parse(&config, &Origin::file("p.yaml"))
        .expect("what is generated is YAML")
        .remove(0);
    let mut diagnoses = Vec::new();
    let jobs = read(&node, "", Options::default(), &mut diagnoses);
    assert_eq!(diagnoses, []);
    let folder = tempfile::tempdir().expect("there is room");
    let Ok(prometheus) = Prometheus::start(&program, folder.path(), &config) else {
        eprintln!("skipped: there is no `{program}`; set KAREZ_PROMETHEUS");
        return;
    };
    let ours = ours(&jobs);
    assert!(
        ours.0.len() > 1000 && ours.1.len() > 50,
        "{} active, {} dropped",
        ours.0.len(),
        ours.1.len()
    );
    // It tells what it finds some seconds after its start, pool by pool.
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut theirs = Sets::default();
    while theirs != ours && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(250));
        if let Some(answer) = prometheus.targets() {
            theirs = self::theirs(&answer);
        }
    }
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert_eq!(
        ours.0,
        theirs.0,
        "{}\n{log}",
        difference("active", &ours.0, &theirs.0)
    );
    assert_eq!(ours.1, theirs.1, "{}", difference("dropped", &ours.1, &theirs.1));
}
