//! A processor whose work is a function of a batch.

use std::sync::Arc;

use futures::future::BoxFuture;
use karez_collector_config::Signal;

use crate::batch::Batch;
use crate::component::{ComponentContext, Consume, Consumer, Refusal};
use crate::metrics::ProcessorMeter;

/// The entrance before `next`: each batch is changed, and goes on if anything of it is left.
pub(super) fn entrance(
    change: impl Fn(Batch) -> Option<Batch> + Send + Sync + 'static,
    next: Consumer,
    cx: &ComponentContext,
) -> Consumer {
    Consumer::new(Entrance {
        change: Arc::new(change),
        next,
        meters: Signal::ALL.map(|signal| cx.metrics.processor(&cx.id, signal)),
    })
}

struct Entrance {
    change: Arc<dyn Fn(Batch) -> Option<Batch> + Send + Sync>,
    next: Consumer,
    meters: [ProcessorMeter; 3],
}

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let meter = &self.meters[batch.signal as usize];
            let items = batch.items as u64;
            meter.incoming.inc_by(items);
            let Some(changed) = (self.change)(batch) else {
                return Ok(());
            };
            let items = changed.items as u64;
            self.next.send(changed).await?;
            meter.outgoing.inc_by(items);
            Ok(())
        })
    }
}
