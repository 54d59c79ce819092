//! `TBinaryProtocol`: fixed-width big-endian numbers; message headers strict and old.

use super::{Field, Kind, MAX_DEPTH, Read, ThriftError, Write, bounded, take, take_array};

const STRICT: u32 = 0x8001_0000;
const ONE_WAY: u32 = 4;

/// Reads the binary encoding from a slice.
#[derive(Debug)]
pub struct BinaryReader<'a> {
    input: &'a [u8],
    depth: u8,
}

impl<'a> BinaryReader<'a> {
    /// Starts at the slice's beginning.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, depth: 0 }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, ThriftError> {
        take_array::<1>(&mut self.input, what).map(|[byte]| byte)
    }

    fn length(&mut self, what: &'static str) -> Result<usize, ThriftError> {
        let claimed = self.i32()?;
        let claimed = u64::try_from(claimed).map_err(|_| ThriftError::NegativeLength(what))?;
        bounded(claimed, self.input.len(), what)
    }
}

fn kind(binary: u8) -> Result<Kind, ThriftError> {
    Ok(match binary {
        2 => Kind::Bool,
        3 => Kind::I8,
        4 => Kind::Double,
        6 => Kind::I16,
        8 => Kind::I32,
        10 => Kind::I64,
        11 => Kind::Binary,
        12 => Kind::Struct,
        13 => Kind::Map,
        14 => Kind::Set,
        15 => Kind::List,
        16 => Kind::Uuid,
        other => return Err(ThriftError::UnknownType(other)),
    })
}

fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Bool => 2,
        Kind::I8 => 3,
        Kind::Double => 4,
        Kind::I16 => 6,
        Kind::I32 => 8,
        Kind::I64 => 10,
        Kind::Binary => 11,
        Kind::Struct => 12,
        Kind::Map => 13,
        Kind::Set => 14,
        Kind::List => 15,
        Kind::Uuid => 16,
    }
}

impl<'a> Read<'a> for BinaryReader<'a> {
    fn remaining(&self) -> usize {
        self.input.len()
    }

    fn message(&mut self) -> Result<(u8, &'a str), ThriftError> {
        let first = u32::from_be_bytes(take_array(&mut self.input, "the message header")?);
        if first & 0xffff_0000 == STRICT {
            let method = self.string("the method's name")?;
            self.i32()?;
            return Ok((first as u8, method));
        }
        // The old form starts with the name's length; its highest bit is clear.
        if first & 0x8000_0000 != 0 {
            return Err(ThriftError::Protocol((first >> 24) as u8));
        }
        let length = bounded(u64::from(first), self.input.len(), "the method's name")?;
        let method = take(&mut self.input, length, "the method's name")?;
        let method = std::str::from_utf8(method).map_err(|_| ThriftError::NotUtf8("the method's name"))?;
        let kind = self.byte("the message type")?;
        self.i32()?;
        Ok((kind, method))
    }

    fn enter(&mut self) -> Result<(), ThriftError> {
        if self.depth >= MAX_DEPTH {
            return Err(ThriftError::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    fn field(&mut self) -> Result<Option<Field>, ThriftError> {
        match self.byte("a field header")? {
            0 => Ok(None),
            number => {
                let kind = kind(number)?;
                Ok(Some(Field {
                    id: self.i16()?,
                    kind,
                }))
            }
        }
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn list(&mut self) -> Result<(Kind, usize), ThriftError> {
        let kind = kind(self.byte("a list header")?)?;
        Ok((kind, self.length("a list")?))
    }

    fn map(&mut self) -> Result<Option<(Kind, Kind, usize)>, ThriftError> {
        let (key, value) = (self.byte("a map header")?, self.byte("a map header")?);
        let count = self.length("a map")?;
        if count == 0 {
            return Ok(None); // an empty map may carry type 0
        }
        Ok(Some((kind(key)?, kind(value)?, count)))
    }

    fn bool(&mut self) -> Result<bool, ThriftError> {
        Ok(self.byte("a boolean")? != 0)
    }

    fn bool_element(&mut self) -> Result<bool, ThriftError> {
        self.bool()
    }

    fn i8(&mut self) -> Result<i8, ThriftError> {
        Ok(self.byte("a byte")? as i8)
    }

    fn i16(&mut self) -> Result<i16, ThriftError> {
        take_array(&mut self.input, "a 16-bit number").map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, ThriftError> {
        take_array(&mut self.input, "a 32-bit number").map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, ThriftError> {
        take_array(&mut self.input, "a 64-bit number").map(i64::from_be_bytes)
    }

    fn double(&mut self) -> Result<f64, ThriftError> {
        take_array(&mut self.input, "a double").map(f64::from_be_bytes)
    }

    fn binary(&mut self, what: &'static str) -> Result<&'a [u8], ThriftError> {
        let length = self.length(what)?;
        take(&mut self.input, length, what)
    }

    fn raw(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ThriftError> {
        take(&mut self.input, count, what)
    }
}

/// Writes the binary encoding, with the strict message header.
#[derive(Debug, Default)]
pub struct BinaryWriter {
    out: Vec<u8>,
}

impl BinaryWriter {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Write for BinaryWriter {
    fn message(&mut self, method: &str) {
        self.out.extend((STRICT | ONE_WAY).to_be_bytes());
        self.binary(method.as_bytes());
        self.i32(0);
    }

    fn enter(&mut self) {}

    fn leave(&mut self) {
        self.out.push(0);
    }

    fn field(&mut self, id: i16, kind: Kind) {
        self.out.push(number(kind));
        self.out.extend(id.to_be_bytes());
    }

    fn bool_field(&mut self, id: i16, value: bool) {
        self.field(id, Kind::Bool);
        self.out.push(u8::from(value));
    }

    fn list(&mut self, kind: Kind, count: usize) {
        self.out.push(number(kind));
        self.i32(count as i32);
    }

    fn i32(&mut self, value: i32) {
        self.out.extend(value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.out.extend(value.to_be_bytes());
    }

    fn double(&mut self, value: f64) {
        self.out.extend(value.to_be_bytes());
    }

    fn binary(&mut self, value: &[u8]) {
        self.i32(value.len() as i32);
        self.out.extend(value);
    }

    fn finish(self) -> Vec<u8> {
        self.out
    }
}
