//! `${env:NAME:-default}`, `${NAME}`, `${file:PATH}`, `$$`, and the old `$NAME`.
//!
//! A value that is nothing but a reference is read as YAML (so a number stays a number); inside a longer text the
//! reference's text is put in. References may be nested and are resolved from the inside out, to a bounded depth.

use karez_document::yaml::{self, Kind, Node, join_key};
use karez_document::{Diagnosis, Origin};

/// Where values come from: asked for a variable by its name, for a file by `file:` and its path.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

const MAX_NESTING: usize = 10;
const MAX_LENGTH: usize = 1 << 20;

/// Resolves every reference in a tree's values.
pub(crate) fn substitute(node: &mut Node, key: &str, env: Env<'_>, diagnoses: &mut Vec<Diagnosis>) {
    match &mut node.kind {
        Kind::Mapping(entries) => {
            for entry in entries {
                substitute(&mut entry.value, &join_key(key, &entry.key), env, diagnoses);
            }
        }
        Kind::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                substitute(item, &format!("{key}[{index}]"), env, diagnoses);
            }
        }
        Kind::Scalar { text, .. } if text.contains('$') => {
            let text = std::mem::take(text);
            let expanded = Expander {
                env,
                key,
                node,
                diagnoses,
            }
            .value(&text);
            match (expanded, &mut node.kind) {
                (Some(kind), _) => node.kind = kind,
                (None, Kind::Scalar { text: kept, .. }) => *kept = text,
                (None, _) => {}
            }
        }
        Kind::Scalar { .. } => {}
    }
}

struct Expander<'a, 'd> {
    env: Env<'a>,
    key: &'a str,
    node: &'a Node,
    diagnoses: &'d mut Vec<Diagnosis>,
}

impl Expander<'_, '_> {
    fn value(&mut self, text: &str) -> Option<Kind> {
        if let Some(reference) = whole(text) {
            let value = self.reference(reference, 0)?;
            let origin = Origin {
                file: self.node.place().file,
                first_line: self.node.line().max(1),
            };
            return match value {
                None => Some(Kind::Scalar {
                    text: String::new(),
                    plain: true,
                }),
                Some(value) => match yaml::parse(&value, &origin) {
                    Ok(mut documents) if documents.len() == 1 => documents.pop().map(|node| node.kind),
                    Ok(documents) if documents.is_empty() => Some(Kind::Scalar {
                        text: value,
                        plain: true,
                    }),
                    _ => Some(Kind::Scalar {
                        text: value,
                        plain: false,
                    }),
                },
            };
        }
        let expanded = self.text(text, 0)?;
        let plain = matches!(self.node.kind, Kind::Scalar { plain, .. } if plain && expanded == text);
        Some(Kind::Scalar {
            text: expanded,
            plain,
        })
    }

    fn error(&mut self, message: String, mend: &str) {
        self.diagnoses
            .push(Diagnosis::error(self.node.place(), self.key, message, mend));
    }

    /// A text with its references put in; `None` after an error.
    fn text(&mut self, text: &str, depth: usize) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let Some(end) = closing(after) else {
                    self.error(
                        "`${` is not closed".to_owned(),
                        "close it with `}`, or write `$$` for a plain `$`",
                    );
                    return None;
                };
                if let Some(value) = self.reference(&after[..end], depth)? {
                    out.push_str(&value);
                }
                rest = &after[end + 1..];
            } else {
                rest = self.old(rest, &mut out);
            }
            if out.len() > MAX_LENGTH {
                self.error(
                    format!("is longer than {MAX_LENGTH} bytes with its references"),
                    "shorten it",
                );
                return None;
            }
        }
        out.push_str(rest);
        Some(out)
    }

    /// The old `$NAME`, which counts only if there is such a variable: a password hash is full of `$`.
    fn old<'t>(&mut self, rest: &'t str, out: &mut String) -> &'t str {
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let name = &rest[..end];
        match is_name(name).then(|| (self.env)(name)).flatten() {
            Some(value) => {
                let message = format!("`${name}` is an old spelling");
                let mend = format!("write `${{env:{name}}}`");
                self.diagnoses
                    .push(Diagnosis::warning(self.node.place(), self.key, message, mend));
                out.push_str(&value);
                &rest[end..]
            }
            None => {
                out.push('$');
                rest
            }
        }
    }

    /// What stands between `${` and `}`; the outer `None` after an error, the inner for an unset variable.
    fn reference(&mut self, inner: &str, depth: usize) -> Option<Option<String>> {
        if depth >= MAX_NESTING {
            self.error(
                format!("references are nested more than {MAX_NESTING} deep"),
                "nest them less",
            );
            return None;
        }
        let inner = match inner.contains('$') {
            true => self.text(inner, depth + 1)?,
            false => inner.to_owned(),
        };
        let (scheme, rest) = match inner.split_once(':') {
            Some((scheme @ ("env" | "yaml" | "file" | "http" | "https"), rest)) => (scheme, rest),
            _ => ("env", inner.as_str()),
        };
        match scheme {
            "yaml" => Some(Some(rest.to_owned())),
            "env" => self.variable(rest),
            "file" => {
                // What it is asked for cannot be a variable's name.
                let text = (self.env)(&inner);
                if text.is_none() {
                    let message = format!("the file {rest} is not there, is empty, or cannot be read");
                    self.error(message, "name a file that the collector may read");
                    return None;
                }
                Some(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            scheme => {
                let message = format!("`${{{scheme}:…}}` cannot be read inside of a value yet");
                self.error(message, "use an environment variable, or a `--config` of its own");
                None
            }
        }
    }

    fn variable(&mut self, text: &str) -> Option<Option<String>> {
        let (name, default) = match text.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (text, None),
        };
        if !is_name(name) {
            self.error(
                format!("`{name}` is no name of a variable"),
                "use letters, digits and `_`, or write `$$` for a plain `$`",
            );
            return None;
        }
        let value = (self.env)(name).or(default);
        if value.is_none() {
            let message = format!("the environment has no variable `{name}`; the value is empty");
            let mend = format!("set it, or give a default: `${{env:{name}:-…}}`");
            self.diagnoses
                .push(Diagnosis::warning(self.node.place(), self.key, message, mend));
        }
        Some(value)
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The inside of a text that is one reference and nothing else.
fn whole(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${")?;
    (closing(inner)? == inner.len() - 1).then(|| &inner[..inner.len() - 1])
}

/// Where the `}` stands that closes what was opened before the text.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0usize;
    for (index, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return Some(index),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(value: &str) -> (serde_json::Value, usize) {
        let env = |name: &str| match name {
            "HOST" => Some("h".to_owned()),
            "PORT" => Some("4317".to_owned()),
            "WHICH" => Some("HOST".to_owned()),
            "LIST" => Some("[a, b]".to_owned()),
            "file:/password" => Some("s3cret\n".to_owned()),
            _ => None,
        };
        let mut node = yaml::parse(value, &Origin::file("c")).unwrap().remove(0);
        let mut diagnoses = Vec::new();
        substitute(&mut node, "k", &env, &mut diagnoses);
        (node.to_json(), diagnoses.len())
    }

    #[test]
    fn references_are_resolved() {
        use serde_json::json;
        assert_eq!(expand("a: ${PORT}"), (json!({"a": 4317}), 0));
        assert_eq!(expand("a: ${env:HOST}:${PORT}"), (json!({"a": "h:4317"}), 0));
        assert_eq!(expand("a: ${env:NO:-x}"), (json!({"a": "x"}), 0));
        assert_eq!(expand("a: ${NO}"), (json!({"a": null}), 1));
        assert_eq!(expand("a: ${env:${WHICH}}"), (json!({"a": "h"}), 0));
        assert_eq!(expand("a: ${LIST}"), (json!({"a": ["a", "b"]}), 0));
        assert_eq!(expand("a: $$HOST"), (json!({"a": "$HOST"}), 0));
        assert_eq!(expand("a: $${HOST}"), (json!({"a": "${HOST}"}), 0));
        assert_eq!(expand("a: $$$HOST"), (json!({"a": "$h"}), 1));
        assert_eq!(expand("a: $HOST"), (json!({"a": "h"}), 1));
        assert_eq!(expand("a: x$apr1$y$1"), (json!({"a": "x$apr1$y$1"}), 0));
        assert_eq!(expand("a: ${file:/password}"), (json!({"a": "s3cret"}), 0));
        assert_eq!(expand("a: ${file:/etc/x}").1, 1);
        assert_eq!(expand("a: ${http://x/y}").1, 1);
        assert_eq!(expand("a: 'x${HOST'").1, 1);
    }
}
