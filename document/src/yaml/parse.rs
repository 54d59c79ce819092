//! Events → tree, within bounds.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Entry, Kind, Node};
use crate::{Diagnosis, Origin, Place};

/// The longest text that is read.
pub const MAX_TEXT: usize = 16 << 20;
/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 100;
/// The most nodes of one text, with aliases expanded.
pub const MAX_NODES: usize = 1 << 20;

/// Reads all documents of a text. Empty documents (only comments, only `---`) are left out.
pub fn parse(text: &str, origin: &Origin) -> Result<Vec<Node>, Diagnosis> {
    if text.len() > MAX_TEXT {
        let message = format!("the document has {} bytes, more than {MAX_TEXT}", text.len());
        return Err(Diagnosis::error(
            Place::file(&*origin.file),
            "",
            message,
            "split it",
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(origin);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let line = u32::try_from(error.marker().line()).unwrap_or(u32::MAX).max(1);
                return Err(Diagnosis::error(
                    builder.place(line, error.marker().col()),
                    "",
                    format!("this is not YAML: {}", error.info()),
                    "check indentation (spaces only), quotes and colons on this line and the one before",
                ));
            }
        }
    }
    Ok(builder.documents)
}

/// A collection that is still open.
enum Open {
    Sequence {
        node: Node,
        anchor: usize,
        items: Vec<Node>,
    },
    Mapping {
        node: Node,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(String, u32)>,
        merges: Vec<Node>,
    },
}

struct Builder<'a> {
    origin: &'a Origin,
    file: Arc<str>,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    documents: Vec<Node>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn new(origin: &'a Origin) -> Self {
        Builder {
            origin,
            file: origin.file.as_str().into(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            nodes: 0,
        }
    }

    fn place(&self, line: u32, column: usize) -> Place {
        let mut place = self.origin.place(line);
        place.column = self.column(column);
        place
    }

    /// Columns of embedded text would be off by its indentation, so it has none.
    fn column(&self, column: usize) -> Option<u32> {
        if self.origin.first_line != 1 {
            return None;
        }
        u32::try_from(column + 1).ok()
    }

    fn node(&self, span: Span, kind: Kind) -> Node {
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX).max(1);
        let line = self.origin.first_line.saturating_add(line).saturating_sub(1);
        let column = self.column(span.start.col());
        Node {
            kind,
            file: self.file.clone(),
            line,
            column,
            blank_lines: 0,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnosis> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                let plain = style == ScalarStyle::Plain && !quoted;
                let blank = text.bytes().take_while(|b| *b == b'\n').count();
                let mut node = self.node(
                    span,
                    Kind::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                );
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    // The scanner names the first line that is not blank.
                    node.blank_lines = u32::try_from(blank).unwrap_or(0).min(node.line);
                }
                self.count(1, &node)?;
                self.add(node, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::SequenceStart(anchor, _) => {
                let node = self.node(span, Kind::Sequence(Vec::new()));
                self.open(
                    Open::Sequence {
                        node,
                        anchor,
                        items: Vec::new(),
                    },
                    span,
                )
            }
            Event::MappingStart(anchor, _) => {
                let node = self.node(span, Kind::Mapping(Vec::new()));
                let open = Open::Mapping {
                    node,
                    anchor,
                    entries: Vec::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(open, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, open: Open, span: Span) -> Result<(), Diagnosis> {
        let (Open::Sequence { node, .. } | Open::Mapping { node, .. }) = &open;
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep");
            return Err(Diagnosis::error(node.place(), "", message, "nest less deeply"));
        }
        let node = self.node(span, Kind::Sequence(Vec::new()));
        self.count(1, &node)?;
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Diagnosis> {
        match self.stack.pop() {
            Some(Open::Sequence {
                mut node,
                anchor,
                items,
            }) => {
                node.kind = Kind::Sequence(items);
                self.add(node, anchor)
            }
            Some(Open::Mapping {
                mut node,
                anchor,
                mut entries,
                merges,
                ..
            }) => {
                for entry in merges.into_iter().flat_map(into_entries) {
                    if entries.iter().all(|own| own.key != entry.key) {
                        entries.push(entry);
                    }
                }
                node.kind = Kind::Mapping(entries);
                self.add(node, anchor)
            }
            None => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Diagnosis> {
        let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
            let place = self.node(span, Kind::Sequence(Vec::new())).place();
            let message = "this alias stands inside of what it names, or before it";
            return Err(Diagnosis::error(
                place,
                "",
                message,
                "define the anchor (`&name`) before",
            ));
        };
        if self.stack.len() + depth(&node) > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep with its aliases");
            return Err(Diagnosis::error(node.place(), "", message, "nest less deeply"));
        }
        self.count(size, &node)?;
        self.add(node, 0)
    }

    /// Counts nodes before they are made, so that a bomb of aliases never unfolds.
    fn count(&mut self, more: usize, at: &Node) -> Result<(), Diagnosis> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!("more than {MAX_NODES} values, aliases expanded");
        Err(Diagnosis::error(
            at.place(),
            "",
            message,
            "split the document or repeat fewer aliases",
        ))
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Diagnosis> {
        if anchor > 0 {
            let size = size(&node);
            self.count(size, &node)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut() {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping {
                entries, key, merges, ..
            }) => match key.take() {
                None => *key = Some((key_text(&node)?, node.line)),
                Some((name, _)) if name == "<<" && !matches!(node.kind, Kind::Scalar { .. }) => {
                    match node.kind {
                        Kind::Sequence(items) => merges.extend(items),
                        _ => merges.push(node),
                    }
                }
                Some((name, line)) => add_entry(
                    entries,
                    Entry {
                        key: name,
                        line,
                        value: node,
                    },
                    &self.file,
                )?,
            },
        }
        Ok(())
    }
}

/// Above this many entries a mapping is searched for duplicates only among its last ones, to stay linear.
const SEARCHED: usize = 4096;

fn add_entry(entries: &mut Vec<Entry>, entry: Entry, file: &Arc<str>) -> Result<(), Diagnosis> {
    let from = entries.len().saturating_sub(SEARCHED);
    if let Some(first) = entries[from..].iter().find(|e| e.key == entry.key) {
        let message = format!("the key stands twice, first on line {}", first.line);
        let place = Place::line(file.to_string(), entry.line);
        return Err(Diagnosis::error(place, entry.key, message, "keep one of them"));
    }
    entries.push(entry);
    Ok(())
}

fn key_text(node: &Node) -> Result<String, Diagnosis> {
    match &node.kind {
        Kind::Scalar { text, .. } => Ok(text.clone()),
        _ => Err(Diagnosis::error(
            node.place(),
            "",
            format!("{} cannot be a key", node.describe()),
            "keys are texts; quote a value that starts with `{`, `[` or `<`",
        )),
    }
}

fn into_entries(node: Node) -> Vec<Entry> {
    match node.kind {
        Kind::Mapping(entries) => entries,
        _ => Vec::new(),
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Mapping(entries) => 1 + entries.iter().map(|e| size(&e.value)).sum::<usize>(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 0,
        Kind::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Mapping(entries) => 1 + entries.iter().map(|e| depth(&e.value)).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Node {
        parse(text, &Origin::file("a.yaml")).unwrap().remove(0)
    }

    #[test]
    fn remembers_lines_also_inside_a_block_of_another_file() {
        let outer = one("kind: X\nspec:\n  config: |\n    a:\n      b: 1\n");
        let config = outer.at_path(&["spec", "config"]).unwrap();
        assert_eq!(config.text_line(), 4);
        assert_eq!(one("a: |\n\n\n  x\n").get("a").unwrap().text_line(), 2);
        let origin = Origin::embedded("a.yaml", config.text_line());
        let inner = parse(config.as_str().unwrap(), &origin).unwrap().remove(0);
        assert_eq!(
            inner.at_path(&["a", "b"]).unwrap().place(),
            Place::line("a.yaml", 5)
        );
    }

    #[test]
    fn leaves_out_empty_documents() {
        assert!(parse("", &Origin::file("a")).unwrap().is_empty());
        assert!(
            parse("# only a comment\n---\n", &Origin::file("a"))
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            parse("---\na: 1\n---\n---\nb: 1\n", &Origin::file("a"))
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn names_a_key_that_stands_twice() {
        let error = parse("a: 1\nb: 2\na: 3\n", &Origin::file("x.yaml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.yaml:3: error: a: the key stands twice, first on line 1; keep one of them"
        );
    }

    #[test]
    fn resolves_aliases_and_merges_within_bounds() {
        let node = one("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n");
        assert_eq!(node.to_json()["use"], serde_json::json!({"y": 3, "x": 1}));
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(
            parse(&bomb, &Origin::file("x"))
                .unwrap_err()
                .message
                .contains("aliases")
        );
        assert!(parse(&"[".repeat(100_000), &Origin::file("x")).is_err());
    }

    #[test]
    fn a_broken_text_is_named_with_its_line() {
        let error = parse("a:\n  b: 1\n c: 2\n", &Origin::file("x.yaml")).unwrap_err();
        assert!(error.place.line.is_some_and(|l| l >= 2), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ a-c:\\[\\]{}&*,|>'\"\n#~!-]{0,200}") {
            let _ = parse(&text, &Origin::file("x"));
        }
    }
}
