//! `spec.targetAllocator` of a collector: the allocator's Deployment, Service, ConfigMap, account and rights, named as
//! the operator names them, and the collector's `prometheus` receiver rewritten to ask it.
//!
//! ```text
//! receivers.prometheus.config ─▶ targetallocator.yaml        receivers.prometheus.target_allocator ◀─ its Service
//! ```

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, KeyToPath, PodSpec,
    PodTemplateSpec, Probe, Service, ServiceAccount, ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{CollectorMode, IMAGE, OpenTelemetryCollector, labels};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::collector::{Parts, cut, dns_name};
use super::site_workloads::field;
use crate::object::{Strings, json as object, meta, strings};

/// The file in its ConfigMap.
const KEY: &str = "targetallocator.yaml";
const HTTP_PORT: i32 = 8080;

/// A collector's allocator.
pub(super) struct TargetAllocator<'a> {
    spec: &'a Value,
    collector: &'a OpenTelemetryCollector,
    /// `<collector>-targetallocator`
    name: String,
    /// The Prometheus configuration that was in the collector's.
    prometheus: Value,
}

/// Why there is none although one is asked for.
pub(super) type Refusal = String;

/// Takes the allocator out of a collector whose configuration is `config`, which is rewritten.
pub(super) fn take<'a>(
    collector: &'a OpenTelemetryCollector,
    config: &mut Value,
) -> Result<Option<TargetAllocator<'a>>, Refusal> {
    let Some(spec) = collector
        .spec
        .target_allocator
        .as_ref()
        .filter(|spec| spec["enabled"] == true)
    else {
        return Ok(None);
    };
    let mode = collector.mode();
    if mode == CollectorMode::Sidecar {
        return Err(format!(
            "the OpenTelemetry Collector mode is set to {mode}, which does not support the target allocation deployment"
        ));
    }
    let Some(receiver) = config.pointer_mut("/receivers/prometheus") else {
        return Err("spec.targetAllocator is enabled, and there is no receiver `prometheus` to divide targets for: add it \
                    or turn the allocator off"
            .to_owned());
    };
    let own = collector.metadata.name.as_deref().unwrap_or_default();
    let name = dns_name(&format!("{own}-targetallocator"));
    let prometheus = receiver.get_mut("config").map(Value::take).unwrap_or_default();
    let mut block = json!({
        "endpoint": format!("http://{name}:80"),
        "interval": spec["collectorTargetReloadInterval"].as_str().unwrap_or("30s"),
        "collector_id": "${POD_NAME}",
    });
    // What the user wrote there beside (timeouts, headers) stays.
    if let (Some(written), Some(block)) = (receiver["target_allocator"].as_object(), block.as_object_mut()) {
        for (key, value) in written {
            block.entry(key.as_str()).or_insert_with(|| value.clone());
        }
    }
    *receiver = json!({"target_allocator": block});
    Ok(Some(TargetAllocator {
        spec,
        collector,
        name,
        prometheus: unescaped(prometheus),
    }))
}

/// `$$` is how a collector's configuration writes `$`.
fn unescaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("$$", "$")),
        Value::Array(items) => items.into_iter().map(unescaped).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, unescaped(value)))
                .collect(),
        ),
        other => other,
    }
}

impl TargetAllocator<'_> {
    /// Everything that is made for it.
    pub(super) fn objects(&self, parts: &Parts<'_>) -> Vec<Value> {
        let text = self.document(parts);
        let mut objects = vec![object(&ConfigMap {
            metadata: self.meta(parts),
            data: Some(strings([(KEY, &text)])),
            ..ConfigMap::default()
        })];
        if self.account_given().is_none() {
            objects.push(object(&ServiceAccount {
                metadata: self.meta(parts),
                ..ServiceAccount::default()
            }));
            objects.extend(self.rights(parts));
        }
        objects.push(object(&self.deployment(parts, &text)));
        objects.push(object(&self.service(parts)));
        objects.extend(self.budget(parts).map(|budget| object(&budget)));
        objects
    }

    fn account_given(&self) -> Option<&str> {
        self.spec["serviceAccount"]
            .as_str()
            .filter(|name| !name.is_empty())
    }

    fn strategy(&self) -> &str {
        let usual = match self.collector.mode() {
            CollectorMode::DaemonSet => "per-node",
            _ => "consistent-hashing",
        };
        self.spec["allocationStrategy"]
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or(usual)
    }

    /// The allocator's configuration, readable for the original, too.
    fn document(&self, parts: &Parts<'_>) -> String {
        let mut config = Map::new();
        for key in ["global", "scrape_configs"] {
            if let Some(value) = self.prometheus.get(key).filter(|value| !value.is_null()) {
                config.insert(key.to_owned(), value.clone());
            }
        }
        let mut document = json!({
            "allocation_strategy": self.strategy(),
            "collector_selector": {"matchLabels": parts.selector()},
            "filter_strategy": self.spec["filterStrategy"].as_str().unwrap_or("relabel-config"),
            "config": config,
        });
        if let Some(grace) = self.spec["collectorNotReadyGracePeriod"].as_str() {
            document["collector_not_ready_grace_period"] = grace.into();
        }
        if let Some(insecure) = self.spec["allowInsecureAuthSecrets"].as_bool() {
            document["allow_insecure_auth_secrets"] = insecure.into();
        }
        let resources = &self.spec["prometheusCR"];
        if resources["enabled"] == true {
            document["prometheus_cr"] = prometheus_resources(resources);
        }
        serde_saphyr::to_string(&document).unwrap_or_default()
    }

    fn labels(&self, parts: &Parts<'_>) -> Strings {
        let mut all = self.selector(parts);
        let image = self.spec["image"].as_str().unwrap_or_default();
        let image = image.split('@').next().unwrap_or_default();
        let last = image.rsplit('/').next().unwrap_or_default();
        let version = last.split_once(':').map_or("latest", |(_, tag)| tag);
        all.insert(labels::APP_VERSION.to_owned(), cut(version));
        all
    }

    fn selector(&self, parts: &Parts<'_>) -> Strings {
        let mut all = parts.selector();
        all.insert(
            labels::APP_COMPONENT.to_owned(),
            "opentelemetry-targetallocator".to_owned(),
        );
        all.insert(labels::APP_NAME.to_owned(), self.name.clone());
        all
    }

    fn meta(&self, parts: &Parts<'_>) -> ObjectMeta {
        let mut meta = meta(&self.name, &parts.namespace, "collector", Some(&parts.owner));
        meta.labels.get_or_insert_default().extend(self.labels(parts));
        meta
    }

    /// Its collectors' Pods; for more (discovery, monitors) it says itself which rules a Role lacks.
    fn rights(&self, parts: &Parts<'_>) -> [Value; 2] {
        let role = Role {
            metadata: self.meta(parts),
            rules: Some(vec![PolicyRule {
                api_groups: Some(vec![String::new()]),
                resources: Some(vec!["pods".to_owned()]),
                verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
                ..PolicyRule::default()
            }]),
        };
        let binding = RoleBinding {
            metadata: self.meta(parts),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: self.name.clone(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: self.name.clone(),
                namespace: Some(parts.namespace.clone()),
                ..Subject::default()
            }]),
        };
        [object(&role), object(&binding)]
    }

    /// A part of the resource as a type of the API; left out where it is none.
    fn given<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let value = self.spec.get(key).filter(|value| !value.is_null())?;
        serde_json::from_value(value.clone()).ok()
    }

    fn deployment(&self, parts: &Parts<'_>, text: &str) -> Deployment {
        let hash = hex::encode(Sha256::digest(text));
        let mut annotations = self.collector.spec.pod_annotations.clone();
        annotations.insert("opentelemetry-targetallocator-config/hash".to_owned(), hash);
        let account = self.account_given().unwrap_or(&self.name).to_owned();
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(self.labels(parts)),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                service_account_name: Some(account),
                containers: vec![self.container()],
                volumes: Some(vec![self.volume()]),
                node_selector: self.given("nodeSelector"),
                tolerations: self.given("tolerations"),
                affinity: self.given("affinity"),
                topology_spread_constraints: self.given("topologySpreadConstraints"),
                security_context: self.given("podSecurityContext"),
                ..PodSpec::default()
            }),
        };
        Deployment {
            metadata: self.meta(parts),
            spec: Some(DeploymentSpec {
                replicas: Some(1),
                selector: LabelSelector {
                    match_labels: Some(self.selector(parts)),
                    ..LabelSelector::default()
                },
                template,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn volume(&self) -> Volume {
        let item = KeyToPath {
            key: KEY.to_owned(),
            path: KEY.to_owned(),
            ..KeyToPath::default()
        };
        Volume {
            name: "ta-internal".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: self.name.clone(),
                items: Some(vec![item]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }
    }

    fn container(&self) -> Container {
        let given = self.spec["image"].as_str().filter(|image| !image.is_empty());
        let mut args: Vec<String> = Vec::new();
        if given.is_none() {
            args.push("allocator".to_owned());
        }
        if self.spec["prometheusCR"]["enabled"] == true {
            args.push("--enable-prometheus-cr-watcher".to_owned());
        }
        let mut env: Vec<_> = self.given("env").unwrap_or_default();
        env.push(field("OTELCOL_NAMESPACE", "metadata.namespace"));
        let probe = |path: &str| Probe {
            http_get: Some(HTTPGetAction {
                path: Some(path.to_owned()),
                port: IntOrString::Int(HTTP_PORT),
                ..HTTPGetAction::default()
            }),
            ..Probe::default()
        };
        Container {
            name: "ta-container".to_owned(),
            image: Some(given.unwrap_or(IMAGE).to_owned()),
            command: given.is_none().then(|| vec!["karez".to_owned()]),
            args: Some(args).filter(|args| !args.is_empty()),
            env: Some(env),
            ports: Some(vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: HTTP_PORT,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            volume_mounts: Some(vec![VolumeMount {
                name: "ta-internal".to_owned(),
                mount_path: "/conf".to_owned(),
                ..VolumeMount::default()
            }]),
            resources: self.given("resources"),
            security_context: self.given("securityContext"),
            liveness_probe: Some(probe("/livez")),
            readiness_probe: Some(probe("/readyz")),
            ..Container::default()
        }
    }

    fn service(&self, parts: &Parts<'_>) -> Service {
        let port = ServicePort {
            name: Some("targetallocation".to_owned()),
            port: 80,
            target_port: Some(IntOrString::String("http".to_owned())),
            ..ServicePort::default()
        };
        Service {
            metadata: self.meta(parts),
            spec: Some(ServiceSpec {
                selector: Some(self.selector(parts)),
                ports: Some(vec![port]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// As 0.98: for consistent hashing only.
    fn budget(&self, parts: &Parts<'_>) -> Option<PodDisruptionBudget> {
        if self.strategy() != "consistent-hashing" {
            return None;
        }
        let given = &self.spec["podDisruptionBudget"];
        let bound = |key: &str| serde_json::from_value::<IntOrString>(given.get(key)?.clone()).ok();
        let least = bound("minAvailable");
        let most = bound("maxUnavailable").or_else(|| least.is_none().then_some(IntOrString::Int(1)));
        Some(PodDisruptionBudget {
            metadata: self.meta(parts),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: most,
                min_available: least,
                selector: Some(LabelSelector {
                    match_labels: Some(self.selector(parts)),
                    ..LabelSelector::default()
                }),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        })
    }
}

/// `prometheusCR` under the names of the allocator's document.
fn prometheus_resources(resources: &Value) -> Value {
    let names = [
        ("enabled", "enabled"),
        ("scrapeInterval", "scrape_interval"),
        ("scrapeProtocols", "scrape_protocols"),
        ("scrapeClasses", "scrape_classes"),
        ("allowNamespaces", "allow_namespaces"),
        ("denyNamespaces", "deny_namespaces"),
        ("secretNamespaces", "secret_namespaces"),
        ("denyFSAccessThroughSMs", "deny_fs_access_through_sms"),
        ("serviceMonitorSelector", "service_monitor_selector"),
        ("podMonitorSelector", "pod_monitor_selector"),
        ("scrapeConfigSelector", "scrape_config_selector"),
        ("probeSelector", "probe_selector"),
        (
            "serviceMonitorNamespaceSelector",
            "service_monitor_namespace_selector",
        ),
        ("podMonitorNamespaceSelector", "pod_monitor_namespace_selector"),
        (
            "scrapeConfigNamespaceSelector",
            "scrape_config_namespace_selector",
        ),
        ("probeNamespaceSelector", "probe_namespace_selector"),
    ];
    let mut written = Map::new();
    for (from, to) in names {
        if let Some(value) = resources.get(from).filter(|value| !value.is_null()) {
            written.insert(to.to_owned(), value.clone());
        }
    }
    Value::Object(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::collector::{Surroundings, plan};

    fn collector(mode: &str, allocator: &Value) -> OpenTelemetryCollector {
        serde_json::from_value(json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "otel", "namespace": "ns", "uid": "u"},
            "spec": {"mode": mode, "replicas": 3, "targetAllocator": allocator, "config": "
receivers:
  prometheus:
    config:
      scrape_configs:
      - {job_name: a, static_configs: [{targets: ['h:1']}], relabel_configs: [{regex: (.+), target_label: x, replacement: $$1}]}
exporters: {debug: }
service: {pipelines: {metrics: {receivers: [prometheus], exporters: [debug]}}}
"}}))
        .unwrap()
    }

    fn planned(mode: &str, allocator: &Value) -> super::super::Plan {
        let around = Surroundings {
            managed: &[],
            replicas: None,
            legacy_otlp: false,
        };
        plan(&collector(mode, allocator), around)
    }

    fn find<'a>(plan: &'a super::super::Plan, kind: &str, name: &str) -> &'a Value {
        let found = plan
            .objects
            .iter()
            .find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn makes_the_allocator_and_rewrites_the_receiver() {
        let plan = planned(
            "statefulset",
            &json!({"enabled": true, "prometheusCR": {"enabled": true, "serviceMonitorSelector": {}}}),
        );
        let name = "otel-targetallocator";
        for kind in [
            "Deployment",
            "Service",
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "PodDisruptionBudget",
        ] {
            find(&plan, kind, name);
        }
        let text = find(&plan, "ConfigMap", name)["data"][KEY].as_str().unwrap();
        for expected in [
            "allocation_strategy: consistent-hashing",
            "job_name: a",
            "replacement: $1",
            "service_monitor_selector: {}",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        let text = find(&plan, "ConfigMap", "otel-collector")["data"]["collector.yaml"]
            .as_str()
            .unwrap();
        assert!(
            text.contains("http://otel-targetallocator:80") && text.contains("${POD_NAME}"),
            "{text}"
        );
        assert!(!text.contains("scrape_configs"), "{text}");
        let container = &find(&plan, "Deployment", name)["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["args"],
            json!(["allocator", "--enable-prometheus-cr-watcher"])
        );
        assert_eq!(find(&plan, "Service", name)["spec"]["ports"][0]["port"], 80);
    }

    #[test]
    fn modes_decide() {
        let plan = planned("daemonset", &json!({"enabled": true}));
        let text = find(&plan, "ConfigMap", "otel-targetallocator")["data"][KEY]
            .as_str()
            .unwrap();
        assert!(text.contains("per-node"), "{text}");
        assert!(
            !plan
                .objects
                .iter()
                .any(|object| object["kind"] == "PodDisruptionBudget")
        );
        let refused = planned("sidecar", &json!({"enabled": true}));
        assert!(
            refused
                .notes
                .iter()
                .any(|note| note.message.contains("does not support the target allocation"))
        );
        let none = planned("statefulset", &json!({"enabled": false}));
        assert!(
            !none
                .objects
                .iter()
                .any(|object| object["metadata"]["name"] == "otel-targetallocator")
        );
    }
}
