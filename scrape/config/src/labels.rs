//! Label sets: compact, sorted, immutable; and the builder that changes them.
//!
//! A million targets are held at once, so a set is one allocation: for each label, by name, a code of a well-known name,
//! or the number of one that was learned, or 0 and the name itself; and the value. Lengths and numbers are in bytes below
//! 128, which keeps the whole a `str`.

use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh64::Xxh64;

use crate::names::{NAMES, code_of, learn, learned};

/// Labels that start so are internal: they do not become labels of series.
pub const RESERVED_PREFIX: &str = "__";
/// Labels that discovery gives; they are gone after relabelling.
pub const META_PREFIX: &str = "__meta_";
/// First values of a scrape's parameters.
pub const PARAM_PREFIX: &str = "__param_";
/// Where a target is: `host:port`.
pub const ADDRESS: &str = "__address__";
/// `http` or `https`.
pub const SCHEME: &str = "__scheme__";
/// The path that is scraped.
pub const METRICS_PATH: &str = "__metrics_path__";
/// How often.
pub const SCRAPE_INTERVAL: &str = "__scrape_interval__";
/// For how long at most.
pub const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
/// The name of a series.
pub const NAME: &str = "__name__";
/// The job.
pub const JOB: &str = "job";
/// The instance.
pub const INSTANCE: &str = "instance";

/// A sorted set of labels with values; a label without a value is not there. Clones share it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels(Arc<str>);

impl Labels {
    /// A set of these labels. Of several with one name the last counts.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
        // A stable sort keeps what was written last behind what it replaces.
        pairs.sort_by_key(|(name, _)| *name);
        Labels::sorted(&pairs)
    }

    /// `pairs` are sorted by name; of several with one name the last counts.
    fn sorted(pairs: &[(&str, &str)]) -> Self {
        let mut text = String::with_capacity(pairs.iter().map(|(_, value)| value.len() + 8).sum());
        for (index, (name, value)) in pairs.iter().enumerate() {
            let replaced = pairs.get(index + 1).is_some_and(|(next, _)| next == name);
            if !replaced {
                put(&mut text, name, value);
            }
        }
        Labels(text.into())
    }

    /// What several sets and some more labels say together. Of several labels with one name the last counts; that of
    /// `more` before all. What is written in a set already is copied as it is.
    pub fn merged<'a>(sets: impl IntoIterator<Item = &'a Labels>, more: &[(&'a str, &'a str)]) -> Self {
        let mut entries: Vec<(&str, Piece<'_>)> = Vec::with_capacity(64);
        for set in sets {
            entries.extend(set.pieces().map(|(name, piece)| (name, Piece::Written(piece))));
        }
        entries.extend(more.iter().map(|(name, value)| (*name, Piece::Value(value))));
        // A stable sort, and a quick one, as the sets are sorted.
        entries.sort_by_key(|(name, _)| *name);
        let mut text = String::with_capacity(entries.iter().map(|(_, piece)| piece.room()).sum());
        for (index, (name, piece)) in entries.iter().enumerate() {
            if entries.get(index + 1).is_some_and(|(next, _)| next == name) {
                continue;
            }
            match piece {
                Piece::Written(piece) => text.push_str(piece),
                Piece::Value(value) => put(&mut text, name, value),
            }
        }
        Labels(text.into())
    }

    /// The labels whose names are wanted; the same set when all are.
    fn filtered(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let mut text = String::new();
        for (_, piece) in self.pieces().filter(|(name, _)| wanted(name)) {
            text.push_str(piece);
        }
        match text.len() == self.0.len() {
            true => self.clone(),
            false => Labels(text.into()),
        }
    }

    /// Each label's name and how it is written here.
    fn pieces(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut iter = self.iter();
        std::iter::from_fn(move || {
            let before = iter.rest;
            let (name, _) = iter.next()?;
            Some((name, &before[..before.len() - iter.rest.len()]))
        })
    }

    /// The labels, by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// The value of a label; empty if it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.iter()
            .find(|(other, _)| *other == name)
            .map_or("", |(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Its size in memory, for figures.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// xxHash64 of names and values, each followed by 0xff, as Prometheus hashes label sets.
    pub fn hash64(&self) -> u64 {
        let mut hash = Xxh64::new(0);
        self.hash_into(&mut hash, |_| true);
        hash.digest()
    }

    /// Adds the labels whose names are wanted to a hash.
    pub(crate) fn hash_into(&self, hash: &mut Xxh64, wanted: impl Fn(&str) -> bool) {
        for (name, value) in self.iter().filter(|(name, _)| wanted(name)) {
            hash.update(name.as_bytes());
            hash.update(&[0xff]);
            hash.update(value.as_bytes());
            hash.update(&[0xff]);
        }
    }
}

/// A label that goes into a set.
enum Piece<'a> {
    /// As another set has it written.
    Written(&'a str),
    /// Its value.
    Value(&'a str),
}

impl Piece<'_> {
    fn room(&self) -> usize {
        match self {
            Piece::Written(piece) => piece.len(),
            Piece::Value(value) => value.len() + 40,
        }
    }
}

/// Writes a label; one without name or value is not there.
fn put(text: &mut String, name: &str, value: &str) {
    if value.is_empty() || name.is_empty() {
        return;
    }
    match code_of(name) {
        Some(code) => text.push(char::from(code)),
        None => match learn(name) {
            Some(number) => {
                text.push(LEARNED);
                text.push(char::from((number & 127) as u8));
                text.push(char::from((number >> 7) as u8 & 127));
            }
            None => {
                text.push('\0');
                put_length(text, name.len());
                text.push_str(name);
            }
        },
    }
    put_length(text, value.len());
    text.push_str(value);
}

/// Stands before the number of a learned name.
const LEARNED: char = '\u{7f}';

fn take_number(text: &mut &str) -> u16 {
    let number = match text.as_bytes() {
        [low, high, ..] => u16::from(*low) | u16::from(*high) << 7,
        _ => u16::MAX,
    };
    *text = text.get(2..).unwrap_or_default();
    number
}

fn put_length(text: &mut String, length: usize) {
    let mut rest = length;
    while rest >= 64 {
        text.push(char::from((rest & 63) as u8 | 64));
        rest >>= 6;
    }
    text.push(char::from(rest as u8));
}

fn take_length(text: &mut &str) -> usize {
    let (mut length, mut shift) = (0, 0);
    for (index, byte) in text.bytes().enumerate() {
        length |= usize::from(byte & 63) << shift;
        shift += 6;
        if byte < 64 {
            *text = &text[index + 1..];
            break;
        }
    }
    length
}

fn take_text<'a>(text: &mut &'a str) -> &'a str {
    let length = take_length(text);
    let (value, rest) = text.split_at(length);
    *text = rest;
    value
}

/// See [`Labels::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let code = *self.rest.as_bytes().first()?;
        self.rest = &self.rest[1..];
        let name = match code {
            0 => take_text(&mut self.rest),
            0x7f => learned(take_number(&mut self.rest)),
            code => NAMES[usize::from(code) - 1],
        };
        Some((name, take_text(&mut self.rest)))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// As Prometheus writes it: `{a="b", c="d"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels with their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    if pair.0.is_empty() {
                        return Err(serde::de::Error::custom("the name of a label is empty"));
                    }
                    pairs.push(pair);
                }
                Ok(Labels::of(
                    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                ))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Changes a set of labels. Kept and reset, so that its memory is used again.
#[derive(Debug, Default)]
pub struct Builder {
    base: Labels,
    added: Vec<(String, String)>,
    removed: Vec<String>,
}

impl Builder {
    /// Starts from a set.
    pub fn of(base: Labels) -> Self {
        Builder {
            base,
            ..Builder::default()
        }
    }

    /// Starts again from another set.
    pub fn reset(&mut self, base: Labels) {
        self.base = base;
        self.added.clear();
        self.removed.clear();
    }

    /// The value of a label; empty if it is not there.
    pub fn get(&self, name: &str) -> &str {
        if let Some((_, value)) = self.added.iter().find(|(other, _)| other == name) {
            return value;
        }
        match self.removed.iter().any(|other| other == name) {
            true => "",
            false => self.base.get(name),
        }
    }

    /// Gives a label a value; an empty one takes it away.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.added.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => {
                old.clear();
                old.push_str(value);
            }
            None => self.added.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes a label away.
    pub fn remove(&mut self, name: &str) {
        self.added.retain(|(other, _)| other != name);
        if !self.removed.iter().any(|other| other == name) && !self.base.get(name).is_empty() {
            self.removed.push(name.to_owned());
        }
    }

    /// The labels as they are now, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let kept = self.base.iter().filter(|(name, _)| {
            !self.removed.iter().any(|other| other == name)
                && !self.added.iter().any(|(other, _)| other == name)
        });
        let added = self
            .added
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        kept.chain(added)
    }

    /// Takes away every label that is not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.added.retain(|(name, _)| wanted(name));
        self.base = self.base.filtered(wanted);
    }

    /// The set as it is now.
    pub fn labels(&self) -> Labels {
        if self.added.is_empty() && self.removed.is_empty() {
            return self.base.clone();
        }
        let mut pairs: Vec<(&str, &str)> = self.iter().collect();
        pairs.sort_unstable_by_key(|(name, _)| *name);
        Labels::sorted(&pairs)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_as_prometheus_does() {
        // xxHash64 of "a\xffb\xffc\xffd\xff".
        let labels = Labels::of([("c", "d"), ("a", "b")]);
        assert_eq!(
            labels.hash64(),
            xxhash_rust::xxh64::xxh64(b"a\xffb\xffc\xffd\xff", 0)
        );
        assert_eq!(labels.to_string(), r#"{a="b", c="d"}"#);
    }

    #[test]
    fn is_a_map_in_json() {
        let text = r#"{"__address__":"a:1","z":"2"}"#;
        let labels: Labels = serde_json::from_str(text).unwrap();
        assert_eq!(labels.get("__address__"), "a:1");
        assert_eq!(serde_json::to_string(&labels).unwrap(), text);
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]{0,2}",
            "__meta_[a-c]{0,2}",
            (0..NAMES.len()).prop_map(|index| NAMES[index].to_owned()),
            "\\PC{1,100}",
        ]
    }

    proptest! {
        #[test]
        fn a_builder_is_a_map(
            first in proptest::collection::vec((name(), "\\PC{0,200}"), 0..20),
            changes in proptest::collection::vec((name(), prop_oneof![Just(String::new()), "\\PC{0,9}"]), 0..20),
        ) {
            let mut model: BTreeMap<String, String> = first.iter().cloned().collect();
            model.retain(|name, value| !name.is_empty() && !value.is_empty());
            let labels = Labels::of(first.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert!(labels.iter().eq(model.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
            let mut builder = Builder::of(labels);
            for (name, value) in changes.iter().filter(|(name, _)| !name.is_empty()) {
                builder.set(name, value);
                match value.is_empty() {
                    true => model.remove(name),
                    false => model.insert(name.clone(), value.clone()),
                };
                prop_assert_eq!(builder.get(name), value.as_str());
            }
            let labels = builder.labels();
            prop_assert!(labels.iter().eq(model.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
            let (half, rest): (Vec<_>, Vec<_>) = first.iter().partition(|(name, _)| name.len() % 2 == 0);
            let set = |pairs: &[&(String, String)]| Labels::of(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let more: Vec<(&str, &str)> = changes
                .iter()
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            let merged = Labels::merged([&set(&half), &set(&rest)], &more);
            let mut expected: BTreeMap<&str, &str> =
                first.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            expected.extend(more.iter().copied());
            expected.retain(|name, value| !name.is_empty() && !value.is_empty());
            prop_assert!(merged.iter().eq(expected.iter().map(|(n, v)| (*n, *v))));
            builder.retain(|name| name.len() > 3);
            model.retain(|name, _| name.len() > 3);
            prop_assert!(builder.labels().iter().eq(model.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
        }
    }
}
