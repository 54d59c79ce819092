//! OTLP/gRPC: three services of one method each, their payloads taken as bytes.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::common::GrpcServer;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, UnaryService};

use super::{Failure, Taking, take};
use crate::batch_name;
use crate::rpc::{BytesCodec, refusal_status};
use crate::server::{context, grpc_router};

/// The path of a signal's method.
pub(crate) fn method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// The services of the signals that are carried.
pub(super) fn router(taking: &Taking, server: &GrpcServer) -> axum::Router {
    let (max_message, keep_headers) = (server.max_message(), server.include_metadata);
    let mut router = grpc_router();
    for signal in Signal::ALL
        .into_iter()
        .filter(|signal| taking.consumers.of(*signal, "grpc").is_some())
    {
        let export = Export {
            taking: taking.clone(),
            signal,
            keep_headers,
        };
        let handle = move |request: Request| handle(export.clone(), max_message, request);
        router = router.route(method(signal), post(handle));
    }
    router
}

async fn handle(export: Export, max_message: usize, request: Request) -> Result<Response, Infallible> {
    let mut grpc = Grpc::new(BytesCodec)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(max_message);
    Ok(grpc.unary(export, request).await.map(Body::new).into_response())
}

#[derive(Clone)]
struct Export {
    taking: Taking,
    signal: Signal,
    keep_headers: bool,
}

impl UnaryService<Bytes> for Export {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let Export {
            taking,
            signal,
            keep_headers,
        } = self.clone();
        Box::pin(async move {
            let name = batch_name::of(request.metadata().as_ref());
            let (metadata, extensions, payload) = request.into_parts();
            let headers = keep_headers.then(|| metadata.into_headers());
            let context = context(&extensions, headers.as_ref());
            match take(&taking, signal, "grpc", payload, context, name).await {
                // An empty message: everything was taken.
                Ok(()) => Ok(tonic::Response::new(Bytes::new())),
                Err(Failure::Malformed(error)) => Err(Status::invalid_argument(format!("not OTLP: {error}"))),
                Err(Failure::Refused(refusal)) => Err(refusal_status(&refusal)),
                Err(Failure::NoPipeline(signal)) => {
                    Err(Status::unimplemented(format!("no pipeline carries {signal}")))
                }
            }
        })
    }
}
