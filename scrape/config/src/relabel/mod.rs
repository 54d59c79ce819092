//! Relabelling exactly as Prometheus does it: rules, compiled once, that change a set of labels or drop it. Pure.

mod pattern;
mod read;
mod template;

use md5::{Digest, Md5};
use regex::Regex;
use serde::Deserialize;

use crate::labels::{Builder, Labels};
use template::Template;

pub(crate) use read::rules;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sets the target label to the replacement when the pattern matches.
    #[default]
    Replace,
    /// Keeps only what matches.
    Keep,
    /// Drops what matches.
    Drop,
    /// Keeps only where the joined source labels equal the target label.
    KeepEqual,
    /// Drops where they do.
    DropEqual,
    /// Sets the target label to a hash of the joined source labels, modulo.
    HashMod,
    /// Copies labels whose names match to the replaced names.
    LabelMap,
    /// Takes away labels whose names match.
    LabelDrop,
    /// Takes away labels whose names do not.
    LabelKeep,
    /// Sets the target label to the joined source labels in lower case.
    Lowercase,
    /// The same in upper case.
    Uppercase,
}

impl Action {
    /// As the document writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Replace => "replace",
            Action::Keep => "keep",
            Action::Drop => "drop",
            Action::KeepEqual => "keepequal",
            Action::DropEqual => "dropequal",
            Action::HashMod => "hashmod",
            Action::LabelMap => "labelmap",
            Action::LabelDrop => "labeldrop",
            Action::LabelKeep => "labelkeep",
            Action::Lowercase => "lowercase",
            Action::Uppercase => "uppercase",
        }
    }
}

/// A rule as it is written, with defaults in place.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleText {
    /// Labels whose values are joined.
    pub source_labels: Vec<String>,
    /// What joins them.
    pub separator: String,
    /// The label that is set or compared.
    pub target_label: String,
    /// The pattern.
    pub regex: String,
    /// For `hashmod`.
    pub modulus: u64,
    /// What is put in.
    pub replacement: String,
    /// What is done.
    pub action: Action,
}

impl Default for RuleText {
    fn default() -> Self {
        RuleText {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            target_label: String::new(),
            regex: DEFAULT_REGEX.to_owned(),
            modulus: 0,
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Action::Replace,
        }
    }
}

pub(crate) const DEFAULT_REGEX: &str = "(.*)";
pub(crate) const DEFAULT_REPLACEMENT: &str = "$1";

/// How a value is matched: the usual patterns need no machine.
#[derive(Debug, Clone)]
enum Matcher {
    /// `(.*)`
    Any,
    /// A text.
    Literal(String),
    /// `(.+)`
    Some,
    Regex(Regex),
}

impl Matcher {
    fn is_match(&self, value: &str) -> bool {
        match self {
            Matcher::Any => true,
            Matcher::Some => !value.is_empty(),
            Matcher::Literal(text) => text == value,
            Matcher::Regex(regex) => regex.is_match(value),
        }
    }

    /// Expands a template when the value matches.
    fn expand(&self, template: &Template, value: &str, out: &mut String) -> bool {
        match self {
            Matcher::Any | Matcher::Some => {
                let matches = self.is_match(value);
                if matches {
                    template.expand_group(value, out);
                }
                matches
            }
            Matcher::Literal(text) => {
                if text == value {
                    template.expand_whole(value, out);
                }
                text == value
            }
            Matcher::Regex(regex) => match regex.captures(value) {
                Some(found) => {
                    template.expand(&found, out);
                    true
                }
                None => false,
            },
        }
    }
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    text: RuleText,
    matcher: Matcher,
    replacement: Template,
    target: Template,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Rule {
    /// Compiles a rule. The error says what is wrong with its pattern.
    pub fn new(text: RuleText) -> Result<Self, String> {
        let regex = pattern::compile(&text.regex)?;
        let replacement = Template::new(&text.replacement, Some(&regex));
        let target = Template::new(&text.target_label, Some(&regex));
        let matcher = match text.regex.as_str() {
            DEFAULT_REGEX => Matcher::Any,
            "(.+)" => Matcher::Some,
            literal if pattern::is_literal(literal) => Matcher::Literal(literal.to_owned()),
            _ => Matcher::Regex(regex),
        };
        Ok(Rule {
            text,
            matcher,
            replacement,
            target,
        })
    }

    /// As it is written.
    pub fn text(&self) -> &RuleText {
        &self.text
    }

    fn joined(&self, labels: &Builder) -> String {
        let mut joined = String::new();
        for (index, name) in self.text.source_labels.iter().enumerate() {
            if index > 0 {
                joined.push_str(&self.text.separator);
            }
            joined.push_str(labels.get(name));
        }
        joined
    }

    /// Changes the labels; `false` drops the target or sample.
    pub fn apply(&self, labels: &mut Builder) -> bool {
        let target = self.text.target_label.as_str();
        match self.text.action {
            Action::Keep => return self.matcher.is_match(&self.joined(labels)),
            Action::Drop => return !self.matcher.is_match(&self.joined(labels)),
            Action::KeepEqual => return labels.get(target) == self.joined(labels),
            Action::DropEqual => return labels.get(target) != self.joined(labels),
            Action::Replace => self.replace(labels),
            Action::Lowercase => labels.set(target, &lower(&self.joined(labels))),
            Action::Uppercase => labels.set(target, &upper(&self.joined(labels))),
            Action::HashMod => {
                let hash = hash_mod(&self.joined(labels), self.text.modulus);
                labels.set(target, &hash.to_string());
            }
            Action::LabelMap => self.map(labels),
            Action::LabelDrop => labels.retain(|name| !self.matcher.is_match(name)),
            Action::LabelKeep => labels.retain(|name| self.matcher.is_match(name)),
        }
        true
    }

    fn replace(&self, labels: &mut Builder) {
        let value = self.joined(labels);
        let mut replaced = String::new();
        if !self.matcher.expand(&self.replacement, &value, &mut replaced) {
            return;
        }
        match self.target.constant() {
            Some(target) => labels.set(target, &replaced),
            None => {
                let mut target = String::new();
                self.matcher.expand(&self.target, &value, &mut target);
                if !target.is_empty() {
                    labels.set(&target, &replaced);
                }
            }
        }
    }

    fn map(&self, labels: &mut Builder) {
        let mut mapped = Vec::new();
        for (name, value) in labels.iter() {
            let mut to = String::new();
            if self.matcher.expand(&self.replacement, name, &mut to) && !to.is_empty() {
                mapped.push((to, value.to_owned()));
            }
        }
        for (name, value) in mapped {
            labels.set(&name, &value);
        }
    }
}

/// In lower case, letter by letter as Go does it: the standard library's text would end a word in another sigma.
fn lower(text: &str) -> String {
    let simple = |c: char| c.to_lowercase().next().unwrap_or(c);
    text.chars().map(simple).collect()
}

/// In upper case, letter by letter as Go does it: what would become several letters stays as it is, and what has a form
/// for titles gets that.
fn upper(text: &str) -> String {
    let simple = |c: char| {
        let mut all = c.to_uppercase();
        match (all.next(), all.next()) {
            (Some(one), None) => one,
            _ => match c {
                '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
                    char::from_u32(u32::from(c) + 8).unwrap_or(c)
                }
                '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => char::from_u32(u32::from(c) + 9).unwrap_or(c),
                _ => c,
            },
        }
    };
    text.chars().map(simple).collect()
}

/// Prometheus' `hashmod`: the last eight bytes of MD5, modulo.
fn hash_mod(value: &str, modulus: u64) -> u64 {
    let digest: [u8; 16] = Md5::digest(value.as_bytes()).into();
    let last = digest
        .iter()
        .skip(8)
        .fold(0u64, |hash, byte| hash << 8 | u64::from(*byte));
    last.checked_rem(modulus).unwrap_or(0)
}

/// Applies rules in their order; `false` as soon as one drops.
pub fn apply(rules: &[Rule], labels: &mut Builder) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// Applies rules to a set; `None` if it is dropped.
pub fn relabel(rules: &[Rule], labels: &Labels) -> Option<Labels> {
    let mut builder = Builder::of(labels.clone());
    apply(rules, &mut builder).then(|| builder.labels())
}

#[cfg(test)]
mod tests;
