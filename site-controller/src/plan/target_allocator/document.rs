//! The allocator's configuration, readable for the original, too.

use karez_kubernetes::labels;
use serde_json::{Map, Value, json};

use super::{TLS_DIRECTORY, TargetAllocator};

impl TargetAllocator {
    /// Its text.
    pub(super) fn document(&self) -> String {
        let mut config = Map::new();
        if !self.global.is_null() {
            config.insert("global".to_owned(), self.global.clone());
        }
        if !self.scrape_configs.is_empty() {
            config.insert("scrape_configs".to_owned(), self.scrape_configs.clone().into());
        }
        let mut document = json!({
            "allocation_strategy": self.strategy(),
            "filter_strategy": self.text("filterStrategy").unwrap_or("relabel-config"),
            "config": config,
        });
        if let Some(selector) = self.collector_selector() {
            document["collector_selector"] = selector;
        }
        if let Some(fallback) = self.text("allocationFallbackStrategy") {
            document["allocation_fallback_strategy"] = fallback.into();
        }
        if let Some(grace) = self.text("collectorNotReadyGracePeriod") {
            document["collector_not_ready_grace_period"] = grace.into();
        }
        if let Some(insecure) = self.spec["allowInsecureAuthSecrets"].as_bool() {
            document["allow_insecure_auth_secrets"] = insecure.into();
        }
        if self.watches_resources() {
            document["prometheus_cr"] = prometheus_resources(&self.spec["prometheusCR"]);
        }
        if self.tls {
            document["https"] = json!({
                "enabled": true,
                "listen_addr": format!(":{}", super::objects::HTTPS_PORT),
                "ca_file_path": format!("{TLS_DIRECTORY}/ca.crt"),
                "tls_cert_file_path": format!("{TLS_DIRECTORY}/tls.crt"),
                "tls_key_file_path": format!("{TLS_DIRECTORY}/tls.key"),
            });
        }
        if self.image().is_none() {
            // So that its replicas, and the one before it in a rollout, agree.
            document["karez"] = json!({"lease": self.name});
        }
        serde_saphyr::to_string(&document).unwrap_or_default()
    }

    /// Its collectors: one by all its labels, several by what they share and who they are. Without one nothing is selected.
    fn collector_selector(&self) -> Option<Value> {
        let [first, others @ ..] = self.collectors.as_slice() else {
            return None;
        };
        if others.is_empty() {
            return Some(json!({"matchLabels": first}));
        }
        let mut shared = first.clone();
        shared.remove(labels::APP_INSTANCE);
        let instances = self
            .collectors
            .iter()
            .filter_map(|labels| labels.get(labels::APP_INSTANCE));
        let instances: Vec<&String> = instances.collect();
        let expression = json!({"key": labels::APP_INSTANCE, "operator": "In", "values": instances});
        Some(json!({"matchLabels": shared, "matchExpressions": [expression]}))
    }
}

/// `prometheusCR` under the names of the allocator's document.
fn prometheus_resources(resources: &Value) -> Value {
    let names = [
        ("enabled", "enabled"),
        ("scrapeInterval", "scrape_interval"),
        ("evaluationInterval", "evaluation_interval"),
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
