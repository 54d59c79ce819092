//! The collector's document: what it means, and what is wrong with it. Nothing here opens a socket or a file.
//!
//! Text → references resolved → configurations merged → old spellings rewritten → typed blocks → references between
//! components → [`CollectorConfig`], which holds only what is used. Every problem is reported at once as a
//! [`Diagnosis`] with file, line, key and mend. An error of one component that the others can live with (an endpoint
//! that cannot be dialled) leaves the configuration usable: it is in the component's `fault`.

pub mod common;
pub mod component;
pub mod connectors;
pub mod credentials;
mod document;
pub mod endpoint;
pub mod exporters;
pub mod extensions;
pub mod file;
pub mod filter;
pub mod k8s_attributes;
mod lint;
pub mod load_balancing;
mod merge;
pub mod metrics_transform;
mod no_effect;
mod old;
mod pipelines;
mod placeholder;
pub mod probabilistic_sampler;
pub mod processors;
pub mod prometheus;
pub mod receivers;
mod substitute;
mod telemetry;
pub mod values;
pub mod zipkin;

use karez_document::yaml::{self, Kind, Node};
use karez_document::{Diagnosis, Origin};

pub use component::{Component, ExporterConfig, ExtensionConfig, ProcessorConfig, ReceiverConfig};
pub use connectors::ConnectorConfig;
pub use document::{CollectorConfig, Pipeline, PipelineId};
pub use lint::uses_tls;
pub use substitute::Env;
pub use telemetry::{Push, PushExporter, Telemetry};
pub use values::{ComponentId, Signal};

/// A text of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Where it starts.
    pub origin: Origin,
    /// Whether keys with `::` nest (`--config=yaml:a::b: 1`).
    pub inline: bool,
}

/// Checks one document. Without a configuration it cannot be run; with one, errors concern single components.
pub fn check(text: &str, origin: &Origin, env: Env<'_>) -> (Option<CollectorConfig>, Vec<Diagnosis>) {
    check_all(
        &[Text {
            text: text.to_owned(),
            origin: origin.clone(),
            inline: false,
        }],
        &[],
        env,
    )
}

/// Checks several documents, merged in their order, and `--set`s (`a.b=value`) over them.
pub fn check_all(texts: &[Text], sets: &[String], env: Env<'_>) -> (Option<CollectorConfig>, Vec<Diagnosis>) {
    let mut diagnoses = Vec::new();
    let mut root: Option<Node> = None;
    for text in texts {
        if let Some(node) = read_text(text, env, &mut diagnoses) {
            match &mut root {
                None => root = Some(node),
                Some(root) => merge::merge(root, node),
            }
        }
    }
    let origin = texts
        .first()
        .map_or_else(|| Origin::file("--set"), |text| text.origin.clone());
    let mut root = root.unwrap_or_else(|| Node::empty(&origin));
    for set in sets {
        match merge::parse_set(set) {
            Ok(node) => merge::merge(&mut root, node),
            Err(diagnosis) => diagnoses.push(diagnosis),
        }
    }
    if karez_document::has_errors(&diagnoses) {
        return (None, diagnoses);
    }
    old::lift_oidc(&mut root, &mut diagnoses);
    let config = document::read(&root, &mut diagnoses);
    let faults: Vec<&Diagnosis> = faults(&config).collect();
    let fatal = diagnoses.iter().any(|d| d.is_error() && !faults.contains(&d));
    diagnoses.sort_by(|a, b| order(a).cmp(&order(b)));
    ((!fatal).then_some(config), diagnoses)
}

fn order(diagnosis: &Diagnosis) -> (&str, Option<u32>, karez_document::Severity) {
    (&diagnosis.place.file, diagnosis.place.line, diagnosis.severity)
}

fn faults(config: &CollectorConfig) -> impl Iterator<Item = &Diagnosis> {
    config
        .exporters
        .values()
        .filter_map(|component| component.fault.as_ref())
}

fn read_text(text: &Text, env: Env<'_>, diagnoses: &mut Vec<Diagnosis>) -> Option<Node> {
    let placeholders = placeholder::placeholders(&text.text, &text.origin);
    if !placeholders.is_empty() {
        // What is no YAML because of a placeholder is not worth another word.
        diagnoses.extend(placeholders);
        return None;
    }
    let mut documents = match yaml::parse(&text.text, &text.origin) {
        Ok(documents) => documents,
        Err(diagnosis) => {
            diagnoses.push(diagnosis);
            return None;
        }
    };
    if documents.len() > 1 {
        let message = "several documents stand in one configuration; the first is used";
        let mend = "give each as a `--config` of its own";
        diagnoses.push(Diagnosis::warning(documents[1].place(), "", message, mend));
    }
    let mut node = match documents.is_empty() {
        true => Node::empty(&text.origin),
        false => documents.swap_remove(0),
    };
    if text.inline && matches!(node.kind, Kind::Mapping(_)) {
        node = merge::nest(node, "::");
    }
    substitute::substitute(&mut node, "", env, diagnoses);
    Some(node)
}
