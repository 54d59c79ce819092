//! Sidecars as an admission step of the local cluster: what a webhook does in a cluster.

use karez_kubernetes::OpenTelemetryCollector;
use karez_local_api::{Admission, Operation, Read, Refusal};
use serde_json::{Value, json};

/// Injects the sidecar collectors that Pods ask for when they are created.
pub(crate) struct Sidecars;

impl Admission for Sidecars {
    fn admit(&self, operation: Operation, object: &mut Value, store: &dyn Read) -> Result<(), Refusal> {
        if operation != Operation::Create || object["kind"] != "Pod" || object["apiVersion"] != "v1" {
            return Ok(());
        }
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default")
            .to_owned();
        let Ok(pod) = serde_json::from_value(object.clone()) else {
            return Ok(());
        };
        let collectors = store.list("opentelemetry.io", "OpenTelemetryCollector", None);
        let collectors: Vec<OpenTelemetryCollector> = collectors
            .into_iter()
            .filter_map(|value| serde_json::from_value(value).ok())
            .collect();
        let home = store.get("", "Namespace", None, &namespace);
        let home = home.unwrap_or_else(|| json!({"metadata": {"name": namespace}}));
        let Ok(home) = serde_json::from_value(home) else {
            return Ok(());
        };
        if let Some(injected) = karez_site_controller::inject(&pod, &collectors, &home) {
            *object = serde_json::to_value(injected).map_err(|error| Refusal {
                message: error.to_string(),
            })?;
            object["apiVersion"] = "v1".into();
            object["kind"] = "Pod".into();
        }
        Ok(())
    }
}
