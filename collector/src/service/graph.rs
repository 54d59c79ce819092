//! An island as it runs: exporters with their queues, processors of each pipeline, connectors between them, receivers.

use futures::future::BoxFuture;
use indexmap::IndexMap;
use karez_collector_config::{Component, ComponentId, Pipeline, PipelineId, Signal};
use karez_document::Diagnosis;
use karez_net::Net;
use prometheus_client::metrics::counter::Counter;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

use super::island::Island;
use super::queue::{Queued, Rejecting};
use crate::batch::Batch;
use crate::component::{
    ComponentContext, Consume, Consumer, Consumers, Extensions, Refusal, Running, StartError,
};
use crate::metrics::Metrics;
use crate::registry::{self, BuiltExporter};

/// What every component of the collector gets.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) net: Net,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) extensions: Extensions,
}

impl Surroundings {
    pub(crate) fn context(&self, section: &str, id: &ComponentId) -> ComponentContext {
        ComponentContext {
            id: id.clone(),
            key: format!("{section}.{id}"),
            net: self.net.clone(),
            extensions: self.extensions.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// What went wrong at a start, with file, line, key and mend.
pub(crate) fn diagnosis<T>(section: &str, component: &Component<T>, error: &StartError) -> Diagnosis {
    let key = match error.key() {
        "" => format!("{section}.{}", component.id),
        below => format!("{section}.{}.{below}", component.id),
    };
    Diagnosis::error(component.place.clone(), key, error.to_string(), error.mend())
}

/// The entrances of connectors, by signal.
type Entrances = HashMap<ComponentId, [Option<Consumer>; 3]>;

/// A started island.
pub(crate) struct Started {
    pub(crate) island: Island,
    receivers: Vec<Running>,
    /// Processors of pipelines and connectors between them, in rounds: those of a round stand beside each other, and
    /// each round's data goes to those before it. Each is a list in the order of the data.
    rounds: Vec<Vec<Vec<Running>>>,
    exporters: IndexMap<ComponentId, Queued>,
}

impl Started {
    /// Starts an island: exporters first, receivers last. On failure nothing of it runs.
    pub(crate) async fn start(island: Island, around: &Surroundings) -> Result<Self, Diagnosis> {
        let mut started = Started {
            island,
            receivers: Vec::new(),
            rounds: Vec::new(),
            exporters: IndexMap::new(),
        };
        match started.start_all(around).await {
            Ok(()) => Ok(started),
            Err(diagnosis) => {
                started.stop(Instant::now()).await;
                Err(diagnosis)
            }
        }
    }

    async fn start_all(&mut self, around: &Surroundings) -> Result<(), Diagnosis> {
        let island = self.island.clone();
        for (id, component) in &island.exporters {
            let cx = around.context("exporters", id);
            let built = match &component.fault {
                Some(fault) => {
                    let reason = format!("{}: {}", fault.key, fault.message);
                    Ok(BuiltExporter {
                        exporter: Arc::new(Rejecting(reason)),
                        sending: None,
                    })
                }
                None => registry::exporter(&component.config, &cx),
            };
            let built = built.map_err(|error| diagnosis("exporters", component, &error))?;
            let queued = Queued::start(built, &cx).await;
            let queued = queued.map_err(|error| diagnosis("exporters", component, &error))?;
            self.exporters.insert(id.clone(), queued);
        }
        let entrances = self.start_pipelines(around)?;
        for (id, component) in &island.receivers {
            let cx = around.context("receivers", id);
            let consumers = Consumers {
                receiver: id.clone(),
                metrics: around.metrics.clone(),
                by_signal: Signal::ALL.map(|signal| {
                    let of = entrances.iter().filter(|(pipeline, _)| {
                        pipeline.signal == signal
                            && island
                                .pipelines
                                .get(pipeline)
                                .is_some_and(|p| p.receivers.contains(id))
                    });
                    fan_out(of.map(|(_, entrance)| entrance.clone()).collect())
                }),
            };
            let receiver = registry::receiver(&component.config);
            let receiver = receiver.map_err(|error| diagnosis("receivers", component, &error))?;
            let running = receiver.start(consumers, &cx).await;
            self.receivers
                .push(running.map_err(|error| diagnosis("receivers", component, &error))?);
        }
        Ok(())
    }

    /// Starts pipelines and connectors, those first to which data goes last, and gives the pipelines' entrances.
    fn start_pipelines(&mut self, around: &Surroundings) -> Result<Vec<(PipelineId, Consumer)>, Diagnosis> {
        let island = self.island.clone();
        let mut entrances: Vec<(PipelineId, Consumer)> = Vec::new();
        let mut connected = Entrances::new();
        while entrances.len() < island.pipelines.len() {
            let begun = |id: &PipelineId| entrances.iter().any(|(other, _)| other == id);
            let there = |id: &ComponentId| connected.contains_key(id) || !island.connectors.contains_key(id);
            let ready = |(id, pipeline): &(&PipelineId, &Pipeline)| {
                !begun(id) && pipeline.to_connectors.iter().all(there)
            };
            let next: Vec<&PipelineId> = island.pipelines.iter().filter(ready).map(|(id, _)| id).collect();
            if next.is_empty() {
                // The document was checked for circles.
                let place = karez_document::Place::file("");
                return Err(Diagnosis::error(
                    place,
                    "connectors",
                    "lead in a circle",
                    "remove one of them",
                ));
            }
            let mut round = Vec::new();
            for id in next {
                let (entrance, tasks) = self.start_pipeline(id, &connected, around)?;
                entrances.push((id.clone(), entrance));
                round.push(tasks);
            }
            self.rounds.push(round);
            let round = self.start_connectors(&entrances, &mut connected, around)?;
            self.rounds.push(round);
        }
        Ok(entrances)
    }

    /// Starts the connectors whose pipelines all have an entrance.
    fn start_connectors(
        &self,
        entrances: &[(PipelineId, Consumer)],
        connected: &mut Entrances,
        around: &Surroundings,
    ) -> Result<Vec<Vec<Running>>, Diagnosis> {
        let mut round = Vec::new();
        for (id, component) in &self.island.connectors {
            let behind = self
                .island
                .pipelines
                .iter()
                .filter(|(_, p)| p.from_connectors.contains(id));
            let behind: Vec<&PipelineId> = behind.map(|(pipeline, _)| pipeline).collect();
            let begun = |id: &PipelineId| entrances.iter().any(|(other, _)| other == id);
            if connected.contains_key(id) || !behind.iter().all(|id| begun(id)) {
                continue;
            }
            let next = Signal::ALL.map(|signal| {
                let of = entrances
                    .iter()
                    .filter(|(id, _)| id.signal == signal && behind.contains(&id));
                let next = fan_out(of.map(|(_, entrance)| entrance.clone()).collect())?;
                Some(counted(next, around.metrics.connector(id, signal).produced))
            });
            let started =
                registry::connector(&component.config).start(next, &around.context("connectors", id));
            let started = started.map_err(|error| diagnosis("connectors", component, &error))?;
            let mut entrances = started.entrances;
            for (entrance, signal) in entrances.iter_mut().zip(Signal::ALL) {
                let meter = around.metrics.connector(id, signal).consumed;
                *entrance = entrance.take().map(|entrance| counted(entrance, meter));
            }
            connected.insert(id.clone(), entrances);
            round.push(vec![started.running]);
        }
        Ok(round)
    }

    /// Starts a pipeline's processors, the last first, and gives its entrance.
    fn start_pipeline(
        &self,
        id: &PipelineId,
        connected: &Entrances,
        around: &Surroundings,
    ) -> Result<(Consumer, Vec<Running>), Diagnosis> {
        let pipeline = &self.island.pipelines[id];
        let exporters = pipeline.exporters.iter().filter_map(|id| self.exporters.get(id));
        let exporters = exporters.map(|exporter| exporter.consumer(id));
        let connectors = pipeline.to_connectors.iter().filter_map(|id| connected.get(id));
        let connectors = connectors.filter_map(|entrances| entrances[id.signal as usize].clone());
        let Some(mut next) = fan_out(exporters.chain(connectors).collect()) else {
            let key = format!("service.pipelines.{id}");
            return Err(Diagnosis::error(
                karez_document::Place::file(""),
                key,
                "has no exporter",
                "name one",
            ));
        };
        let mut tasks = Vec::new();
        for id in pipeline.processors.iter().rev() {
            let Some(component) = self.island.processors.get(id) else {
                continue;
            };
            let fault = |error: StartError| diagnosis("processors", component, &error);
            let processor = registry::processor(&component.config).map_err(fault)?;
            let next_is_durable = next.is_durable();
            let (entrance, running) = processor
                .start(next, &around.context("processors", id))
                .map_err(fault)?;
            next = entrance.with_durable(next_is_durable);
            tasks.insert(0, running);
        }
        Ok((next, tasks))
    }

    /// Stops an island in the order of the data: nothing new comes in, what is held goes out, until the deadline.
    pub(crate) async fn stop(self, deadline: Instant) {
        futures::future::join_all(self.receivers.into_iter().map(|running| running.stop(deadline))).await;
        for round in self.rounds.into_iter().rev() {
            let stopping = round.into_iter().map(|tasks| async move {
                for running in tasks {
                    running.stop(deadline).await;
                }
            });
            futures::future::join_all(stopping).await;
        }
        for (id, queued) in self.exporters {
            let items = queued.stop(deadline).await;
            if items > 0 {
                tracing::error!(exporter = %id, items, "not delivered before the deadline of the stop");
            }
        }
    }

    /// Addresses that receivers and exporters bound.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (String, std::net::SocketAddr)> {
        let ids = self.island.receivers.keys().map(|id| format!("receivers.{id}"));
        let receivers = ids.zip(self.receivers.iter().map(Running::addresses));
        let exporters = self.exporters.iter();
        let exporters = exporters.map(|(id, queued)| (format!("exporters.{id}"), queued.addresses()));
        receivers
            .chain(exporters)
            .flat_map(|(key, addresses)| addresses.iter().map(move |address| (key.clone(), *address)))
    }
}

/// A consumer that counts the items it takes.
fn counted(next: Consumer, counter: Counter) -> Consumer {
    let durable = next.is_durable();
    Consumer::new(Counted { next, counter }).with_durable(durable)
}

struct Counted {
    next: Consumer,
    counter: Counter,
}

impl Consume for Counted {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let items = batch.items as u64;
            self.next.send(batch).await?;
            self.counter.inc_by(items);
            Ok(())
        })
    }
}

/// One consumer for several: each gets all of it.
fn fan_out(mut consumers: Vec<Consumer>) -> Option<Consumer> {
    match consumers.len() {
        0 | 1 => consumers.pop(),
        _ => {
            let durable = consumers.iter().any(Consumer::is_durable);
            Some(Consumer::new(FanOut(consumers)).with_durable(durable))
        }
    }
}

struct FanOut(Vec<Consumer>);

impl Consume for FanOut {
    fn consume(&self, batch: Batch) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let sent = self.0.iter().map(|consumer| consumer.send(batch.clone()));
            let refusals: Vec<Refusal> = futures::future::join_all(sent)
                .await
                .into_iter()
                .filter_map(Result::err)
                .collect();
            // Worth another try only if that can help every one who refused.
            match refusals
                .iter()
                .find(|refusal| !refusal.retryable)
                .or(refusals.first())
            {
                None => Ok(()),
                Some(refusal) => Err(refusal.clone()),
            }
        })
    }
}
