//! `otlp`: OTLP over gRPC and HTTP.
//!
//! ```text
//! request ─▶ decompressed (bounded) ─▶ scanned (JSON: translated) ─▶ Batch ─▶ consumer ─▶ answer by its word
//! ```

mod grpc;
pub(crate) use grpc::method;
pub(crate) mod http;

use bytes::Bytes;
use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::receivers as config;

use std::sync::Arc;

use crate::batch::{Batch, Context};
use crate::batch_name::{Known, Seen};
use crate::component::{
    BatchName, ComponentContext, Consumer, Consumers, Receiver, Refusal, Running, StartError,
};
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
            let seen = Arc::<Seen>::default();
            if let Some(grpc) = &self.config.grpc {
                let server = Server::grpc(grpc, "localhost:4317", "protocols.grpc");
                let taking = Taking::new(&consumers, "grpc", &seen);
                let (direct, router) = (grpc::direct(&taking, grpc), grpc::router(&taking, grpc));
                running.join(server.serve_directly(direct, router, cx).await?);
            }
            if let Some(http) = &self.config.http {
                let server = Server::http(&http.server, "localhost:4318", "protocols.http");
                let taking = Taking::new(&consumers, "http", &seen);
                running.join(server.serve(http::router(&taking, http), cx).await?);
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

/// Where batches go, and which are known.
#[derive(Clone)]
struct Taking {
    consumers: Arc<[Option<Consumer>; 3]>,
    receiver: Arc<str>,
    seen: Arc<Seen>,
}

impl Taking {
    fn new(consumers: &Consumers, transport: &'static str, seen: &Arc<Seen>) -> Self {
        Taking {
            consumers: Arc::new(Signal::ALL.map(|signal| consumers.of(signal, transport))),
            receiver: consumers.receiver.to_string().into(),
            seen: seen.clone(),
        }
    }

    /// Whether a pipeline carries a signal.
    fn carries(&self, signal: Signal) -> bool {
        self.consumers[signal as usize].is_some()
    }
}

/// Scans a payload and hands it on, unless its name says that this was done.
async fn take(
    taking: &Taking,
    signal: Signal,
    payload: Bytes,
    context: Arc<Context>,
    name: Option<BatchName>,
) -> Result<(), Failure> {
    let consumer = taking.consumers[signal as usize].as_ref();
    let consumer = consumer.ok_or(Failure::NoPipeline(signal))?;
    let batch = Batch::scan(signal, payload).map_err(Failure::Malformed)?;
    if batch.items == 0 {
        return Ok(());
    }
    let batch = batch.with_context(context);
    let Some(name) = name else {
        return consumer.send(batch).await.map_err(Failure::Refused);
    };
    let under_way = match taking.seen.look(name) {
        Known::New(under_way) => under_way,
        Known::Taken => {
            tracing::debug!(receiver = %taking.receiver, items = batch.items, "came twice");
            return Ok(());
        }
        Known::UnderWay => {
            let refusal = Refusal::later("the same batch is being taken");
            return Err(Failure::Refused(refusal));
        }
    };
    let consumer = consumer.clone();
    // Also when the client leaves meanwhile: it will send again, and what was taken is then known.
    let sending = tokio::spawn(async move {
        let sent = consumer.send(batch).await;
        if sent.is_ok() {
            under_way.taken();
        }
        sent
    });
    let stopping = |_| Err(Refusal::later("the collector is stopping"));
    sending.await.unwrap_or_else(stopping).map_err(Failure::Refused)
}
