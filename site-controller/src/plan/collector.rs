//! `OpenTelemetryCollector` in, its workload, ConfigMap, account and Services out, named and labelled as the
//! operator 0.98 does. The configuration's text is kept to the letter, so that its lines stay true.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use karez_document::{Diagnosis, Origin};
use karez_kubernetes::{
    CollectorConfig, CollectorMode, IMAGE, OpenTelemetryCollector, ServiceAccountName, TargetAllocator,
    VERSION, labels, names,
};
use serde_json::Value;

use super::collector_ports::{merged, metrics_port, service_ports};
use super::{Note, Plan, target_allocator};
use crate::object::{ObjectRef, Strings, json, meta, non_empty, reference, strings};

/// What the plan for a collector knows besides the resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// Live objects labelled as made for collectors.
    pub(crate) managed: &'a [(ObjectRef, Strings)],
    /// Ready and wanted replicas of the live workload.
    pub(crate) replicas: Option<(i32, i32)>,
    /// Offer 0.58's Service port 55681 beside 4318.
    pub(crate) legacy_otlp: bool,
    /// The collectors of the namespace.
    pub(crate) collectors: &'a [Arc<OpenTelemetryCollector>],
    /// The target allocators of the namespace that are declared by themselves.
    pub(crate) allocators: &'a [Arc<TargetAllocator>],
    /// What certificates of target allocators are planned by.
    pub(crate) issuing: target_allocator::Issuing<'a>,
}

/// Plans one collector.
pub(crate) fn plan(collector: &OpenTelemetryCollector, around: Surroundings<'_>) -> Plan {
    let mut plan = Plan::default();
    if collector.metadata.deletion_timestamp.is_some() || collector.is_unmanaged() {
        return plan;
    }
    let Some(text) = config_text(collector) else {
        plan.notes.push(note(
            collector,
            true,
            "ConfigurationError",
            missing_config(collector),
        ));
        return plan;
    };
    let origin = origin(collector);
    plan.notes.extend(
        diagnose(collector, &text, &origin)
            .iter()
            .map(|diagnosis| diagnosed(collector, diagnosis)),
    );
    let mut config = match karez_document::yaml::parse(&text, &origin) {
        Ok(documents) => documents
            .first()
            .map(karez_document::yaml::Node::to_json)
            .unwrap_or_default(),
        // Its notes say where; what already runs is left running.
        Err(_) => return plan,
    };
    let allocator = match target_allocator::take(collector, &mut config, &around) {
        Ok(allocator) => allocator,
        Err(reason) => {
            plan.notes
                .push(note(collector, true, "ConfigurationError", reason));
            None
        }
    };
    let text = match &allocator {
        // The configuration that runs is another than the one that was written.
        Some(_) => serde_saphyr::to_string(&config).unwrap_or(text),
        None => text,
    };
    let mut parts = Parts::new(collector, text, config, around.legacy_otlp);
    parts.allocator_credential = allocator.as_ref().and_then(|used| used.credential.clone());
    plan.objects.push(json(&parts.config_map()));
    plan.objects
        .extend(parts.service_account().map(|account| json(&account)));
    plan.objects.extend(parts.workload());
    plan.objects.extend(parts.services().iter().map(json));
    if let Some(own) = allocator.and_then(|used| used.own) {
        plan.objects.extend(own.objects());
        own.issue(around.issuing, &mut plan);
    }
    plan.statuses.push(parts.status(around.replicas));
    let instance = parts.instance();
    let own = around.managed.iter().filter(|(object, labels)| {
        object.namespace == parts.namespace
            && labels.get(labels::APP_INSTANCE) == Some(&instance)
            && labels.get(labels::MANAGED).map(String::as_str) == Some("collector")
    });
    plan.prune(own.map(|(object, _)| object));
    plan
}

/// The configuration as text; an object is written as YAML.
pub(crate) fn config_text(collector: &OpenTelemetryCollector) -> Option<String> {
    match collector.spec.config.as_ref()? {
        CollectorConfig::Text(text) => Some(text.clone()),
        CollectorConfig::Object(value) => serde_saphyr::to_string(value).ok(),
    }
}

/// Where the text of the configuration was written.
pub(crate) fn origin(collector: &OpenTelemetryCollector) -> Origin {
    let annotation = |key: &str| {
        collector
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(key))
    };
    let line = annotation(labels::CONFIG_LINE).and_then(|line| line.parse().ok());
    match (annotation(labels::SOURCE_FILE), line) {
        (Some(file), Some(line)) => Origin::embedded(file.clone(), line),
        (Some(file), None) => Origin::embedded(file.clone(), 1),
        (None, _) => Origin::file(format!(
            "OpenTelemetryCollector {}/{}",
            collector.metadata.namespace.as_deref().unwrap_or_default(),
            collector.metadata.name.as_deref().unwrap_or_default(),
        )),
    }
}

/// Everything that is wrong with a collector's configuration.
pub(crate) fn diagnose(collector: &OpenTelemetryCollector, text: &str, origin: &Origin) -> Vec<Diagnosis> {
    let given: BTreeMap<&str, Option<&str>> = collector
        .spec
        .env
        .iter()
        .map(|var| (var.name.as_str(), var.value.as_deref()))
        .collect();
    let env = |name: &str| match given.get(name) {
        Some(Some(value)) => Some((*value).to_owned()),
        // Its value is known in the pod only: anything that is not empty will do to look at the rest.
        Some(None) => Some(name.to_lowercase()),
        None => (name == "POD_NAME").then(|| "pod".to_owned()),
    };
    karez_collector_config::check(text, origin, &env).1
}

fn missing_config(collector: &OpenTelemetryCollector) -> String {
    let place = origin(collector).file;
    format!("{place}: error: spec.config: is missing; write the Collector's configuration there")
}

fn diagnosed(collector: &OpenTelemetryCollector, diagnosis: &Diagnosis) -> Note {
    let reason = if diagnosis.is_error() {
        "ConfigurationError"
    } else {
        "ConfigurationWarning"
    };
    note(collector, true, reason, diagnosis.to_string())
}

fn note(collector: &OpenTelemetryCollector, warning: bool, reason: &'static str, message: String) -> Note {
    let about = reference(
        "opentelemetry.io/v1beta1",
        "OpenTelemetryCollector",
        &collector.metadata,
    );
    Note {
        about,
        warning,
        reason,
        message,
    }
}

/// The parts from which a collector's objects are built.
pub(crate) struct Parts<'a> {
    pub(super) collector: &'a OpenTelemetryCollector,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) text: String,
    pub(super) config: Value,
    pub(super) ports: Vec<ServicePort>,
    pub(super) owner: OwnerReference,
    /// The Secret with which it proves to its target allocator who it is.
    pub(super) allocator_credential: Option<String>,
}

/// Who owns what is made for a collector.
pub(super) fn owner(collector: &OpenTelemetryCollector) -> OwnerReference {
    OwnerReference {
        api_version: "opentelemetry.io/v1beta1".to_owned(),
        kind: "OpenTelemetryCollector".to_owned(),
        name: collector.metadata.name.clone().unwrap_or_default(),
        uid: collector.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The four labels that select the Pods of a collector.
pub(super) fn selector(namespace: &str, name: &str) -> Strings {
    strings([
        (labels::APP_MANAGED_BY, "opentelemetry-operator"),
        (labels::APP_INSTANCE, &cut(&format!("{namespace}.{name}"))),
        (labels::APP_PART_OF, "opentelemetry"),
        (labels::APP_COMPONENT, "opentelemetry-collector"),
    ])
}

impl<'a> Parts<'a> {
    /// Of a collector whose configuration could be read.
    pub(crate) fn new(
        collector: &'a OpenTelemetryCollector,
        text: String,
        config: Value,
        legacy: bool,
    ) -> Self {
        let own = collector.metadata.name.clone().unwrap_or_default();
        let ports = merged(&collector.spec.ports, service_ports(&config, legacy));
        Self {
            name: dns_name(&format!("{own}-collector")),
            namespace: collector.metadata.namespace.clone().unwrap_or_default(),
            owner: owner(collector),
            allocator_credential: None,
            collector,
            text,
            config,
            ports,
        }
    }

    fn instance(&self) -> String {
        cut(&format!("{}.{}", self.namespace, self.owner.name))
    }

    /// The four labels that select.
    pub(super) fn selector(&self) -> Strings {
        selector(&self.namespace, &self.owner.name)
    }

    /// All labels, with the object's own name.
    pub(super) fn labels(&self, name: &str) -> Strings {
        let mut all = bookkeeping_removed(self.collector.metadata.labels.as_ref());
        let given_name = all.get(labels::APP_NAME).cloned();
        all.extend(self.selector());
        all.insert(
            labels::APP_NAME.to_owned(),
            given_name.unwrap_or_else(|| name.to_owned()),
        );
        all.insert(labels::APP_VERSION.to_owned(), self.version_label());
        all
    }

    /// The tag of the resource's image, `latest` without one.
    fn version_label(&self) -> String {
        let image = self.collector.spec.image.as_deref().unwrap_or_default();
        let image = image.split('@').next().unwrap_or_default();
        let last = image.rsplit('/').next().unwrap_or_default();
        cut(last.split_once(':').map_or("latest", |(_, tag)| tag))
    }

    pub(super) fn annotations(&self) -> Strings {
        bookkeeping_removed(self.collector.metadata.annotations.as_ref())
    }

    pub(super) fn meta(&self, name: &str, label_name: &str) -> ObjectMeta {
        let mut meta = meta(name, &self.namespace, "collector", Some(&self.owner));
        meta.labels
            .get_or_insert_default()
            .extend(self.labels(label_name));
        meta.annotations = non_empty(self.annotations());
        meta
    }

    fn config_map(&self) -> ConfigMap {
        ConfigMap {
            metadata: self.meta(&self.name, &self.name),
            data: Some(strings([(names::COLLECTOR_CONFIG_KEY, &self.text)])),
            ..ConfigMap::default()
        }
    }

    fn service_account(&self) -> Option<ServiceAccount> {
        match self.collector.service_account(&self.name) {
            ServiceAccountName::Given(_) => None,
            ServiceAccountName::Own(name) => Some(ServiceAccount {
                metadata: self.meta(&name, &name),
                ..ServiceAccount::default()
            }),
        }
    }

    fn services(&self) -> Vec<Service> {
        let mut services = Vec::new();
        let policy = if self.collector.mode() == CollectorMode::DaemonSet {
            "Local"
        } else {
            "Cluster"
        };
        if !self.ports.is_empty() {
            let spec = ServiceSpec {
                selector: Some(self.selector()),
                ports: Some(self.ports.clone()),
                internal_traffic_policy: Some(policy.to_owned()),
                ..ServiceSpec::default()
            };
            let base = Service {
                metadata: self.meta(&self.name, &self.name),
                spec: Some(spec.clone()),
                ..Service::default()
            };
            let name = dns_name(&format!("{}-headless", self.name));
            // The headless copy keeps the base's name label.
            let mut metadata = self.meta(&name, &self.name);
            let mark = strings([(labels::COLLECTOR_HEADLESS, "Exists")]);
            metadata.labels.get_or_insert_default().extend(mark);
            metadata.annotations.get_or_insert_default().insert(
                "service.beta.openshift.io/serving-cert-secret-name".to_owned(),
                format!("{name}-tls"),
            );
            let headless = ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                ..spec
            };
            services.extend([
                base,
                Service {
                    metadata,
                    spec: Some(headless),
                    ..Service::default()
                },
            ]);
        }
        services.push(self.monitoring());
        services
    }

    fn monitoring(&self) -> Service {
        let name = dns_name(&format!("{}-monitoring", self.name));
        let mut metadata = self.meta(&name, &name);
        let mark = strings([(labels::COLLECTOR_MONITORING, "Exists")]);
        metadata.labels.get_or_insert_default().extend(mark);
        let port = ServicePort {
            name: Some("monitoring".to_owned()),
            port: i32::from(metrics_port(&self.config)),
            ..ServicePort::default()
        };
        Service {
            metadata,
            spec: Some(ServiceSpec {
                selector: Some(self.selector()),
                ports: Some(vec![port]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn status(&self, replicas: Option<(i32, i32)>) -> Value {
        let scaled = matches!(
            self.collector.mode(),
            CollectorMode::Deployment | CollectorMode::StatefulSet
        );
        let selector: Vec<String> = self
            .labels(&self.name)
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let wanted = self.collector.spec.replicas.unwrap_or(1);
        let (ready, total) = replicas.unwrap_or((0, wanted));
        let mut scale = serde_json::json!({
            "selector": if scaled { selector.join(",") } else { String::new() },
            "replicas": if scaled { wanted } else { 0 },
        });
        if self.collector.mode() != CollectorMode::Sidecar {
            scale["statusReplicas"] = Value::String(format!("{ready}/{total}"));
        }
        serde_json::json!({
            "apiVersion": "opentelemetry.io/v1beta1",
            "kind": "OpenTelemetryCollector",
            "metadata": {"name": self.owner.name, "namespace": self.namespace},
            "status": {
                "version": VERSION,
                "image": self.collector.spec.image.clone().unwrap_or_else(|| IMAGE.to_owned()),
                "scale": scale,
            },
        })
    }
}

/// Cut to the length of a label's value, ending in a letter or digit.
pub(crate) fn cut(text: &str) -> String {
    let short: String = text.chars().take(63).collect();
    short
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

/// An object's name: at most 63 characters, so that it also is a Service's.
pub(crate) fn dns_name(text: &str) -> String {
    cut(&text.to_lowercase().replace(['_', '.'], "-"))
}

/// What people put on a resource, without what tools keep there for themselves.
fn bookkeeping_removed(map: Option<&Strings>) -> Strings {
    map.into_iter()
        .flatten()
        .filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/") && !key.starts_with("karez.dev/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
