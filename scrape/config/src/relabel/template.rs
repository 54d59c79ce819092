//! Replacements: `$1`, `${name}`, `$$`, as Go's `Regexp.Expand` reads them.

use regex::{Captures, Regex};

/// A replacement, read once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Template {
    /// Reads a template for a pattern. A group that the pattern does not have stands for nothing.
    pub(super) fn new(template: &str, regex: Option<&Regex>) -> Self {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('$') {
            text.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                text.push('$');
                rest = after;
                continue;
            }
            let Some((name, after)) = reference(after) else {
                text.push('$');
                rest = after;
                continue;
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            if let Some(group) = group(name, regex) {
                parts.push(Part::Group(group));
            }
            rest = after;
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Template { parts }
    }

    /// Puts the groups in.
    pub(super) fn expand(&self, captures: &Captures<'_>, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => out.push_str(captures.get(*group).map_or("", |m| m.as_str())),
            }
        }
    }

    /// Puts the one value in that is the whole and the first group of `(.*)`.
    pub(super) fn expand_group(&self, value: &str, out: &mut String) {
        self.expand_up_to(1, value, out);
    }

    /// Puts the whole in, which is all that a pattern without groups has.
    pub(super) fn expand_whole(&self, value: &str, out: &mut String) {
        self.expand_up_to(0, value, out);
    }

    fn expand_up_to(&self, last: usize, value: &str, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) if *group <= last => out.push_str(value),
                Part::Group(_) => {}
            }
        }
    }

    /// The text, if there is no reference in it.
    pub(super) fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Reads `name` or `{name}` at the start of a text; `None` if neither is there.
fn reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{').unwrap_or(text);
    let end = inner
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(inner.len());
    if end == 0 {
        return None;
    }
    let (name, rest) = inner.split_at(end);
    match text.starts_with('{') {
        true => rest.strip_prefix('}').map(|rest| (name, rest)),
        false => Some((name, rest)),
    }
}

/// The group of a name or number.
fn group(name: &str, regex: Option<&Regex>) -> Option<usize> {
    let number = name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if number {
        return name.parse().ok();
    }
    regex?.capture_names().position(|group| group == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(pattern: &str, template: &str, value: &str) -> String {
        let regex = Regex::new(pattern).unwrap();
        let mut out = String::new();
        Template::new(template, Some(&regex)).expand(&regex.captures(value).unwrap(), &mut out);
        out
    }

    /// From the documentation of Go's `Regexp.Expand`.
    #[test]
    fn expands_as_go() {
        let pattern = "(a)(?P<n>b)(c)?";
        for (template, expected) in [
            ("$1", "a"),
            ("${1}x", "ax"),
            ("$1x", ""),
            ("$n-$2", "b-b"),
            ("$3", ""),
            ("$0", "ab"),
            ("$9", ""),
            ("$01", ""),
            ("$$1", "$1"),
            ("$", "$"),
            ("a$-b", "a$-b"),
            ("${1", "${1"),
            ("${}", "${}"),
            ("${n}$${2}", "b${2}"),
            ("$missing.", "."),
        ] {
            assert_eq!(expand(pattern, template, "ab"), expected, "{template}");
        }
    }
}
