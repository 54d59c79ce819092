//! `jaeger.api_v2.CollectorService/PostSpans`, the way from agents and SDKs to a Jaeger collector.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::sink::take;
use crate::component::Consumer;
use crate::jaeger::model::{PostSpansRequest, PostSpansResponse};

/// The method's path.
pub const POST_SPANS: &str = "/jaeger.api_v2.CollectorService/PostSpans";

/// Answers `PostSpans`.
#[derive(Clone)]
pub struct CollectorService {
    consumer: Consumer,
    max_message: usize,
}

impl CollectorService {
    /// Hands spans to `consumer`; larger messages than `max_message` bytes are refused.
    pub fn new(consumer: Consumer, max_message: usize) -> Self {
        Self {
            consumer,
            max_message,
        }
    }
}

impl NamedService for CollectorService {
    const NAME: &'static str = "jaeger.api_v2.CollectorService";
}

struct PostSpans(Consumer);

impl UnaryService<PostSpansRequest> for PostSpans {
    type Response = PostSpansResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<PostSpansResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<PostSpansRequest>) -> Self::Future {
        let consumer = self.0.clone();
        Box::pin(async move {
            let batch = request.into_inner().batch.unwrap_or_default();
            match take(&consumer, batch).await {
                Ok(()) => Ok(tonic::Response::new(PostSpansResponse {})),
                Err(refusal) => {
                    let code = if refusal.retryable {
                        Code::Unavailable
                    } else {
                        Code::InvalidArgument
                    };
                    Err(Status::new(code, refusal.reason))
                }
            }
        })
    }
}

impl<B> tower::Service<Request<B>> for CollectorService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != POST_SPANS {
                let status = Status::unimplemented(format!("unknown method {}", request.uri().path()));
                return Ok(status.into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(service.max_message);
            Ok(grpc.unary(PostSpans(service.consumer), request).await)
        })
    }
}
