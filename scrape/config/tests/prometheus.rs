//! Active and dropped targets, their labels and URLs, beside a real Prometheus: the same sets. And which configurations
//! are taken at all.
//!
//! `KAREZ_PROMETHEUS` names the program, of a release from 3.0; else the peer of the whole-system tests is asked
//! (`tests/peers/build prometheus`). Without any nothing is compared, and that is said; with `KAREZ_REQUIRE_PEERS=1` it fails.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use karez_document::{Diagnosis, Origin, yaml};
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

const NAMES: [&str; 10] = [
    "a",
    "b",
    "env",
    "team",
    "__tmp_x",
    "__meta_zone",
    "__meta_name",
    "job",
    "k8s.name",
    "größe",
];
const VALUES: [&str; 19] = [
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
    "a\\nb",
    "É",
    "ſtraße ΟΔΟΣ İǆ ᾳ",
    "\\\"quoted\\\"",
    "aaa",
    "0x1F",
    "https",
];
const PATTERNS: [&str; 38] = [
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
    "(?s)a.b",
    "(?U)(a+)(a*)",
    r"\Qa.b\E",
    r"\pL+",
    r"\x{65e5}.*",
    "(?i:é)",
    "(?i)STRASSE|(?i)ſTRAßE",
    "^prod$",
    r"\bprod\b",
    "a||x",
    "(?:)",
    ".{0,3}",
    "[[:^digit:]]+",
    r"\Aprod\z",
    "(?P<n>x).*",
    "(?<n>[a-z]+).*",
    r"[^\S]?[\w.-]*",
    r"(?m)^a$\n^b$",
    r"\d{1,3}(?:\.\d{1,3}){3}:(\d+)",
    r"[\x00-\x7F]*",
    r"(a)(b)?(c)?.*",
    r"\D+|\S+",
];
const TARGETS: [&str; 18] = [
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
    "__scrape_interval__",
    "__scrape_timeout__",
    "x_$1",
    "${1}",
    "k8s.copy",
    "größe",
];
const REPLACEMENTS: [&str; 16] = [
    "$1",
    "${1}-x",
    "fixed",
    "",
    "$2$1",
    "$$",
    "/m",
    "https",
    "${first}",
    "$1x",
    "$0",
    "${n}",
    "$3",
    "${",
    "2h",
    "a b/c?d=e&f#g%41",
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
    match numbers.below(20) {
        0 => format!(
            "{{action: keep, source_labels: {source}, regex: '{}'}}",
            numbers.one(&["(?s).*", "(?s).*", "[^-]*", "(?s).{0,12}"])
        ),
        14 => format!("{{action: keepequal, source_labels: [{plain}], target_label: {plain}}}"),
        15 => "{action: labelkeep, regex: '__.*|a|b|job|instance|k8s.*'}".to_owned(),
        16 => format!(
            "{{action: labelmap, regex: '(.+)_name', replacement: '{}'}}",
            numbers.one(&["$1.name", "größe", "${1}x"])
        ),
        1 => format!("{{action: drop, source_labels: {source}, regex: {pattern}}}"),
        2 => format!(
            "{{action: hashmod, source_labels: {source}, target_label: {plain}, modulus: {}}}",
            1 + numbers.below(7)
        ),
        3 => format!(
            "{{action: labelmap, regex: '__meta_(.+)', replacement: '{}'}}",
            // Two labels that get one name would leave it to chance there which of them counts.
            numbers.one(&["$1", "m_${1}", "x.$1"])
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
        let skipped = numbers.below(NAMES.len());
        let labels: Vec<String> = (0..numbers.below(7))
            .map(|at| {
                format!(
                    "\"{}\": \"{}\"",
                    NAMES[(at + skipped) % NAMES.len()],
                    numbers.one(&VALUES)
                )
            })
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

/// How often what is there.
type Counted<T> = BTreeMap<T, usize>;
/// Job, labels, URL of each active target; the labels before relabelling of each dropped one.
type Sets = (Counted<(String, String, String)>, Counted<String>);

fn count<T: Ord>(all: &mut Counted<T>, one: T) {
    *all.entry(one).or_default() += 1;
}

fn ours(jobs: &[ScrapeConfig]) -> Sets {
    let (mut active, mut dropped) = Sets::default();
    for job in jobs {
        let mut assembler = Assembler::new(job);
        let mut identities = HashSet::new();
        for source in &job.discovery {
            let DiscoveryConfig::Static(groups) = source else {
                continue;
            };
            for (group, target) in groups
                .iter()
                .flat_map(|group| group.targets.iter().map(move |target| (group, target)))
            {
                match assembler.assemble(group, target) {
                    // The same found twice is one.
                    Fate::Kept(kept) if !identities.insert(kept.identity) => {}
                    Fate::Kept(kept) => {
                        let labels = Labels::of(kept.series_labels());
                        count(
                            &mut active,
                            (job.job_name.clone(), labels.to_string(), kept.url(job)),
                        );
                    }
                    Fate::Dropped => count(&mut dropped, assembler.discovered(group, target).to_string()),
                    Fate::Wrong(_) => {}
                }
            }
        }
    }
    (active, dropped)
}

/// Labels that only the newest releases give each target, about how it is scraped and not about what it is.
const NEWEST: [&str; 3] = [
    "__always_scrape_classic_histograms__",
    "__convert_classic_histograms_to_nhcb__",
    "__scrape_native_histograms__",
];

fn labels(value: &Value) -> Labels {
    let all: Labels = serde_json::from_value(value.clone()).expect("labels are a map of texts");
    Labels::of(all.iter().filter(|(name, _)| !NEWEST.contains(name)))
}

fn theirs(answer: &Value) -> Sets {
    let list = |name: &str| answer["data"][name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (mut active, mut dropped) = Sets::default();
    for target in list("activeTargets") {
        let labels = labels(&target["labels"]).to_string();
        let url = text(&target["scrapeUrl"]);
        count(&mut active, (text(&target["scrapePool"]), labels, url));
    }
    for target in list("droppedTargets") {
        count(&mut dropped, labels(&target["discoveredLabels"]).to_string());
    }
    (active, dropped)
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
    fn start(program: &Path, folder: &Path, config: &str) -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-lifecycle")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Prometheus { child, port })
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
        Some((status, answer.split_off(head + 4)))
    }

    fn targets(&self) -> Option<Value> {
        let (_, body) = self.ask("GET", "/api/v1/targets?state=any")?;
        serde_json::from_slice(&body).ok()
    }

    /// Waits until it answers.
    fn ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !matches!(self.ask("GET", "/-/ready"), Some((200, _))) {
            assert!(
                Instant::now() < deadline,
                "Prometheus is not ready after a minute"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The program to compare with.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KAREZ_PROMETHEUS") {
        return Some(named.into());
    }
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/build");
    let located = Command::new(build).args(["--locate", "prometheus"]).output();
    let found = located.ok().filter(|output| output.status.success());
    let found = found.map(|output| {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&folder).join("prometheus")
    });
    if found.is_none() {
        let missing = "the peer prometheus is not built; run tests/peers/build prometheus";
        assert!(
            std::env::var("KAREZ_REQUIRE_PEERS").map_or(true, |required| required != "1"),
            "{missing}"
        );
        eprintln!("skipped: {missing}");
    }
    found
}

fn difference<T: Ord + std::fmt::Debug>(what: &str, ours: &Counted<T>, theirs: &Counted<T>) -> String {
    let only = |a: &Counted<T>, b: &Counted<T>| -> String {
        a.iter()
            .filter(|(one, count)| b.get(one) != Some(count))
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

fn read_text(config: &str) -> (Vec<ScrapeConfig>, Vec<Diagnosis>) {
    let mut diagnoses = Vec::new();
    let jobs = match yaml::parse(config, &Origin::file("p.yaml")) {
        Ok(mut nodes) => read(&nodes.remove(0), "", Options::default(), &mut diagnoses),
        Err(diagnosis) => {
            diagnoses.push(diagnosis);
            Vec::new()
        }
    };
    (jobs, diagnoses)
}

#[test]
fn targets_are_prometheus() {
    let Some(program) = program() else { return };
    let mut config = String::from("scrape_configs:\n");
    config.push_str(BY_HAND.trim_start());
    let mut numbers = Numbers(42);
    (0..600).for_each(|number| config.push_str(&job(number, &mut numbers)));
    let (jobs, diagnoses) = read_text(&config);
    assert_eq!(diagnoses, []);
    let folder = tempfile::tempdir().expect("there is room");
    let prometheus = Prometheus::start(&program, folder.path(), &config).expect("the program starts");
    let ours = ours(&jobs);
    assert!(
        ours.0.len() > 4000 && ours.1.len() > 200,
        "{} active, {} dropped",
        ours.0.len(),
        ours.1.len()
    );
    // It tells what it finds some seconds after its start, pool by pool.
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut theirs, mut same, mut last) = (Sets::default(), 0, 0);
    // Where something differs it stays so: nothing more is waited for once nothing changes any more.
    while theirs != ours && same < 20 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(500));
        if let Some(answer) = prometheus.targets() {
            theirs = self::theirs(&answer);
        }
        let now = theirs.0.len() + theirs.1.len();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let log = &log[log.len().saturating_sub(4000)..];
    assert!(
        ours.0 == theirs.0,
        "{}\n{log}",
        difference("active", &ours.0, &theirs.0)
    );
    assert!(
        ours.1 == theirs.1,
        "{}",
        difference("dropped", &ours.1, &theirs.1)
    );
}

/// Configurations of one job each, of which some are wrong. Not here: what would be taken there and could never be
/// scraped is refused here (`scheme: ftp`), and selectors are checked by the API, which says what is wrong.
const DOUBTFUL: [&str; 61] = [
    "{job_name: j}",
    "{}",
    "{job_name: ''}",
    "{job_name: j, scrape_interval: 0s}",
    "{job_name: j, scrape_interval: 1x}",
    "{job_name: j, scrape_interval: 1h30m}",
    "{job_name: j, scrape_interval: 30m1h}",
    "{job_name: j, scrape_interval: -1s}",
    "{job_name: j, scrape_interval: 5s, scrape_timeout: 6s}",
    "{job_name: j, scrape_interval: 5s}",
    "{job_name: j, scrape_timeout: 2m}",
    "{job_name: j, scheme: https}",
    "{job_name: j, unknown: 1}",
    "{job_name: j, metrics_path: nowhere}",
    "{job_name: j, sample_limit: -1}",
    "{job_name: j, sample_limit: 10, body_size_limit: 10MB}",
    "{job_name: j, body_size_limit: 10}",
    "{job_name: j, body_size_limit: 10XB}",
    "{job_name: j, scrape_protocols: [PrometheusText0.0.4]}",
    "{job_name: j, scrape_protocols: [Text]}",
    "{job_name: j, scrape_protocols: [PrometheusText0.0.4, PrometheusText0.0.4]}",
    "{job_name: j, fallback_scrape_protocol: Text}",
    "{job_name: j, basic_auth: {username: u, password: p}, bearer_token: t}",
    "{job_name: j, basic_auth: {username: u, password: p, password_file: f}}",
    "{job_name: j, authorization: {type: Basic, credentials: c}}",
    "{job_name: j, authorization: {credentials: c, credentials_file: f}}",
    "{job_name: j, authorization: {credentials: c}, oauth2: {client_id: i, token_url: 'http://t'}}",
    "{job_name: j, oauth2: {client_id: i}}",
    "{job_name: j, oauth2: {token_url: 'http://t'}}",
    "{job_name: j, tls_config: {cert_file: c}}",
    "{job_name: j, tls_config: {min_version: TLS99}}",
    "{job_name: j, tls_config: {min_version: TLS12}}",
    "{job_name: j, proxy_url: 'http://p', proxy_from_environment: true}",
    "{job_name: j, static_configs: [{targets: ['http://h']}]}",
    "{job_name: j, static_configs: [{targets: ['h/x']}]}",
    "{job_name: j, static_configs: [{targets: ['h'], labels: {a.b: c}}]}",
    "{job_name: j, static_configs: [{targets: ['h'], labels: {'': c}}]}",
    "{job_name: j, static_configs: [{target: ['h']}]}",
    "{job_name: j, file_sd_configs: [{files: []}]}",
    "{job_name: j, file_sd_configs: [{files: ['x.json']}]}",
    "{job_name: j, file_sd_configs: [{files: ['x.txt']}]}",
    "{job_name: j, file_sd_configs: [{files: ['a*/x.json']}]}",
    "{job_name: j, http_sd_configs: [{}]}",
    "{job_name: j, http_sd_configs: [{url: 'ftp://x'}]}",
    "{job_name: j, http_sd_configs: [{url: 'http://'}]}",
    "{job_name: j, http_sd_configs: [{url: 'http://h', refresh_interval: 5s}]}",
    "{job_name: j, dns_sd_configs: [{names: [a], type: A}]}",
    "{job_name: j, dns_sd_configs: [{names: [a], type: TXT, port: 1}]}",
    "{job_name: j, dns_sd_configs: [{names: []}]}",
    "{job_name: j, kubernetes_sd_configs: [{role: pods, api_server: 'http://h'}]}",
    "{job_name: j, kubernetes_sd_configs: [{role: pod, api_server: 'http://h', selectors: [{role: node, label: a=b}]}]}",
    "{job_name: j, kubernetes_sd_configs: [{role: node, api_server: 'http://h', selectors: [{role: pod}]}]}",
    "{job_name: j, relabel_configs: [{action: replace}]}",
    "{job_name: j, relabel_configs: [{action: REPLACE, target_label: a}]}",
    "{job_name: j, relabel_configs: [{action: hashmod, target_label: a}]}",
    "{job_name: j, relabel_configs: [{action: labeldrop, source_labels: [a], regex: b}]}",
    "{job_name: j, relabel_configs: [{action: labelmap, regex: '(a', replacement: x}]}",
    "{job_name: j, relabel_configs: [{target_label: a, regex: 'a**'}]}",
    "{job_name: j, relabel_configs: [{target_label: a, regex: '(?=a)'}]}",
    "{job_name: j, relabel_configs: [{action: lowercase, source_labels: [a], target_label: 'a$1'}]}",
    "{job_name: j, relabel_configs: [{action: labelmap, regex: a, replacement: ''}]}",
];

#[test]
fn takes_what_prometheus_takes() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().expect("there is room");
    let prometheus =
        Prometheus::start(&program, folder.path(), "scrape_configs: []").expect("the program starts");
    prometheus.ready();
    let mut differing = Vec::new();
    for job in DOUBTFUL {
        let config = format!("scrape_configs: [{job}]\n");
        std::fs::write(folder.path().join("prometheus.yml"), &config).expect("the folder is ours");
        let (status, said) = prometheus.ask("POST", "/-/reload").expect("it answers");
        let (_, diagnoses) = read_text(&config);
        if (status == 200) == karez_document::has_errors(&diagnoses) {
            let said = String::from_utf8_lossy(&said).into_owned();
            differing.push(format!("{job}\n  there: {status} {said}\n  here: {diagnoses:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
