//! OTLP/gRPC as clients send it: some connections, some requests under way on each, at a rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::options::Options;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// How long a request that was refused for now is put off.
const AGAIN: Duration = Duration::from_millis(20);

/// What is sent.
pub(crate) struct Load {
    /// Framed messages, sent one after another, again and again.
    pub(crate) messages: Vec<Bytes>,
    /// Whether they are compressed.
    pub(crate) compressed: bool,
}

/// How a load went.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Requests that were put off because the other side asked for it.
    pub(crate) refused: usize,
}

impl Load {
    /// Sends so many requests, each until it is acknowledged.
    pub(crate) async fn send(
        self: &Arc<Self>,
        to: SocketAddr,
        options: &Options,
        requests: usize,
    ) -> anyhow::Result<Sent> {
        let (next, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pace = match options.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / u32::try_from(rate)?,
        };
        let began = Instant::now();
        let mut streams = JoinSet::new();
        for _ in 0..options.connections {
            let connection = connect(to).await?;
            for _ in 0..options.streams {
                let (mut connection, load) = (connection.clone(), self.clone());
                let (next, refused) = (next.clone(), refused.clone());
                streams.spawn(async move {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= requests {
                            return anyhow::Ok(());
                        }
                        tokio::time::sleep_until(began + pace * u32::try_from(index)?).await;
                        let message = &load.messages[index % load.messages.len()];
                        while !load.export(&mut connection, message).await? {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(AGAIN).await;
                        }
                    }
                });
            }
        }
        while let Some(ended) = streams.join_next().await {
            ended??;
        }
        Ok(Sent {
            refused: refused.load(Ordering::Relaxed),
        })
    }

    /// One call: whether it was acknowledged; not, if it is to be made again.
    async fn export(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        message: &Bytes,
    ) -> anyhow::Result<bool> {
        let mut request = Request::post(format!("http://collector{PATH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if self.compressed {
            request = request.header("grpc-encoding", "gzip");
        }
        connection.ready().await?;
        let answer = connection
            .send_request(request.body(Full::new(message.clone()))?)
            .await?;
        ensure!(answer.status() == StatusCode::OK, "status {}", answer.status());
        let (head, body) = answer.into_parts();
        let read = body.collect().await?;
        let trailers = read.trailers().unwrap_or(&head.headers);
        let status = trailers
            .get("grpc-status")
            .context("an answer without grpc-status")?;
        match status.as_bytes() {
            b"0" => Ok(true),
            b"8" | b"14" => Ok(false),
            _ => anyhow::bail!("grpc-status {status:?}: {:?}", trailers.get("grpc-message")),
        }
    }
}

async fn connect(to: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let handshake = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await?;
    tokio::spawn(connection);
    Ok(sender)
}
