//! The scan: takes exactly what a decoder takes, and counts items, without building anything.

use karez_collector_config::Signal;

use super::field::{WireType, plain_pair, take, take_delimited, take_key, take_varint};
use super::schema::{Kind, LOGS, METRICS, Schema, TRACES};

/// Why bytes are no OTLP encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end inside of a field.
    #[error("the encoding ends inside of a field")]
    Truncated,
    /// A variable-length number is too long.
    #[error("a variable-length number is longer than 64 bits")]
    Varint,
    /// No key of a field.
    #[error("a field has an impossible key")]
    Key,
    /// A known field has another type.
    #[error("field {0} is encoded as another type than OTLP's")]
    Type(u32),
    /// A text is not UTF-8.
    #[error("field {0} is a text that is not UTF-8")]
    Text(u32),
    /// Nested beyond any sense.
    #[error("nested more than {MAX_DEPTH} deep")]
    Depth,
    /// A group that does not end, or ends what is none.
    #[error("a group is not closed as it was opened")]
    Group,
}

/// The deepest nesting, prost's own limit.
const MAX_DEPTH: usize = 100;

/// Checks an export request's encoding and counts its spans, data points or log records.
pub fn scan(signal: Signal, payload: &[u8]) -> Result<usize, Malformed> {
    let schema = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    };
    let mut items = 0;
    message(schema, payload, 0, &mut items)?;
    Ok(items)
}

fn message(
    schema: &'static Schema,
    mut bytes: &[u8],
    depth: usize,
    items: &mut usize,
) -> Result<(), Malformed> {
    while let Some((&key, rest)) = bytes.split_first() {
        // Nearly all keys, lengths and numbers have one byte.
        let after = match (schema.short(key), key & 7) {
            (Kind::Message(inner), 2) if depth < MAX_DEPTH => match short(rest) {
                Some((value, after)) => {
                    // The value of a pair is one deeper.
                    if !(inner.pair && depth + 1 < MAX_DEPTH && is_plain_pair(value)) {
                        *items += usize::from(inner.item);
                        message(inner, value, depth + 1, items)?;
                    }
                    Some(after)
                }
                None => None,
            },
            (Kind::Text, 2) => short(rest)
                .filter(|(value, _)| value.is_ascii())
                .map(|(_, after)| after),
            (Kind::Bytes, 2) => short(rest).map(|(_, after)| after),
            (Kind::Fixed64, 1) => rest.get(8..),
            (Kind::Varint, 0) => rest
                .split_first()
                .filter(|(value, _)| **value < 0x80)
                .map(|(_, after)| after),
            _ => None,
        };
        match after {
            Some(after) => bytes = after,
            None => field(schema, &mut bytes, depth, items)?,
        }
    }
    Ok(())
}

/// A value of less than 128 bytes behind its length, and what comes after it.
#[inline]
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.split_first()? {
        (&length, rest) if length < 0x80 => rest.split_at_checked(usize::from(length)),
        _ => None,
    }
}

/// Whether a key and its value are encoded as nearly all are: both once, in this order, a short key, and a short text or a
/// number; the texts ASCII.
#[inline]
fn is_plain_pair(pair: &[u8]) -> bool {
    let Some((key, value)) = plain_pair(pair) else {
        return false;
    };
    match value {
        // Its heads are ASCII anyhow: one look at all of it.
        [0x0a, length @ 0..0x80, text @ ..] => text.len() == usize::from(*length) && pair.is_ascii(),
        [0x10 | 0x18, number @ ..] => is_varint(number) && key.is_ascii(),
        [0x21, number @ ..] => number.len() == 8 && key.is_ascii(),
        _ => false,
    }
}

/// Whether bytes are one variable-length number.
#[inline]
fn is_varint(bytes: &[u8]) -> bool {
    match bytes.split_last() {
        Some((last, before)) => {
            let fits = bytes.len() < 10 || (bytes.len() == 10 && *last <= 1);
            fits && *last < 0x80 && before.iter().all(|byte| *byte >= 0x80)
        }
        None => false,
    }
}

/// One field, whatever it is.
fn field(
    schema: &'static Schema,
    bytes: &mut &[u8],
    depth: usize,
    items: &mut usize,
) -> Result<(), Malformed> {
    let (number, wire_type) = take_key(bytes)?;
    match (schema.kind(number), wire_type) {
        (Kind::Unknown, _) => skip(number, wire_type, bytes, depth)?,
        (Kind::Message(inner), WireType::Delimited) => {
            let value = take_delimited(bytes)?;
            if depth + 1 > MAX_DEPTH {
                return Err(Malformed::Depth);
            }
            *items += usize::from(inner.item);
            message(inner, value, depth + 1, items)?;
        }
        (Kind::Text, WireType::Delimited) => {
            let value = take_delimited(bytes)?;
            if !is_text(value) {
                return Err(Malformed::Text(number));
            }
        }
        (Kind::Bytes, WireType::Delimited) => {
            take_delimited(bytes)?;
        }
        (Kind::Varint | Kind::Varints, WireType::Varint) => {
            take_varint(bytes)?;
        }
        (Kind::Fixed32, WireType::Fixed32) => {
            take(bytes, 4)?;
        }
        (Kind::Fixed64 | Kind::Fixed64s, WireType::Fixed64) => {
            take(bytes, 8)?;
        }
        (Kind::Varints, WireType::Delimited) => {
            let mut packed = take_delimited(bytes)?;
            while !packed.is_empty() {
                take_varint(&mut packed)?;
            }
        }
        (Kind::Fixed64s, WireType::Delimited) => {
            if take_delimited(bytes)?.len() % 8 != 0 {
                return Err(Malformed::Truncated);
            }
        }
        _ => return Err(Malformed::Type(number)),
    }
    Ok(())
}

/// Whether bytes are UTF-8. Most are short and ASCII.
#[inline]
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// Skips a field that is not known, its key already read.
pub(super) fn skip(
    number: u32,
    wire_type: WireType,
    bytes: &mut &[u8],
    depth: usize,
) -> Result<(), Malformed> {
    if depth >= MAX_DEPTH {
        return Err(Malformed::Depth);
    }
    match wire_type {
        WireType::Varint => take_varint(bytes).map(|_| ()),
        WireType::Fixed64 => take(bytes, 8).map(|_| ()),
        WireType::Fixed32 => take(bytes, 4).map(|_| ()),
        WireType::Delimited => take_delimited(bytes).map(|_| ()),
        WireType::EndGroup => Err(Malformed::Group),
        WireType::StartGroup => loop {
            let (inner, inner_type) = take_key(bytes)?;
            if inner_type == WireType::EndGroup {
                return if inner == number {
                    Ok(())
                } else {
                    Err(Malformed::Group)
                };
            }
            skip(inner, inner_type, bytes, depth + 1)?;
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use proptest::prelude::*;
    use prost::Message;

    fn decodes(signal: Signal, payload: &[u8]) -> bool {
        match signal {
            Signal::Traces => ExportTraceServiceRequest::decode(payload).is_ok(),
            Signal::Metrics => ExportMetricsServiceRequest::decode(payload).is_ok(),
            Signal::Logs => ExportLogsServiceRequest::decode(payload).is_ok(),
        }
    }

    /// Bytes that look like nested messages, so that mutations reach every depth.
    fn message_like() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            "[a-z\u{e9}]{0,6}".prop_map(String::into_bytes),
        ];
        leaf.prop_recursive(7, 64, 6, |inner| {
            let field = (1u8..17, 0u8..8, inner, any::<u64>()).prop_map(|(number, wire, inner, value)| {
                let mut out = Vec::new();
                let wire = if wire > 5 { 2 } else { wire };
                super::super::field::put_varint(&mut out, u64::from(number) << 3 | u64::from(wire));
                match wire {
                    0 => super::super::field::put_varint(&mut out, value),
                    1 => out.extend(value.to_le_bytes()),
                    5 => out.extend(&value.to_le_bytes()[..4]),
                    2 => {
                        super::super::field::put_varint(&mut out, inner.len() as u64);
                        out.extend(inner);
                    }
                    _ => out.extend(inner),
                }
                out
            });
            proptest::collection::vec(field, 0..6).prop_map(|fields| fields.concat())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn takes_exactly_what_a_decoder_takes(payload in message_like(), signal in 0usize..3) {
            let mut wrapped = Vec::new();
            super::super::field::put_delimited(&mut wrapped, 1, &payload);
            for bytes in [&payload, &wrapped] {
                let signal = Signal::ALL[signal];
                prop_assert_eq!(scan(signal, bytes).is_ok(), decodes(signal, bytes), "{:?} {:?}", signal, scan(signal, bytes));
            }
        }
    }

    /// Attributes as everybody encodes them, but for a byte here and there.
    fn pair_like() -> impl Strategy<Value = Vec<u8>> {
        let text = "[a-z.]{0,9}".prop_map(|text| [&[0x0a, text.len() as u8][..], text.as_bytes()].concat());
        let number = (any::<u64>(), any::<u8>()).prop_map(|(number, shift)| {
            let mut out = vec![0x18];
            super::super::field::put_varint(&mut out, number >> (shift % 64));
            out
        });
        let float = any::<u64>().prop_map(|number| [&[0x21][..], &number.to_le_bytes()].concat());
        let spoilt = (0usize..30, any::<u8>());
        let pair = ("[a-z.]{0,9}", prop_oneof![text, number, float], spoilt);
        pair.prop_map(|(key, value, (place, byte))| {
            let mut pair = Vec::new();
            super::super::field::put_delimited(&mut pair, 1, key.as_bytes());
            super::super::field::put_delimited(&mut pair, 2, &value);
            if let Some(spoilt) = pair.get_mut(place) {
                *spoilt = byte;
            }
            pair
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn attributes_are_taken_as_a_decoder_takes_them(pairs in proptest::collection::vec(pair_like(), 1..4)) {
            let mut value = Vec::new();
            pairs.iter().for_each(|pair| super::super::field::put_delimited(&mut value, 9, pair));
            for number in [2, 2, 1] {
                let mut outer = Vec::new();
                super::super::field::put_delimited(&mut outer, number, &value);
                value = outer;
            }
            prop_assert_eq!(scan(Signal::Traces, &value).ok(), decodes(Signal::Traces, &value).then_some(1));
        }
    }

    #[test]
    fn nesting_is_bounded_as_the_decoders() {
        for depth in [10, 40, 60, 95, 99, 100, 110, 5000] {
            let mut value = vec![0x10, 0x01];
            for _ in 0..depth / 2 {
                let mut array = Vec::new();
                super::super::field::put_delimited(&mut array, 1, &value);
                value = Vec::new();
                super::super::field::put_delimited(&mut value, 5, &array);
            }
            for number in [2, 1, 1, 1] {
                let mut outer = Vec::new();
                super::super::field::put_delimited(&mut outer, number, &value);
                value = outer;
            }
            assert_eq!(
                scan(Signal::Traces, &value).is_ok(),
                decodes(Signal::Traces, &value),
                "{depth}"
            );
        }
    }
}
