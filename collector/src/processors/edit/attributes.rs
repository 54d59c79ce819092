//! A list of attributes, read in place and written with its changes.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use prost::Message;

use super::splice::Splice;
use crate::wire::field::{Field, fields, plain_pair, put_delimited};

/// The attributes of a message, which hold field `number`.
pub(crate) struct Attributes<'a> {
    number: u32,
    entries: Vec<Entry<'a>>,
    changed: bool,
    around: Around<'a>,
}

/// What stands around the attributes of a message.
#[derive(Clone, Copy)]
enum Around<'a> {
    /// Nothing stands between them: what comes before them and after them.
    Beside(&'a [u8], &'a [u8]),
    /// They are strewn about.
    Between,
}

pub(super) struct Entry<'a> {
    /// UTF-8, as all that was scanned.
    key: Cow<'a, [u8]>,
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
        Attributes::read_into(Vec::with_capacity(16), message, number)
    }

    /// The same, in the memory of another list.
    pub(super) fn read_into(mut entries: Vec<Entry<'a>>, message: &'a [u8], number: u32) -> Self {
        entries.clear();
        let (mut runs, mut inside) = (0, false);
        let (mut start, mut end) = (message.len(), message.len());
        let at = |bytes: &[u8]| bytes.as_ptr() as usize - message.as_ptr() as usize;
        for field in fields(message).flatten() {
            if field.number != number {
                inside = false;
                continue;
            }
            if !std::mem::replace(&mut inside, true) {
                start = if runs == 0 { at(field.whole) } else { start };
                runs += 1;
            }
            end = at(field.whole) + field.whole.len();
            entries.push(Entry::read(field));
        }
        let around = match runs {
            0 | 1 => Around::Beside(&message[..start], &message[end..]),
            _ => Around::Between,
        };
        Attributes {
            number,
            entries,
            changed: false,
            around,
        }
    }

    /// Its memory.
    pub(super) fn into_entries(self) -> Vec<Entry<'a>> {
        self.entries
    }

    fn position(&self, key: &str) -> Option<usize> {
        let key = key.as_bytes();
        self.entries.iter().position(|entry| *entry.key == *key)
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(Entry::name)
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
                    Value::Prepared(prepared) => Cow::Borrowed(prepared.key.as_bytes()),
                    _ => Cow::Owned(key.into_owned().into_bytes()),
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
        self.entries.retain(|entry| !goes(entry.name()));
        self.changed |= self.entries.len() != before;
    }

    /// Removes an attribute.
    pub(crate) fn remove_one(&mut self, key: &str) {
        let (before, key) = (self.entries.len(), key.as_bytes());
        self.entries.retain(|entry| *entry.key != *key);
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

    /// Writes the message with these attributes, if they have changed: whether they have.
    pub(super) fn splice(&self, out: &mut Splice<'a>, message: &'a [u8]) -> bool {
        if !self.changed {
            return false;
        }
        if let Around::Beside(before, after) = self.around {
            out.stays(before);
            self.splice_entries(out);
            out.stays(after);
            return true;
        }
        let mut written = false;
        for field in fields(message).flatten() {
            if field.number != self.number {
                out.stays(field.whole);
            } else if !std::mem::replace(&mut written, true) {
                self.splice_entries(out);
            }
        }
        if !written {
            self.splice_entries(out);
        }
        true
    }

    fn splice_entries(&self, out: &mut Splice<'a>) {
        for entry in &self.entries {
            match (entry.whole, &entry.value) {
                (Some(whole), _) => out.stays(whole),
                (None, Value::Prepared(prepared)) => out.write(self.number, &prepared.pair),
                (None, Value::Written(value)) => out.write(self.number, &encode_pair(entry.name(), value)),
                // As below.
                (None, Value::Encoded(_) | Value::Joined(_)) => {}
            }
        }
    }

    fn write_entries(&self, out: &mut Vec<u8>) {
        for entry in &self.entries {
            match (entry.whole, &entry.value) {
                (Some(whole), _) => out.extend_from_slice(whole),
                (None, Value::Prepared(prepared)) => put_delimited(out, self.number, &prepared.pair),
                (None, Value::Written(value)) => {
                    put_delimited(out, self.number, &encode_pair(entry.name(), value));
                }
                // An entry without its own bytes has been written to.
                (None, Value::Encoded(_) | Value::Joined(_)) => {}
            }
        }
    }
}

impl<'a> Entry<'a> {
    fn name(&self) -> &str {
        std::str::from_utf8(&self.key).unwrap_or("")
    }

    #[inline]
    fn read(field: Field<'a>) -> Self {
        match plain_pair(field.value) {
            Some((key, value)) => Entry {
                key: Cow::Borrowed(key),
                value: Value::Encoded(value),
                whole: Some(field.whole),
            },
            None => Entry::read_any(field),
        }
    }

    /// A pair in whatever order, with whatever else.
    fn read_any(field: Field<'a>) -> Self {
        let (mut key, mut value) = (&[][..], None);
        for part in fields(field.value).flatten() {
            match (part.number, value.take()) {
                (1, before) => (key, value) = (part.value, before),
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
