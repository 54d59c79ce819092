//! `count`: how many spans, events, metrics, data points and log records come, as metrics of differences, for each
//! resource.
//!
//! ```text
//! Batch ─▶ for each resource: items by their attributes ─▶ counts ─▶ Batch of metrics, or a refusal back to the sender
//! ```

mod tally;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::BoxFuture;
use karez_collector_config::connectors as config;

use self::tally::{Counter, count};
use crate::batch::Batch;
use crate::component::{ComponentContext, Connector, Consume, Consumer, Refusal, Running, StartError};
use crate::connectors::{Connected, now};

/// The connector.
pub struct Count {
    counters: Arc<Vec<Counter>>,
}

impl Count {
    /// A connector of this configuration.
    pub fn new(config: &config::Count) -> Self {
        Count {
            counters: Arc::new(tally::counters(config)),
        }
    }
}

impl Connector for Count {
    fn start(
        &self,
        [_, metrics, _]: [Option<Consumer>; 3],
        _: &ComponentContext,
    ) -> Result<Connected, StartError> {
        let entrance = metrics.map(|next| {
            let durable = next.is_durable();
            let counters = self.counters.clone();
            Consumer::new(Entrance { counters, next }).with_durable(durable)
        });
        Ok(Connected {
            entrances: [entrance.clone(), entrance.clone(), entrance],
            running: Running::none(),
        })
    }
}

struct Entrance {
    counters: Arc<Vec<Counter>>,
    next: Consumer,
}

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            match count(&self.counters, &batch, now()) {
                Some(counts) => self.next.send(counts).await,
                None => Ok(()),
            }
        })
    }
}
