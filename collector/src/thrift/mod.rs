//! Jaeger's agent protocol: Thrift's compact and binary encodings of `emitBatch`.
//!
//! ```text
//! datagram (UDP 6831 compact, 6832 binary) ─▶ [decode_message] ─▶ jaeger::model::Batch
//! body (HTTP 14268, binary)                ─▶ [decode_batch]   ─▶ jaeger::model::Batch
//! jaeger::model::Batch ─▶ [encode_message] ─▶ datagram
//! ```
//!
//! What arrives is foreign: every length is checked against the bytes that remain before anything is allocated,
//! nesting is bounded, unknown fields are skipped, and no input panics. The shapes are those of
//! `jaeger.thrift` and `agent.thrift` of jaegertracing/jaeger-idl.

mod batch;
mod binary;
mod compact;
mod write;

pub use batch::{decode_batch, decode_message, encode_batch, encode_message, encoded_span_len};
pub use binary::{BinaryReader, BinaryWriter};
pub use compact::{CompactReader, CompactWriter};

/// How deep structures may nest in what is skipped; Jaeger's own are 5 deep.
pub const MAX_DEPTH: u8 = 24;

/// Which of Thrift's encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `TCompactProtocol`, UDP 6831.
    Compact,
    /// `TBinaryProtocol`, UDP 6832 and HTTP 14268.
    Binary,
}

/// Why bytes are no Jaeger batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThriftError {
    /// The bytes end inside a value.
    #[error("the message ends inside {0}")]
    Truncated(&'static str),
    /// A length or element count is larger than what remains.
    #[error("{what} claims {claimed} but only {remaining} bytes remain")]
    TooLong {
        /// What claims it.
        what: &'static str,
        /// The claimed length.
        claimed: u64,
        /// The bytes left.
        remaining: usize,
    },
    /// A length below zero.
    #[error("{0} has a negative length")]
    NegativeLength(&'static str),
    /// A variable-length integer of more than ten bytes.
    #[error("a variable-length integer does not end")]
    Varint,
    /// The first bytes are of no message of this protocol.
    #[error("not a Thrift message of the expected protocol (first byte {0:#04x})")]
    Protocol(u8),
    /// A type number that Thrift does not have.
    #[error("unknown Thrift type {0}")]
    UnknownType(u8),
    /// A field has another type than the schema says.
    #[error("field {field} of {of} is a {found:?}, not a {wanted:?}")]
    WrongType {
        /// The structure.
        of: &'static str,
        /// The field's number.
        field: i16,
        /// The type in the message.
        found: Kind,
        /// The type in the schema.
        wanted: Kind,
    },
    /// A required field is missing.
    #[error("{of} lacks its required field {field}")]
    Missing {
        /// The structure.
        of: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// Structures nest deeper than [`MAX_DEPTH`].
    #[error("structures nest deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A text is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// Another method than `emitBatch`.
    #[error("method `{0}` is not served; only `emitBatch` is")]
    Method(String),
    /// A message that is not a call (a reply or an exception).
    #[error("message type {0} is not a call")]
    NotACall(u8),
}

/// A Thrift value's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are Thrift's
pub enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Double,
    Binary,
    Struct,
    Map,
    Set,
    List,
    Uuid,
}

/// A field's number and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The number in the schema.
    pub id: i16,
    /// The value's type.
    pub kind: Kind,
}

/// Reads one encoding. The methods mirror Thrift's own protocol interface.
pub trait Read<'a> {
    /// The bytes that are left.
    fn remaining(&self) -> usize;
    /// The message header: type (1 call, 4 one-way) and method.
    fn message(&mut self) -> Result<(u8, &'a str), ThriftError>;
    /// Enters a structure.
    fn enter(&mut self) -> Result<(), ThriftError>;
    /// The next field, or `None` at the structure's end.
    fn field(&mut self) -> Result<Option<Field>, ThriftError>;
    /// Leaves the structure that was entered last.
    fn leave(&mut self);
    /// A list's or set's element type and count; the count is never more than the bytes that remain.
    fn list(&mut self) -> Result<(Kind, usize), ThriftError>;
    /// A map's key type, value type and count.
    fn map(&mut self) -> Result<Option<(Kind, Kind, usize)>, ThriftError>;
    /// A boolean in a field.
    fn bool(&mut self) -> Result<bool, ThriftError>;
    /// A boolean in a list (the compact encoding has it in the field header otherwise).
    fn bool_element(&mut self) -> Result<bool, ThriftError>;
    /// One byte.
    fn i8(&mut self) -> Result<i8, ThriftError>;
    /// 16 bits.
    fn i16(&mut self) -> Result<i16, ThriftError>;
    /// 32 bits.
    fn i32(&mut self) -> Result<i32, ThriftError>;
    /// 64 bits.
    fn i64(&mut self) -> Result<i64, ThriftError>;
    /// A double.
    fn double(&mut self) -> Result<f64, ThriftError>;
    /// Length-prefixed bytes, borrowed.
    fn binary(&mut self, what: &'static str) -> Result<&'a [u8], ThriftError>;
    /// `count` raw bytes.
    fn raw(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ThriftError>;

    /// Length-prefixed text, borrowed.
    fn string(&mut self, what: &'static str) -> Result<&'a str, ThriftError> {
        std::str::from_utf8(self.binary(what)?).map_err(|_| ThriftError::NotUtf8(what))
    }

    /// Skips a field's value.
    fn skip(&mut self, kind: Kind, depth: u8) -> Result<(), ThriftError> {
        match kind {
            Kind::Bool => self.bool().map(drop),
            other => self.skip_element(other, depth),
        }
    }

    /// Skips a value inside a list, set or map.
    fn skip_element(&mut self, kind: Kind, depth: u8) -> Result<(), ThriftError> {
        let depth = depth.checked_sub(1).ok_or(ThriftError::TooDeep)?;
        match kind {
            Kind::Bool => self.bool_element().map(drop),
            Kind::I8 => self.i8().map(drop),
            Kind::I16 => self.i16().map(drop),
            Kind::I32 => self.i32().map(drop),
            Kind::I64 => self.i64().map(drop),
            Kind::Double => self.double().map(drop),
            Kind::Binary => self.binary("a skipped field").map(drop),
            Kind::Uuid => self.raw(16, "a skipped field").map(drop),
            Kind::Struct => {
                self.enter()?;
                while let Some(field) = self.field()? {
                    self.skip(field.kind, depth)?;
                }
                self.leave();
                Ok(())
            }
            Kind::List | Kind::Set => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, depth))
            }
            Kind::Map => {
                let Some((key, value, count)) = self.map()? else {
                    return Ok(());
                };
                (0..count).try_for_each(|_| {
                    self.skip_element(key, depth)?;
                    self.skip_element(value, depth)
                })
            }
        }
    }
}

/// Writes one encoding; the counterpart of [`Read`].
pub trait Write {
    /// The header of a one-way call.
    fn message(&mut self, method: &str);
    /// Enters a structure.
    fn enter(&mut self);
    /// Ends the structure that was entered last.
    fn leave(&mut self);
    /// A field's header; for booleans use [`Write::bool_field`].
    fn field(&mut self, id: i16, kind: Kind);
    /// A boolean field, header and value.
    fn bool_field(&mut self, id: i16, value: bool);
    /// A list's header.
    fn list(&mut self, kind: Kind, count: usize);
    /// 32 bits.
    fn i32(&mut self, value: i32);
    /// 64 bits.
    fn i64(&mut self, value: i64);
    /// A double.
    fn double(&mut self, value: f64);
    /// Length-prefixed bytes.
    fn binary(&mut self, value: &[u8]);
    /// What has been written.
    fn finish(self) -> Vec<u8>;
}

/// Takes `count` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], count: usize, what: &'static str) -> Result<&'a [u8], ThriftError> {
    let (taken, rest) = input
        .split_at_checked(count)
        .ok_or(ThriftError::Truncated(what))?;
    *input = rest;
    Ok(taken)
}

/// Takes a fixed number of bytes as an array.
fn take_array<const N: usize>(input: &mut &[u8], what: &'static str) -> Result<[u8; N], ThriftError> {
    let (taken, rest) = input
        .split_first_chunk::<N>()
        .ok_or(ThriftError::Truncated(what))?;
    *input = rest;
    Ok(*taken)
}

/// Checks a claimed length or count against what is left: each element takes at least one byte.
fn bounded(claimed: u64, remaining: usize, what: &'static str) -> Result<usize, ThriftError> {
    match usize::try_from(claimed) {
        Ok(length) if length <= remaining => Ok(length),
        _ => Err(ThriftError::TooLong {
            what,
            claimed,
            remaining,
        }),
    }
}
