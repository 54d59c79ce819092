//! `resource` and `attributes`: change attributes on views of the encoding. What stays is copied, what changes is
//! written, lengths are new. A batch in which nothing changes is not even copied.
//!
//! ```text
//! Batch ─▶ walk to each list of attributes ─▶ selected? (include, exclude) ─▶ actions ─▶ edited encoding
//! ```

mod action;
mod attributes;
mod select;
mod splice;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::processors as config;

use self::action::Action;
use crate::batch::{Batch, Context};
use crate::component::{ComponentContext, Consume, Consumer, Processor, Refusal, Running, StartError};
use crate::metrics::ProcessorMeter;

pub(crate) use self::attributes::{Attributes, text, value_of};
pub(crate) use self::select::{Item as Place, Selection};

/// The batch with the attributes of each of its resources changed.
pub(crate) fn edit_resources(batch: Batch, mut change: impl FnMut(&mut Attributes<'_>)) -> Batch {
    match walk::edit_resources(&batch.payload, &mut change) {
        Some(payload) => Batch {
            payload: Bytes::from(payload),
            ..batch
        },
        None => batch,
    }
}

/// The processor, under both names.
pub struct Editor {
    plan: Arc<Plan>,
}

/// What is edited, where, how.
#[derive(Debug)]
pub(super) struct Plan {
    target: Target,
    actions: Vec<Action>,
    selection: Selection,
}

/// A plan, and the request that the batch at hand came with.
struct Edit<'a> {
    plan: &'a Plan,
    context: Option<&'a Context>,
}

impl std::ops::Deref for Edit<'_> {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        self.plan
    }
}

/// Whose attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The resource's.
    Resource,
    /// Spans', data points', log records'.
    Items,
}

impl Editor {
    /// `resource`.
    pub fn resource(config: &config::ResourceProcessor) -> Result<Self, StartError> {
        let actions = compile(&config.attributes, "attributes")?;
        Ok(Editor {
            plan: Arc::new(Plan {
                target: Target::Resource,
                actions,
                selection: Selection::default(),
            }),
        })
    }

    /// `attributes`.
    pub fn attributes(config: &config::AttributesProcessor) -> Result<Self, StartError> {
        let actions = compile(&config.actions, "actions")?;
        let selection = Selection::new(config.include.as_ref(), config.exclude.as_ref())?;
        Ok(Editor {
            plan: Arc::new(Plan {
                target: Target::Items,
                actions,
                selection,
            }),
        })
    }
}

fn compile(actions: &[config::Action], key: &str) -> Result<Vec<Action>, StartError> {
    let compiled = actions.iter().enumerate().map(|(index, action)| {
        Action::new(action)
            .map_err(|message| StartError::config(format!("{key}[{index}]"), message, "correct it"))
    });
    compiled.collect()
}

impl Plan {
    /// The batch with its attributes changed.
    pub(super) fn edit(&self, batch: Batch) -> Batch {
        let edit = Edit {
            plan: self,
            context: batch.context.as_deref(),
        };
        match walk::edit(&edit, batch.signal, &batch.payload) {
            Some(payload) => Batch {
                payload: Bytes::from(payload),
                ..batch
            },
            None => batch,
        }
    }
}

impl Processor for Editor {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let meters = Signal::ALL.map(|signal| cx.metrics.processor(&cx.id, signal));
        let plan = self.plan.clone();
        Ok((Consumer::new(Entrance { plan, next, meters }), Running::none()))
    }
}

struct Entrance {
    plan: Arc<Plan>,
    next: Consumer,
    meters: [ProcessorMeter; 3],
}

impl Consume for Entrance {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let meter = &self.meters[batch.signal as usize];
            let items = batch.items as u64;
            meter.incoming.inc_by(items);
            self.next.send(self.plan.edit(batch)).await?;
            meter.outgoing.inc_by(items);
            Ok(())
        })
    }
}
