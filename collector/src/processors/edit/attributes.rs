//! A list of attributes, read in place and written with its changes.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use prost::Message;

use crate::wire::field::{Field, fields, put_delimited};

/// The attributes of a message, which hold field `number`.
pub(crate) struct Attributes<'a> {
    number: u32,
    entries: Vec<Entry<'a>>,
    changed: bool,
}

struct Entry<'a> {
    key: Cow<'a, str>,
    value: Value<'a>,
    /// As it was read, while it is unchanged.
    whole: Option<&'a [u8]>,
}

enum Value<'a> {
    /// The encoding of an `AnyValue`.
    Encoded(&'a [u8]),
    /// The same of one whose field stood several times, which means their concatenation.
    Joined(Vec<u8>),
    /// Written: the value, and the encoding of the `KeyValue`.
    Prepared(&'a Prepared),
    /// Written.
    Written(AnyValue),
}

/// An attribute that is written again and again, encoded once.
#[derive(Debug)]
pub(crate) struct Prepared {
    key: String,
    value: AnyValue,
    pair: Vec<u8>,
}

impl Prepared {
    /// Encodes an attribute.
    pub(crate) fn new(key: &str, value: AnyValue) -> Self {
        let pair = encode_pair(key, &value);
        Prepared {
            key: key.to_owned(),
            value,
            pair,
        }
    }
}

fn encode_pair(key: &str, value: &AnyValue) -> Vec<u8> {
    let pair = KeyValue {
        key: key.to_owned(),
        value: Some(value.clone()),
        ..KeyValue::default()
    };
    pair.encode_to_vec()
}

impl<'a> Attributes<'a> {
    /// Reads a message's attributes.
    pub(crate) fn read(message: &'a [u8], number: u32) -> Self {
        let own = fields(message).flatten().filter(|field| field.number == number);
        let mut entries = Vec::with_capacity(16);
        entries.extend(own.map(Entry::read));
        Attributes {
            number,
            entries,
            changed: false,
        }
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_ref())
    }

    /// Whether there is such an attribute.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// The value of an attribute.
    pub(crate) fn get(&self, key: &str) -> Option<AnyValue> {
        let entry = &self.entries[self.position(key)?];
        Some(match &entry.value {
            Value::Written(value) => value.clone(),
            Value::Prepared(prepared) => prepared.value.clone(),
            Value::Encoded(encoding) => AnyValue::decode(*encoding).unwrap_or_default(),
            Value::Joined(encoding) => AnyValue::decode(encoding.as_slice()).unwrap_or_default(),
        })
    }

    /// The value of an attribute that is a text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.get(key)?.value? {
            Variant::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// Sets an attribute, which is added at the end if it is not there.
    pub(crate) fn set(&mut self, key: &str, value: AnyValue) {
        self.put(Cow::Borrowed(key), Value::Written(value));
    }

    /// The same with what was encoded before.
    pub(crate) fn set_prepared(&mut self, prepared: &'a Prepared) {
        self.put(Cow::Borrowed(&prepared.key), Value::Prepared(prepared));
    }

    fn put(&mut self, key: Cow<'_, str>, value: Value<'a>) {
        self.changed = true;
        match self.position(&key) {
            Some(index) => {
                let entry = &mut self.entries[index];
                (entry.value, entry.whole) = (value, None);
            }
            None => {
                let key = match &value {
                    Value::Prepared(prepared) => Cow::Borrowed(prepared.key.as_str()),
                    _ => Cow::Owned(key.into_owned()),
                };
                self.entries.push(Entry {
                    key,
                    value,
                    whole: None,
                });
            }
        }
    }

    /// Removes every attribute that is to go.
    pub(crate) fn remove(&mut self, goes: impl Fn(&str) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| !goes(&entry.key));
        self.changed |= self.entries.len() != before;
    }

    /// The message with these attributes; `None` if nothing has changed.
    pub(crate) fn write(&self, message: &[u8]) -> Option<Vec<u8>> {
        if !self.changed {
            return None;
        }
        let mut out = Vec::with_capacity(message.len() + 64);
        let mut written = false;
        for field in fields(message).flatten() {
            if field.number != self.number {
                out.extend_from_slice(field.whole);
            } else if !std::mem::replace(&mut written, true) {
                self.write_entries(&mut out);
            }
        }
        if !written {
            self.write_entries(&mut out);
        }
        Some(out)
    }

    fn write_entries(&self, out: &mut Vec<u8>) {
        for entry in &self.entries {
            match (entry.whole, &entry.value) {
                (Some(whole), _) => out.extend_from_slice(whole),
                (None, Value::Prepared(prepared)) => put_delimited(out, self.number, &prepared.pair),
                (None, Value::Written(value)) => {
                    put_delimited(out, self.number, &encode_pair(&entry.key, value));
                }
                // An entry without its own bytes has been written to.
                (None, Value::Encoded(_) | Value::Joined(_)) => {}
            }
        }
    }
}

impl<'a> Entry<'a> {
    fn read(field: Field<'a>) -> Self {
        let (mut key, mut value) = ("", None);
        for part in fields(field.value).flatten() {
            match (part.number, value.take()) {
                (1, before) => (key, value) = (part.text(), before),
                (2, None) => value = Some(Value::Encoded(part.value)),
                (2, Some(Value::Encoded(first))) => value = Some(Value::Joined([first, part.value].concat())),
                (2, Some(Value::Joined(mut joined))) => {
                    joined.extend_from_slice(part.value);
                    value = Some(Value::Joined(joined));
                }
                (_, before) => value = before,
            }
        }
        Entry {
            key: Cow::Borrowed(key),
            value: value.unwrap_or(Value::Encoded(&[])),
            whole: Some(field.whole),
        }
    }
}

/// A value of the document as an attribute's.
pub(crate) fn value_of(json: &serde_json::Value) -> AnyValue {
    let variant = match json {
        serde_json::Value::Null => None,
        serde_json::Value::Bool(value) => Some(Variant::BoolValue(*value)),
        serde_json::Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Variant::IntValue(value),
            (None, value) => Variant::DoubleValue(value.unwrap_or_default()),
        }),
        serde_json::Value::String(text) => Some(Variant::StringValue(text.clone())),
        serde_json::Value::Array(items) => Some(Variant::ArrayValue(ArrayValue {
            values: items.iter().map(value_of).collect(),
        })),
        serde_json::Value::Object(entries) => {
            let values = entries.iter().map(|(key, value)| KeyValue {
                key: key.clone(),
                value: Some(value_of(value)),
                ..KeyValue::default()
            });
            Some(Variant::KvlistValue(KeyValueList {
                values: values.collect(),
            }))
        }
    };
    AnyValue { value: variant }
}

/// A text as an attribute's value.
pub(crate) fn text(text: impl Into<String>) -> AnyValue {
    AnyValue {
        value: Some(Variant::StringValue(text.into())),
    }
}
