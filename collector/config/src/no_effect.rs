//! Keys that are understood and do nothing yet. Who writes one is told, instead of finding out.

use karez_document::Diagnosis;
use karez_document::yaml::{Kind, Node, join_key};

/// The keys, with what holds instead.
const KEYS: &[(&str, &str)] = &[
    ("cipher_suites", "the TLS library's own suites are used"),
    ("compaction", "space is given back by deleting whole segments"),
    ("compression_params", "the library's own level is used"),
    ("curve_preferences", "the TLS library's own groups are used"),
    ("enforcement_policy", "pings are tolerated"),
    ("keep_alives_enabled", "connections stay open between requests"),
    ("partition", "batches are not kept apart by the request's context"),
    ("reload_interval", "change the document to have files read again"),
    (
        "server_parameters",
        "connections live as long as their clients want",
    ),
];

/// Warns of every such key below a component.
pub(crate) fn no_effect(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    match &node.kind {
        Kind::Mapping(entries) => {
            for entry in entries {
                let at = join_key(key, &entry.key);
                // Servers do read their files again.
                let has_effect = entry.key == "reload_interval" && !at.starts_with("exporters.");
                let found = KEYS.iter().find(|(name, _)| *name == entry.key);
                match found.filter(|_| !has_effect) {
                    Some((_, instead)) => {
                        let place = node.key_place(&entry.key);
                        diagnoses.push(Diagnosis::warning(place, at, "has no effect yet", *instead));
                    }
                    None => no_effect(&entry.value, &at, diagnoses),
                }
            }
        }
        Kind::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                no_effect(item, &format!("{key}[{index}]"), diagnoses);
            }
        }
        Kind::Scalar { .. } => {}
    }
}
