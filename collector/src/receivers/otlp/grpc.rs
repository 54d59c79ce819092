//! OTLP/gRPC: three services of one method each, their payloads taken as bytes.

use std::sync::Arc;

use axum::extract::Request;
use axum::routing::post;
use bytes::Bytes;
use http::Method;
use http_body::Body;
use hyper::body::Incoming;
use karez_collector_config::Signal;
use karez_collector_config::common::GrpcServer;
use tonic::Status;

use super::{Failure, Taking, take};
use crate::batch::Context;
use crate::batch_name;
use crate::rpc::refusal_status;
use crate::server::{Answering, Direct, context, grpc_router, is_grpc};
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
            let headers = keep_headers.then(|| request.headers());
            let context = context(request.extensions(), headers);
            async move { unary::answer(export(&taking, signal, max_message, context, request).await) }
        };
        router = router.route(method(signal), post(handle));
    }
    router
}

/// The same calls without a router: what nearly all requests of a server are.
pub(super) fn direct(taking: &Taking, server: &GrpcServer) -> Option<Arc<dyn Direct>> {
    let exports = Exports {
        taking: taking.clone(),
        max_message: server.max_message(),
    };
    (!server.include_metadata).then(|| Arc::new(exports) as Arc<dyn Direct>)
}

/// Exports whose headers nobody asks for.
struct Exports {
    taking: Taking,
    max_message: usize,
}

impl Exports {
    fn signal(&self, request: &http::Request<Incoming>) -> Option<Signal> {
        let path = request.uri().path();
        let signal = Signal::ALL.into_iter().find(|signal| path == method(*signal));
        signal.filter(|signal| self.taking.carries(*signal) && request.method() == Method::POST)
    }
}

impl Direct for Exports {
    fn takes(&self, request: &http::Request<Incoming>) -> bool {
        self.signal(request).is_some()
    }

    fn answer(&self, context: Arc<Context>, request: http::Request<Incoming>) -> Answering {
        let (taking, max_message) = (self.taking.clone(), self.max_message);
        let signal = self.signal(&request);
        Box::pin(async move {
            let taken = match signal {
                Some(signal) => export(&taking, signal, max_message, context, request).await,
                None => Err(Status::unimplemented("this server has no such method")),
            };
            Ok(unary::answer(taken))
        })
    }
}

async fn export<B>(
    taking: &Taking,
    signal: Signal,
    max_message: usize,
    context: Arc<Context>,
    request: http::Request<B>,
) -> Result<(), Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !is_grpc(request.headers()) {
        return Err(Status::invalid_argument("the content type is none of gRPC"));
    }
    let (parts, mut body) = request.into_parts();
    let payload = unary::read(&parts.headers, &mut body, max_message).await?;
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
