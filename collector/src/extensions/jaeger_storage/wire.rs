//! Takes an OTLP trace batch apart without decoding it: resources, scopes and spans as slices of the encoding.

use crate::wire::Malformed;
use crate::wire::field::{WireType, fields};

/// Calls `each` with the encodings of every span, its scope and its resource.
pub(super) fn spans<'a>(
    batch: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8], &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for resource_spans in messages(batch, 1) {
        let resource_spans = resource_spans?;
        let resource = messages(resource_spans, 1)
            .next()
            .transpose()?
            .unwrap_or_default();
        for scope_spans in messages(resource_spans, 2) {
            let scope_spans = scope_spans?;
            let scope = messages(scope_spans, 1).next().transpose()?.unwrap_or_default();
            for span in messages(scope_spans, 2) {
                each(resource, scope, span?)?;
            }
        }
    }
    Ok(())
}

/// The delimited fields of a number; what is malformed comes out as an error, wherever it stands.
fn messages(message: &[u8], wanted: u32) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    fields(message).filter_map(move |field| match field {
        Err(malformed) => Some(Err(malformed)),
        Ok(field) => {
            (field.number == wanted && field.wire_type == WireType::Delimited).then_some(Ok(field.value))
        }
    })
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
    for field in fields(span) {
        let field = field?;
        match field.number {
            1 => head.trace_id = field.value,
            2 => head.span_id = field.value,
            4 => head.parent = field.value,
            5 => head.name = std::str::from_utf8(field.value).map_err(|_| Malformed::Text(5))?,
            6 => head.kind = field.number_value() as i32,
            7 => head.start = field.number_value(),
            8 => head.end = field.number_value(),
            _ => {}
        }
    }
    Ok(head)
}
