//! `service:`: which components are used, and by which pipelines.

use indexmap::{IndexMap, IndexSet};
use karez_document::yaml::{Kind as NodeKind, Node, closest, join_key};
use karez_document::{Diagnosis, Place};

use crate::component::Kind;
use crate::connectors::ConnectorConfig;
use crate::document::{Pipeline, PipelineId, Section, Sections, unknown_keys};
use crate::values::{ComponentId, Signal};

/// What is wrong with the service as a whole.
pub(crate) fn service_keys(service: &Node, diagnoses: &mut Vec<Diagnosis>) {
    unknown_keys(
        service,
        "service",
        &["extensions", "pipelines", "telemetry"],
        diagnoses,
    );
    if service
        .get("pipelines")
        .is_none_or(|node| node.entries().is_empty())
    {
        let message = "service must have at least one pipeline";
        let mend = "add such as `traces: {receivers: [otlp], exporters: [debug]}`";
        let place = service.key_place("pipelines");
        diagnoses.push(Diagnosis::error(place, "service.pipelines", message, mend));
    }
}

/// The ids of a list, with the node of each.
fn ids<'a>(
    node: Option<&'a Node>,
    key: &str,
    diagnoses: &mut Vec<Diagnosis>,
) -> Vec<(ComponentId, &'a Node)> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        return Vec::new();
    };
    if !matches!(node.kind, NodeKind::Sequence(_)) {
        let message = format!("a list is needed, {} is here", node.describe());
        diagnoses.push(Diagnosis::error(
            node.place(),
            key,
            message,
            "write such as `[otlp]`",
        ));
        return Vec::new();
    }
    let mut found: Vec<(ComponentId, &Node)> = Vec::new();
    for item in node.items() {
        match item.as_str().unwrap_or_default().parse::<ComponentId>() {
            Ok(id) if found.iter().any(|(other, _)| *other == id) => {
                let message = format!("`{id}` stands twice in the list");
                diagnoses.push(Diagnosis::error(item.place(), key, message, "keep one of them"));
            }
            Ok(id) => found.push((id, item)),
            Err(message) => diagnoses.push(Diagnosis::error(
                item.place(),
                key,
                message,
                "write `type` or `type/name`",
            )),
        }
    }
    found
}

/// The extensions that the service starts.
pub(crate) fn extension_references(
    service: &Node,
    sections: &Sections,
    diagnoses: &mut Vec<Diagnosis>,
) -> IndexSet<ComponentId> {
    let key = "service.extensions";
    let mut used = IndexSet::new();
    for (id, node) in ids(service.get("extensions"), key, diagnoses) {
        if sections.extensions.written.contains_key(&id) {
            used.insert(id);
        } else {
            dangling(
                &id,
                "extension",
                node,
                key,
                sections.extensions.written.keys(),
                diagnoses,
            );
        }
    }
    used
}

fn dangling<'a>(
    id: &ComponentId,
    word: &str,
    node: &Node,
    key: &str,
    configured: impl Iterator<Item = &'a ComponentId>,
    diagnoses: &mut Vec<Diagnosis>,
) {
    let configured: Vec<String> = configured.map(ToString::to_string).collect();
    let message = format!("references {word} \"{id}\" which is not configured");
    let mend = match closest(&id.to_string(), configured.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("add it below `{word}s:` or remove it here"),
    };
    diagnoses.push(Diagnosis::error(node.place(), key, message, mend));
}

/// The pipelines, with the components that they name and that are there.
pub(crate) fn pipelines(
    service: &Node,
    sections: &Sections,
    diagnoses: &mut Vec<Diagnosis>,
) -> IndexMap<PipelineId, Pipeline> {
    let mut pipelines = IndexMap::new();
    let Some(node) = service.get("pipelines") else {
        return pipelines;
    };
    for entry in node.entries() {
        let key = format!("service.pipelines.{}", entry.key);
        let (signal, name) = entry.key.split_once('/').unwrap_or((&entry.key, ""));
        let Some(signal) = Signal::ALL.into_iter().find(|s| s.as_str() == signal) else {
            let message = format!("`{signal}` is no signal that Karez carries");
            let mend = "write traces, metrics or logs, with an optional /name";
            diagnoses.push(Diagnosis::error(node.key_place(&entry.key), key, message, mend));
            continue;
        };
        unknown_keys(
            &entry.value,
            &key,
            &["receivers", "processors", "exporters"],
            diagnoses,
        );
        let of = Of {
            signal,
            key: &key,
            node: &entry.value,
            place: node.key_place(&entry.key),
        };
        let connectors = &sections.connectors;
        let (receivers, from_connectors) = of.ends(&sections.receivers, connectors, diagnoses);
        let processors = of.processors(&sections.processors, diagnoses);
        let (exporters, to_connectors) = of.ends(&sections.exporters, connectors, diagnoses);
        let pipeline = Pipeline {
            receivers,
            processors,
            exporters,
            from_connectors,
            to_connectors,
        };
        pipelines.insert(
            PipelineId {
                signal,
                name: name.to_owned(),
            },
            pipeline,
        );
    }
    pipelines
}

/// The pipeline whose lists are read.
struct Of<'a> {
    signal: Signal,
    key: &'a str,
    node: &'a Node,
    place: Place,
}

impl Of<'_> {
    fn processors<T: Kind>(&self, section: &Section<T>, diagnoses: &mut Vec<Diagnosis>) -> Vec<ComponentId> {
        let name = format!("{}s", T::WORD);
        let key = join_key(self.key, &name);
        let found = ids(self.node.get(&name), &key, diagnoses);
        let known = found
            .into_iter()
            .filter(|(id, node)| self.known(section, id, node, &key, diagnoses));
        known.map(|(id, _)| id).collect()
    }

    /// The receivers, or the exporters, and the connectors among them.
    fn ends<T: Kind>(
        &self,
        section: &Section<T>,
        connectors: &Section<ConnectorConfig>,
        diagnoses: &mut Vec<Diagnosis>,
    ) -> (Vec<ComponentId>, Vec<ComponentId>) {
        let name = format!("{}s", T::WORD);
        let key = join_key(self.key, &name);
        let list = self.node.get(&name);
        let found = ids(list, &key, diagnoses);
        if found.is_empty() {
            let message = format!("must have at least one {}", T::WORD);
            let place = list.map_or_else(|| self.place.clone(), |_| self.node.key_place(&name));
            diagnoses.push(Diagnosis::error(
                place,
                key,
                message,
                format!("name one in `{name}: […]`"),
            ));
            return (Vec::new(), Vec::new());
        }
        let (mut used, mut connected) = (Vec::new(), Vec::new());
        for (id, node) in found {
            if connectors.written.contains_key(&id) {
                connected.push(id);
            } else if self.known(section, &id, node, &key, diagnoses) {
                used.push(id);
            }
        }
        (used, connected)
    }

    /// Whether a component is there and carries the signal; if not, it is said.
    fn known<T: Kind>(
        &self,
        section: &Section<T>,
        id: &ComponentId,
        node: &Node,
        key: &str,
        diagnoses: &mut Vec<Diagnosis>,
    ) -> bool {
        if !section.written.contains_key(id) {
            dangling(id, T::WORD, node, key, section.written.keys(), diagnoses);
            return false;
        }
        let carries = T::signals(&id.kind).contains(&self.signal);
        if !carries {
            let message = format!("the {} `{id}` does not carry {}", T::WORD, self.signal);
            diagnoses.push(Diagnosis::error(
                node.place(),
                key,
                message,
                "remove it from this pipeline",
            ));
        }
        carries
    }
}

/// Pipelines, each with the connector that leads to it.
type Ways<'a> = Vec<(&'a ComponentId, &'a PipelineId)>;

/// Checks that every connector has pipelines on both of its sides that it can connect, and that they make no circle.
pub(crate) fn check_connectors(
    pipelines: &IndexMap<PipelineId, Pipeline>,
    sections: &Sections,
    diagnoses: &mut Vec<Diagnosis>,
) {
    for (id, written) in &sections.connectors.written {
        let key = format!("connectors.{id}");
        let mut error = |message: String, mend: &str| {
            diagnoses.push(Diagnosis::error(
                written.place.clone(),
                key.as_str(),
                message,
                mend,
            ));
        };
        for (other, taken) in [
            ("receiver", sections.receivers.written.contains_key(id)),
            ("exporter", sections.exporters.written.contains_key(id)),
        ] {
            if taken {
                let message = format!("`{id}` is a connector and a configured {other} as well");
                error(message, "give one of them another name, as in `type/name`");
            }
        }
        let list = |list: fn(&Pipeline) -> &Vec<ComponentId>| -> Vec<&PipelineId> {
            let with = pipelines
                .iter()
                .filter(|(_, pipeline)| list(pipeline).contains(id));
            with.map(|(pipeline, _)| pipeline).collect()
        };
        let (from, to) = (list(|p| &p.to_connectors), list(|p| &p.from_connectors));
        let connects =
            |a: &PipelineId, b: &PipelineId| ConnectorConfig::connects(&id.kind, a.signal, b.signal);
        if !written.known {
            continue;
        }
        for pipeline in from.iter().filter(|a| !to.iter().any(|b| connects(a, b))) {
            let message = format!(
                "is an exporter of the pipeline `{pipeline}`, but a receiver of none that it can lead to"
            );
            error(
                message,
                "name it in the `receivers` of a pipeline of the right signal",
            );
        }
        for pipeline in to.iter().filter(|b| !from.iter().any(|a| connects(a, b))) {
            let message = format!(
                "is a receiver of the pipeline `{pipeline}`, but an exporter of none that it can lead from"
            );
            error(
                message,
                "name it in the `exporters` of a pipeline of the right signal",
            );
        }
    }
    if let Some((connector, circle)) = circle(pipelines)
        && let Some(written) = sections.connectors.written.get(&connector)
    {
        let message = format!("leads in a circle: {circle}");
        let mend = "remove the connector from one of these pipelines";
        let key = format!("connectors.{connector}");
        diagnoses.push(Diagnosis::error(written.place.clone(), key, message, mend));
    }
}

/// A circle of pipelines, if there is one: a connector of it, and its way.
fn circle(pipelines: &IndexMap<PipelineId, Pipeline>) -> Option<(ComponentId, String)> {
    let ways = |from: &PipelineId| -> Ways<'_> {
        let connectors = pipelines
            .get(from)
            .map_or(&[][..], |pipeline| &pipeline.to_connectors);
        let leads = |connector: &'_ ComponentId, to: &PipelineId| {
            ConnectorConfig::connects(&connector.kind, from.signal, to.signal)
        };
        let to = |connector| {
            let with = pipelines
                .iter()
                .filter(move |(_, p)| p.from_connectors.contains(connector));
            with.map(move |(id, _)| (connector, id))
                .filter(|(connector, id)| leads(connector, id))
        };
        connectors.iter().flat_map(to).collect()
    };
    // Pipelines from which every way ends are taken away until none is left, or only circles and what leads to them.
    let mut left: IndexSet<&PipelineId> = pipelines.keys().collect();
    loop {
        let before = left.len();
        let ends: Vec<&PipelineId> = left
            .iter()
            .copied()
            .filter(|id| !ways(id).iter().any(|(_, to)| left.contains(to)))
            .collect();
        ends.iter().for_each(|id| {
            left.shift_remove(*id);
        });
        if left.len() == before {
            break;
        }
    }
    let mut at = *left.first()?;
    let mut seen: Vec<&PipelineId> = Vec::new();
    let mut text = Vec::new();
    loop {
        let (connector, to) = ways(at).into_iter().find(|(_, to)| left.contains(to))?;
        if let Some(start) = seen.iter().position(|id| *id == at) {
            text.drain(..start);
            text.push(at.to_string());
            return Some((connector.clone(), text.join(" → ")));
        }
        seen.push(at);
        text.push(format!("{at} → {connector}"));
        at = to;
    }
}
