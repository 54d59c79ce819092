//! Keys that cannot be given effect: an error where something would be different, a word where it would not.

use karez_document::Diagnosis;
use karez_document::yaml::{Kind, Node, join_key};

/// Keys that would change something, with what holds instead.
const REFUSED: &[(&str, &str)] = &[
    ("cipher_suites", "the TLS library's own suites are used"),
    ("curve_preferences", "the TLS library's own groups are used"),
    ("include_insecure_cipher_suites", "there are no insecure suites"),
    (
        "max_connection_idle",
        "connections live as long as their clients want",
    ),
    (
        "max_connection_age",
        "connections live as long as their clients want",
    ),
    (
        "max_connection_age_grace",
        "connections live as long as their clients want",
    ),
];

/// Keys whose purpose is served without them.
const SERVED: &[(&str, &str)] = &[
    ("compaction", "space is given back by deleting whole segments"),
    (
        "enforcement_policy",
        "pings are tolerated, however often they come",
    ),
];

/// Says of every such key below a component what holds.
pub(crate) fn no_effect(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    match &node.kind {
        Kind::Mapping(entries) => {
            for entry in entries {
                let at = join_key(key, &entry.key);
                let place = node.key_place(&entry.key);
                let of = |list: &[(&str, &'static str)]| {
                    let found = list.iter().find(|(name, _)| *name == entry.key);
                    found
                        .map(|(_, instead)| *instead)
                        .filter(|_| !is_default(&entry.value))
                };
                let closed = entry.key == "keep_alives_enabled" && entry.value.as_bool() == Some(false);
                if let Some(instead) = of(REFUSED) {
                    diagnoses.push(Diagnosis::error(
                        place,
                        at,
                        format!("is not supported: {instead}"),
                        "remove it",
                    ));
                } else if let Some(instead) = of(SERVED) {
                    diagnoses.push(Diagnosis::warning(place, at, "has no effect", instead));
                } else if closed {
                    let message = "is not supported: connections stay open between requests";
                    diagnoses.push(Diagnosis::error(place, at, message, "remove it"));
                } else {
                    no_effect(&entry.value, &at, diagnoses);
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

/// Whether a value asks for nothing.
fn is_default(value: &Node) -> bool {
    value.is_null()
        || value.as_bool() == Some(false)
        || matches!(value.as_str(), Some("" | "0" | "0s"))
        || matches!(&value.kind, Kind::Sequence(items) if items.is_empty())
}
