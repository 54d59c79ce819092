//! The stores as a component.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use karez_collector_config::extensions as config;

use super::{Limits, TraceStore};
use crate::component::{ComponentContext, Extension, Running, StartError};

/// Extension `jaeger_storage`: its stores live as long as it does, those on disk longer.
pub struct JaegerStorageExtension {
    stores: Vec<Store>,
}

struct Store {
    name: String,
    store: Arc<TraceStore>,
    folder: Option<PathBuf>,
}

impl JaegerStorageExtension {
    /// Makes the stores; those on disk are opened at the start.
    pub fn new(config: &config::JaegerStorage) -> Self {
        let stores = config.backends.iter().filter_map(|(name, backend)| {
            let (max_traces, max_bytes, folder) = match (&backend.memory, &backend.disk) {
                (Some(memory), _) => (memory.max_traces, memory.max_bytes, None),
                (None, Some(disk)) => (
                    disk.max_traces,
                    disk.max_bytes,
                    Some(PathBuf::from(&disk.directory)),
                ),
                (None, None) => return None,
            };
            let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
            let limits = Limits {
                max_bytes: number(max_bytes),
                max_traces: number(max_traces),
            };
            Some(Store {
                name: name.clone(),
                store: Arc::new(TraceStore::new(limits)),
                folder,
            })
        });
        Self {
            stores: stores.collect(),
        }
    }

    async fn open(&self) -> Result<Running, StartError> {
        for Store { name, store, folder } in &self.stores {
            let Some(folder) = folder.clone() else { continue };
            let (key, store) = (format!("backends.{name}.disk.directory"), store.clone());
            let opened = tokio::task::spawn_blocking(move || store.open(&folder)).await;
            let wrong = |reason: String| {
                let mend = "give the collector the right to write there, let no other use it, or move a damaged file away";
                StartError::config(key.clone(), reason, mend)
            };
            opened
                .map_err(|error| wrong(error.to_string()))?
                .map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Running::none())
    }
}

impl Extension for JaegerStorageExtension {
    fn start<'a>(&'a self, _: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(self.open())
    }

    fn trace_store(&self, name: &str) -> Option<Arc<TraceStore>> {
        let mut stores = self.stores.iter();
        stores
            .find(|known| known.name == name)
            .map(|known| known.store.clone())
    }
}
