//! Jaeger's structures into either encoding; the counterpart of `batch.rs`.

use super::{Kind, Write};
use crate::jaeger::model::{self, Batch, Duration, KeyValue, Log, Process, Span, SpanRef, SpanRefType};
use crate::jaeger::model::{Timestamp, ValueType};

pub(super) fn write_batch<W: Write>(out: &mut W, batch: &Batch) {
    out.enter();
    out.field(1, Kind::Struct);
    write_process(out, batch.process.as_ref().unwrap_or(&Process::default()));
    out.field(2, Kind::List);
    out.list(Kind::Struct, batch.spans.len());
    for span in &batch.spans {
        write_span(out, span);
    }
    out.leave();
}

fn write_process<W: Write>(out: &mut W, process: &Process) {
    out.enter();
    out.field(1, Kind::Binary);
    out.binary(process.service_name.as_bytes());
    write_tags(out, 2, &process.tags);
    out.leave();
}

fn write_i64<W: Write>(out: &mut W, id: i16, value: i64) {
    out.field(id, Kind::I64);
    out.i64(value);
}

pub(super) fn write_span<W: Write>(out: &mut W, span: &Span) {
    let (high, low) = model::trace_id_halves(&span.trace_id);
    // Only a first reference can become `parentSpanId` and come back in its place.
    let is_parent = |r: &&SpanRef| r.ref_type() == SpanRefType::ChildOf && r.trace_id == span.trace_id;
    let parent = span.references.first().filter(is_parent);
    let others = &span.references[usize::from(parent.is_some())..];
    out.enter();
    write_i64(out, 1, low);
    write_i64(out, 2, high);
    write_i64(out, 3, model::span_id_number(&span.span_id));
    write_i64(
        out,
        4,
        parent.map_or(0, |parent| model::span_id_number(&parent.span_id)),
    );
    out.field(5, Kind::Binary);
    out.binary(span.operation_name.as_bytes());
    if !others.is_empty() {
        out.field(6, Kind::List);
        out.list(Kind::Struct, others.len());
        others
            .iter()
            .for_each(|reference| write_reference(out, reference));
    }
    out.field(7, Kind::I32);
    out.i32(span.flags as i32);
    write_i64(out, 8, span.start_time.as_ref().map_or(0, Timestamp::micros));
    write_i64(out, 9, span.duration.as_ref().map_or(0, Duration::micros));
    write_tags(out, 10, &span.tags);
    if !span.logs.is_empty() {
        out.field(11, Kind::List);
        out.list(Kind::Struct, span.logs.len());
        span.logs.iter().for_each(|log| write_log(out, log));
    }
    out.leave();
}

fn write_reference<W: Write>(out: &mut W, reference: &SpanRef) {
    let (high, low) = model::trace_id_halves(&reference.trace_id);
    out.enter();
    out.field(1, Kind::I32);
    out.i32(reference.ref_type);
    write_i64(out, 2, low);
    write_i64(out, 3, high);
    write_i64(out, 4, model::span_id_number(&reference.span_id));
    out.leave();
}

fn write_log<W: Write>(out: &mut W, log: &Log) {
    out.enter();
    write_i64(out, 1, log.timestamp.as_ref().map_or(0, Timestamp::micros));
    out.field(2, Kind::List);
    out.list(Kind::Struct, log.fields.len());
    log.fields.iter().for_each(|tag| write_tag(out, tag));
    out.leave();
}

fn write_tags<W: Write>(out: &mut W, id: i16, tags: &[KeyValue]) {
    if tags.is_empty() {
        return;
    }
    out.field(id, Kind::List);
    out.list(Kind::Struct, tags.len());
    tags.iter().for_each(|tag| write_tag(out, tag));
}

fn write_tag<W: Write>(out: &mut W, tag: &KeyValue) {
    out.enter();
    out.field(1, Kind::Binary);
    out.binary(tag.key.as_bytes());
    out.field(2, Kind::I32);
    match tag.v_type() {
        ValueType::String => {
            out.i32(0);
            out.field(3, Kind::Binary);
            out.binary(tag.v_str.as_bytes());
        }
        ValueType::Float64 => {
            out.i32(1);
            out.field(4, Kind::Double);
            out.double(tag.v_float64);
        }
        ValueType::Bool => {
            out.i32(2);
            out.bool_field(5, tag.v_bool);
        }
        ValueType::Int64 => {
            out.i32(3);
            write_i64(out, 6, tag.v_int64);
        }
        ValueType::Binary => {
            out.i32(4);
            out.field(7, Kind::Binary);
            out.binary(&tag.v_binary);
        }
    }
    out.leave();
}
