use std::time::Duration;

use karez_scrape::config::labels::Labels;
use karez_scrape::config::{Assembler, Fate, Group};
use serde_json::json;

use super::*;

fn config() -> PrometheusResources {
    PrometheusResources {
        scrape_interval: Duration::from_secs(30),
        scrape_protocols: vec!["PrometheusText0.0.4".into()],
        scrape_classes: vec![
            json!({"name": "tls", "tlsConfig": {"caFile": "/ca"}, "relabelings": [{"targetLabel": "class", "replacement": "tls"}]}),
        ],
        allow_namespaces: Vec::new(),
        deny_namespaces: Vec::new(),
        secret_namespaces: Vec::new(),
        deny_files: false,
        kinds: Default::default(),
    }
}

fn convert(
    kind: Kind,
    spec: &Value,
    secrets: &Secrets,
    config: &PrometheusResources,
) -> Result<Vec<ScrapeConfig>, Refusal> {
    let resource = Resource {
        namespace: "shop",
        name: "web",
        spec,
    };
    jobs(kind, resource, &Context { config, secrets })
}

fn converted(kind: Kind, spec: Value) -> Vec<ScrapeConfig> {
    convert(kind, &spec, &Secrets::default(), &config()).expect("the resource is right")
}

fn refused(kind: Kind, spec: Value) -> String {
    match convert(kind, &spec, &Secrets::default(), &config()) {
        Err(Refusal::Wrong(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// The final labels of a target with these meta labels; `None` when it is dropped.
fn target(job: &ScrapeConfig, meta: &[(&str, &str)]) -> Option<Labels> {
    let own = Labels::of(meta.iter().copied().chain([("__address__", "10.0.0.1:80")]));
    let group = Group {
        labels: Labels::default(),
        targets: vec![own.clone()],
    };
    match Assembler::new(job).assemble(&group, &own) {
        Fate::Kept(target) => Some(target.labels),
        _ => None,
    }
}

const SLICE: [(&str, &str); 9] = [
    ("__meta_kubernetes_service_label_app_x", "web.shop"),
    ("__meta_kubernetes_service_labelpresent_app_x", "true"),
    ("__meta_kubernetes_endpointslice_port_name", "http"),
    ("__meta_kubernetes_endpointslice_address_target_kind", "Pod"),
    ("__meta_kubernetes_endpointslice_address_target_name", "web-0"),
    ("__meta_kubernetes_namespace", "shop"),
    ("__meta_kubernetes_service_name", "web"),
    ("__meta_kubernetes_pod_name", "web-0"),
    ("__meta_kubernetes_service_label_team", "red"),
];

#[test]
fn a_service_monitor_is_a_job_an_endpoint() {
    let jobs = converted(
        Kind::ServiceMonitor,
        json!({
            "selector": {"matchLabels": {"app.x": "web.shop"}, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]},
            "targetLabels": ["team"], "jobLabel": "team", "sampleLimit": 7, "scrapeClass": "tls",
            "endpoints": [
                {"port": "http", "interval": "15s", "scheme": "HTTPS", "path": "/m", "honorLabels": true,
                 "relabelings": [{"sourceLabels": ["pod"], "targetLabel": "who", "action": "Replace"}],
                 "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "go_.*", "action": "drop"}]},
                {"targetPort": 9100},
            ],
        }),
    );
    let [first, second] = jobs.as_slice() else {
        panic!("{jobs:?}");
    };
    assert_eq!(
        (first.job_name.as_str(), second.job_name.as_str()),
        ("serviceMonitor/shop/web/0", "serviceMonitor/shop/web/1")
    );
    assert_eq!((first.interval.as_secs(), second.interval.as_secs()), (15, 30));
    assert_eq!(
        (first.limits.samples, first.scheme.as_str(), first.honor_labels),
        (7, "https", true)
    );
    assert_eq!(
        (first.http.tls.ca_file.as_str(), first.metric_relabel.len()),
        ("/ca", 1)
    );
    let labels = target(first, &SLICE).expect("it is selected");
    for (name, value) in [
        ("job", "red"),
        ("team", "red"),
        ("namespace", "shop"),
        ("service", "web"),
        ("pod", "web-0"),
        ("endpoint", "http"),
        ("who", "web-0"),
        ("class", "tls"),
        ("__tmp_prometheus_job_name", "serviceMonitor/shop/web/0"),
    ] {
        assert_eq!(labels.get(name), value, "{name}");
    }
    let with = |more: (&'static str, &'static str)| {
        let mut meta = SLICE.to_vec();
        meta.push(more);
        target(first, &meta)
    };
    assert_eq!(with(("__meta_kubernetes_service_labelpresent_old", "true")), None);
    assert_eq!(with(("__meta_kubernetes_pod_phase", "Failed")), None);
    assert_eq!(
        with(("__meta_kubernetes_service_label_app_x", "webxshop")),
        None,
        "a dot is a dot"
    );
    assert_eq!(target(second, &SLICE), None, "another port");
}

#[test]
fn a_pod_monitor_names_its_job() {
    let jobs = converted(
        Kind::PodMonitor,
        json!({"selector": {}, "namespaceSelector": {"any": true}, "podMetricsEndpoints": [{"port": "metrics"}]}),
    );
    let meta = [
        ("__meta_kubernetes_pod_container_port_name", "metrics"),
        ("__meta_kubernetes_pod_name", "p"),
    ];
    let labels = target(&jobs[0], &meta).expect("it is selected");
    assert_eq!(
        (labels.get("job"), labels.get("pod"), labels.get("endpoint")),
        ("shop/web", "p", "metrics")
    );
    let karez_scrape::config::DiscoveryConfig::Kubernetes(source) = &jobs[0].discovery[0] else {
        panic!("{:?}", jobs[0].discovery);
    };
    assert!(source.namespaces.is_empty());
}

#[test]
fn a_probe_asks_its_prober() {
    let jobs = converted(
        Kind::Probe,
        json!({
            "jobName": "ping", "module": "icmp", "prober": {"url": "blackbox:9115"},
            "targets": {"ingress": {"selector": {"matchLabels": {"a": "b"}}}},
        }),
    );
    let meta = [
        ("__meta_kubernetes_ingress_label_a", "b"),
        ("__meta_kubernetes_ingress_labelpresent_a", "true"),
        ("__meta_kubernetes_ingress_scheme", "https"),
        ("__meta_kubernetes_ingress_path", "/x"),
    ];
    let labels = target(&jobs[0], &meta).expect("it is selected");
    assert_eq!(labels.get("instance"), "https://10.0.0.1:80/x");
    assert_eq!(
        (labels.get("__address__"), labels.get("job")),
        ("blackbox:9115", "ping")
    );
    assert_eq!(
        (labels.get("__param_module"), labels.get("__metrics_path__")),
        ("icmp", "/probe")
    );
    assert!(refused(Kind::Probe, json!({"prober": {"url": "b"}})).contains("spec.targets"));
}

#[test]
fn a_scrape_config_keeps_its_discovery() {
    let jobs = converted(
        Kind::ScrapeConfig,
        json!({
            "jobName": "j", "metricsPath": "/m", "scrapeInterval": "1m", "enableHTTP2": false,
            "staticConfigs": [{"targets": ["h:1"], "labels": {"camelCase": "x"}}],
            "httpSDConfigs": [{"url": "http://h/sd", "refreshInterval": "5s"}],
            "kubernetesSDConfigs": [{"role": "Pod", "namespaces": {"ownNamespace": true}, "attachMetadata": {"node": true}}],
        }),
    );
    assert_eq!((jobs[0].discovery.len(), jobs[0].http.enable_http2), (3, false));
    let reason = refused(Kind::ScrapeConfig, json!({"ec2SDConfigs": [{"region": "x"}]}));
    assert!(
        reason.contains("ec2") && reason.contains("use static, file"),
        "{reason}"
    );
}

#[test]
fn secrets_are_asked_for_and_put_in() {
    let spec = json!({"selector": {}, "endpoints": [{"basicAuth": {
        "username": {"name": "s", "key": "u"}, "password": {"name": "s", "key": "p"}}}]});
    let mut secrets = Secrets::default();
    assert_eq!(
        convert(Kind::ServiceMonitor, &spec, &secrets, &config()),
        Err(Refusal::Pending)
    );
    let wanted: Vec<Reference> = secrets.take_wanted().into_iter().collect();
    assert_eq!((wanted.len(), wanted[0].name.as_str()), (1, "s"));
    let data = [("u", "me"), ("p", "secret")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    secrets.known.insert(wanted[0].clone(), Ok(data.into()));
    let jobs = convert(Kind::ServiceMonitor, &spec, &secrets, &config()).expect("everything is known");
    assert!(jobs[0].has_secrets());
    secrets
        .known
        .insert(wanted[0].clone(), Ok([("u".to_owned(), "me".to_owned())].into()));
    let refusal = convert(Kind::ServiceMonitor, &spec, &secrets, &config());
    assert_eq!(
        refusal,
        Err(Refusal::Wrong("Secret shop/s has no key `p`".into()))
    );
    secrets.allowed = vec!["other".into()];
    let Err(Refusal::Wrong(reason)) = convert(Kind::ServiceMonitor, &spec, &secrets, &config()) else {
        panic!("it may not be read");
    };
    assert!(reason.contains("secret_namespaces"), "{reason}");
}

#[test]
fn what_is_wrong_says_so() {
    let wrong = |endpoint: Value| {
        refused(
            Kind::ServiceMonitor,
            json!({"selector": {}, "endpoints": [endpoint]}),
        )
    };
    assert!(wrong(json!({"interval": "often"})).contains("scrape_interval"));
    assert!(wrong(json!({"relabelings": [{"regex": "(", "targetLabel": "a"}]})).contains("regex"));
    assert!(wrong(json!({"proxyUrl": "http://p"})).contains("proxy"));
    assert!(
        refused(
            Kind::ServiceMonitor,
            json!({"scrapeClass": "x", "endpoints": [{}]})
        )
        .contains("scrape class")
    );
    let mut config = config();
    config.deny_files = true;
    let spec = json!({"endpoints": [{"bearerTokenFile": "/token"}]});
    let refusal = convert(Kind::ServiceMonitor, &spec, &Secrets::default(), &config);
    assert!(matches!(refusal, Err(Refusal::Wrong(reason)) if reason.contains("/token")));
}
