//! Fields of a protobuf message, read in place and written.

use super::Malformed;

/// How a field's value is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    /// A variable-length integer.
    Varint,
    /// Eight bytes.
    Fixed64,
    /// A length and so many bytes.
    Delimited,
    /// The start of a group.
    StartGroup,
    /// Its end.
    EndGroup,
    /// Four bytes.
    Fixed32,
}

/// A field: its number, its value, and the whole of it with its key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The number.
    pub number: u32,
    /// The encoding.
    pub wire_type: WireType,
    /// The value's bytes: of a delimited field without the length, of others the encoded number.
    pub value: &'a [u8],
    /// Key, length and value.
    pub whole: &'a [u8],
}

/// Reads a variable-length integer, advancing the bytes.
#[inline]
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Keys and lengths mostly have one byte.
    match bytes.split_first() {
        Some((&byte, rest)) if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => take_long_varint(bytes),
    }
}

fn take_long_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for index in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed::Truncated)?;
        *bytes = rest;
        if index == 9 && byte > 1 {
            return Err(Malformed::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed::Varint)
}

/// Reads a field's key, advancing the bytes.
#[inline]
pub(super) fn take_key(bytes: &mut &[u8]) -> Result<(u32, WireType), Malformed> {
    let key = u32::try_from(take_varint(bytes)?).map_err(|_| Malformed::Key)?;
    let wire_type = match key & 7 {
        0 => WireType::Varint,
        1 => WireType::Fixed64,
        2 => WireType::Delimited,
        3 => WireType::StartGroup,
        4 => WireType::EndGroup,
        5 => WireType::Fixed32,
        _ => return Err(Malformed::Key),
    };
    match key >> 3 {
        0 => Err(Malformed::Key),
        number => Ok((number, wire_type)),
    }
}

#[inline]
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    if length > bytes.len() {
        return Err(Malformed::Truncated);
    }
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(value)
}

#[inline]
pub(super) fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(take_varint(bytes)?).map_err(|_| Malformed::Truncated)?;
    take(bytes, length)
}

/// Walks over a message's fields. Groups, which OTLP does not have, are skipped.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.rest;
        let mut rest = start;
        let (number, wire_type) = take_key(&mut rest)?;
        let before = rest;
        let value = match wire_type {
            WireType::Varint => {
                take_varint(&mut rest)?;
                &before[..before.len() - rest.len()]
            }
            WireType::Fixed64 => take(&mut rest, 8)?,
            WireType::Fixed32 => take(&mut rest, 4)?,
            WireType::Delimited => take_delimited(&mut rest)?,
            WireType::StartGroup => {
                super::scan::skip(number, wire_type, &mut rest, 0)?;
                &before[..before.len() - rest.len()]
            }
            WireType::EndGroup => return Err(Malformed::Group),
        };
        self.rest = rest;
        Ok(Field {
            number,
            wire_type,
            value,
            whole: &start[..start.len() - rest.len()],
        })
    }
}

impl<'a> Field<'a> {
    /// The value of a number.
    pub fn number_value(&self) -> u64 {
        match self.wire_type {
            WireType::Varint => take_varint(&mut { self.value }).unwrap_or(0),
            WireType::Fixed64 => self.value.try_into().map_or(0, u64::from_le_bytes),
            WireType::Fixed32 => self
                .value
                .try_into()
                .map_or(0, |b| u64::from(u32::from_le_bytes(b))),
            _ => 0,
        }
    }

    /// The value of a text; empty if it is none.
    pub fn text(&self) -> &'a str {
        std::str::from_utf8(self.value).unwrap_or("")
    }
}

/// Key and value of a pair as everybody encodes it: both once, in this order, both shorter than 128 bytes.
#[inline]
pub(crate) fn plain_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[0x0a, length @ 0..0x80], rest) = pair.split_first_chunk()? else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(length))?;
    let (&[0x12, length @ 0..0x80], value) = rest.split_first_chunk()? else {
        return None;
    };
    (value.len() == usize::from(length)).then_some((key, value))
}

/// Writes a variable-length integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a delimited field.
pub fn put_delimited(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
