//! `service:`: which components are used, and by which pipelines.

use indexmap::{IndexMap, IndexSet};
use karez_document::yaml::{Kind as NodeKind, Node, closest, join_key};
use karez_document::{Diagnosis, Place};

use crate::component::Kind;
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
        let pipeline = Pipeline {
            receivers: of.references(&sections.receivers, true, diagnoses),
            processors: of.references(&sections.processors, false, diagnoses),
            exporters: of.references(&sections.exporters, true, diagnoses),
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
    fn references<T: Kind>(
        &self,
        section: &Section<T>,
        needed: bool,
        diagnoses: &mut Vec<Diagnosis>,
    ) -> Vec<ComponentId> {
        let name = format!("{}s", T::WORD);
        let key = join_key(self.key, &name);
        let list = self.node.get(&name);
        let found = ids(list, &key, diagnoses);
        if needed && found.is_empty() {
            let message = format!("must have at least one {}", T::WORD);
            let place = list.map_or_else(|| self.place.clone(), |_| self.node.key_place(&name));
            diagnoses.push(Diagnosis::error(
                place,
                key,
                message,
                format!("name one in `{name}: […]`"),
            ));
            return Vec::new();
        }
        let mut used = Vec::new();
        for (id, node) in found {
            if !section.written.contains_key(&id) {
                dangling(&id, T::WORD, node, &key, section.written.keys(), diagnoses);
            } else if !T::signals(&id.kind).contains(&self.signal) {
                let message = format!("the {} `{id}` does not carry {}", T::WORD, self.signal);
                diagnoses.push(Diagnosis::error(
                    node.place(),
                    key.as_str(),
                    message,
                    "remove it from this pipeline",
                ));
            } else {
                used.push(id);
            }
        }
        used
    }
}
