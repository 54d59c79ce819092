//! `TCompactProtocol`: variable-length integers, field numbers as differences, booleans inside field headers.

use super::{Field, Kind, MAX_DEPTH, Read, ThriftError, Write, bounded, take, take_array};

const PROTOCOL: u8 = 0x82;
const VERSION: u8 = 1;
const ONE_WAY: u8 = 4;

/// Reads the compact encoding from a slice.
#[derive(Debug)]
pub struct CompactReader<'a> {
    input: &'a [u8],
    last_field: i16,
    outer: Vec<i16>,
    pending_bool: Option<bool>,
}

impl<'a> CompactReader<'a> {
    /// Starts at the slice's beginning.
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            last_field: 0,
            outer: Vec::new(),
            pending_bool: None,
        }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, ThriftError> {
        take_array::<1>(&mut self.input, what).map(|[byte]| byte)
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, ThriftError> {
        let mut value = 0u64;
        for index in 0..10 {
            let byte = self.byte(what)?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftError::Varint)
    }

    fn zigzag(&mut self, what: &'static str) -> Result<i64, ThriftError> {
        let raw = self.varint(what)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

fn kind(compact: u8) -> Result<Kind, ThriftError> {
    Ok(match compact {
        1 | 2 => Kind::Bool,
        3 => Kind::I8,
        4 => Kind::I16,
        5 => Kind::I32,
        6 => Kind::I64,
        7 => Kind::Double,
        8 => Kind::Binary,
        9 => Kind::List,
        10 => Kind::Set,
        11 => Kind::Map,
        12 => Kind::Struct,
        13 => Kind::Uuid,
        other => return Err(ThriftError::UnknownType(other)),
    })
}

fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Bool => 1,
        Kind::I8 => 3,
        Kind::I16 => 4,
        Kind::I32 => 5,
        Kind::I64 => 6,
        Kind::Double => 7,
        Kind::Binary => 8,
        Kind::List => 9,
        Kind::Set => 10,
        Kind::Map => 11,
        Kind::Struct => 12,
        Kind::Uuid => 13,
    }
}

impl<'a> Read<'a> for CompactReader<'a> {
    fn remaining(&self) -> usize {
        self.input.len()
    }

    fn message(&mut self) -> Result<(u8, &'a str), ThriftError> {
        let protocol = self.byte("the message header")?;
        if protocol != PROTOCOL {
            return Err(ThriftError::Protocol(protocol));
        }
        let second = self.byte("the message header")?;
        if second & 0x1f != VERSION {
            return Err(ThriftError::Protocol(second));
        }
        self.varint("the sequence number")?;
        Ok((second >> 5, self.string("the method's name")?))
    }

    fn enter(&mut self) -> Result<(), ThriftError> {
        if self.outer.len() >= usize::from(MAX_DEPTH) {
            return Err(ThriftError::TooDeep);
        }
        self.outer.push(std::mem::take(&mut self.last_field));
        Ok(())
    }

    fn field(&mut self) -> Result<Option<Field>, ThriftError> {
        let header = self.byte("a field header")?;
        if header == 0 {
            return Ok(None);
        }
        let kind = kind(header & 0x0f)?;
        let delta = i16::from(header >> 4);
        let id = match delta {
            0 => self.zigzag("a field number")? as i16,
            _ => self.last_field.wrapping_add(delta),
        };
        if kind == Kind::Bool {
            self.pending_bool = Some(header & 0x0f == 1);
        }
        self.last_field = id;
        Ok(Some(Field { id, kind }))
    }

    fn leave(&mut self) {
        self.last_field = self.outer.pop().unwrap_or(0);
    }

    fn list(&mut self) -> Result<(Kind, usize), ThriftError> {
        let header = self.byte("a list header")?;
        let kind = kind(header & 0x0f)?;
        let claimed = match header >> 4 {
            15 => self.varint("a list's size")?,
            short => u64::from(short),
        };
        Ok((kind, bounded(claimed, self.input.len(), "a list")?))
    }

    fn map(&mut self) -> Result<Option<(Kind, Kind, usize)>, ThriftError> {
        let claimed = self.varint("a map's size")?;
        if claimed == 0 {
            return Ok(None);
        }
        let types = self.byte("a map's types")?;
        let count = bounded(claimed, self.input.len(), "a map")?;
        Ok(Some((kind(types >> 4)?, kind(types & 0x0f)?, count)))
    }

    fn bool(&mut self) -> Result<bool, ThriftError> {
        self.pending_bool
            .take()
            .ok_or(ThriftError::Truncated("a boolean"))
    }

    fn bool_element(&mut self) -> Result<bool, ThriftError> {
        Ok(self.byte("a boolean")? == 1)
    }

    fn i8(&mut self) -> Result<i8, ThriftError> {
        Ok(self.byte("a byte")? as i8)
    }

    fn i16(&mut self) -> Result<i16, ThriftError> {
        Ok(self.zigzag("a 16-bit number")? as i16)
    }

    fn i32(&mut self) -> Result<i32, ThriftError> {
        Ok(self.zigzag("a 32-bit number")? as i32)
    }

    fn i64(&mut self) -> Result<i64, ThriftError> {
        self.zigzag("a 64-bit number")
    }

    fn double(&mut self) -> Result<f64, ThriftError> {
        take_array(&mut self.input, "a double").map(f64::from_le_bytes)
    }

    fn binary(&mut self, what: &'static str) -> Result<&'a [u8], ThriftError> {
        let claimed = self.varint(what)?;
        let length = bounded(claimed, self.input.len(), what)?;
        take(&mut self.input, length, what)
    }

    fn raw(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ThriftError> {
        take(&mut self.input, count, what)
    }
}

/// Writes the compact encoding.
#[derive(Debug, Default)]
pub struct CompactWriter {
    out: Vec<u8>,
    last_field: i16,
    outer: Vec<i16>,
}

impl CompactWriter {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn zigzag(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn header(&mut self, id: i16, compact: u8) {
        let delta = i32::from(id) - i32::from(self.last_field);
        if (1..=15).contains(&delta) {
            self.out.push((delta as u8) << 4 | compact);
        } else {
            self.out.push(compact);
            self.zigzag(i64::from(id));
        }
        self.last_field = id;
    }
}

impl Write for CompactWriter {
    fn message(&mut self, method: &str) {
        self.out.extend([PROTOCOL, ONE_WAY << 5 | VERSION]);
        self.varint(0);
        self.binary(method.as_bytes());
    }

    fn enter(&mut self) {
        self.outer.push(std::mem::take(&mut self.last_field));
    }

    fn leave(&mut self) {
        self.out.push(0);
        self.last_field = self.outer.pop().unwrap_or(0);
    }

    fn field(&mut self, id: i16, kind: Kind) {
        self.header(id, number(kind));
    }

    fn bool_field(&mut self, id: i16, value: bool) {
        self.header(id, if value { 1 } else { 2 });
    }

    fn list(&mut self, kind: Kind, count: usize) {
        if count < 15 {
            self.out.push((count as u8) << 4 | number(kind));
        } else {
            self.out.push(0xf0 | number(kind));
            self.varint(count as u64);
        }
    }

    fn i32(&mut self, value: i32) {
        self.zigzag(i64::from(value));
    }

    fn i64(&mut self, value: i64) {
        self.zigzag(value);
    }

    fn double(&mut self, value: f64) {
        self.out.extend(value.to_le_bytes());
    }

    fn binary(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.out.extend(value);
    }

    fn finish(self) -> Vec<u8> {
        self.out
    }
}
