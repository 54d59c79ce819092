//! Node → type, reporting every key that is unknown or wrong.
//!
//! serde stops at the first error. So each error is recorded with its place, the node it concerns is set aside, and
//! the decoding starts again, until it succeeds or the root itself is wrong. A null scalar where a value is expected
//! counts as absent (its default holds), a null block as an empty one.

use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::error::{Error, ErrorKind, Fault, State};
use super::{Kind, Node, Scalar, join_key};
use crate::{Diagnosis, Place};

/// More errors of one document than this are of no use to anybody.
const MAX_ERRORS: usize = 100;

/// Decodes a node, adding a diagnosis for every key that is unknown or wrong. Gives a value also then, with what
/// could be read, unless the node as a whole has another shape than the type.
pub fn decode<T: DeserializeOwned>(node: &Node, diagnoses: &mut Vec<Diagnosis>) -> Option<T> {
    decode_at(node, "", diagnoses)
}

/// As [`decode`], for a node below a key path, which the diagnoses then start with.
pub fn decode_at<T: DeserializeOwned>(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<T> {
    let state = State::default();
    for _ in 0..MAX_ERRORS {
        let error = match T::deserialize(Reader {
            node,
            key: key.to_owned(),
            state: &state,
        }) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let fault = error.fault.unwrap_or_else(|| Fault {
            key: key.to_owned(),
            place: node.place(),
            node: id(node),
        });
        if let Some(diagnosis) = error.kind.diagnosis(&fault, &state) {
            diagnoses.push(diagnosis);
        }
        if fault.node == id(node) || !state.aside.borrow_mut().insert(fault.node) {
            return None;
        }
    }
    let message = format!("more than {MAX_ERRORS} keys are wrong; the rest was not looked at");
    diagnoses.push(Diagnosis::error(node.place(), key, message, "mend these first"));
    None
}

/// A node's identity while the tree is borrowed.
fn id(node: &Node) -> usize {
    std::ptr::from_ref(node) as usize
}

struct Reader<'a> {
    node: &'a Node,
    key: String,
    state: &'a State,
}

impl<'de> Reader<'de> {
    fn mismatch(&self, wanted: &dyn de::Expected) -> Error {
        if self.node.is_null() {
            return Error {
                kind: ErrorKind::NullScalar,
                fault: None,
            };
        }
        // The value itself is not shown: it may be a secret.
        Error::wrong(format!(
            "{} is needed, {} is here",
            Wanted(wanted),
            self.node.describe()
        ))
    }

    fn any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.kind {
            Kind::Sequence(_) => self.sequence(visitor),
            Kind::Mapping(_) => self.mapping(visitor),
            Kind::Scalar { text, .. } => match self.node.scalar() {
                Some(Scalar::Null) => visitor.visit_unit(),
                Some(Scalar::Bool(value)) => visitor.visit_bool(value),
                Some(Scalar::Integer(value)) => visitor.visit_i64(value),
                Some(Scalar::Unsigned(value)) => visitor.visit_u64(value),
                Some(Scalar::Float(value)) => visitor.visit_f64(value),
                Some(Scalar::Text) | None => visitor.visit_borrowed_str(text),
            },
        }
    }

    fn sequence<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.kind {
            Kind::Sequence(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                reader: &self,
            }),
            _ if self.node.is_null() => visitor.visit_seq(Items {
                items: [].iter().enumerate(),
                reader: &self,
            }),
            _ => Err(self.mismatch(&"a list")),
        }
    }

    fn mapping<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if !matches!(self.node.kind, Kind::Mapping(_)) && !self.node.is_null() {
            return Err(self.mismatch(&"a mapping"));
        }
        visitor.visit_map(Fields {
            entries: self.node.entries().iter(),
            current: None,
            reader: &self,
        })
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.scalar() {
            Some(Scalar::Integer(value)) if value >= 0 => visitor.visit_u64(value.unsigned_abs()),
            Some(Scalar::Integer(value)) => visitor.visit_i64(value),
            Some(Scalar::Unsigned(value)) => visitor.visit_u64(value),
            Some(Scalar::Float(value)) => visitor.visit_f64(value),
            _ => Err(self.mismatch(&visitor)),
        }
    }
}

/// serde's "expected" as words.
struct Wanted<'a>(&'a dyn de::Expected);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.to_string();
        match words.as_str() {
            "u8" | "u16" | "u32" | "u64" | "usize" => f.write_str("a whole number of 0 or more"),
            "i8" | "i16" | "i32" | "i64" | "isize" => f.write_str("a whole number"),
            "f32" | "f64" => f.write_str("a number"),
            "a string" => f.write_str("a text"),
            other => f.write_str(other),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.scalar() {
            Some(Scalar::Bool(value)) => visitor.visit_bool(value),
            _ => Err(self.mismatch(&"true or false")),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    /// A text field takes any scalar as it is written: `value: 0123` keeps its zero.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.as_str() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => Err(self.mismatch(&"a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.is_null() {
            true => visitor.visit_unit(),
            false => Err(self.mismatch(&"nothing")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.sequence(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.sequence(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.mapping(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.mapping(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (self.node.as_str(), self.node.entries()) {
            (Some(text), _) => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            (None, [entry]) => {
                let key = join_key(&self.key, &entry.key);
                let reader = Reader {
                    node: &entry.value,
                    key,
                    state: self.state,
                };
                visitor.visit_enum(de::value::MapAccessDeserializer::new(Variant {
                    name: Some(&entry.key),
                    reader,
                }))
            }
            _ => Err(self.mismatch(&"one of the known names")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit_struct tuple_struct identifier }
}

/// A mapping with one key, as an enum's variant.
struct Variant<'a> {
    name: Option<&'a str>,
    reader: Reader<'a>,
}

impl<'de> de::MapAccess<'de> for Variant<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.name.take() else {
            return Ok(None);
        };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Reader { node, state, .. } = self.reader;
        seed.deserialize(Reader {
            node,
            key: self.reader.key.clone(),
            state,
        })
    }
}

struct Items<'a, 'r> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    reader: &'r Reader<'a>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let state = self.reader.state;
        let Some((index, node)) = self
            .items
            .by_ref()
            .find(|(_, node)| !state.aside.borrow().contains(&id(node)))
        else {
            return Ok(None);
        };
        let key = format!("{}[{index}]", self.reader.key);
        let read = seed.deserialize(Reader {
            node,
            key: key.clone(),
            state,
        });
        read.map(Some).map_err(|e| {
            e.at(|| Fault {
                key,
                place: node.place(),
                node: id(node),
            })
        })
    }
}

struct Fields<'a, 'r> {
    entries: std::slice::Iter<'a, super::Entry>,
    current: Option<&'a super::Entry>,
    reader: &'r Reader<'a>,
}

impl Fields<'_, '_> {
    fn fault(&self, entry: &super::Entry) -> Fault {
        Fault {
            key: join_key(&self.reader.key, &entry.key),
            place: Place {
                line: (entry.line > 0).then_some(entry.line),
                ..entry.value.place()
            },
            node: id(&entry.value),
        }
    }
}

impl<'de> de::MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let state = self.reader.state;
        let Some(entry) = self
            .entries
            .by_ref()
            .find(|e| !state.aside.borrow().contains(&id(&e.value)))
        else {
            return Ok(None);
        };
        self.current = Some(entry);
        let name: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|e| e.at(|| self.fault(entry)))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let entry = self
            .current
            .take()
            .expect("invariant: serde asks for a value after its key");
        let key = join_key(&self.reader.key, &entry.key);
        let read = seed.deserialize(Reader {
            node: &entry.value,
            key,
            state: self.reader.state,
        });
        read.map_err(|e| e.at(|| self.fault(entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use serde::Deserialize;

    #[derive(Deserialize, Debug, Default, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Tls {
        insecure: bool,
        ca_file: String,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Exporter {
        endpoint: String,
        #[serde(default)]
        tls: Tls,
        #[serde(default)]
        retries: Option<u32>,
        #[serde(default)]
        headers: Vec<String>,
    }

    fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<String>) {
        let mut diagnoses = Vec::new();
        let node = super::super::parse(text, &Origin::file("c.yaml"))
            .unwrap()
            .remove(0);
        let value = decode(&node, &mut diagnoses);
        (value, diagnoses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reports_every_wrong_key_with_its_line() {
        let (value, errors) = read::<Exporter>(
            "endpoint: a:1\nendpont: b\ntls:\n  insecure: maybe\n  cafile: x\nretries: -1\nheaders: 5\n",
        );
        assert_eq!(
            errors,
            [
                "c.yaml:2: error: endpont: unknown key; did you mean `endpoint`?",
                "c.yaml:4: error: tls.insecure: true or false is needed, a text is here; correct the value",
                "c.yaml:5: error: tls.cafile: unknown key; did you mean `ca_file`?",
                "c.yaml:6: error: retries: invalid value: integer `-1`, expected u32; correct the value",
                "c.yaml:7: error: headers: a list is needed, an integer is here; correct the value",
            ]
        );
        assert_eq!(value.unwrap().endpoint, "a:1");
    }

    #[test]
    fn null_stands_for_the_default_and_a_missing_key_is_named() {
        let (value, errors) = read::<Exporter>("endpoint: 1\ntls:\nheaders:\nretries:\n");
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(
            value.unwrap(),
            Exporter {
                endpoint: "1".into(),
                tls: Tls::default(),
                retries: None,
                headers: vec![]
            }
        );
        let (value, errors) = read::<Vec<Exporter>>("- endpoint: x\n- tls:\n    insecure: true\n");
        assert_eq!(
            errors,
            ["c.yaml:2: error: [1].endpoint: is missing; add `endpoint:`"]
        );
        assert_eq!(value.unwrap().len(), 1);
    }

    #[test]
    fn the_names_of_fields_are_known() {
        assert_eq!(
            super::super::fields::<Exporter>(),
            ["endpoint", "tls", "retries", "headers"]
        );
        assert!(super::super::fields::<Vec<u8>>().is_empty());
    }
}
