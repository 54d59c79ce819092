//! The receiver as a component: which protocols it serves where.

use std::sync::Arc;

use axum::routing::post_service;
use futures::future::BoxFuture;
use karez_collector_config::receivers as config;

use super::grpc::{CollectorService, POST_SPANS};
use super::http;
use super::udp::{self, UdpLosses, UdpOptions};
use crate::batch::Signal;
use crate::component::{ComponentContext, Consumers, Receiver, Running, StartError};
use crate::server::{Server, grpc_router};
use crate::thrift::Encoding;

/// Receiver `jaeger`.
pub struct JaegerReceiver {
    config: config::JaegerReceiver,
}

impl JaegerReceiver {
    /// Takes its configuration.
    pub fn new(config: config::JaegerReceiver) -> Self {
        Self { config }
    }

    async fn begin(&self, consumers: Consumers, cx: &ComponentContext) -> Result<Running, StartError> {
        let mut running = Running::none();
        let protocols = &self.config.protocols;
        let of = |transport| consumers.of(Signal::Traces, transport);
        if let (Some(server), Some(consumer)) = (&protocols.grpc, of("grpc")) {
            let service = CollectorService::new(consumer, server.max_message());
            let router = grpc_router().route(POST_SPANS, post_service(service));
            running.join(
                Server::grpc(server, "localhost:14250", "protocols.grpc")
                    .serve(router, cx)
                    .await?,
            );
        }
        if let (Some(server), Some(consumer)) = (&protocols.thrift_http, of("http")) {
            let router = http::router(consumer, server.max_body());
            running.join(
                Server::http(server, "localhost:14268", "protocols.thrift_http")
                    .serve(router, cx)
                    .await?,
            );
        }
        let compact = (
            "thrift_compact",
            protocols.thrift_compact.as_ref(),
            "localhost:6831",
            Encoding::Compact,
        );
        let binary = (
            "thrift_binary",
            protocols.thrift_binary.as_ref(),
            "localhost:6832",
            Encoding::Binary,
        );
        for (name, udp, default, encoding) in [compact, binary] {
            if let (Some(udp), Some(consumer)) = (udp, of("udp")) {
                let endpoint = if udp.endpoint.is_empty() {
                    default
                } else {
                    &udp.endpoint
                };
                let bound = cx.net.bind_udp(endpoint);
                let key = format!("protocols.{name}.endpoint");
                let sockets = bound.map_err(|source| StartError::bind(key, source))?;
                let addresses: Vec<_> = sockets
                    .iter()
                    .filter_map(|socket| socket.local_addr().ok())
                    .collect();
                for address in &addresses {
                    tracing::info!(component = cx.key, protocol = name, %address, "listening");
                }
                running.bound(addresses);
                let options = options(udp, encoding);
                let losses: Arc<UdpLosses> = Arc::default();
                running.spawn(udp::serve(sockets, options, consumer, losses, running.stopping()));
            }
        }
        Ok(running)
    }
}

impl Receiver for JaegerReceiver {
    fn start<'a>(
        &'a self,
        consumers: Consumers,
        cx: &'a ComponentContext,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(self.begin(consumers, cx))
    }
}

fn options(udp: &config::JaegerUdp, encoding: Encoding) -> UdpOptions {
    UdpOptions {
        encoding,
        queue_size: udp.queue_size as usize,
        max_packet_size: udp.max_packet_size as usize,
        workers: udp.workers as usize,
        socket_buffer_size: udp.socket_buffer_size as usize,
    }
}
