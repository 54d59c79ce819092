//! OTLP/gRPC: three services of one method each, their payloads taken as bytes.

use axum::extract::Request;
use axum::routing::post;
use karez_collector_config::Signal;
use karez_collector_config::common::GrpcServer;
use tonic::Status;

use super::{Failure, Taking, take};
use crate::batch_name;
use crate::rpc::refusal_status;
use crate::server::{context, grpc_router, is_grpc};
use crate::unary;

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
    for signal in Signal::ALL.into_iter().filter(|signal| taking.carries(*signal)) {
        let taking = taking.clone();
        let handle = move |request: Request| {
            let taking = taking.clone();
            async move { unary::answer(export(&taking, signal, max_message, keep_headers, request).await) }
        };
        router = router.route(method(signal), post(handle));
    }
    router
}

async fn export(
    taking: &Taking,
    signal: Signal,
    max_message: usize,
    keep_headers: bool,
    request: Request,
) -> Result<(), Status> {
    if !is_grpc(request.headers()) {
        return Err(Status::invalid_argument("the content type is none of gRPC"));
    }
    let (parts, mut body) = request.into_parts();
    let payload = unary::read(&parts.headers, &mut body, max_message).await?;
    let headers = keep_headers.then_some(&parts.headers);
    let context = context(&parts.extensions, headers);
    let name = batch_name::of(&parts.headers);
    match take(taking, signal, payload, context, name).await {
        Ok(()) => Ok(()),
        Err(Failure::Malformed(error)) => Err(Status::invalid_argument(format!("not OTLP: {error}"))),
        Err(Failure::Refused(refusal)) => Err(refusal_status(&refusal)),
        Err(Failure::NoPipeline(signal)) => {
            Err(Status::unimplemented(format!("no pipeline carries {signal}")))
        }
    }
}
