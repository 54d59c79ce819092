//! The tree: nodes with their lines.

use std::sync::Arc;

use serde_json::Value;

use super::Scalar;
use crate::{Origin, Place};

/// A node of a YAML document, with the place where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it holds.
    pub kind: Kind,
    pub(super) file: Arc<str>,
    pub(super) line: u32,
    pub(super) column: Option<u32>,
    /// How many blank lines of a block scalar's text stand before the line named.
    pub(super) blank_lines: u32,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A scalar: its text, and whether it stands there without quotes (and so may be a number, a bool or null).
    Scalar {
        /// The text, with quotes and escapes resolved.
        text: String,
        /// Unquoted.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    Mapping(Vec<Entry>),
}

/// An entry of a mapping.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key.
    pub line: u32,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A node made by the program, not read from a text.
    pub fn new(kind: Kind, place: &Place) -> Self {
        let column = place.column;
        Node {
            kind,
            file: place.file.as_str().into(),
            line: place.line.unwrap_or(0),
            column,
            blank_lines: 0,
        }
    }

    /// An empty mapping, as an empty document stands for.
    pub fn empty(origin: &Origin) -> Self {
        Node::new(Kind::Mapping(Vec::new()), &origin.place(1))
    }

    /// A plain scalar at the place of this node.
    pub fn sibling(&self, kind: Kind) -> Self {
        Node { kind, ..self.at() }
    }

    fn at(&self) -> Self {
        let kind = Kind::Scalar {
            text: String::new(),
            plain: true,
        };
        Node {
            kind,
            file: self.file.clone(),
            line: self.line,
            column: self.column,
            blank_lines: 0,
        }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        let line = (self.line > 0).then_some(self.line);
        Place {
            file: self.file.to_string(),
            line,
            column: self.column,
        }
    }

    /// The line it starts on; 0 when it was made by the program.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The line on which its text starts: for a block scalar (`config: |`) the line after the indicator.
    pub fn text_line(&self) -> u32 {
        self.line - self.blank_lines
    }

    /// The place of one of its entries' keys.
    pub fn key_place(&self, key: &str) -> Place {
        match self.entry(key) {
            Some(entry) => Place::line(self.file.to_string(), entry.line),
            None => self.place(),
        }
    }

    /// Whether it is null (nothing, `~`, `null`).
    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// The meaning of a scalar.
    pub fn scalar(&self) -> Option<Scalar> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => Some(Scalar::of_plain(text)),
            Kind::Scalar { plain: false, .. } => Some(Scalar::Text),
            _ => None,
        }
    }

    /// A scalar's text (also a number's, as written); nothing for null, lists and mappings.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.scalar() {
            Some(Scalar::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// A mapping's entries; empty for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// A list's items; empty for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// An entry of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The node at a path of keys.
    pub fn at_path(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// What it is, for a message.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
            Kind::Scalar { .. } => match self.scalar() {
                Some(Scalar::Null) => "nothing",
                Some(Scalar::Bool(_)) => "a boolean",
                Some(Scalar::Integer(_) | Scalar::Unsigned(_)) => "an integer",
                Some(Scalar::Float(_)) => "a number",
                Some(Scalar::Text) | None => "a text",
            },
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Sequence(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Mapping(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.value.to_json()))
                    .collect(),
            ),
            Kind::Scalar { text, plain } => scalar_to_json(text, *plain),
        }
    }
}

fn scalar_to_json(text: &str, plain: bool) -> Value {
    if !plain {
        return Value::String(text.to_owned());
    }
    match Scalar::of_plain(text) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Integer(value) => value.into(),
        Scalar::Unsigned(value) => value.into(),
        Scalar::Float(value) => serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number),
        Scalar::Text => Value::String(text.to_owned()),
    }
}

impl From<&Node> for Value {
    fn from(node: &Node) -> Value {
        node.to_json()
    }
}

/// A dotted key path, one step longer.
pub fn join_key(prefix: &str, key: &str) -> String {
    match prefix.is_empty() {
        true => key.to_owned(),
        false => format!("{prefix}.{key}"),
    }
}
