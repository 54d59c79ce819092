//! Several configurations become one: mappings are merged key by key, anything else is replaced by the later.

use karez_document::yaml::{self, Entry, Kind, Node};
use karez_document::{Diagnosis, Origin, Place};

/// Puts a later configuration over an earlier one.
pub(crate) fn merge(base: &mut Node, over: Node) {
    if base.is_null() {
        *base = over;
        return;
    }
    match (&mut base.kind, over.kind) {
        (Kind::Mapping(entries), Kind::Mapping(later)) => {
            for entry in later {
                match entries.iter_mut().find(|e| e.key == entry.key) {
                    Some(existing) if entry.value.is_null() && !existing.value.entries().is_empty() => {}
                    Some(existing) if matches!(existing.value.kind, Kind::Mapping(_)) => {
                        merge(&mut existing.value, entry.value);
                    }
                    Some(existing) => *existing = entry,
                    None => entries.push(entry),
                }
            }
        }
        (kind, later) => *kind = later,
    }
}

/// Turns keys with a separator (`a::b`) into nested mappings.
pub(crate) fn nest(node: Node, separator: &str) -> Node {
    let mut nested = node.sibling(Kind::Mapping(Vec::new()));
    let entries = match node.kind {
        Kind::Mapping(entries) => entries,
        _ => return node,
    };
    for Entry { key, line, value } in entries {
        let mut value = nest(value, separator);
        let mut parts: Vec<&str> = key.split(separator).collect();
        let first = parts.remove(0);
        for part in parts.into_iter().rev() {
            let entry = Entry {
                key: part.to_owned(),
                line,
                value,
            };
            value = entry.value.sibling(Kind::Mapping(Vec::new()));
            value.kind = Kind::Mapping(vec![entry]);
        }
        let over = nested.sibling(Kind::Mapping(vec![Entry {
            key: first.to_owned(),
            line,
            value,
        }]));
        merge(&mut nested, over);
    }
    nested
}

/// Reads `a.b.c=value`, the value as YAML.
pub(crate) fn parse_set(set: &str) -> Result<Node, Diagnosis> {
    let origin = Origin::file("--set");
    let place = Place::file("--set");
    let Some((key, value)) = set.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        let message = "no key with a value is given";
        return Err(Diagnosis::error(
            place,
            "",
            message,
            "write `--set=service.telemetry.logs.level=debug`",
        ));
    };
    let value = match yaml::parse(value, &origin)?.pop() {
        Some(node) => node,
        None => Node::new(
            Kind::Scalar {
                text: value.to_owned(),
                plain: true,
            },
            &place,
        ),
    };
    let entry = Entry {
        key: key.to_owned(),
        line: 0,
        value,
    };
    Ok(nest(Node::new(Kind::Mapping(vec![entry]), &place), "."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(text: &str) -> Node {
        yaml::parse(text, &Origin::file("c")).unwrap().remove(0)
    }

    #[test]
    fn mappings_are_merged_and_lists_replaced() {
        let mut base = node("a: {x: 1, y: [1, 2]}\nb:\n");
        merge(&mut base, node("a: {y: [3], z: 4}\nb: {c: 1}\n"));
        merge(&mut base, node("a:\n"));
        assert_eq!(
            base.to_json(),
            json!({"a": {"x": 1, "y": [3], "z": 4}, "b": {"c": 1}})
        );
    }

    #[test]
    fn sets_and_inline_keys_nest() {
        let mut base = node("service: {pipelines: {}}");
        merge(
            &mut base,
            parse_set("service.telemetry.logs.level=debug").unwrap(),
        );
        assert_eq!(
            base.at_path(&["service", "telemetry", "logs", "level"])
                .unwrap()
                .as_str(),
            Some("debug")
        );
        assert_eq!(
            nest(node("a::b: 1\na::c: 2"), "::").to_json(),
            json!({"a": {"b": 1, "c": 2}})
        );
        assert!(parse_set("x").is_err());
    }
}
