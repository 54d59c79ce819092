//! What is written.

use std::time::Duration;

use karez_allocation::{Collector, Settings, Standing, StrategyKind};
use karez_document::yaml::{self, Node, join_key};
use karez_document::{Diagnosis, Origin};
use karez_scrape::config::document::{self, Options};
use karez_scrape::config::values::parse_duration;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::{
    AllocatorConfig, Collectors, Flags, Https, LabelSelector, LeaseConfig, PrometheusResources, Selection,
};

/// The document. Keys that nobody knows are left alone, as the original leaves them; selectors and `config` are read
/// apart.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    listen_addr: Option<String>,
    kube_config_file_path: Option<String>,
    collector_namespace: Option<String>,
    allocation_strategy: Option<String>,
    allocation_fallback_strategy: Option<String>,
    filter_strategy: Option<String>,
    #[serde(deserialize_with = "duration")]
    collector_not_ready_grace_period: Option<Duration>,
    allow_insecure_auth_secrets: Option<bool>,
    https: Option<HttpsDocument>,
    prometheus_cr: Option<ResourcesDocument>,
    karez: Option<KarezDocument>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HttpsDocument {
    enabled: bool,
    listen_addr: Option<String>,
    ca_file_path: String,
    tls_cert_file_path: String,
    tls_key_file_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResourcesDocument {
    enabled: bool,
    #[serde(deserialize_with = "duration")]
    scrape_interval: Option<Duration>,
    scrape_protocols: Option<Vec<String>>,
    allow_namespaces: Option<Vec<String>>,
    deny_namespaces: Option<Vec<String>>,
    secret_namespaces: Option<Vec<String>>,
    deny_fs_access_through_sms: bool,
}

/// What Karez adds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KarezDocument {
    collectors: Option<Vec<CollectorDocument>>,
    collectors_file: Option<String>,
    hand_over: Option<bool>,
    #[serde(deserialize_with = "duration")]
    settle: Option<Duration>,
    weighted: WeightedDocument,
    lease: Option<String>,
    #[serde(deserialize_with = "duration")]
    lease_duration: Option<Duration>,
    advertise: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WeightedDocument {
    slack: Option<f64>,
    move_budget: Option<f64>,
    cap: Option<u64>,
    #[serde(deserialize_with = "duration")]
    interval: Option<Duration>,
}

/// A collector in a list: its name, or its name and its node.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum CollectorDocument {
    Name(String),
    Placed {
        name: String,
        #[serde(default)]
        node: String,
    },
}

impl From<CollectorDocument> for Collector {
    fn from(written: CollectorDocument) -> Self {
        let (name, node) = match written {
            CollectorDocument::Name(name) => (name, String::new()),
            CollectorDocument::Placed { name, node } => (name, node),
        };
        Collector {
            name,
            node,
            standing: Standing::Serving,
        }
    }
}

/// A duration as Go writes it, of which Prometheus' are a part; `0s` and a bare `0` are none.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    parse_duration(&text).map(Some).map_err(D::Error::custom)
}

const DEFAULT_PROTOCOLS: [&str; 4] = [
    "OpenMetricsText1.0.0",
    "OpenMetricsText0.0.1",
    "PrometheusText1.0.0",
    "PrometheusText0.0.4",
];

/// Reads the document. What is wrong is among the diagnoses; with an error among them nothing is meant.
pub fn read(text: &str, origin: &Origin, flags: &Flags) -> (Option<AllocatorConfig>, Vec<Diagnosis>) {
    let mut diagnoses = Vec::new();
    let node = match yaml::parse(text, origin) {
        Ok(mut nodes) if !nodes.is_empty() => nodes.remove(0),
        Ok(_) => Node::empty(origin),
        Err(diagnosis) => return (None, vec![diagnosis]),
    };
    let config = meant(&node, flags, &mut diagnoses);
    match karez_document::has_errors(&diagnoses) {
        true => (None, diagnoses),
        false => (config, diagnoses),
    }
}

fn wrong(node: &Node, key: &str, message: &str, mend: &str, diagnoses: &mut Vec<Diagnosis>) {
    let name = key.rsplit('.').next().unwrap_or(key);
    diagnoses.push(Diagnosis::error(node.key_place(name), key, message, mend));
}

fn meant(node: &Node, flags: &Flags, diagnoses: &mut Vec<Diagnosis>) -> Option<AllocatorConfig> {
    let document: Document = yaml::decode(node, diagnoses)?;
    let mut jobs = Vec::new();
    if let Some(config) = node.get("config") {
        jobs = document::read(config, "config", Options::default(), diagnoses);
    }
    let karez = document.karez.unwrap_or_default();
    let push = super::telemetry::read(node, diagnoses);
    let lease = lease(
        node,
        &karez,
        document.collector_namespace.as_ref(),
        flags,
        diagnoses,
    );
    let collectors = collectors(node, &karez, document.collector_namespace, flags, diagnoses);
    let settings = settings(
        node,
        &karez,
        document.allocation_strategy.as_deref(),
        document.allocation_fallback_strategy.as_deref(),
        document.filter_strategy.as_deref(),
        diagnoses,
    );
    let prometheus = resources(
        node,
        document.prometheus_cr.unwrap_or_default(),
        &collectors,
        flags,
        diagnoses,
    );
    if jobs.is_empty() && prometheus.is_none() {
        let message = "at least one scrape config must be defined, or Prometheus CR watching must be enabled";
        wrong(
            node,
            "config",
            message,
            "write `config: {scrape_configs: [...]}`",
            diagnoses,
        );
    }
    let https = https(node, document.https.unwrap_or_default(), flags, diagnoses);
    let listen = flags.listen_addr.clone().or(document.listen_addr);
    Some(AllocatorConfig {
        listen: listen.unwrap_or_else(|| ":8080".to_owned()),
        https,
        kubeconfig: flags.kubeconfig.clone().or(document.kube_config_file_path),
        collectors,
        grace: document
            .collector_not_ready_grace_period
            .unwrap_or(Duration::from_secs(30)),
        settings,
        rebalance: karez.weighted.interval.unwrap_or(Duration::from_secs(30)),
        allow_insecure_secrets: flags.allow_insecure_secrets
            || document.allow_insecure_auth_secrets.unwrap_or(false),
        prometheus,
        lease,
        push,
        jobs,
    })
}

/// A Lease lasts so long where nothing else is said, as Kubernetes' own controllers have it.
const LEASE: Duration = Duration::from_secs(15);

fn lease(
    node: &Node,
    karez: &KarezDocument,
    namespace: Option<&String>,
    flags: &Flags,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<LeaseConfig> {
    let name = karez.lease.clone().filter(|name| !name.is_empty())?;
    let namespace = flags.namespace.as_ref().or(namespace);
    let namespace = namespace.filter(|namespace| !namespace.is_empty());
    if namespace.is_none() {
        let mend = "set OTELCOL_NAMESPACE or `collector_namespace:`";
        wrong(
            node,
            "karez.lease",
            "nobody says in which namespace the Lease is",
            mend,
            diagnoses,
        );
    }
    let duration = karez.lease_duration.unwrap_or(LEASE);
    if duration < Duration::from_secs(1) || duration > Duration::from_secs(600) {
        let message = "a Lease lasts from one second to ten minutes";
        wrong(
            node,
            "karez.lease_duration",
            message,
            "write such as 15s",
            diagnoses,
        );
    }
    Some(LeaseConfig {
        namespace: namespace.cloned().unwrap_or_default(),
        name,
        duration,
        advertise: karez.advertise.clone().filter(|host| !host.is_empty()),
    })
}

fn settings(
    node: &Node,
    karez: &KarezDocument,
    strategy: Option<&str>,
    fallback: Option<&str>,
    filter: Option<&str>,
    diagnoses: &mut Vec<Diagnosis>,
) -> Settings {
    let mut kind = |key: &str, text: Option<&str>| {
        let text = text.filter(|text| !text.is_empty())?;
        let parsed = text.parse::<StrategyKind>();
        if let Err(error) = &parsed {
            wrong(node, key, &error.to_string(), "correct it", diagnoses);
        }
        parsed.ok()
    };
    let usual = Settings::default();
    let strategy = kind("allocation_strategy", strategy).unwrap_or_default();
    let fallback = kind("allocation_fallback_strategy", fallback);
    let weighted = &karez.weighted;
    let share = |value: Option<f64>, usual: f64| {
        value
            .filter(|value| value.is_finite())
            .unwrap_or(usual)
            .clamp(0.0, 1.0)
    };
    Settings {
        strategy,
        fallback,
        filter: filter.is_none_or(|filter| filter == "relabel-config"),
        hand_over: karez.hand_over.unwrap_or(usual.hand_over),
        settle: karez.settle.unwrap_or(usual.settle),
        slack: share(weighted.slack, usual.slack),
        budget: share(weighted.move_budget, usual.budget),
        cap: weighted.cap.unwrap_or(usual.cap),
    }
}

fn collectors(
    node: &Node,
    karez: &KarezDocument,
    namespace: Option<String>,
    flags: &Flags,
    diagnoses: &mut Vec<Diagnosis>,
) -> Collectors {
    if karez.collectors.is_some() && karez.collectors_file.is_some() {
        let key = "karez.collectors_file";
        wrong(
            node,
            key,
            "there is a list of collectors as well",
            "keep one of them",
            diagnoses,
        );
    }
    if let Some(list) = &karez.collectors {
        return Collectors::Fixed(list.iter().cloned().map(Collector::from).collect());
    }
    if let Some(file) = &karez.collectors_file {
        return Collectors::File(file.clone());
    }
    let namespace = flags
        .namespace
        .clone()
        .or(namespace)
        .filter(|namespace| !namespace.is_empty());
    if namespace.is_none() {
        let mend =
            "set OTELCOL_NAMESPACE or `collector_namespace:`; without Kubernetes list `karez.collectors`";
        wrong(
            node,
            "collector_namespace",
            "collector namespace must be set",
            mend,
            diagnoses,
        );
    }
    // Before 0.9x the selector was a plain map under another name.
    let key = ["collector_selector", "label_selector"]
        .into_iter()
        .find(|key| node.get(key).is_some());
    let selector = key.and_then(|key| LabelSelector::read(node.get(key)?, key, diagnoses));
    Collectors::Pods {
        namespace: namespace.unwrap_or_default(),
        selector,
    }
}

fn https(
    node: &Node,
    written: HttpsDocument,
    flags: &Flags,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<Https> {
    if !(written.enabled || flags.https) {
        return None;
    }
    let given = |flag: &Option<String>, written: String| flag.clone().unwrap_or(written);
    let https = Https {
        listen: flags
            .https_listen_addr
            .clone()
            .or(written.listen_addr)
            .unwrap_or_else(|| ":8443".to_owned()),
        ca_file: given(&flags.https_ca_file, written.ca_file_path),
        cert_file: given(&flags.https_cert_file, written.tls_cert_file_path),
        key_file: given(&flags.https_key_file, written.tls_key_file_path),
    };
    let files = [
        ("https.ca_file_path", &https.ca_file),
        ("https.tls_cert_file_path", &https.cert_file),
        ("https.tls_key_file_path", &https.key_file),
    ];
    for (key, file) in files {
        if file.is_empty() {
            wrong(node, key, "is missing", "name the file", diagnoses);
        }
    }
    Some(https)
}

fn resources(
    node: &Node,
    written: ResourcesDocument,
    collectors: &Collectors,
    flags: &Flags,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<PrometheusResources> {
    if !(written.enabled || flags.watch_prometheus) {
        return None;
    }
    let allow = written.allow_namespaces.unwrap_or_default();
    let deny = written.deny_namespaces.unwrap_or_default();
    if !allow.is_empty() && !deny.is_empty() {
        let message = "only one of allowNamespaces or denyNamespaces can be set";
        wrong(
            node,
            "prometheus_cr.deny_namespaces",
            message,
            "remove one of them",
            diagnoses,
        );
    }
    let block = node.get("prometheus_cr");
    let own = match collectors {
        Collectors::Pods { namespace, .. } => vec![namespace.clone()],
        _ => Vec::new(),
    };
    let classes = block.and_then(|block| block.get("scrape_classes"));
    let classes = classes
        .into_iter()
        .flat_map(|list| list.items())
        .map(Node::to_json)
        .collect();
    let mut selector = |name: String| {
        let key = join_key("prometheus_cr", &name);
        LabelSelector::read(block?.get(&name)?, &key, diagnoses)
    };
    let mut selection = |kind: &str| Selection {
        objects: selector(format!("{kind}_selector")),
        namespaces: selector(format!("{kind}_namespace_selector")),
    };
    let kinds = ["service_monitor", "pod_monitor", "probe", "scrape_config"].map(&mut selection);
    let protocols = written.scrape_protocols.filter(|protocols| !protocols.is_empty());
    Some(PrometheusResources {
        scrape_interval: written.scrape_interval.unwrap_or(Duration::from_secs(30)),
        scrape_protocols: protocols.unwrap_or_else(|| DEFAULT_PROTOCOLS.map(str::to_owned).to_vec()),
        scrape_classes: classes,
        allow_namespaces: allow,
        deny_namespaces: deny,
        secret_namespaces: written.secret_namespaces.unwrap_or(own),
        deny_files: written.deny_fs_access_through_sms,
        kinds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, flags: &Flags) -> (Option<AllocatorConfig>, String) {
        let (config, diagnoses) = read(text, &Origin::file("ta.yaml"), flags);
        (
            config,
            diagnoses
                .iter()
                .map(|diagnosis| format!("{diagnosis}\n"))
                .collect(),
        )
    }

    /// As operators 0.98 and 0.58 write it.
    #[test]
    fn reads_what_operators_write() {
        let flags = Flags {
            namespace: Some("observability".into()),
            ..Flags::default()
        };
        let text = "allocation_strategy: least-weighted
collector_selector:
  matchlabels: {app.kubernetes.io/instance: observability.otel}
  matchexpressions: []
label_selector: {app.kubernetes.io/instance: observability.otel}
filter_strategy: relabel-config
prometheus_cr: {scrape_interval: 30s, service_monitor_selector: null, pod_monitor_selector: null}
pod_monitor_selector: null
config:
  scrape_configs: [{job_name: otel, static_configs: [{targets: ['0.0.0.0:8888']}]}]
";
        let (config, said) = read_text(text, &flags);
        assert_eq!(said, "");
        let config = config.unwrap();
        assert_eq!(
            (config.settings.strategy, config.listen.as_str()),
            (StrategyKind::LeastWeighted, ":8080")
        );
        assert_eq!((config.prometheus, config.jobs.len()), (None, 1));
        let Collectors::Pods { namespace, selector } = config.collectors else {
            panic!("{:?}", config.collectors);
        };
        assert_eq!(
            (namespace.as_str(), selector.unwrap().labels.len()),
            ("observability", 1)
        );
        let (config, said) = read_text(&text.replace("collector_selector", "x_selector"), &flags);
        assert_eq!(said, "");
        assert!(matches!(
            config.unwrap().collectors,
            Collectors::Pods {
                selector: Some(_),
                ..
            }
        ));
    }

    #[test]
    fn a_lease_has_a_namespace_and_bounds() {
        let text = "karez: {collectors: [a], lease: l, lease_duration: 20m}\nprometheus_cr: {enabled: true}\ntelemetry: {metrics: {readers: [{periodic: {exporter: {otlp_grpc: {endpoint: 'o:4317'}}}}, {periodic: {exporter: {otlp_http: {endpoint: nonsense}}}}]}}\n";
        let (config, said) = read_text(text, &Flags::default());
        assert_eq!(config, None);
        for expected in [
            "in which namespace the Lease is",
            "from one second to ten minutes",
            "scrape /metrics",
            "readers[1].periodic.exporter.otlp_http.endpoint: is no address",
        ] {
            assert!(said.contains(expected), "{expected}\n---\n{said}");
        }
        let text = text
            .replace("20m", "20s")
            .replace(
                "otlp_grpc: {endpoint: 'o:4317'}",
                "otlp_http: {endpoint: 'http://o:4318'}",
            )
            .replace("nonsense", "https://o/own/path")
            + "collector_namespace: ns\n";
        let config = read_text(&text, &Flags::default()).0.unwrap();
        let pushed: Vec<&str> = config.push.iter().map(|push| push.url.as_str()).collect();
        assert_eq!(pushed, ["http://o:4318/v1/metrics", "https://o/own/path"]);
        let lease = config.lease.unwrap();
        assert_eq!((lease.namespace.as_str(), lease.name.as_str()), ("ns", "l"));
    }

    #[test]
    fn says_what_is_wrong() {
        let (config, said) = read_text(
            "allocation_strategy: best\nhttps: {enabled: true}\nprometheus_cr: {enabled: true, allow_namespaces: [a], deny_namespaces: [b]}\nkarez: {colectors: []}\n",
            &Flags::default(),
        );
        assert_eq!(config, None);
        for expected in [
            "allocation_strategy: `best` is no strategy",
            "https.ca_file_path: is missing",
            "only one of allowNamespaces or denyNamespaces can be set",
            "karez.colectors: unknown key; did you mean `collectors`?",
            "collector namespace must be set",
        ] {
            assert!(said.contains(expected), "{expected}\n---\n{said}");
        }
        let (_, said) = read_text("karez: {collectors: [a, {name: b, node: n}]}", &Flags::default());
        assert!(
            said.contains("at least one scrape config must be defined"),
            "{said}"
        );
    }

    #[test]
    fn selectors_select() {
        let text = "prometheus_cr: {enabled: true, service_monitor_selector: {}, probe_selector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: NotIn, values: [d]}]}}\nkarez: {collectors: [a]}";
        let config = read_text(text, &Flags::default()).0.unwrap();
        let kinds = config.prometheus.unwrap().kinds;
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert!(kinds[0].objects.as_ref().unwrap().matches(&labels(&[])));
        assert_eq!(kinds[1].objects, None);
        let probes = kinds[2].objects.as_ref().unwrap();
        assert!(
            probes.matches(&labels(&[("a", "b")])) && !probes.matches(&labels(&[("a", "b"), ("c", "d")]))
        );
    }
}
