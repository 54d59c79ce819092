//! `jaeger.api_v2`: Jaeger's protobuf model, written by hand after `model.proto` and `collector.proto`
//! of jaegertracing/jaeger-idl. Identifiers are big-endian bytes: 16 for a trace, 8 for a span.

/// A tag of a span, a process or a log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Which of the following fields holds the value.
    #[prost(enumeration = "ValueType", tag = "2")]
    pub v_type: i32,
    /// Text.
    #[prost(string, tag = "3")]
    pub v_str: String,
    /// Boolean.
    #[prost(bool, tag = "4")]
    pub v_bool: bool,
    /// Integer.
    #[prost(int64, tag = "5")]
    pub v_int64: i64,
    /// Floating point.
    #[prost(double, tag = "6")]
    pub v_float64: f64,
    /// Bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub v_binary: Vec<u8>,
}

/// A tag's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ValueType {
    /// Text.
    String = 0,
    /// Boolean.
    Bool = 1,
    /// Integer.
    Int64 = 2,
    /// Floating point.
    Float64 = 3,
    /// Bytes.
    Binary = 4,
}

/// An instant, as `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A time span, as `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Duration {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Of the same sign as the seconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// What happened during a span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Log {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// What.
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<KeyValue>,
}

/// How a span relates to the one that it references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SpanRefType {
    /// The other one waits for this one.
    ChildOf = 0,
    /// It does not.
    FollowsFrom = 1,
}

/// A reference from a span to another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SpanRef {
    /// The other's trace.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// The other.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// How they relate.
    #[prost(enumeration = "SpanRefType", tag = "3")]
    pub ref_type: i32,
}

/// What emitted spans.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Process {
    /// The service.
    #[prost(string, tag = "1")]
    pub service_name: String,
    /// More about it.
    #[prost(message, repeated, tag = "2")]
    pub tags: Vec<KeyValue>,
}

/// A span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// What was done.
    #[prost(string, tag = "3")]
    pub operation_name: String,
    /// Its parent and other relations.
    #[prost(message, repeated, tag = "4")]
    pub references: Vec<SpanRef>,
    /// 1 sampled, 2 debug.
    #[prost(uint32, tag = "5")]
    pub flags: u32,
    /// When it started.
    #[prost(message, optional, tag = "6")]
    pub start_time: Option<Timestamp>,
    /// How long it took.
    #[prost(message, optional, tag = "7")]
    pub duration: Option<Duration>,
    /// More about it.
    #[prost(message, repeated, tag = "8")]
    pub tags: Vec<KeyValue>,
    /// What happened meanwhile.
    #[prost(message, repeated, tag = "9")]
    pub logs: Vec<Log>,
    /// Its own process, where it differs from the batch's.
    #[prost(message, optional, tag = "10")]
    pub process: Option<Process>,
    /// Key of the process in a trace's table.
    #[prost(string, tag = "11")]
    pub process_id: String,
    /// What is wrong with it.
    #[prost(string, repeated, tag = "12")]
    pub warnings: Vec<String>,
}

/// Spans of one process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// The spans.
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<Span>,
    /// What emitted them.
    #[prost(message, optional, tag = "2")]
    pub process: Option<Process>,
}

/// The argument of `jaeger.api_v2.CollectorService/PostSpans`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PostSpansRequest {
    /// The spans.
    #[prost(message, optional, tag = "1")]
    pub batch: Option<Batch>,
}

/// Its answer.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PostSpansResponse {}

impl KeyValue {
    /// A tag with text.
    pub fn string(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            v_type: ValueType::String as i32,
            v_str: value.into(),
            ..Self::default()
        }
    }

    /// A tag with a boolean.
    pub fn bool(key: impl Into<String>, value: bool) -> Self {
        Self {
            key: key.into(),
            v_type: ValueType::Bool as i32,
            v_bool: value,
            ..Self::default()
        }
    }

    /// A tag with an integer.
    pub fn int(key: impl Into<String>, value: i64) -> Self {
        Self {
            key: key.into(),
            v_type: ValueType::Int64 as i32,
            v_int64: value,
            ..Self::default()
        }
    }

    /// A tag with a floating-point number.
    pub fn float(key: impl Into<String>, value: f64) -> Self {
        Self {
            key: key.into(),
            v_type: ValueType::Float64 as i32,
            v_float64: value,
            ..Self::default()
        }
    }

    /// A tag with bytes.
    pub fn binary(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self {
            key: key.into(),
            v_type: ValueType::Binary as i32,
            v_binary: value,
            ..Self::default()
        }
    }

    /// The value as the search by tags compares it.
    pub fn value_text(&self) -> String {
        match self.v_type() {
            ValueType::String => self.v_str.clone(),
            ValueType::Bool => self.v_bool.to_string(),
            ValueType::Int64 => self.v_int64.to_string(),
            ValueType::Float64 => self.v_float64.to_string(),
            ValueType::Binary => hex::encode(&self.v_binary),
        }
    }
}

impl Timestamp {
    /// From microseconds since 1970.
    pub fn from_micros(micros: i64) -> Self {
        Self {
            seconds: micros.div_euclid(1_000_000),
            nanos: (micros.rem_euclid(1_000_000) * 1_000) as i32,
        }
    }

    /// From nanoseconds since 1970.
    pub fn from_nanos(nanos: u64) -> Self {
        Self {
            seconds: (nanos / 1_000_000_000) as i64,
            nanos: (nanos % 1_000_000_000) as i32,
        }
    }

    /// As microseconds since 1970, as far as they fit.
    pub fn micros(&self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(self.nanos) / 1_000)
    }

    /// As nanoseconds since 1970; nothing before that, nothing that does not fit.
    pub fn nanos(&self) -> u64 {
        clamp_nanos(self.seconds, self.nanos)
    }
}

impl Duration {
    /// From microseconds.
    pub fn from_micros(micros: i64) -> Self {
        Self {
            seconds: micros / 1_000_000,
            nanos: (micros % 1_000_000 * 1_000) as i32,
        }
    }

    /// From nanoseconds.
    pub fn from_nanos(nanos: u64) -> Self {
        Self {
            seconds: (nanos / 1_000_000_000) as i64,
            nanos: (nanos % 1_000_000_000) as i32,
        }
    }

    /// As microseconds, as far as they fit.
    pub fn micros(&self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(self.nanos) / 1_000)
    }

    /// As nanoseconds; negative ones are none.
    pub fn nanos(&self) -> u64 {
        clamp_nanos(self.seconds, self.nanos)
    }
}

fn clamp_nanos(seconds: i64, nanos: i32) -> u64 {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    u64::try_from(total.max(0)).unwrap_or(u64::MAX)
}

/// A trace's id from Thrift's two halves.
pub fn trace_id(high: i64, low: i64) -> Vec<u8> {
    [high.to_be_bytes(), low.to_be_bytes()].concat()
}

/// The two halves of a trace's id; a shorter one is taken as its low end, as Jaeger does.
pub fn trace_id_halves(id: &[u8]) -> (i64, i64) {
    let mut padded = [0u8; 16];
    let tail = &id[id.len().saturating_sub(16)..];
    padded[16 - tail.len()..].copy_from_slice(tail);
    let whole = u128::from_be_bytes(padded);
    ((whole >> 64) as i64, whole as i64)
}

/// A span's id as Thrift has it.
pub fn span_id_number(id: &[u8]) -> i64 {
    trace_id_halves(id).1
}
