//! The JSON of Jaeger's query API, key for key as `internal/uimodel` of jaegertracing/jaeger writes it.

use serde::Serialize;
use serde_json::Value;

use crate::extensions::jaeger_storage::StoredTrace;
use crate::jaeger::model::{self, KeyValue, SpanRefType, ValueType};
use base64::Engine as _;

/// The largest integer that every JSON reader keeps exact.
const MAX_SAFE: i64 = (1 << 53) - 1;

/// What every answer is wrapped in.
#[derive(Debug, Serialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
    pub(super) total: usize,
    pub(super) limit: usize,
    pub(super) offset: usize,
    pub(super) errors: Option<Vec<Problem>>,
}

/// An error inside an [`Envelope`].
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u16>,
    pub(super) msg: String,
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct OperationJson {
    pub(super) name: String,
    #[serde(rename = "spanKind")]
    pub(super) span_kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct DependencyJson {
    pub(super) parent: String,
    pub(super) child: String,
    #[serde(rename = "callCount")]
    pub(super) call_count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct TraceJson {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<SpanJson>,
    processes: indexmap::IndexMap<String, ProcessJson>,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    operation_name: String,
    references: Vec<ReferenceJson>,
    start_time: i64,
    duration: i64,
    tags: Vec<TagJson>,
    logs: Vec<LogJson>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ReferenceJson {
    #[serde(rename = "refType")]
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Debug, Serialize)]
struct TagJson {
    key: String,
    #[serde(rename = "type")]
    kind: &'static str,
    value: Value,
}

#[derive(Debug, Serialize)]
struct LogJson {
    timestamp: i64,
    fields: Vec<TagJson>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessJson {
    service_name: String,
    tags: Vec<TagJson>,
}

fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

impl TraceJson {
    /// A stored trace: equal processes are listed once, spans by their start.
    pub(super) fn new(trace: &StoredTrace) -> Self {
        let mut processes: Vec<model::Process> = Vec::new();
        let mut decoded: Vec<(i64, SpanJson)> = Vec::with_capacity(trace.spans.len());
        for stored in &trace.spans {
            let mut span = stored.decode();
            let process = span.process.take().unwrap_or_default();
            let at = processes
                .iter()
                .position(|known| *known == process)
                .unwrap_or_else(|| {
                    processes.push(process);
                    processes.len() - 1
                });
            let span = SpanJson::new(span, format!("p{}", at + 1));
            decoded.push((span.start_time, span));
        }
        decoded.sort_by_key(|(start, _)| *start);
        let numbered = processes.into_iter().enumerate();
        Self {
            trace_id: hex::encode(trace.id),
            spans: decoded.into_iter().map(|(_, span)| span).collect(),
            processes: numbered
                .map(|(at, process)| (format!("p{}", at + 1), ProcessJson::new(process)))
                .collect(),
            warnings: None,
        }
    }
}

impl SpanJson {
    fn new(span: model::Span, process_id: String) -> Self {
        Self {
            trace_id: hex::encode(&span.trace_id),
            span_id: hex::encode(&span.span_id),
            flags: span.flags,
            start_time: span.start_time.as_ref().map_or(0, model::Timestamp::micros),
            duration: span.duration.as_ref().map_or(0, model::Duration::micros),
            references: span.references.iter().map(ReferenceJson::new).collect(),
            operation_name: span.operation_name,
            tags: span.tags.into_iter().map(TagJson::new).collect(),
            logs: span.logs.into_iter().map(LogJson::new).collect(),
            process_id,
            warnings: (!span.warnings.is_empty()).then_some(span.warnings),
        }
    }
}

impl ReferenceJson {
    fn new(reference: &model::SpanRef) -> Self {
        let ref_type = match reference.ref_type() {
            SpanRefType::ChildOf => "CHILD_OF",
            SpanRefType::FollowsFrom => "FOLLOWS_FROM",
        };
        Self {
            ref_type,
            trace_id: hex::encode(&reference.trace_id),
            span_id: hex::encode(&reference.span_id),
        }
    }
}

impl LogJson {
    fn new(log: model::Log) -> Self {
        Self {
            timestamp: log.timestamp.as_ref().map_or(0, model::Timestamp::micros),
            fields: log.fields.into_iter().map(TagJson::new).collect(),
        }
    }
}

impl ProcessJson {
    fn new(process: model::Process) -> Self {
        Self {
            service_name: process.service_name,
            tags: process.tags.into_iter().map(TagJson::new).collect(),
        }
    }
}

impl TagJson {
    fn new(tag: KeyValue) -> Self {
        let (kind, value) = match tag.v_type() {
            ValueType::String => ("string", Value::from(tag.v_str)),
            ValueType::Bool => ("bool", Value::from(tag.v_bool)),
            ValueType::Int64 if (-MAX_SAFE..=MAX_SAFE).contains(&tag.v_int64) => {
                ("int64", Value::from(tag.v_int64))
            }
            ValueType::Int64 => ("int64", Value::from(tag.v_int64.to_string())),
            ValueType::Float64 => ("float64", float(tag.v_float64)),
            ValueType::Binary => (
                "binary",
                base64::engine::general_purpose::STANDARD
                    .encode(&tag.v_binary)
                    .into(),
            ),
        };
        Self {
            key: tag.key,
            kind,
            value,
        }
    }
}

/// Whole numbers are written without a fraction, as Go writes them; JSON has no word for what is not finite.
fn float(value: f64) -> Value {
    if !value.is_finite() {
        return Value::from(value.to_string());
    }
    if value.fract() == 0.0 && value.abs() < MAX_SAFE as f64 {
        return Value::from(value as i64);
    }
    Value::from(value)
}
