//! Jaeger's structures in either encoding, to and from [`model`].
//!
//! Thrift keeps the parent apart (`parentSpanId`), the model as a `CHILD_OF` reference: decoding puts it first among the
//! references, encoding takes it out again.

use super::write::{write_batch, write_span};
use super::{BinaryReader, BinaryWriter, CompactReader, CompactWriter, Encoding, Field, Kind, MAX_DEPTH};
use super::{Read, ThriftError, Write};
use crate::jaeger::model::{self, Batch, Duration, KeyValue, Log, Process, Span, SpanRef, SpanRefType};
use crate::jaeger::model::{Timestamp, ValueType};

const METHOD: &str = "emitBatch";
const CALL: u8 = 1;
const ONE_WAY: u8 = 4;

/// Reads a datagram: a message header, then the arguments of `emitBatch`.
pub fn decode_message(encoding: Encoding, bytes: &[u8]) -> Result<Batch, ThriftError> {
    match encoding {
        Encoding::Compact => message(&mut CompactReader::new(bytes)),
        Encoding::Binary => message(&mut BinaryReader::new(bytes)),
    }
}

/// Reads a bare `Batch`, as HTTP carries it.
pub fn decode_batch(encoding: Encoding, bytes: &[u8]) -> Result<Batch, ThriftError> {
    match encoding {
        Encoding::Compact => batch(&mut CompactReader::new(bytes)),
        Encoding::Binary => batch(&mut BinaryReader::new(bytes)),
    }
}

/// Writes a datagram that calls `emitBatch`.
pub fn encode_message(encoding: Encoding, batch: &Batch) -> Vec<u8> {
    fn write<W: Write>(mut out: W, batch: &Batch) -> Vec<u8> {
        out.message(METHOD);
        out.enter();
        out.field(1, Kind::Struct);
        write_batch(&mut out, batch);
        out.leave();
        out.finish()
    }
    match encoding {
        Encoding::Compact => write(CompactWriter::new(), batch),
        Encoding::Binary => write(BinaryWriter::new(), batch),
    }
}

/// Writes a bare `Batch`, as HTTP carries it.
pub fn encode_batch(encoding: Encoding, batch: &Batch) -> Vec<u8> {
    fn write<W: Write>(mut out: W, batch: &Batch) -> Vec<u8> {
        write_batch(&mut out, batch);
        out.finish()
    }
    match encoding {
        Encoding::Compact => write(CompactWriter::new(), batch),
        Encoding::Binary => write(BinaryWriter::new(), batch),
    }
}

/// How many bytes a span takes in a datagram, for filling datagrams up to a limit.
pub fn encoded_span_len(span: &Span) -> usize {
    let mut out = CompactWriter::new();
    write_span(&mut out, span);
    out.finish().len()
}

fn message<'a, R: Read<'a>>(input: &mut R) -> Result<Batch, ThriftError> {
    let (kind, method) = input.message()?;
    if kind != CALL && kind != ONE_WAY {
        return Err(ThriftError::NotACall(kind));
    }
    if method != METHOD {
        return Err(ThriftError::Method(method.chars().take(64).collect()));
    }
    let mut found = None;
    fields(input, |input, field| match field.id {
        1 => {
            expect("the arguments", field, Kind::Struct)?;
            found = Some(batch(input)?);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    found.ok_or(ThriftError::Missing {
        of: "emitBatch",
        field: "batch",
    })
}

/// Reads a structure: `each` takes a field and says whether it did; what it leaves is skipped.
fn fields<'a, R: Read<'a>>(
    input: &mut R,
    mut each: impl FnMut(&mut R, Field) -> Result<bool, ThriftError>,
) -> Result<(), ThriftError> {
    input.enter()?;
    while let Some(field) = input.field()? {
        if !each(input, field)? {
            input.skip(field.kind, MAX_DEPTH)?;
        }
    }
    input.leave();
    Ok(())
}

fn expect(of: &'static str, field: Field, wanted: Kind) -> Result<(), ThriftError> {
    if field.kind == wanted {
        return Ok(());
    }
    Err(ThriftError::WrongType {
        of,
        field: field.id,
        found: field.kind,
        wanted,
    })
}

/// Reads a list of structures. Memory grows with what is really there, never with what a header claims.
fn structs<'a, R: Read<'a>, T>(
    input: &mut R,
    of: &'static str,
    field: Field,
    read: impl Fn(&mut R) -> Result<T, ThriftError>,
) -> Result<Vec<T>, ThriftError> {
    expect(of, field, Kind::List)?;
    let (kind, count) = input.list()?;
    if count > 0 {
        expect(of, Field { id: field.id, kind }, Kind::Struct)?;
    }
    let mut all = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        all.push(read(input)?);
    }
    Ok(all)
}

fn required<T>(value: Option<T>, of: &'static str, field: &'static str) -> Result<T, ThriftError> {
    value.ok_or(ThriftError::Missing { of, field })
}

fn batch<'a, R: Read<'a>>(input: &mut R) -> Result<Batch, ThriftError> {
    const OF: &str = "Batch";
    let (mut process, mut spans) = (None, None);
    fields(input, |input, field| {
        match field.id {
            1 => {
                expect(OF, field, Kind::Struct)?;
                process = Some(read_process(input)?);
            }
            2 => spans = Some(structs(input, OF, field, read_span)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Batch {
        process: Some(required(process, OF, "process")?),
        spans: required(spans, OF, "spans")?,
    })
}

fn read_process<'a, R: Read<'a>>(input: &mut R) -> Result<Process, ThriftError> {
    const OF: &str = "Process";
    let (mut service_name, mut tags) = (None, Vec::new());
    fields(input, |input, field| {
        match field.id {
            1 => {
                expect(OF, field, Kind::Binary)?;
                service_name = Some(input.string("a service's name")?.to_owned());
            }
            2 => tags = structs(input, OF, field, read_tag)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Process {
        service_name: required(service_name, OF, "serviceName")?,
        tags,
    })
}

#[derive(Default)]
struct SpanFields {
    trace_low: Option<i64>,
    trace_high: Option<i64>,
    span: Option<i64>,
    parent: Option<i64>,
    name: Option<String>,
    references: Vec<SpanRef>,
    flags: Option<i32>,
    start: Option<i64>,
    duration: Option<i64>,
    tags: Vec<KeyValue>,
    logs: Vec<Log>,
}

fn read_span<'a, R: Read<'a>>(input: &mut R) -> Result<Span, ThriftError> {
    const OF: &str = "Span";
    let mut got = SpanFields::default();
    fields(input, |input, field| {
        match field.id {
            1 => got.trace_low = Some(number(input, OF, field)?),
            2 => got.trace_high = Some(number(input, OF, field)?),
            3 => got.span = Some(number(input, OF, field)?),
            4 => got.parent = Some(number(input, OF, field)?),
            5 => {
                expect(OF, field, Kind::Binary)?;
                got.name = Some(input.string("an operation's name")?.to_owned());
            }
            6 => got.references = structs(input, OF, field, read_reference)?,
            7 => {
                expect(OF, field, Kind::I32)?;
                got.flags = Some(input.i32()?);
            }
            8 => got.start = Some(number(input, OF, field)?),
            9 => got.duration = Some(number(input, OF, field)?),
            10 => got.tags = structs(input, OF, field, read_tag)?,
            11 => got.logs = structs(input, OF, field, read_log)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    span_of(got)
}

fn number<'a, R: Read<'a>>(input: &mut R, of: &'static str, field: Field) -> Result<i64, ThriftError> {
    expect(of, field, Kind::I64)?;
    input.i64()
}

fn span_of(got: SpanFields) -> Result<Span, ThriftError> {
    const OF: &str = "Span";
    let high = required(got.trace_high, OF, "traceIdHigh")?;
    let trace_id = model::trace_id(high, required(got.trace_low, OF, "traceIdLow")?);
    let parent = required(got.parent, OF, "parentSpanId")?;
    let mut references = got.references;
    if parent != 0 {
        let parent = SpanRef {
            trace_id: trace_id.clone(),
            span_id: parent.to_be_bytes().to_vec(),
            ref_type: SpanRefType::ChildOf as i32,
        };
        let known = references
            .iter()
            .any(|r| r.trace_id == parent.trace_id && r.span_id == parent.span_id);
        if !known {
            references.insert(0, parent);
        }
    }
    Ok(Span {
        trace_id,
        span_id: required(got.span, OF, "spanId")?.to_be_bytes().to_vec(),
        operation_name: required(got.name, OF, "operationName")?,
        references,
        flags: required(got.flags, OF, "flags")? as u32,
        start_time: Some(Timestamp::from_micros(required(got.start, OF, "startTime")?)),
        duration: Some(Duration::from_micros(required(got.duration, OF, "duration")?)),
        tags: got.tags,
        logs: got.logs,
        ..Span::default()
    })
}

fn read_reference<'a, R: Read<'a>>(input: &mut R) -> Result<SpanRef, ThriftError> {
    const OF: &str = "SpanRef";
    let (mut kind, mut low, mut high, mut span) = (None, None, None, None);
    fields(input, |input, field| {
        match field.id {
            1 => {
                expect(OF, field, Kind::I32)?;
                kind = Some(input.i32()?);
            }
            2 => low = Some(number(input, OF, field)?),
            3 => high = Some(number(input, OF, field)?),
            4 => span = Some(number(input, OF, field)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let kind = match required(kind, OF, "refType")? {
        0 => SpanRefType::ChildOf,
        _ => SpanRefType::FollowsFrom,
    };
    Ok(SpanRef {
        trace_id: model::trace_id(
            required(high, OF, "traceIdHigh")?,
            required(low, OF, "traceIdLow")?,
        ),
        span_id: required(span, OF, "spanId")?.to_be_bytes().to_vec(),
        ref_type: kind as i32,
    })
}

fn read_log<'a, R: Read<'a>>(input: &mut R) -> Result<Log, ThriftError> {
    const OF: &str = "Log";
    let (mut at, mut tags) = (None, None);
    fields(input, |input, field| {
        match field.id {
            1 => at = Some(number(input, OF, field)?),
            2 => tags = Some(structs(input, OF, field, read_tag)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let timestamp = Some(Timestamp::from_micros(required(at, OF, "timestamp")?));
    Ok(Log {
        timestamp,
        fields: required(tags, OF, "fields")?,
    })
}

fn read_tag<'a, R: Read<'a>>(input: &mut R) -> Result<KeyValue, ThriftError> {
    const OF: &str = "Tag";
    let (mut key, mut kind) = (None, None);
    let mut tag = KeyValue::default();
    fields(input, |input, field| {
        let wanted = match field.id {
            1 | 3 | 7 => Kind::Binary,
            2 => Kind::I32,
            4 => Kind::Double,
            5 => Kind::Bool,
            6 => Kind::I64,
            _ => return Ok(false),
        };
        expect(OF, field, wanted)?;
        match field.id {
            1 => key = Some(input.string("a tag's key")?.to_owned()),
            2 => kind = Some(input.i32()?),
            3 => tag.v_str = input.string("a tag's text")?.to_owned(),
            4 => tag.v_float64 = input.double()?,
            5 => tag.v_bool = input.bool()?,
            6 => tag.v_int64 = input.i64()?,
            _ => tag.v_binary = input.binary("a tag's bytes")?.to_owned(),
        }
        Ok(true)
    })?;
    tag.key = required(key, OF, "key")?;
    // Thrift numbers them string, double, bool, long, binary.
    let kind = match required(kind, OF, "vType")? {
        1 => ValueType::Float64,
        2 => ValueType::Bool,
        3 => ValueType::Int64,
        4 => ValueType::Binary,
        _ => ValueType::String,
    };
    tag.set_v_type(kind);
    Ok(tag)
}

#[cfg(test)]
mod tests;
