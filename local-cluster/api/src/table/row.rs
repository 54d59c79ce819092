//! What cells are made of: an object, read with kubectl's words for what is missing.

use super::age;
use jiff::Timestamp;
use serde_json::{Value, json};

/// An object at a moment, or a part of one.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) object: &'a Value,
    pub(super) now: Timestamp,
}

impl<'a> Row<'a> {
    pub(super) fn text(self, pointer: &str) -> &'a str {
        crate::store::text(self.object, pointer)
    }

    pub(super) fn name(self) -> Value {
        json!(self.text("/metadata/name"))
    }

    pub(super) fn age(self) -> Value {
        json!(age(self.text("/metadata/creationTimestamp"), self.now))
    }

    /// The text, or `<none>`.
    pub(super) fn words(self, pointer: &str) -> Value {
        json!(or_none(self.text(pointer)))
    }

    pub(super) fn number(self, pointer: &str) -> Value {
        json!(self.object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0))
    }

    /// How many elements or fields.
    pub(super) fn size(self, pointer: &str) -> usize {
        match self.object.pointer(pointer) {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    pub(super) fn flag(self, pointer: &str) -> bool {
        self.object
            .pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    pub(super) fn list(self, pointer: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let now = self.now;
        let list = self.object.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().map(move |object| Row { object, now })
    }

    pub(super) fn texts(self, pointer: &str) -> Vec<&'a str> {
        self.list(pointer).filter_map(|r| r.object.as_str()).collect()
    }

    /// A map as `a=b,c=d`, or `<none>`.
    pub(super) fn pairs(self, pointer: &str) -> String {
        let map = self.object.pointer(pointer).and_then(Value::as_object);
        let pair = |(k, v): (&String, &Value)| format!("{k}={}", v.as_str().unwrap_or(""));
        let pairs: Vec<String> = map.into_iter().flatten().map(pair).collect();
        or_none(&pairs.join(",")).to_owned()
    }

    /// Addresses that a load balancer was given.
    pub(super) fn balancers(self) -> Vec<&'a str> {
        let addresses = self.list("/status/loadBalancer/ingress");
        addresses
            .map(|i| {
                if i.text("/ip").is_empty() {
                    i.text("/hostname")
                } else {
                    i.text("/ip")
                }
            })
            .collect()
    }
}

pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// Up to three, and how many more.
pub(super) fn some<T: AsRef<str>>(items: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = match items.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!(" + {more} more..."),
        _ => String::new(),
    };
    shown.join(",") + &more
}
