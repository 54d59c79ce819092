//! `otlp`: OTLP over gRPC and HTTP.
//!
//! ```text
//! request ─▶ decompressed (bounded) ─▶ scanned (JSON: translated) ─▶ Batch ─▶ consumer ─▶ answer by its word
//! ```

mod grpc;
pub(crate) use grpc::method;
mod http;

use bytes::Bytes;
use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::receivers as config;

use std::sync::Arc;

use crate::batch::{Batch, Context};
use crate::component::{ComponentContext, Consumers, Receiver, Refusal, Running, StartError};
use crate::server::Server;
use crate::wire::Malformed;

/// The receiver.
pub struct OtlpReceiver {
    config: config::OtlpReceiver,
}

impl OtlpReceiver {
    /// A receiver of this configuration.
    pub fn new(config: config::OtlpReceiver) -> Self {
        OtlpReceiver { config }
    }
}

impl Receiver for OtlpReceiver {
    fn start<'a>(
        &'a self,
        consumers: Consumers,
        cx: &'a ComponentContext,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move {
            let mut running = Running::none();
            if let Some(grpc) = &self.config.grpc {
                let server = Server::grpc(grpc, "localhost:4317", "protocols.grpc");
                running.join(server.serve(grpc::router(&consumers, grpc), cx).await?);
            }
            if let Some(http) = &self.config.http {
                let server = Server::http(&http.server, "localhost:4318", "protocols.http");
                running.join(server.serve(http::router(&consumers, http), cx).await?);
            }
            Ok(running)
        })
    }
}

/// Why an export was not taken.
enum Failure {
    Malformed(Malformed),
    Refused(Refusal),
    /// No pipeline carries the signal.
    NoPipeline(Signal),
}

/// Scans a payload and hands it on.
async fn take(
    consumers: &Consumers,
    signal: Signal,
    transport: &'static str,
    payload: Bytes,
    context: Arc<Context>,
) -> Result<(), Failure> {
    let consumer = consumers
        .of(signal, transport)
        .ok_or(Failure::NoPipeline(signal))?;
    let batch = Batch::scan(signal, payload).map_err(Failure::Malformed)?;
    if batch.items == 0 {
        return Ok(());
    }
    consumer
        .send(batch.with_context(context))
        .await
        .map_err(Failure::Refused)
}
