//! One connection: TCP by name, TLS above it when there is any.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use karez_net::Net;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Proxy;
use crate::tls::Reloading;

const HANDSHAKE: Duration = Duration::from_secs(10);

/// Dials one host and port, whatever URI it is asked for: the URI's authority may be another name.
#[derive(Clone)]
pub struct Dial {
    /// Names and sockets.
    pub net: Net,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// TLS, with the name that the server's certificate must have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The proxy that connects to it.
    pub proxy: Option<Proxy>,
    /// Reads the files of TLS again now and then.
    pub reload: Option<Arc<Reloading>>,
}

impl Dial {
    async fn dial(self) -> io::Result<TokioIo<Stream>> {
        let stream = match &self.proxy {
            None => self
                .net
                .connect_tcp(&self.host, self.port)
                .await
                .map_err(io::Error::other)?,
            Some(proxy) => {
                let connecting = proxy.connect(&self.net, &self.host, self.port);
                tokio::time::timeout(HANDSHAKE, connecting).await.map_err(|_| {
                    let message = format!("the proxy {}:{} does not answer", proxy.host, proxy.port);
                    io::Error::new(io::ErrorKind::TimedOut, message)
                })??
            }
        };
        let Some((config, name)) = self.tls else {
            return Ok(TokioIo::new(Stream::Plain(stream)));
        };
        let config = self
            .reload
            .as_ref()
            .and_then(|reload| reload.current())
            .unwrap_or(config);
        let handshake = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => Ok(TokioIo::new(Stream::Tls(Box::new(stream)))),
            Ok(Err(error)) => {
                let message = format!("TLS with {}:{} failed: {error}", self.host, self.port);
                Err(io::Error::new(error.kind(), message))
            }
            Err(_) => {
                let message = format!("{}:{} did not answer the TLS handshake", self.host, self.port);
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
        }
    }
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

/// A connection with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Stream::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
