//! Blocks whose keys belong to several types ("squashed" in the Collector): the keys are shared out by who knows them.

use serde::de::DeserializeOwned;

use super::{Kind, Node, closest, join_key};
use crate::yaml;
use crate::{Diagnosis, Place};

/// A block being shared out.
#[derive(Debug)]
pub struct Parts<'a> {
    node: &'a Node,
    key: &'a str,
    known: Vec<&'static str>,
}

impl<'a> Parts<'a> {
    /// A block and its key path.
    pub fn of(node: &'a Node, key: &'a str) -> Self {
        Parts {
            node,
            key,
            known: Vec::new(),
        }
    }

    /// The part made of the keys that a type knows.
    pub fn take<T: DeserializeOwned>(&mut self, diagnoses: &mut Vec<Diagnosis>) -> Option<T> {
        let names = yaml::fields::<T>();
        self.known.extend(names);
        let entries = self
            .node
            .entries()
            .iter()
            .filter(|e| names.contains(&e.key.as_str()))
            .cloned()
            .collect();
        yaml::decode_at(&self.node.sibling(Kind::Mapping(entries)), self.key, diagnoses)
    }

    /// Keys that are read in another way.
    pub fn knows(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Reports the keys that nobody knows, and a value that is no block.
    pub fn finish(self, diagnoses: &mut Vec<Diagnosis>) {
        if !matches!(self.node.kind, Kind::Mapping(_)) && !self.node.is_null() {
            let message = format!("a mapping is needed, {} is here", self.node.describe());
            diagnoses.push(Diagnosis::error(
                self.node.place(),
                self.key,
                message,
                "indent its keys below it",
            ));
        }
        for entry in self.node.entries() {
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let mend = match closest(&entry.key, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let place = Place {
                line: Some(entry.line),
                column: None,
                ..entry.value.place()
            };
            diagnoses.push(Diagnosis::error(
                place,
                join_key(self.key, &entry.key),
                "unknown key",
                mend,
            ));
        }
    }
}
