//! Runs OpenTelemetry-Collector-compatible pipelines and loses nothing.
//!
//! ```text
//! document ─▶ karez-collector-config ─▶ service (graph of pipelines) ─▶ components, started once each
//! receiver ─▶ Batch (OTLP bytes) ─▶ processors ─▶ queue, retry ─▶ exporter ─▶ Outcome, back to the receiver or the queue
//! ```
//!
//! # Writing a component
//!
//! One file a component. Its configuration type is in `karez-collector-config`; here it implements one of the traits of
//! [`component`] and gets a line in `registry.rs`:
//!
//! - [`component::Receiver`]: `start(consumers, cx)` binds through `cx.net`, spawns its tasks on a
//!   [`component::Running`] and sends batches to `consumers.of(signal, transport)`. The answer of
//!   [`component::Consumer::send`] goes back to the client: `Ok` is success, a [`component::Refusal`] says whether to
//!   try again.
//! - [`component::Processor`]: `start(next, cx)` gives the consumer that stands before `next`.
//! - [`component::Exporter`]: `export(batch)` tries once and says what became of it as a [`component::Outcome`]; queue,
//!   retry and timeout stand around it.
//! - [`component::Extension`]: says by its methods what it can do: check callers, add credentials, keep traces.
//!
//! Servers are served by `server`, gRPC and HTTP clients come from `client`: TLS, authentication, compression and the
//! addresses of [`karez_net`] are then as configured.

pub mod batch;
mod batch_name;
pub mod client;
pub mod component;
pub mod connectors;
mod durable;
pub mod exporters;
pub mod extensions;
mod footprint;
#[doc(hidden)]
pub mod fuzzing;
pub mod jaeger;
pub mod json;
pub mod ledger;
pub mod metrics;
pub mod processors;
pub mod prometheus;
pub mod receivers;
pub mod registry;
pub mod rpc;
mod self_metrics;
pub mod server;
mod service;
pub mod telemetrygen;
pub mod thrift;
mod tls;
mod together;
mod unary;
pub mod wire;
pub mod zipkin;

pub use footprint::share_heaps;
pub use service::{
    CollectorOptions, RunError, Service, Status, StatusError, components, run, status, validate,
};
