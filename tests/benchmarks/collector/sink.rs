//! A backend that takes everything at once and counts the items.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use karez_collector::batch::{Batch, Signal};
use tokio::net::TcpListener;

/// A backend.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    items: Arc<AtomicU64>,
}

impl Sink {
    /// Serves on a free port of loopback.
    pub(crate) async fn start() -> anyhow::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (sink, address) = (Self::default(), listener.local_addr()?);
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = serving.clone();
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let service = service_fn(move |request| answer(sink.clone(), request));
                    // A connection ends with the program under test.
                    let _ = Builder::new(TokioExecutor::new())
                        .initial_stream_window_size(4 << 20)
                        .initial_connection_window_size(16 << 20)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok((sink, address))
    }

    /// How many items have come.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    fn count(&self, path: &str, message: &[u8]) -> anyhow::Result<()> {
        let signal = match path.contains("Metrics") {
            true => Signal::Metrics,
            false => Signal::Traces,
        };
        let (head, body) = message.split_at_checked(5).context("a message without a head")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        ensure!(body.len() == length as usize, "a message that is cut");
        let payload = match head[0] {
            0 => Bytes::copy_from_slice(body),
            _ => {
                let mut out = Vec::new();
                GzDecoder::new(body).read_to_end(&mut out)?;
                out.into()
            }
        };
        let batch = Batch::scan(signal, payload)?;
        self.items.fetch_add(batch.items as u64, Ordering::Relaxed);
        Ok(())
    }
}

type Frames = StreamBody<futures::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>;

async fn answer(sink: Sink, request: Request<Incoming>) -> anyhow::Result<Response<Frames>> {
    let path = request.uri().path().to_owned();
    let message = request.into_body().collect().await?.to_bytes();
    let status = match sink.count(&path, &message) {
        Ok(()) => "0",
        Err(error) => {
            eprintln!("the sink cannot read what comes: {error:#}");
            "13"
        }
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let frames = [
        Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0]))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures::stream::iter(frames));
    Ok(Response::builder()
        .header("content-type", "application/grpc")
        .body(body)?)
}
