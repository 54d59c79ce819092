//! `global:` and `scrape_configs:` as Prometheus writes them, and what they mean. Every problem is reported at once.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, join_key};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::discovery::{self, DiscoveryConfig};
use crate::http::{self, HttpConfig};
use crate::relabel::{self, Rule};
use crate::values::{Protocol, duration, size};

/// How a document is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave out where targets come from: an allocator says it.
    pub without_discovery: bool,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeConfig {
    /// Its name.
    pub job_name: String,
    /// How often targets are scraped.
    pub interval: Duration,
    /// For how long at most.
    pub timeout: Duration,
    /// Formats that are asked for, the best first.
    pub protocols: Vec<Protocol>,
    /// The format of an answer that does not say.
    pub fallback_protocol: Option<Protocol>,
    /// The path.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Parameters of the request.
    pub params: BTreeMap<String, Vec<String>>,
    /// Labels of a sample count before those of the target.
    pub honor_labels: bool,
    /// Timestamps of samples count before the time of the scrape.
    pub honor_timestamps: bool,
    /// Series with timestamps of their own become stale, too.
    pub track_timestamps_staleness: bool,
    /// Native histograms are taken.
    pub native_histograms: bool,
    /// Classic buckets are taken even where there is a native histogram.
    pub classic_histograms: bool,
    /// gzip is asked for.
    pub compression: bool,
    /// Samples, labels, sizes: the most that is taken.
    pub limits: Limits,
    /// How scrapes speak HTTP.
    pub http: HttpConfig,
    /// Rules for targets.
    pub relabel: Vec<Rule>,
    /// Rules for samples.
    pub metric_relabel: Vec<Rule>,
    /// Where targets come from.
    pub discovery: Vec<DiscoveryConfig>,
}

/// Limits of a job; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of an answer, unpacked.
    pub body_size: u64,
    /// Samples of a scrape after relabelling.
    pub samples: u64,
    /// Targets of the job.
    pub targets: u64,
    /// Labels of a sample.
    pub labels: u64,
    /// Bytes of a label's name.
    pub label_name_length: u64,
    /// Bytes of a label's value.
    pub label_value_length: u64,
    /// Buckets of a native histogram.
    pub native_buckets: u64,
    /// Dropped targets that are kept for showing.
    pub keep_dropped_targets: u64,
}

/// Keys that `global` and a job have in common.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SharedDocument {
    #[serde(deserialize_with = "duration")]
    scrape_interval: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    scrape_timeout: Option<Duration>,
    scrape_protocols: Option<Vec<Protocol>>,
    scrape_native_histograms: Option<bool>,
    always_scrape_classic_histograms: Option<bool>,
    convert_classic_histograms_to_nhcb: Option<bool>,
    extra_scrape_metrics: Option<bool>,
    #[serde(deserialize_with = "size")]
    body_size_limit: Option<u64>,
    sample_limit: Option<u64>,
    target_limit: Option<u64>,
    label_limit: Option<u64>,
    label_name_length_limit: Option<u64>,
    label_value_length_limit: Option<u64>,
    keep_dropped_targets: Option<u64>,
    metric_name_validation_scheme: Option<String>,
    metric_name_escaping_scheme: Option<String>,
    scrape_failure_log_file: Option<String>,
}

/// Keys of `global` that say nothing about scrapes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GlobalDocument {
    #[serde(deserialize_with = "duration")]
    evaluation_interval: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    rule_query_offset: Option<Duration>,
    query_log_file: Option<String>,
    external_labels: BTreeMap<String, String>,
    runtime: Option<IgnoredAny>,
}

/// Keys of a job alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JobDocument {
    job_name: String,
    honor_labels: Option<bool>,
    honor_timestamps: Option<bool>,
    track_timestamps_staleness: Option<bool>,
    params: Option<BTreeMap<String, Vec<String>>>,
    metrics_path: Option<String>,
    scheme: Option<String>,
    fallback_scrape_protocol: Option<FallbackDocument>,
    /// What `always_scrape_classic_histograms` was called.
    scrape_classic_histograms: Option<bool>,
    enable_compression: Option<bool>,
    native_histogram_bucket_limit: Option<u64>,
    native_histogram_min_bucket_factor: Option<f64>,
}

/// A protocol; the empty text, as Prometheus itself writes it out, is none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FallbackDocument {
    Protocol(Protocol),
    Text(String),
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a block with `global` and `scrape_configs`, whose other keys are the caller's.
pub fn read(node: &Node, key: &str, options: Options, diagnoses: &mut Vec<Diagnosis>) -> Vec<ScrapeConfig> {
    let global = match node.get("global") {
        Some(global) => read_global(global, &join_key(key, "global"), diagnoses),
        None => SharedDocument::default(),
    };
    let Some(list) = node.get("scrape_configs").filter(|list| !list.is_null()) else {
        return Vec::new();
    };
    let key = join_key(key, "scrape_configs");
    if !matches!(list.kind, karez_document::yaml::Kind::Sequence(_)) {
        let message = format!("a list of jobs is needed, {} is here", list.describe());
        diagnoses.push(Diagnosis::error(
            list.place(),
            key,
            message,
            "start each job with `- `",
        ));
        return Vec::new();
    }
    let mut names = HashSet::new();
    let mut jobs = Vec::new();
    for (index, node) in list.items().iter().enumerate() {
        let key = format!("{key}[{index}]");
        let Some(job) = read_job(node, &key, &global, options, diagnoses) else {
            continue;
        };
        if !names.insert(job.job_name.clone()) {
            let message = format!("there is another job `{}`", job.job_name);
            let place = node.key_place("job_name");
            diagnoses.push(Diagnosis::error(
                place,
                join_key(&key, "job_name"),
                message,
                "give it another name",
            ));
        }
        jobs.push(job);
    }
    jobs
}

/// Reads one job on its own, as an allocator hands it over.
pub fn read_one(
    node: &Node,
    key: &str,
    options: Options,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<ScrapeConfig> {
    read_job(node, key, &SharedDocument::default(), options, diagnoses)
}

fn read_global(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> SharedDocument {
    let mut parts = Parts::of(node, key);
    let shared: Option<SharedDocument> = parts.take(diagnoses);
    let _: Option<GlobalDocument> = parts.take(diagnoses);
    parts.finish(diagnoses);
    let mut shared = shared.unwrap_or_default();
    let interval = shared
        .scrape_interval
        .filter(|i| !i.is_zero())
        .unwrap_or(DEFAULT_INTERVAL);
    match shared.scrape_timeout.filter(|timeout| !timeout.is_zero()) {
        Some(timeout) if timeout > interval => {
            let message = "the timeout is longer than the interval";
            let key = join_key(key, "scrape_timeout");
            let place = node.key_place("scrape_timeout");
            diagnoses.push(Diagnosis::error(place, key, message, "make it at most as long"));
        }
        Some(_) => {}
        None => shared.scrape_timeout = Some(DEFAULT_TIMEOUT.min(interval)),
    }
    shared.scrape_interval = Some(interval);
    shared
}

fn read_job(
    node: &Node,
    key: &str,
    global: &SharedDocument,
    options: Options,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<ScrapeConfig> {
    let mut parts = Parts::of(node, key);
    let job: Option<JobDocument> = parts.take(diagnoses);
    let shared: Option<SharedDocument> = parts.take(diagnoses);
    let http = http::take(node, &mut parts, key, diagnoses);
    let mut ignored = Vec::new();
    let said = if options.without_discovery {
        &mut ignored
    } else {
        &mut *diagnoses
    };
    let discovery = discovery::take(node, &mut parts, key, said);
    parts.knows(&["relabel_configs", "metric_relabel_configs"]);
    parts.finish(diagnoses);
    let rules = |name: &str, diagnoses: &mut Vec<Diagnosis>| {
        relabel::rules(node.get(name), &join_key(key, name), diagnoses)
    };
    let relabel = rules("relabel_configs", diagnoses);
    let metric_relabel = rules("metric_relabel_configs", diagnoses);
    let (job, shared) = (job?, shared?);
    let config = resolve(
        &job,
        &shared,
        global,
        Given {
            http,
            relabel,
            metric_relabel,
            discovery: if options.without_discovery {
                Vec::new()
            } else {
                discovery
            },
        },
    );
    check(node, key, &job, &shared, &config, diagnoses);
    Some(config)
}

/// What is read beside the typed keys.
struct Given {
    http: HttpConfig,
    relabel: Vec<Rule>,
    metric_relabel: Vec<Rule>,
    discovery: Vec<DiscoveryConfig>,
}

fn resolve(job: &JobDocument, own: &SharedDocument, global: &SharedDocument, given: Given) -> ScrapeConfig {
    let set = |time: Option<Duration>| time.filter(|time| !time.is_zero());
    let interval = set(own.scrape_interval)
        .or(global.scrape_interval)
        .unwrap_or(DEFAULT_INTERVAL);
    let timeout = set(own.scrape_timeout)
        .unwrap_or_else(|| global.scrape_timeout.unwrap_or(DEFAULT_TIMEOUT).min(interval));
    let native = own
        .scrape_native_histograms
        .or(global.scrape_native_histograms)
        .unwrap_or(false);
    let protocols = own
        .scrape_protocols
        .clone()
        .or_else(|| global.scrape_protocols.clone());
    let limit = |own: Option<u64>, global: Option<u64>| own.filter(|l| *l > 0).or(global).unwrap_or(0);
    ScrapeConfig {
        job_name: job.job_name.clone(),
        interval,
        timeout,
        protocols: protocols
            .filter(|p| !p.is_empty())
            .unwrap_or_else(|| match native {
                true => Protocol::DEFAULT_NATIVE.to_vec(),
                false => Protocol::DEFAULT.to_vec(),
            }),
        fallback_protocol: match job.fallback_scrape_protocol {
            Some(FallbackDocument::Protocol(protocol)) => Some(protocol),
            _ => None,
        },
        metrics_path: job.metrics_path.clone().unwrap_or_else(|| "/metrics".to_owned()),
        scheme: job.scheme.clone().unwrap_or_else(|| "http".to_owned()),
        params: job.params.clone().unwrap_or_default(),
        honor_labels: job.honor_labels.unwrap_or(false),
        honor_timestamps: job.honor_timestamps.unwrap_or(true),
        track_timestamps_staleness: job.track_timestamps_staleness.unwrap_or(false),
        native_histograms: native,
        classic_histograms: own
            .always_scrape_classic_histograms
            .or(job.scrape_classic_histograms)
            .or(global.always_scrape_classic_histograms)
            .unwrap_or(false),
        compression: job.enable_compression.unwrap_or(true),
        limits: Limits {
            body_size: limit(own.body_size_limit, global.body_size_limit),
            samples: limit(own.sample_limit, global.sample_limit),
            targets: limit(own.target_limit, global.target_limit),
            labels: limit(own.label_limit, global.label_limit),
            label_name_length: limit(own.label_name_length_limit, global.label_name_length_limit),
            label_value_length: limit(own.label_value_length_limit, global.label_value_length_limit),
            native_buckets: job.native_histogram_bucket_limit.unwrap_or(0),
            keep_dropped_targets: limit(own.keep_dropped_targets, global.keep_dropped_targets),
        },
        http: given.http,
        relabel: given.relabel,
        metric_relabel: given.metric_relabel,
        discovery: given.discovery,
    }
}

fn check(
    node: &Node,
    key: &str,
    job: &JobDocument,
    own: &SharedDocument,
    config: &ScrapeConfig,
    diagnoses: &mut Vec<Diagnosis>,
) {
    let mut wrong = |name: &str, message: String, mend: &str| {
        diagnoses.push(Diagnosis::error(
            node.key_place(name),
            join_key(key, name),
            message,
            mend,
        ));
    };
    if config.job_name.is_empty() {
        wrong("job_name", "a job needs a name".to_owned(), "add `job_name:`");
    }
    if config.timeout > config.interval {
        let message = "the timeout is longer than the interval".to_owned();
        wrong("scrape_timeout", message, "make it at most as long");
    }
    if !matches!(config.scheme.as_str(), "http" | "https" | "") {
        wrong(
            "scheme",
            format!("`{}` cannot be scraped", config.scheme),
            "write http or https",
        );
    }
    let mut seen = HashSet::new();
    if config.protocols.iter().any(|protocol| !seen.insert(*protocol)) {
        let message = "a protocol is there twice".to_owned();
        wrong("scrape_protocols", message, "name each once");
    }
    if let Some(FallbackDocument::Text(text)) = &job.fallback_scrape_protocol
        && !text.is_empty()
    {
        let mend = "write PrometheusProto, OpenMetricsText1.0.0, OpenMetricsText0.0.1, PrometheusText1.0.0 or \
                    PrometheusText0.0.4";
        wrong("fallback_scrape_protocol", format!("`{text}` is not known"), mend);
    }
    if let Some(scheme) = own.metric_name_validation_scheme.as_deref()
        && !matches!(scheme, "" | "utf8" | "legacy")
    {
        let message = format!("`{scheme}` is not known");
        wrong("metric_name_validation_scheme", message, "write utf8 or legacy");
    }
    let nothing = [
        (
            "convert_classic_histograms_to_nhcb",
            own.convert_classic_histograms_to_nhcb == Some(true),
        ),
        ("extra_scrape_metrics", own.extra_scrape_metrics == Some(true)),
        (
            "native_histogram_min_bucket_factor",
            job.native_histogram_min_bucket_factor
                .is_some_and(|factor| factor > 0.0),
        ),
        (
            "scrape_failure_log_file",
            own.scrape_failure_log_file
                .as_ref()
                .is_some_and(|file| !file.is_empty()),
        ),
        (
            "metric_name_escaping_scheme",
            own.metric_name_escaping_scheme
                .as_deref()
                .is_some_and(|scheme| !matches!(scheme, "" | "allow-utf-8" | "values")),
        ),
    ];
    for (name, _) in nothing.into_iter().filter(|(_, written)| *written) {
        wrong(name, "Karez does not support this key".to_owned(), "remove it");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use karez_document::Origin;
    use karez_document::yaml::parse;

    use super::*;

    /// A job that must be right.
    pub(crate) fn scrape(yaml: &str) -> ScrapeConfig {
        let (mut jobs, said) = jobs(&format!("scrape_configs: [{yaml}]"));
        assert_eq!(said, "");
        jobs.remove(0)
    }

    fn jobs(yaml: &str) -> (Vec<ScrapeConfig>, String) {
        let node = parse(yaml, &Origin::file("p.yaml")).unwrap().remove(0);
        let mut diagnoses = Vec::new();
        let jobs = read(&node, "", Options::default(), &mut diagnoses);
        (jobs, diagnoses.iter().map(|d| format!("{d}\n")).collect())
    }

    #[test]
    fn defaults_are_prometheus() {
        let job = scrape("{job_name: a}");
        assert_eq!((job.interval, job.timeout), (DEFAULT_INTERVAL, DEFAULT_TIMEOUT));
        assert_eq!(
            (job.metrics_path.as_str(), job.scheme.as_str()),
            ("/metrics", "http")
        );
        assert!(job.honor_timestamps && !job.honor_labels && job.compression);
        assert_eq!(job.protocols, Protocol::DEFAULT);
        assert!(job.http.follow_redirects && job.http.enable_http2);
    }

    #[test]
    fn global_settings_are_inherited_and_timeouts_cut() {
        let (jobs, said) = jobs(
            "global: {scrape_interval: 5s, external_labels: {a: b}, sample_limit: 7}
scrape_configs:
- {job_name: a}
- {job_name: b, scrape_interval: 3s, sample_limit: 9, body_size_limit: 1MB}
- {job_name: c, scrape_interval: 1m, scrape_timeout: 30s, scrape_native_histograms: true}",
        );
        assert_eq!(said, "");
        let times: Vec<_> = jobs
            .iter()
            .map(|j| (j.interval.as_secs(), j.timeout.as_secs()))
            .collect();
        assert_eq!(times, [(5, 5), (3, 3), (60, 30)]);
        assert_eq!(jobs[0].limits.samples, 7);
        assert_eq!((jobs[1].limits.samples, jobs[1].limits.body_size), (9, 1 << 20));
        assert_eq!(jobs[2].protocols[0], Protocol::PrometheusProto);
    }

    #[test]
    fn every_source_is_read() {
        let job = scrape(
            "{job_name: a,
              static_configs: [{targets: ['h:1', 'h:2'], labels: {env: prod}}],
              file_sd_configs: [{files: ['t/*.json'], refresh_interval: 1m}],
              http_sd_configs: [{url: 'http://h/sd', basic_auth: {username: u, password: p}}],
              dns_sd_configs: [{names: [x], type: A, port: 9100}],
              kubernetes_sd_configs: [{role: pod, namespaces: {names: [a]}, selectors: [{role: pod, label: 'a=b'}], attach_metadata: {node: true}}],
              consul_sd_configs: [{server: 'c:8500'}]}",
        );
        assert_eq!(job.discovery.len(), 6);
        let DiscoveryConfig::Static(groups) = &job.discovery[0] else {
            panic!("{:?}", job.discovery[0]);
        };
        assert_eq!(groups[0].labels.get("env"), "prod");
        assert_eq!(groups[0].targets[1].get("__address__"), "h:2");
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let (_, said) = jobs(
            "global:
  scrape_intervall: 1s
scrape_configs:
- job_name: a
  scrape_interval: 1
  scrape_timeout: 5m
  scheme: ftp
- job_name: a
  ec2_sd_configs: [{region: x}]
  static_configs: [{targets: ['http://h/metrics']}]
- metrics_pth: /x
  kubernetes_sd_configs: [{role: pods}]
  basic_auth: {username: a, pasword: b}
  bearer_token: x
- job_name: b
  proxy_url: http://p
  file_sd_configs: [{files: ['a*/x.json', 'y.txt']}]
  dns_sd_configs: [{names: [x], type: A}]
",
        );
        for expected in [
            "p.yaml:2: error: global.scrape_intervall: unknown key; did you mean `scrape_interval`?",
            "p.yaml:5: error: scrape_configs[0].scrape_interval: `1` is no duration",
            "p.yaml:6: error: scrape_configs[0].scrape_timeout: the timeout is longer",
            "p.yaml:7: error: scrape_configs[0].scheme: `ftp`",
            "p.yaml:8: error: scrape_configs[1].job_name: there is another job `a`",
            "p.yaml:9: error: scrape_configs[1].ec2_sd_configs: Karez does not have this discovery; use static, file",
            "p.yaml:10: error: scrape_configs[1].static_configs[0].targets: `http://h/metrics` is no address",
            "p.yaml:11: error: scrape_configs[2].metrics_pth: unknown key; did you mean `metrics_path`?",
            "scrape_configs[2].job_name: a job needs a name",
            "p.yaml:12: error: scrape_configs[2].kubernetes_sd_configs[0].role: `pods` is not known here; did you mean `pod`?",
            "p.yaml:13: error: scrape_configs[2].basic_auth.pasword: unknown key",
            "scrape_configs[2].bearer_token: there is another kind",
            "p.yaml:16: error: scrape_configs[3].proxy_url: Karez does not scrape through a proxy",
            "`a*/x.json` cannot be used",
            "`y.txt` cannot be used",
            "scrape_configs[3].dns_sd_configs[0].port: is missing",
        ] {
            assert!(said.contains(expected), "{expected}\n---\n{said}");
        }
    }
}
