//! The whole document: sections, references, pipelines.

use indexmap::{IndexMap, IndexSet};
use karez_document::yaml::{Kind as NodeKind, Node, closest, join_key};
use karez_document::{Diagnosis, Place};

use crate::component::{Component, ExporterConfig, ExtensionConfig, Kind, ProcessorConfig, ReceiverConfig};
use crate::connectors::ConnectorConfig;
use crate::no_effect::no_effect;
use crate::pipelines::{check_connectors, extension_references, pipelines, service_keys};
use crate::values::{ComponentId, Signal};
use crate::{lint, old, telemetry};

/// What the collector is to run: only what is used, checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CollectorConfig {
    /// The receivers of the pipelines.
    pub receivers: IndexMap<ComponentId, Component<ReceiverConfig>>,
    /// The processors of the pipelines. Each pipeline has an instance of its own.
    pub processors: IndexMap<ComponentId, Component<ProcessorConfig>>,
    /// The exporters of the pipelines.
    pub exporters: IndexMap<ComponentId, Component<ExporterConfig>>,
    /// The connectors of the pipelines. They make no circle.
    pub connectors: IndexMap<ComponentId, Component<ConnectorConfig>>,
    /// The extensions of the service, in the order of their start.
    pub extensions: IndexMap<ComponentId, Component<ExtensionConfig>>,
    /// The pipelines.
    pub pipelines: IndexMap<PipelineId, Pipeline>,
    /// How the collector reports on itself.
    pub telemetry: telemetry::Telemetry,
}

/// `traces[/name]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipelineId {
    /// What it carries.
    pub signal: Signal,
    /// The name after the slash; empty without one.
    pub name: String,
}

impl std::fmt::Display for PipelineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.signal.as_str())?;
        match self.name.is_empty() {
            true => Ok(()),
            false => write!(f, "/{}", self.name),
        }
    }
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipeline {
    /// Where its data comes from.
    pub receivers: Vec<ComponentId>,
    /// What is done to it, in this order.
    pub processors: Vec<ComponentId>,
    /// Where all of it goes.
    pub exporters: Vec<ComponentId>,
    /// Connectors from which its data comes, too.
    pub from_connectors: Vec<ComponentId>,
    /// Connectors to which all of it goes, too.
    pub to_connectors: Vec<ComponentId>,
}

const SECTIONS: &[&str] = &[
    "receivers",
    "processors",
    "exporters",
    "connectors",
    "extensions",
    "service",
];

/// Every configured component of a section, whether it can be read or not.
pub(crate) struct Section<T> {
    pub(crate) written: IndexMap<ComponentId, Written<T>>,
}

/// A configured component.
pub(crate) struct Written<T> {
    pub(crate) place: Place,
    pub(crate) node: Node,
    /// Absent when the type is not known or the block cannot be read.
    pub(crate) config: Option<T>,
    pub(crate) known: bool,
}

/// All sections.
pub(crate) struct Sections {
    pub(crate) receivers: Section<ReceiverConfig>,
    pub(crate) processors: Section<ProcessorConfig>,
    pub(crate) exporters: Section<ExporterConfig>,
    pub(crate) connectors: Section<ConnectorConfig>,
    pub(crate) extensions: Section<ExtensionConfig>,
}

/// Reads the whole document.
pub(crate) fn read(root: &Node, diagnoses: &mut Vec<Diagnosis>) -> CollectorConfig {
    top_level(root, diagnoses);
    let sections = Sections {
        receivers: section(root, diagnoses),
        processors: section(root, diagnoses),
        exporters: section(root, diagnoses),
        connectors: section(root, diagnoses),
        extensions: section(root, diagnoses),
    };
    let service = root
        .get("service")
        .cloned()
        .unwrap_or_else(|| root.sibling(NodeKind::Mapping(Vec::new())));
    service_keys(&service, diagnoses);
    let used_extensions = extension_references(&service, &sections, diagnoses);
    let pipelines = pipelines(&service, &sections, diagnoses);
    check_connectors(&pipelines, &sections, diagnoses);
    let telemetry = telemetry::read(service.get("telemetry"), diagnoses);
    let used = |list: fn(&Pipeline) -> &Vec<ComponentId>| -> IndexSet<ComponentId> {
        pipelines
            .values()
            .flat_map(|pipeline| list(pipeline).iter().cloned())
            .collect()
    };
    let used = lint::Used {
        receivers: used(|p| &p.receivers),
        processors: used(|p| &p.processors),
        exporters: used(|p| &p.exporters),
        connectors: used(|p| &p.to_connectors),
        extensions: used_extensions,
    };
    unused_unknown(&sections, &used, diagnoses);
    let faults = lint::lint(&sections, &used, diagnoses);
    CollectorConfig {
        receivers: pick(&sections.receivers, &used.receivers, &faults, "receivers"),
        processors: pick(&sections.processors, &used.processors, &faults, "processors"),
        exporters: pick(&sections.exporters, &used.exporters, &faults, "exporters"),
        connectors: pick(&sections.connectors, &used.connectors, &faults, "connectors"),
        extensions: pick(&sections.extensions, &used.extensions, &faults, "extensions"),
        pipelines,
        telemetry,
    }
}

fn pick<T: Clone>(
    section: &Section<T>,
    used: &IndexSet<ComponentId>,
    faults: &lint::Faults,
    name: &str,
) -> IndexMap<ComponentId, Component<T>> {
    let known = used.iter().filter_map(|id| {
        let written = section.written.get(id)?;
        let config = written.config.clone()?;
        let fault = faults.get(&format!("{name}.{id}")).cloned();
        Some((
            id.clone(),
            Component {
                id: id.clone(),
                config,
                place: written.place.clone(),
                fault,
            },
        ))
    });
    known.collect()
}

fn top_level(root: &Node, diagnoses: &mut Vec<Diagnosis>) {
    if !matches!(root.kind, NodeKind::Mapping(_)) {
        let message = format!(
            "a collector's configuration is a mapping, {} is here",
            root.describe()
        );
        diagnoses.push(Diagnosis::error(
            root.place(),
            "",
            message,
            "write receivers, exporters and service",
        ));
        return;
    }
    unknown_keys(root, "", SECTIONS, diagnoses);
    for section in ["receivers", "exporters"] {
        if root.get(section).is_none_or(|node| node.entries().is_empty()) {
            let word = &section[..section.len() - 1];
            let message = format!("no {word} configuration specified in config");
            diagnoses.push(Diagnosis::error(
                root.key_place(section),
                section,
                message,
                format!("add a {word}"),
            ));
        }
    }
    for entry in root.entries() {
        if entry.value.is_null() && entry.key != "service" {
            let message = "the section is empty";
            let mend = "remove the key, or write components below it";
            diagnoses.push(Diagnosis::warning(
                root.key_place(&entry.key),
                entry.key.clone(),
                message,
                mend,
            ));
        }
    }
}

/// Reports the keys of a block that are not known.
pub(crate) fn unknown_keys(node: &Node, key: &str, known: &[&str], diagnoses: &mut Vec<Diagnosis>) {
    for entry in node.entries() {
        if known.contains(&entry.key.as_str()) {
            continue;
        }
        let mend = match closest(&entry.key, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let place = node.key_place(&entry.key);
        diagnoses.push(Diagnosis::error(
            place,
            join_key(key, &entry.key),
            "unknown key",
            mend,
        ));
    }
}

fn section<T: Kind>(root: &Node, diagnoses: &mut Vec<Diagnosis>) -> Section<T> {
    let name = format!("{}s", T::WORD);
    let mut written = IndexMap::new();
    let Some(node) = root.get(&name) else {
        return Section { written };
    };
    if !matches!(node.kind, NodeKind::Mapping(_)) && !node.is_null() {
        let message = format!("a mapping is needed, {} is here", node.describe());
        diagnoses.push(Diagnosis::error(
            node.place(),
            name,
            message,
            "write `type/name:` keys below it",
        ));
        return Section { written };
    }
    for entry in node.entries() {
        let key = join_key(&name, &entry.key);
        let place = node.key_place(&entry.key);
        let id: ComponentId = match entry.key.parse() {
            Ok(id) => id,
            Err(message) => {
                diagnoses.push(Diagnosis::error(
                    place,
                    key,
                    message,
                    "write `type` or `type/name`",
                ));
                continue;
            }
        };
        let mut block = entry.value.clone();
        if block.is_null() {
            // A missing key of an empty block is then reported where the component stands.
            block = Node::new(NodeKind::Mapping(Vec::new()), &place);
        }
        old::modernise(&name, &id.kind, &key, &mut block, diagnoses);
        let known = T::KNOWN.contains(&id.kind.as_str());
        if known {
            no_effect(&block, &key, diagnoses);
        }
        let config = T::read(&id.kind, &block, &key, diagnoses);
        written.insert(
            id,
            Written {
                place,
                node: block,
                config,
                known,
            },
        );
    }
    Section { written }
}

/// A type that nobody knows is an error, one that others know only where it is used.
fn unknown_types<T: Kind>(
    section: &Section<T>,
    used: &IndexSet<ComponentId>,
    diagnoses: &mut Vec<Diagnosis>,
) {
    for (id, written) in section.written.iter().filter(|(_, written)| !written.known) {
        let elsewhere = T::ELSEWHERE.contains(&id.kind.as_str());
        if elsewhere && !used.contains(id) {
            continue;
        }
        let known = T::KNOWN.join(", ");
        let (message, mend) = match closest(&id.kind, T::KNOWN.iter().copied()) {
            _ if elsewhere => (
                format!("Karez does not have the {} `{}` yet", T::WORD, id.kind),
                format!("it has {known}"),
            ),
            Some(meant) => (
                format!("unknown {} `{}`", T::WORD, id.kind),
                format!("did you mean `{meant}`?"),
            ),
            None => (
                format!("unknown {} `{}`", T::WORD, id.kind),
                format!("known: {known}"),
            ),
        };
        let key = format!("{}s.{id}", T::WORD);
        diagnoses.push(Diagnosis::error(written.place.clone(), key, message, mend));
    }
}

fn unused_unknown(sections: &Sections, used: &lint::Used, diagnoses: &mut Vec<Diagnosis>) {
    unknown_types(&sections.receivers, &used.receivers, diagnoses);
    unknown_types(&sections.processors, &used.processors, diagnoses);
    unknown_types(&sections.exporters, &used.exporters, diagnoses);
    unknown_types(&sections.connectors, &used.connectors, diagnoses);
    unknown_types(&sections.extensions, &used.extensions, diagnoses);
}
