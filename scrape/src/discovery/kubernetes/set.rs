//! Labels being collected, and what is the same for many objects, once.

use std::collections::HashSet;

use karez_scrape_config::labels::{ADDRESS, Labels};

use super::raw::{Map, Meta};

const PREFIX: &str = "__meta_kubernetes_";

/// A name of a label as Prometheus makes it of any text.
pub(in crate::discovery) fn sanitize(name: &str) -> String {
    let mut fits = String::with_capacity(name.len());
    sanitized(name, &mut fits);
    fits
}

fn sanitized(name: &str, out: &mut String) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    out.extend(name.chars().map(|c| if fits(c) { c } else { '_' }));
}

/// Labels being collected: names and values one behind the other. Kept and emptied, so that its memory is used again.
#[derive(Default)]
pub(super) struct Set {
    text: String,
    /// Where each name ends, and its value.
    ends: Vec<(usize, usize)>,
}

impl Set {
    /// A label whose name is put together, behind the usual beginning.
    pub(super) fn put_parts(&mut self, name: &[&str], value: &str) {
        self.text.push_str(PREFIX);
        name.iter().for_each(|part| self.text.push_str(part));
        self.value(value);
    }

    pub(super) fn put(&mut self, name: &str, value: &str) {
        self.put_parts(&[name], value);
    }

    /// A label with that name.
    pub(super) fn exactly(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        self.value(value);
    }

    pub(super) fn number(&mut self, name: &str, value: i32) {
        self.put(name, &value.to_string());
    }

    pub(super) fn flag(&mut self, name: &[&str], value: bool) {
        self.put_parts(name, if value { "true" } else { "false" });
    }

    pub(super) fn address(&mut self, address: &str) {
        self.exactly(ADDRESS, address);
    }

    fn value(&mut self, value: &str) {
        let name = self.text.len();
        self.text.push_str(value);
        self.ends.push((name, self.text.len()));
    }

    /// Name, labels and annotations of an object.
    pub(super) fn object(&mut self, role: &str, meta: &Meta<'_>) {
        self.put_parts(&[role, "_name"], &meta.name);
        self.attached(role, meta);
    }

    /// Labels and annotations of an object.
    pub(super) fn attached(&mut self, role: &str, meta: &Meta<'_>) {
        self.map(role, ["_label_", "_labelpresent_"], &meta.labels);
        self.map(role, ["_annotation_", "_annotationpresent_"], &meta.annotations);
    }

    fn map(&mut self, role: &str, kinds: [&str; 2], map: &Map<'_>) {
        for (name, value) in &map.0 {
            for (kind, value) in kinds.iter().zip([&**value, "true"]) {
                self.text.push_str(PREFIX);
                self.text.push_str(role);
                self.text.push_str(kind);
                sanitized(name, &mut self.text);
                self.value(value);
            }
        }
    }

    /// The labels; what is put next begins others.
    pub(super) fn take(&mut self) -> Labels {
        let mut start = 0;
        let pairs = self.ends.iter().map(|(name, value)| {
            let pair = (&self.text[start..*name], &self.text[*name..*value]);
            start = *value;
            pair
        });
        let labels = Labels::of(pairs);
        self.text.clear();
        self.ends.clear();
        labels
    }
}

/// Sets that many objects have alike: all of them share one.
#[derive(Default)]
pub(super) struct Shared(HashSet<Labels>);

impl Shared {
    pub(super) fn one(&mut self, labels: Labels) -> Labels {
        match self.0.get(&labels) {
            Some(known) => known.clone(),
            None => {
                self.0.insert(labels.clone());
                labels
            }
        }
    }
}

pub(super) fn host_port(host: &str, port: i32) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
