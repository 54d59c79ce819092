//! The stores as a component.

use std::sync::Arc;

use karez_collector_config::extensions as config;

use super::{Limits, TraceStore};
use crate::component::Extension;

/// Extension `jaeger_storage`: its stores live as long as it does.
pub struct JaegerStorageExtension {
    stores: Vec<(String, Arc<TraceStore>)>,
}

impl JaegerStorageExtension {
    /// Makes the stores in memory.
    pub fn new(config: &config::JaegerStorage) -> Self {
        let stores = config.backends.iter().filter_map(|(name, backend)| {
            let memory = backend.memory.as_ref()?;
            let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
            let limits = Limits {
                max_bytes: number(memory.max_bytes),
                max_traces: number(memory.max_traces),
            };
            Some((name.clone(), Arc::new(TraceStore::new(limits))))
        });
        Self {
            stores: stores.collect(),
        }
    }
}

impl Extension for JaegerStorageExtension {
    fn trace_store(&self, name: &str) -> Option<Arc<TraceStore>> {
        self.stores
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, store)| store.clone())
    }
}
