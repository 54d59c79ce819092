//! Target allocators, declared inside of a collector (`spec.targetAllocator`) or by a `TargetAllocator` that collectors
//! name by a label: Deployment, Service, ConfigMap, account, rights and certificates, named as the operator names them, and
//! the collectors' `prometheus` receiver rewritten to ask it.
//!
//! ```text
//! receivers.prometheus.config ─▶ targetallocator.yaml        receivers.prometheus.target_allocator ◀─ its Service
//!                                 authority ─▶ server's certificate     collectors' certificate ─┘
//! ```

mod document;
mod objects;
mod resource;
mod tls;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::widest_role;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karez_kubernetes::{CollectorMode, OpenTelemetryCollector, labels};
use serde_json::{Value, json};

use super::collector::{Surroundings, config_text, dns_name, origin, selector};
use crate::object::Strings;

pub(super) use objects::{mount, secret_volume};
pub(crate) use resource::plan;
pub(crate) use tls::Issuing;

/// Where the certificates of either side are mounted.
pub(super) const TLS_DIRECTORY: &str = "/tls";
/// How often a collector asks where nothing else is said.
const RELOAD: &str = "30s";

/// An allocator and everything that decides about its objects.
pub(super) struct TargetAllocator {
    /// `spec.targetAllocator`, or the whole `spec` of a resource.
    spec: Value,
    /// The collector's or the resource's own name.
    base: String,
    /// `<base>-targetallocator`
    name: String,
    namespace: String,
    owner: OwnerReference,
    /// What its objects are labelled as made for.
    managed: &'static str,
    /// Of a DaemonSet's collectors.
    per_node: bool,
    /// Those labels of each of its collectors' Pods that select them.
    collectors: Vec<Strings>,
    /// Annotations of the Pod.
    annotations: Strings,
    global: Value,
    scrape_configs: Vec<Value>,
    /// Whether they speak over mutual TLS.
    tls: bool,
}

/// Why there is none although one is asked for.
pub(super) type Refusal = String;

/// What a collector has to do with an allocator.
pub(super) struct Used {
    /// The one that it declares itself.
    pub(super) own: Option<TargetAllocator>,
    /// The Secret with which it proves who it is.
    pub(super) credential: Option<String>,
}

/// Takes the allocator out of a collector whose configuration is `config`, which is rewritten.
pub(super) fn take(
    collector: &OpenTelemetryCollector,
    config: &mut Value,
    around: &Surroundings<'_>,
) -> Result<Option<Used>, Refusal> {
    let own = collector
        .spec
        .target_allocator
        .as_ref()
        .filter(|spec| spec["enabled"] == true);
    let allocator = match (own, named(collector)) {
        (Some(spec), _) => TargetAllocator::of_collector(collector, spec, config)?,
        (None, Some(name)) => {
            check(collector, config, "")?;
            let found = around
                .allocators
                .iter()
                .find(|allocator| allocator.metadata.name.as_deref() == Some(name));
            let Some(found) = found else {
                return Err(format!(
                    "label {} names TargetAllocator {name}, which is not in this namespace: create it or remove the label",
                    labels::TARGET_ALLOCATOR
                ));
            };
            TargetAllocator::of_resource(found, around.collectors)
        }
        (None, None) => return Ok(None),
    };
    allocator.rewrite(config);
    Ok(Some(Used {
        credential: allocator.tls.then(|| allocator.client_secret()),
        own: own.map(|_| allocator),
    }))
}

/// The `TargetAllocator` that a collector names.
fn named(collector: &OpenTelemetryCollector) -> Option<&str> {
    let name = collector
        .metadata
        .labels
        .as_ref()?
        .get(labels::TARGET_ALLOCATOR)?;
    Some(name.as_str()).filter(|name| !name.is_empty())
}

/// Whether targets can be divided for a collector at all.
fn check(collector: &OpenTelemetryCollector, config: &Value, strategy: &str) -> Result<(), Refusal> {
    let mode = collector.mode();
    if mode == CollectorMode::Sidecar {
        return Err(format!(
            "the OpenTelemetry Collector mode is set to {mode}, which does not support the target allocation deployment"
        ));
    }
    let on_nodes = mode == CollectorMode::DaemonSet;
    if on_nodes && !matches!(strategy, "" | "per-node") {
        return Err(format!(
            "the OpenTelemetry Collector mode is set to {mode}, which must be used with target allocation strategy per-node"
        ));
    }
    if !on_nodes && strategy == "per-node" {
        return Err(format!(
            "target allocation strategy per-node is only supported in OpenTelemetry Collector mode daemonset, not in {mode}"
        ));
    }
    if config.pointer("/receivers/prometheus").is_none() {
        return Err("a target allocator is asked for, and there is no receiver `prometheus` to divide targets for: add it \
                    or do without the allocator"
            .to_owned());
    }
    Ok(())
}

impl TargetAllocator {
    /// One that a collector declares.
    fn of_collector(
        collector: &OpenTelemetryCollector,
        spec: &Value,
        config: &Value,
    ) -> Result<Self, Refusal> {
        check(
            collector,
            config,
            spec["allocationStrategy"].as_str().unwrap_or(""),
        )?;
        let base = collector.metadata.name.clone().unwrap_or_default();
        let (global, scrape_configs) = prometheus(config);
        let mut allocator = TargetAllocator {
            name: dns_name(&format!("{base}-targetallocator")),
            namespace: collector.metadata.namespace.clone().unwrap_or_default(),
            owner: super::collector::owner(collector),
            managed: "collector",
            per_node: collector.mode() == CollectorMode::DaemonSet,
            collectors: vec![selector_of(collector)],
            annotations: collector.spec.pod_annotations.clone(),
            spec: spec.clone(),
            base,
            global,
            scrape_configs,
            tls: false,
        };
        let foreign = collector.spec.image.iter().any(|image| !image.is_empty());
        allocator.tls = allocator.wants_tls(collector.metadata.annotations.as_ref(), foreign);
        Ok(allocator)
    }

    /// Rewrites a collector's `prometheus` receiver: what it was to scrape it is told now. Whatever else stands there stays.
    fn rewrite(&self, config: &mut Value) {
        let Some(receiver) = config.pointer_mut("/receivers/prometheus") else {
            return;
        };
        if !receiver.is_object() {
            *receiver = json!({});
        }
        let interval = self.text("collectorTargetReloadInterval").unwrap_or(RELOAD);
        let mut block = json!({"interval": interval, "collector_id": "${POD_NAME}"});
        if self.tls {
            block["endpoint"] = format!("https://{}:443", self.name).into();
            block["tls"] = tls::settings();
        } else {
            block["endpoint"] = format!("http://{}:80", self.name).into();
        }
        if let Some(keys) = receiver.as_object_mut() {
            keys.remove("config");
            // What the user wrote there beside (timeouts, headers) stays.
            let written = keys.remove("target_allocator").unwrap_or_default();
            if let (Some(written), Some(block)) = (written.as_object(), block.as_object_mut()) {
                for (key, value) in written {
                    block.entry(key.as_str()).or_insert_with(|| value.clone());
                }
            }
            keys.insert("target_allocator".to_owned(), block);
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.spec[key].as_str().filter(|text| !text.is_empty())
    }

    /// The image that is asked for; ours without one.
    fn image(&self) -> Option<&str> {
        self.text("image")
    }

    fn strategy(&self) -> &str {
        let usual = match self.per_node {
            true => "per-node",
            false => "consistent-hashing",
        };
        self.text("allocationStrategy").unwrap_or(usual)
    }

    fn watches_resources(&self) -> bool {
        self.spec["prometheusCR"]["enabled"] == true
    }
}

/// The four labels that select a collector's Pods.
fn selector_of(collector: &OpenTelemetryCollector) -> Strings {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    selector(
        &text(&collector.metadata.namespace),
        &text(&collector.metadata.name),
    )
}

/// What a collector's configuration says about scrapes: `global` and `scrape_configs`.
fn prometheus(config: &Value) -> (Value, Vec<Value>) {
    let written = config.pointer("/receivers/prometheus/config");
    let written = written.cloned().map(unescaped).unwrap_or_default();
    let jobs = written["scrape_configs"].as_array().cloned();
    (written["global"].clone(), jobs.unwrap_or_default())
}

/// The configuration of a collector that is not planned here; nothing where it cannot be read.
fn config_of(collector: &OpenTelemetryCollector) -> Value {
    let documents =
        config_text(collector).and_then(|text| karez_document::yaml::parse(&text, &origin(collector)).ok());
    let first = documents.as_ref().and_then(|documents| documents.first());
    first.map(karez_document::yaml::Node::to_json).unwrap_or_default()
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
