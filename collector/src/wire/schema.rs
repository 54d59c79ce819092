//! OTLP's messages: which field is encoded how. Only what a decoder checks: fields it does not know it skips.

/// How a field must be encoded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Not a field of the message: skipped.
    Unknown,
    /// A message.
    Message(&'static Schema),
    /// A text, valid UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// A variable-length number.
    Varint,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// Variable-length numbers, packed or not.
    Varints,
    /// Numbers of eight bytes, packed or not.
    Fixed64s,
}

/// More than the largest field number.
const FIELDS: usize = 17;

/// A message.
#[derive(Debug)]
pub(super) struct Schema {
    /// The kinds by field number.
    fields: [Kind; FIELDS],
    /// Whether it is what is counted.
    pub(super) item: bool,
    /// Whether it is an attribute: a key and a value.
    pub(super) pair: bool,
}

impl Schema {
    /// The kind of a field.
    #[inline]
    pub(super) fn kind(&self, number: u32) -> Kind {
        self.fields.get(number as usize).copied().unwrap_or(Unknown)
    }

    /// The kind of the field that a key of one byte is of; unknown for any other byte.
    #[inline]
    pub(super) fn short(&self, key: u8) -> Kind {
        match key {
            // Numbers below 16.
            0..0x80 => self.fields[usize::from(key >> 3)],
            _ => Unknown,
        }
    }
}

const fn schema(list: &[(u32, Kind)], item: bool) -> Schema {
    let mut fields = [Unknown; FIELDS];
    let mut index = 0;
    while index < list.len() {
        fields[list[index].0 as usize] = list[index].1;
        index += 1;
    }
    Schema {
        fields,
        item,
        pair: false,
    }
}

const fn message(fields: &[(u32, Kind)]) -> Schema {
    schema(fields, false)
}

const fn item(fields: &[(u32, Kind)]) -> Schema {
    schema(fields, true)
}

use Kind::{Bytes, Fixed32, Fixed64, Fixed64s, Message, Text, Unknown, Varint, Varints};

static ANY_VALUE: Schema = message(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&ARRAY)),
    (6, Message(&KEY_VALUES)),
    (7, Bytes),
    (8, Varint),
]);
static ARRAY: Schema = message(&[(1, Message(&ANY_VALUE))]);
static KEY_VALUES: Schema = message(&[(1, Message(&KEY_VALUE))]);
static KEY_VALUE: Schema = Schema {
    pair: true,
    ..message(&[(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)])
};
static ENTITY_REF: Schema = message(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
static RESOURCE: Schema = message(&[(1, Message(&KEY_VALUE)), (2, Varint), (3, Message(&ENTITY_REF))]);
static SCOPE: Schema = message(&[(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);

pub(super) static TRACES: Schema = message(&[(1, Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Schema = message(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_SPANS)), (3, Text)]);
static SCOPE_SPANS: Schema = message(&[(1, Message(&SCOPE)), (2, Message(&SPAN)), (3, Text)]);
static SPAN: Schema = item(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Message(&EVENT)),
    (12, Varint),
    (13, Message(&LINK)),
    (14, Varint),
    (15, Message(&STATUS)),
    (16, Fixed32),
]);
static EVENT: Schema = message(&[(1, Fixed64), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static LINK: Schema = message(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Message(&KEY_VALUE)),
    (5, Varint),
    (6, Fixed32),
]);
static STATUS: Schema = message(&[(2, Text), (3, Varint)]);

pub(super) static LOGS: Schema = message(&[(1, Message(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Schema = message(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_LOGS)), (3, Text)]);
static SCOPE_LOGS: Schema = message(&[(1, Message(&SCOPE)), (2, Message(&LOG_RECORD)), (3, Text)]);
static LOG_RECORD: Schema = item(&[
    (1, Fixed64),
    (2, Varint),
    (3, Text),
    (5, Message(&ANY_VALUE)),
    (6, Message(&KEY_VALUE)),
    (7, Varint),
    (8, Fixed32),
    (9, Bytes),
    (10, Bytes),
    (11, Fixed64),
    (12, Text),
]);

pub(super) static METRICS: Schema = message(&[(1, Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Schema =
    message(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_METRICS)), (3, Text)]);
static SCOPE_METRICS: Schema = message(&[(1, Message(&SCOPE)), (2, Message(&METRIC)), (3, Text)]);
static METRIC: Schema = message(&[
    (1, Text),
    (2, Text),
    (3, Text),
    (5, Message(&GAUGE)),
    (7, Message(&SUM)),
    (9, Message(&HISTOGRAM)),
    (10, Message(&EXPONENTIAL)),
    (11, Message(&SUMMARY)),
    (12, Message(&KEY_VALUE)),
]);
static GAUGE: Schema = message(&[(1, Message(&NUMBER_POINT))]);
static SUM: Schema = message(&[(1, Message(&NUMBER_POINT)), (2, Varint), (3, Varint)]);
static HISTOGRAM: Schema = message(&[(1, Message(&HISTOGRAM_POINT)), (2, Varint)]);
static EXPONENTIAL: Schema = message(&[(1, Message(&EXPONENTIAL_POINT)), (2, Varint)]);
static SUMMARY: Schema = message(&[(1, Message(&SUMMARY_POINT))]);
static NUMBER_POINT: Schema = item(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Message(&EXEMPLAR)),
    (6, Fixed64),
    (7, Message(&KEY_VALUE)),
    (8, Varint),
]);
static HISTOGRAM_POINT: Schema = item(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Fixed64s),
    (7, Fixed64s),
    (8, Message(&EXEMPLAR)),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Fixed64),
    (12, Fixed64),
]);
static EXPONENTIAL_POINT: Schema = item(&[
    (1, Message(&KEY_VALUE)),
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (8, Message(&BUCKETS)),
    (9, Message(&BUCKETS)),
    (10, Varint),
    (11, Message(&EXEMPLAR)),
    (12, Fixed64),
    (13, Fixed64),
    (14, Fixed64),
]);
static BUCKETS: Schema = message(&[(1, Varint), (2, Varints)]);
static SUMMARY_POINT: Schema = item(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Message(&QUANTILE)),
    (7, Message(&KEY_VALUE)),
    (8, Varint),
]);
static QUANTILE: Schema = message(&[(1, Fixed64), (2, Fixed64)]);
static EXEMPLAR: Schema = message(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Bytes),
    (5, Bytes),
    (6, Fixed64),
    (7, Message(&KEY_VALUE)),
]);
