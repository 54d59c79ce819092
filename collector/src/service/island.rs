//! Islands: pipelines that share a receiver, an exporter or a connector belong together and are started and stopped as one. What
//! shares nothing is not touched when another island changes.

use indexmap::{IndexMap, IndexSet};
use karez_collector_config::{
    CollectorConfig, Component, ComponentId, ConnectorConfig, ExporterConfig, Pipeline, PipelineId,
    ProcessorConfig, ReceiverConfig,
};

/// Pipelines with their components.
#[derive(Debug, Clone, Default)]
pub(crate) struct Island {
    pub(crate) receivers: IndexMap<ComponentId, Component<ReceiverConfig>>,
    pub(crate) processors: IndexMap<ComponentId, Component<ProcessorConfig>>,
    pub(crate) exporters: IndexMap<ComponentId, Component<ExporterConfig>>,
    pub(crate) connectors: IndexMap<ComponentId, Component<ConnectorConfig>>,
    pub(crate) pipelines: IndexMap<PipelineId, Pipeline>,
}

impl Island {
    /// Whether both run the same, wherever they are written.
    pub(crate) fn same(&self, other: &Island) -> bool {
        self.pipelines == other.pipelines
            && same(&self.receivers, &other.receivers)
            && same(&self.processors, &other.processors)
            && same(&self.exporters, &other.exporters)
            && same(&self.connectors, &other.connectors)
    }
}

fn same<T: PartialEq>(
    one: &IndexMap<ComponentId, Component<T>>,
    other: &IndexMap<ComponentId, Component<T>>,
) -> bool {
    one.len() == other.len()
        && one.iter().all(|(id, component)| {
            let other = other.get(id);
            other.is_some_and(|o| {
                o.config == component.config && o.fault.is_some() == component.fault.is_some()
            })
        })
}

/// The islands of a configuration.
pub(crate) fn islands(config: &CollectorConfig) -> Vec<Island> {
    let mut groups: Vec<(IndexSet<String>, Vec<PipelineId>)> = Vec::new();
    for (id, pipeline) in &config.pipelines {
        let receivers = pipeline.receivers.iter().map(|id| format!("receivers.{id}"));
        let exporters = pipeline.exporters.iter().map(|id| format!("exporters.{id}"));
        let connectors = pipeline.from_connectors.iter().chain(&pipeline.to_connectors);
        let connectors = connectors.map(|id| format!("connectors.{id}"));
        let shared = receivers.chain(exporters).chain(connectors);
        let mut group = (shared.collect::<IndexSet<String>>(), vec![id.clone()]);
        groups.retain_mut(|(shared, pipelines)| {
            if shared.is_disjoint(&group.0) {
                return true;
            }
            group.0.extend(shared.drain(..));
            pipelines.append(&mut group.1);
            group.1 = std::mem::take(pipelines);
            false
        });
        groups.push(group);
    }
    groups
        .into_iter()
        .map(|(_, pipelines)| island(config, &pipelines))
        .collect()
}

fn island(config: &CollectorConfig, ids: &[PipelineId]) -> Island {
    let mut island = Island::default();
    for id in ids {
        let Some(pipeline) = config.pipelines.get(id) else {
            continue;
        };
        pick(&config.receivers, &pipeline.receivers, &mut island.receivers);
        pick(&config.processors, &pipeline.processors, &mut island.processors);
        pick(&config.exporters, &pipeline.exporters, &mut island.exporters);
        pick(
            &config.connectors,
            &pipeline.to_connectors,
            &mut island.connectors,
        );
        island.pipelines.insert(id.clone(), pipeline.clone());
    }
    island
}

fn pick<T: Clone>(
    from: &IndexMap<ComponentId, Component<T>>,
    ids: &[ComponentId],
    into: &mut IndexMap<ComponentId, Component<T>>,
) {
    for id in ids {
        if let Some(component) = from.get(id) {
            into.insert(id.clone(), component.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use karez_collector_config::check;
    use karez_document::Origin;

    fn of(pipelines: &str) -> Vec<Island> {
        let text = format!(
            "receivers: {{otlp/a: {{protocols: {{grpc: }}}}, otlp/b: {{protocols: {{grpc: }}}}}}\n\
             exporters: {{debug/a: , debug/b: , debug/c: }}\nservice: {{pipelines: {{{pipelines}}}}}"
        );
        let (config, said) = check(&text, &Origin::file("c"), &|_| None);
        islands(&config.unwrap_or_else(|| panic!("{said:#?}")))
    }

    #[test]
    fn pipelines_that_share_a_component_are_one_island() {
        let apart = "traces: {receivers: [otlp/a], exporters: [debug/a]}, logs: {receivers: [otlp/b], exporters: [debug/b]}";
        assert_eq!(of(apart).len(), 2);
        let joined = format!("{apart}, metrics: {{receivers: [otlp/a], exporters: [debug/b]}}");
        let islands = of(&joined);
        assert_eq!((islands.len(), islands[0].pipelines.len()), (1, 3));
        assert!(of(apart)[0].same(&of(apart)[0]));
        assert!(!of(apart)[0].same(&of(apart)[1]));
    }
}
