//! Exporter `jaeger_storage_exporter`: into a store of extension `jaeger_storage`.

use std::sync::Arc;

use futures::future::BoxFuture;
use karez_collector_config::exporters as config;

use crate::batch::Batch;
use crate::component::{ComponentContext, Exporter, Outcome, StartError};
use crate::extensions::jaeger_storage::TraceStore;

/// Puts spans into a store.
pub struct JaegerStorageExporter {
    store: Arc<TraceStore>,
}

impl JaegerStorageExporter {
    /// Finds the store.
    pub fn new(config: &config::JaegerStorageExporter, cx: &ComponentContext) -> Result<Self, StartError> {
        let name = &config.trace_storage;
        let store = cx.trace_store(name).ok_or_else(|| {
            let message = format!("there is no trace store `{name}`");
            let mend = "name a backend of the jaeger_storage extension, and list that extension in service.extensions";
            StartError::config("trace_storage", message, mend)
        })?;
        Ok(Self { store })
    }
}

impl Exporter for JaegerStorageExporter {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.keep(&batch).await {
                Ok(()) => self.add(&batch),
                Err(reason) => Outcome::Retry { after: None, reason },
            }
        })
    }
}

impl JaegerStorageExporter {
    /// On disk first, so that what is found after a restart is all that was acknowledged.
    async fn keep(&self, batch: &Batch) -> Result<(), String> {
        if !self.store.is_on_disk() {
            return Ok(());
        }
        let (store, payload) = (self.store.clone(), batch.payload.clone());
        let kept = tokio::task::spawn_blocking(move || store.keep(&payload)).await;
        kept.map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }

    fn add(&self, batch: &Batch) -> Outcome {
        match self.store.add(&batch.payload) {
            Err(malformed) => Outcome::Refused {
                reason: malformed.to_string(),
            },
            Ok(added) if added.invalid + added.too_large > 0 => Outcome::Refused {
                reason: format!(
                    "{} spans have no valid identifiers, {} belong to a trace larger than the store's max_bytes; {} were stored",
                    added.invalid, added.too_large, added.stored
                ),
            },
            Ok(_) => Outcome::Delivered,
        }
    }
}
