//! Makes traces for trying a site out, in the shape of OpenTelemetry's `tracegen`: a client span `lets-go` with a server span
//! `okey-dokey` below it.
//!
//! ```text
//! [jaeger_compact]: model::Batch ─▶ thrift ─▶ UDP datagrams
//! ```

mod jaeger;
mod shape;

pub use jaeger::{SendError, SendOptions, jaeger_compact};
