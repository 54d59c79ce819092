//! Jaeger's model and what it means in OpenTelemetry's.
//!
//! ```text
//! thrift / gRPC PostSpans ─▶ model::Batch ─▶ [to_otlp] ─▶ ResourceSpans ─▶ Batch (bytes)
//! Batch (bytes) ─▶ ResourceSpans ─▶ [from_otlp] ─▶ model::Batch ─▶ PostSpans, query API
//! ```

pub mod from_otlp;
pub mod model;
pub mod to_otlp;

#[cfg(test)]
mod tests;

/// Names of tags and attributes that stand for something that the other model has a field for.
pub mod names {
    /// The attribute that becomes a process' service name.
    pub const SERVICE_NAME: &str = "service.name";
    /// The service name of a resource that has none.
    pub const NO_SERVICE: &str = "OTLPResourceNoServiceName";
    /// `client`, `server`, `producer`, `consumer`, `internal`.
    pub const SPAN_KIND: &str = "span.kind";
    /// `true` on failed spans.
    pub const ERROR: &str = "error";
    /// `OK` or `ERROR`.
    pub const STATUS_CODE: &str = "otel.status_code";
    /// The status' message.
    pub const STATUS_DESCRIPTION: &str = "otel.status_description";
    /// The instrumentation scope's name.
    pub const SCOPE_NAME: &str = "otel.scope.name";
    /// The instrumentation scope's version.
    pub const SCOPE_VERSION: &str = "otel.scope.version";
    /// The older spelling of [`SCOPE_NAME`].
    pub const LIBRARY_NAME: &str = "otel.library.name";
    /// The older spelling of [`SCOPE_VERSION`].
    pub const LIBRARY_VERSION: &str = "otel.library.version";
    /// W3C trace state.
    pub const TRACE_STATE: &str = "w3c.tracestate";
    /// A log's field with the event's name.
    pub const EVENT: &str = "event";
    /// A link's attribute with the reference's type.
    pub const REF_TYPE: &str = "opentracing.ref_type";
    /// [`REF_TYPE`] of a parent.
    pub const CHILD_OF: &str = "child_of";
    /// [`REF_TYPE`] of anything else.
    pub const FOLLOWS_FROM: &str = "follows_from";
    /// An HTTP answer's status, from which a span's is taken when it has none.
    pub const HTTP_STATUS_CODE: &str = "http.status_code";
    /// An HTTP answer's status text.
    pub const HTTP_STATUS_TEXT: &str = "http.status_text";
}
