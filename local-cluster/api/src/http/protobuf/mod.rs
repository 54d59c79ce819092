//! The few objects that kubectl sends as protobuf and nothing else (`kubectl create configmap`, `create token`, …).
//!
//! A table for each message says what its fields are called. A field that no table knows is refused, not lost.

mod tables;

use crate::error::ApiError;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tables::{
    Form::{
        self, Bytes, BytesMap, Flag, IntOrString, Integer, Message, Messages, Text, TextMap, Texts, Time,
    },
    Table, table,
};

pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

fn unsupported(what: &str) -> ApiError {
    let words = format!(
        "{what} as protobuf is not understood here; send JSON or YAML (kubectl create --dry-run=client -o yaml … | kubectl apply -f -)"
    );
    ApiError::new(415, "UnsupportedMediaType", words)
}

fn torn() -> ApiError {
    ApiError::bad_request("the body is no well-formed protobuf")
}

/// A body as JSON.
pub(super) fn decode(body: &[u8]) -> Result<Value, ApiError> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(torn)?;
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let types = message(type_meta, &[(1, "apiVersion", Text), (2, "kind", Text)], 0)?;
    let kind = types.get("kind").and_then(Value::as_str).unwrap_or_default();
    let fields = table(kind).ok_or_else(|| unsupported(kind))?;
    let mut object = types.clone();
    object.extend(message(raw, fields, 0)?);
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(torn);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn message(bytes: &[u8], table: Table, depth: usize) -> Result<Map<String, Value>, ApiError> {
    const DEPTH: usize = 16;
    if depth > DEPTH {
        return Err(torn());
    }
    let mut object = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let empty = matches!(wire, Wire::Number(0) | Wire::Bytes([]));
        let Some((_, name, form)) = table.iter().find(|(n, ..)| *n == number) else {
            if empty {
                continue;
            }
            return Err(unsupported(&format!("field {number}")));
        };
        put(&mut object, name, *form, wire, depth)?;
    }
    Ok(object)
}

fn put(
    object: &mut Map<String, Value>,
    name: &str,
    form: Form,
    wire: Wire<'_>,
    depth: usize,
) -> Result<(), ApiError> {
    let value = match (form, wire) {
        (Integer, Wire::Number(number)) => json!(number.cast_signed()),
        (Flag, Wire::Number(number)) => json!(number != 0),
        (Text, Wire::Bytes([])) => return Ok(()), // Go writes empty texts
        (Text, Wire::Bytes(bytes)) => json!(text(bytes)?),
        (Bytes, Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Time, Wire::Bytes([])) => return Ok(()),
        (Time, Wire::Bytes(bytes)) => time(bytes, depth)?,
        (IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes, depth)?,
        (Message(table), Wire::Bytes(bytes)) => Value::Object(message(bytes, table, depth + 1)?),
        (Texts, Wire::Bytes(bytes)) => return push(object, name, json!(text(bytes)?)),
        (Messages(table), Wire::Bytes(bytes)) => {
            return push(object, name, Value::Object(message(bytes, table, depth + 1)?));
        }
        (TextMap, Wire::Bytes(bytes)) => return insert(object, name, bytes, Text, depth),
        (BytesMap, Wire::Bytes(bytes)) => return insert(object, name, bytes, Bytes, depth),
        _ => return Err(torn()),
    };
    object.insert(name.to_owned(), value);
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(bytes).map_err(|_| torn())
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), ApiError> {
    let list = object.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut().ok_or_else(torn)?.push(value);
    Ok(())
}

/// One entry of a map: a message of key and value.
fn insert(
    object: &mut Map<String, Value>,
    name: &str,
    bytes: &[u8],
    form: Form,
    depth: usize,
) -> Result<(), ApiError> {
    let (mut key, mut value) = (String::new(), json!(""));
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => text(bytes)?.clone_into(&mut key),
            (2, wire) => {
                let mut one = Map::new();
                put(&mut one, "value", form, wire, depth)?;
                value = one.remove("value").unwrap_or(json!(""));
            }
            _ => return Err(torn()),
        }
    }
    let map = object.entry(name).or_insert_with(|| json!({}));
    map.as_object_mut().ok_or_else(torn)?.insert(key, value);
    Ok(())
}

fn time(bytes: &[u8], depth: usize) -> Result<Value, ApiError> {
    let parts = message(
        bytes,
        &[(1, "seconds", Integer), (2, "nanos", Integer)],
        depth + 1,
    )?;
    let seconds = parts.get("seconds").and_then(Value::as_i64).unwrap_or(0);
    let time = Timestamp::from_second(seconds).map_err(|_| torn())?;
    Ok(json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

fn int_or_string(bytes: &[u8], depth: usize) -> Result<Value, ApiError> {
    let parts = message(
        bytes,
        &[(1, "type", Integer), (2, "int", Integer), (3, "text", Text)],
        depth + 1,
    )?;
    let is_text = parts.get("type").and_then(Value::as_i64) == Some(1);
    let part = if is_text {
        parts.get("text")
    } else {
        parts.get("int")
    };
    Ok(part
        .cloned()
        .unwrap_or_else(|| if is_text { json!("") } else { json!(0) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field with bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).expect("short")];
        out.extend_from_slice(content);
        out
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [bytes(1, b"v1"), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &types), bytes(2, raw)].concat()
    }

    #[test]
    fn reads_a_secret() {
        let raw = [
            bytes(1, &bytes(1, b"s")),
            bytes(2, &[bytes(1, b"k"), bytes(2, b"v")].concat()),
            bytes(3, b"Opaque"),
        ]
        .concat();
        let secret = decode(&body("Secret", &raw)).unwrap();
        assert_eq!(
            secret,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "dg=="}, "type": "Opaque"})
        );
    }

    #[test]
    fn refuses_what_it_would_lose() {
        assert_eq!(decode(&body("Secret", &bytes(15, b"x"))).unwrap_err().code, 415);
        assert_eq!(decode(&body("Pod", b"")).unwrap_err().code, 415);
    }

    proptest! {
        #[test]
        fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&[MAGIC, &raw].concat());
            if raw.len() < 60 {
                let _ = decode(&body("Deployment", &raw));
            }
        }
    }
}
