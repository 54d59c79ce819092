use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use karez_kubernetes::TargetAllocator as Declared;
use serde_json::json;

use super::objects::KEY;
use super::*;
use crate::issue::Issuer;
use crate::plan::Plan;

/// A namespace as these plans see it.
#[derive(Default)]
struct World {
    collectors: Vec<Arc<OpenTelemetryCollector>>,
    allocators: Vec<Arc<Declared>>,
    secrets: BTreeMap<String, Secret>,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl World {
    fn around(&self) -> Surroundings<'_> {
        Surroundings {
            managed: &[],
            replicas: None,
            legacy_otlp: false,
            collectors: &self.collectors,
            allocators: &self.allocators,
            issuing: Issuing {
                secrets: &self.secrets,
                overlap: Duration::from_secs(3600),
                now: now(),
            },
        }
    }

    fn of_collector(&self) -> Plan {
        crate::plan::collector::plan(&self.collectors[0], self.around())
    }

    fn of_resource(&self) -> Plan {
        plan(&self.allocators[0], &self.around())
    }

    /// Fulfils the plan's orders.
    fn issue(&mut self, plan: &Plan) {
        let before = self.secrets.clone();
        let mut issuer = Issuer::new(&before, now());
        for order in &plan.certificates {
            let secret = issuer.certificate(order).unwrap();
            self.secrets.insert(order.secret.clone(), secret);
        }
    }
}

fn collector(name: &str, mode: &str, allocator: &Value) -> OpenTelemetryCollector {
    serde_json::from_value(json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
        "metadata": {"name": name, "namespace": "ns", "uid": "u"},
        "spec": {"mode": mode, "replicas": 3, "targetAllocator": allocator, "config": format!("
receivers:
  prometheus:
    report_extra_scrape_metrics: true
    target_allocator: {{endpoint: 'http://elsewhere:80', timeout: 7s}}
    config:
      scrape_configs:
      - {{job_name: {name}, static_configs: [{{targets: ['h:1']}}], relabel_configs: [{{regex: (.+), target_label: x, replacement: $$1}}]}}
exporters: {{debug: }}
service: {{pipelines: {{metrics: {{receivers: [prometheus], exporters: [debug]}}}}}}
")}}))
    .unwrap()
}

fn planned(mode: &str, allocator: &Value) -> Plan {
    let world = World {
        collectors: vec![Arc::new(collector("otel", mode, allocator))],
        ..World::default()
    };
    world.of_collector()
}

fn find<'a>(plan: &'a Plan, kind: &str, name: &str) -> &'a Value {
    let found = plan
        .objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The most that an allocator is ever granted.
pub(in crate::plan) fn widest_role() -> Value {
    let resources = json!({"enabled": true, "allowNamespaces": ["ns"]});
    let plan = planned(
        "statefulset",
        &json!({"enabled": true, "prometheusCR": resources}),
    );
    find(&plan, "Role", NAME).clone()
}

fn text<'a>(plan: &'a Plan, name: &str, key: &str) -> &'a str {
    find(plan, "ConfigMap", name)["data"][key].as_str().unwrap()
}

const NAME: &str = "otel-targetallocator";

#[test]
fn makes_the_allocator_and_rewrites_the_receiver() {
    let plan = planned("statefulset", &json!({"enabled": true}));
    for kind in [
        "Deployment",
        "Service",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "PodDisruptionBudget",
    ] {
        find(&plan, kind, NAME);
    }
    let document = text(&plan, NAME, KEY);
    for expected in [
        "allocation_strategy: consistent-hashing",
        "job_name: otel",
        "replacement: $1",
        "app.kubernetes.io/instance: ns.otel",
        "lease: otel-targetallocator",
    ] {
        assert!(document.contains(expected), "{expected}\n{document}");
    }
    let config = text(&plan, "otel-collector", "collector.yaml");
    for expected in [
        "http://otel-targetallocator:80",
        "${POD_NAME}",
        "interval: 30s",
        "timeout: 7s",
        "report_extra_scrape_metrics: true",
    ] {
        assert!(config.contains(expected), "{expected}\n{config}");
    }
    assert!(
        !config.contains("scrape_configs") && !config.contains("tls"),
        "{config}"
    );
    let container = &find(&plan, "Deployment", NAME)["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["allocator"]));
    let ports = &find(&plan, "Service", NAME)["spec"]["ports"];
    assert_eq!((ports[0]["port"].as_i64(), ports[1].is_null()), (Some(80), true));
    assert_eq!(plan.certificates, []);
}

#[test]
fn what_may_hold_secrets_goes_over_mutual_tls() {
    let spec = json!({"enabled": true, "prometheusCR": {"enabled": true, "serviceMonitorSelector": {}}});
    let mut world = World {
        collectors: vec![Arc::new(collector("otel", "statefulset", &spec))],
        ..World::default()
    };
    let plan = world.of_collector();
    let ordered: Vec<&str> = plan.certificates.iter().map(|order| &*order.secret).collect();
    assert_eq!(
        ordered,
        ["otel-ca-cert", "otel-ta-server-cert", "otel-ta-client-cert"]
    );
    let document = text(&plan, NAME, KEY);
    for expected in [
        "listen_addr: ':8443'",
        "ca_file_path: /tls/ca.crt",
        "service_monitor_selector: {}",
    ] {
        assert!(
            document.replace('"', "'").contains(expected),
            "{expected}\n{document}"
        );
    }
    let config = text(&plan, "otel-collector", "collector.yaml");
    for expected in ["https://otel-targetallocator:443", "key_file: /tls/tls.key"] {
        assert!(config.contains(expected), "{expected}\n{config}");
    }
    let pod = &find(&plan, "Deployment", NAME)["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["args"],
        json!(["allocator", "--enable-prometheus-cr-watcher"])
    );
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "otel-ta-server-cert");
    let pod = &find(&plan, "StatefulSet", "otel-collector")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "otel-ta-client-cert");
    assert_eq!(pod["containers"][0]["volumeMounts"][1]["mountPath"], "/tls");
    // Once they are there nothing is issued again.
    world.issue(&plan);
    let plan = world.of_collector();
    assert_eq!(plan.certificates, []);
    assert!(plan.again_at.is_some(), "they end some day");
    // Both sides believe a successor of the authority before it signs anything.
    let authority = world.secrets.get_mut("otel-ca-cert").unwrap();
    let annotations = authority.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::ROLLOVER.to_owned(), "true".to_owned());
    let begun = world.of_collector();
    assert_eq!(begun.rollovers.len(), 1);
    let secrets = world.secrets.clone();
    let next = Issuer::new(&secrets, now())
        .rollover(&begun.rollovers[0])
        .unwrap();
    world.secrets.insert("otel-ca-cert".to_owned(), next);
    let ordered: Vec<String> = world
        .of_collector()
        .certificates
        .into_iter()
        .map(|order| order.secret)
        .collect();
    assert_eq!(ordered, ["otel-ta-server-cert", "otel-ta-client-cert"]);
    // Without an authority everything is issued anew.
    world.secrets.remove("otel-ca-cert");
    assert_eq!(world.of_collector().certificates.len(), 3);
}

#[test]
fn tls_is_as_the_annotation_says() {
    let with = |spec: &Value, annotation: Option<&str>| {
        let mut collector = collector("otel", "statefulset", spec);
        let annotations = annotation.map(|value| (labels::ALLOCATOR_TLS.to_owned(), value.to_owned()));
        collector.metadata.annotations = Some(annotations.into_iter().collect());
        let world = World {
            collectors: vec![Arc::new(collector)],
            ..World::default()
        };
        !world.of_collector().certificates.is_empty()
    };
    let (plain, resources) = (
        json!({"enabled": true}),
        json!({"enabled": true, "prometheusCR": {"enabled": true}}),
    );
    assert!(!with(&plain, None) && with(&plain, Some("required")));
    assert!(with(&resources, None) && !with(&resources, Some("off")));
    let foreign = json!({"enabled": true, "image": "ghcr.io/x/target-allocator:0.98.0", "prometheusCR": {"enabled": true}});
    assert!(!with(&foreign, None) && with(&foreign, Some("required")));
}

#[test]
fn modes_and_strategies_must_agree() {
    let plan = planned("daemonset", &json!({"enabled": true}));
    assert!(text(&plan, NAME, KEY).contains("per-node"));
    let budget = |plan: &Plan| plan.objects.iter().any(|o| o["kind"] == "PodDisruptionBudget");
    assert!(!budget(&plan));
    let note = |mode, spec: Value| {
        let plan = planned(mode, &spec);
        assert!(!plan.objects.iter().any(|o| o["metadata"]["name"] == NAME));
        plan.notes
            .iter()
            .map(|note| note.message.clone())
            .collect::<String>()
    };
    let enabled = |strategy: &str| json!({"enabled": true, "allocationStrategy": strategy});
    assert!(note("sidecar", enabled("")).contains("does not support the target allocation"));
    assert!(note("daemonset", enabled("least-weighted")).contains("must be used with"));
    assert!(note("statefulset", enabled("per-node")).contains("only supported in"));
    assert_eq!(note("statefulset", json!({"enabled": false})), "");
}

#[test]
fn a_resource_divides_for_those_that_name_it() {
    let declared: Declared = serde_json::from_value(json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "TargetAllocator",
        "metadata": {"name": "shared", "namespace": "ns", "uid": "t", "annotations": {"karez.dev/allocator-tls": "required"}},
        "spec": {"replicas": 2, "allocationStrategy": "least-weighted", "scrapeConfigs": [{"job_name": "own"}],
                 "podAnnotations": {"a": "b"}, "global": {"scrape_interval": "9s"}}
    }))
    .unwrap();
    let naming = |name: &str| {
        let mut collector = collector(name, "deployment", &Value::Null);
        let label = (labels::TARGET_ALLOCATOR.to_owned(), "shared".to_owned());
        collector.metadata.labels = Some([label].into());
        Arc::new(collector)
    };
    let mut world = World {
        collectors: vec![naming("one")],
        allocators: vec![Arc::new(declared)],
        ..World::default()
    };
    let name = "shared-targetallocator";
    let plan = world.of_resource();
    let document = text(&plan, name, KEY);
    for expected in [
        "job_name: own",
        "job_name: one",
        "scrape_interval: 9s",
        "app.kubernetes.io/instance: ns.one",
    ] {
        assert!(document.contains(expected), "{expected}\n{document}");
    }
    let deployment = find(&plan, "Deployment", name);
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(
        deployment["metadata"]["ownerReferences"][0]["kind"],
        "TargetAllocator"
    );
    assert_eq!(
        deployment["spec"]["template"]["metadata"]["annotations"]["a"],
        "b"
    );
    find(&plan, "PodDisruptionBudget", name);
    assert_eq!(plan.statuses[0]["kind"], "TargetAllocator");
    assert_eq!(plan.certificates.len(), 3);
    // The collector's own plan makes none of that, and asks it.
    let plan = world.of_collector();
    assert!(!plan.objects.iter().any(|o| o["metadata"]["name"] == name));
    assert!(plan.certificates.is_empty());
    let config = text(&plan, "one-collector", "collector.yaml");
    assert!(
        config.contains("https://shared-targetallocator:443") && !config.contains("job_name"),
        "{config}"
    );
    let pod = &find(&plan, "Deployment", "one-collector")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "shared-ta-client-cert");

    world.collectors.push(naming("two"));
    let document = text(&world.of_resource(), name, KEY).to_owned();
    assert!(
        document.contains("ns.two") && document.contains("operator: In"),
        "{document}"
    );
    world.collectors.clear();
    let alone = world.of_resource();
    assert!(alone.notes.iter().any(|note| note.reason == "NoCollector"));
    assert!(!text(&alone, name, KEY).contains("collector_selector"));
    world.collectors.push(naming("lost"));
    world.allocators.clear();
    let lost = world.of_collector();
    assert!(
        lost.notes
            .iter()
            .any(|note| note.message.contains("not in this namespace"))
    );
}

#[test]
fn its_rights_are_no_more_than_its_work_needs() {
    let rules = |spec: Value| find(&planned("statefulset", &spec), "Role", NAME)["rules"].to_string();
    let plain = rules(json!({"enabled": true}));
    assert!(plain.contains("leases") && !plain.contains("secrets"), "{plain}");
    let cluster = rules(json!({"enabled": true, "prometheusCR": {"enabled": true}}));
    assert!(
        cluster.contains("secrets") && !cluster.contains("servicemonitors"),
        "{cluster}"
    );
    let own = rules(
        json!({"enabled": true, "prometheusCR": {"enabled": true, "allowNamespaces": ["ns"], "secretNamespaces": ["other"]}}),
    );
    assert!(
        own.contains("servicemonitors") && !own.contains("secrets"),
        "{own}"
    );
    let foreign = rules(json!({"enabled": true, "image": "x/target-allocator:1"}));
    assert!(!foreign.contains("leases"), "{foreign}");
}
