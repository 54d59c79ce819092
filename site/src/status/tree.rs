//! A tree as Skupper 1.0.1 prints it: glyphs, details below an item, children below the details.
//!
//! ```text
//! Sites:
//! ├─ [local] d529a86 - edge-site␠
//! │  mode: edge
//! │  ╰─ Services:
//! │     ╰─ name: otel-liked-collector
//! ╰─ [remote] d454838 - public-site␠
//! ```
//! Details are sorted by their key, empty ones are left out, and they stand at the level of their
//! item's children without a bar of their own. Pure: a tree goes in, text comes out.

use std::collections::BTreeMap;

/// One item of a tree, its details and what is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    text: String,
    details: BTreeMap<String, String>,
    children: Vec<Tree>,
}

impl Tree {
    /// An item with nothing below it.
    pub fn new(text: impl Into<String>) -> Tree {
        Tree {
            text: text.into(),
            ..Tree::default()
        }
    }

    /// Adds a detail; an empty value is not printed.
    pub fn detail(mut self, key: &str, value: impl Into<String>) -> Tree {
        let value = value.into();
        if !value.is_empty() {
            self.details.insert(key.to_owned(), value);
        }
        self
    }

    /// Adds an item below this one, after those that are there.
    pub fn child(mut self, child: Tree) -> Tree {
        self.children.push(child);
        self
    }

    /// Adds items below this one, in their order.
    pub fn children(mut self, children: impl IntoIterator<Item = Tree>) -> Tree {
        self.children.extend(children);
        self
    }

    /// The printed tree, each line ended by a newline.
    pub fn render(&self) -> String {
        let mut out = String::new();
        out.push_str(&self.text);
        out.push('\n');
        self.render_below("", &mut out);
        out
    }

    fn render_below(&self, indent: &str, out: &mut String) {
        for (key, value) in &self.details {
            out.push_str(&format!("{indent}{key}: {value}\n"));
        }
        for (index, child) in self.children.iter().enumerate() {
            let last = index + 1 == self.children.len();
            let (branch, below) = if last {
                ("╰─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            out.push_str(&format!("{indent}{branch}{}\n", child.text));
            child.render_below(&format!("{indent}{below}"), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_come_sorted_and_empty_ones_are_left_out() {
        let tree = Tree::new("Sites:").child(
            Tree::new("a ")
                .detail("version", "1")
                .detail("URL", "")
                .detail("name", "a")
                .child(Tree::new("b")),
        );
        assert_eq!(
            tree.render(),
            "Sites:\n╰─ a \n   name: a\n   version: 1\n   ╰─ b\n"
        );
    }

    #[test]
    fn only_the_last_item_closes_its_branch() {
        let tree = Tree::new("x")
            .child(Tree::new("1").child(Tree::new("1.1").detail("d", "e")))
            .child(Tree::new("2"));
        assert_eq!(tree.render(), "x\n├─ 1\n│  ╰─ 1.1\n│     d: e\n╰─ 2\n");
    }
}
