//! Takes an OTLP trace batch apart without decoding it: resources, scopes and spans as slices of the encoding.

use prost::encoding::{WireType, decode_key, decode_varint};

/// The batch is no protobuf message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch is not a valid OTLP encoding")]
pub struct Malformed;

/// A field's value.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Calls `each` with every field's number and value.
fn fields<'a>(
    mut input: &'a [u8],
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !input.is_empty() {
        let (tag, kind) = decode_key(&mut input).map_err(|_| Malformed)?;
        let value = match kind {
            WireType::Varint => Value::Varint(decode_varint(&mut input).map_err(|_| Malformed)?),
            WireType::SixtyFourBit => {
                let (taken, rest) = input.split_first_chunk::<8>().ok_or(Malformed)?;
                input = rest;
                Value::Fixed64(u64::from_le_bytes(*taken))
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut input).map_err(|_| Malformed)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (taken, rest) = input.split_at_checked(length).ok_or(Malformed)?;
                input = rest;
                Value::Bytes(taken)
            }
            WireType::ThirtyTwoBit => {
                input = input.split_first_chunk::<4>().ok_or(Malformed)?.1;
                Value::Fixed32
            }
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        };
        each(tag, value)?;
    }
    Ok(())
}

/// Calls `each` with the encodings of every span, its scope and its resource.
pub(super) fn spans<'a>(
    batch: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8], &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    fields(batch, |tag, value| match (tag, value) {
        (1, Value::Bytes(resource_spans)) => {
            let resource = first(resource_spans, 1)?;
            fields(resource_spans, |tag, value| match (tag, value) {
                (2, Value::Bytes(scope_spans)) => {
                    let scope = first(scope_spans, 1)?;
                    fields(scope_spans, |tag, value| match (tag, value) {
                        (2, Value::Bytes(span)) => each(resource, scope, span),
                        _ => Ok(()),
                    })
                }
                _ => Ok(()),
            })
        }
        _ => Ok(()),
    })
}

/// The first message field of a number, or an empty one.
fn first(message: &[u8], wanted: u32) -> Result<&[u8], Malformed> {
    let mut found = None;
    fields(message, |tag, value| {
        if let (true, None, Value::Bytes(bytes)) = (tag == wanted, found, value) {
            found = Some(bytes);
        }
        Ok(())
    })?;
    Ok(found.unwrap_or_default())
}

/// The fields of a span that the store indexes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) parent: &'a [u8],
    pub(super) name: &'a str,
    pub(super) kind: i32,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Reads a span's head.
pub(super) fn head(span: &[u8]) -> Result<Head<'_>, Malformed> {
    let mut head = Head::default();
    fields(span, |tag, value| {
        match (tag, value) {
            (1, Value::Bytes(id)) => head.trace_id = id,
            (2, Value::Bytes(id)) => head.span_id = id,
            (4, Value::Bytes(id)) => head.parent = id,
            (5, Value::Bytes(name)) => head.name = std::str::from_utf8(name).map_err(|_| Malformed)?,
            (6, Value::Varint(kind)) => head.kind = kind as i32,
            (7, Value::Fixed64(at)) => head.start = at,
            (8, Value::Fixed64(at)) => head.end = at,
            _ => {}
        }
        Ok(())
    })?;
    Ok(head)
}
