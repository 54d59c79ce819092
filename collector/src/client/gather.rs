//! Gathers what HTTP/2 writes: it flushes after every frame, of 16 KiB mostly. A flush that follows a write is put off
//! until the connection's task has run once more; what it has written by then goes to the socket at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::Uri;
use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Dial, Stream};

/// As much is gathered.
const MOST: usize = 64 << 10;

/// A connection whose small writes are gathered.
#[derive(Debug)]
pub(super) struct Gather<S> {
    inner: S,
    gathered: BytesMut,
    /// Whether something was written since the last flush was put off.
    fresh: bool,
}

impl<S> Gather<S> {
    pub(super) fn new(inner: S) -> Self {
        Gather {
            inner,
            gathered: BytesMut::new(),
            fresh: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Writes what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room, and says how much there is.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= MOST {
            ready!(self.poll_drain(cx))?;
        }
        if self.gathered.capacity() < MOST {
            self.gathered.reserve(MOST - self.gathered.len());
        }
        Poll::Ready(Ok(MOST - self.gathered.len()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = ready!(self.poll_room(cx))?;
        let mut taken = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            self.gathered.extend_from_slice(part);
            room -= part.len();
            taken += part.len();
        }
        self.fresh |= taken > 0;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.fresh, false) {
            // Asked again in a moment, by then with all that this turn of the task writes.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// Dials, and gathers what is written.
#[derive(Clone)]
pub(super) struct Gathered(pub(super) Dial);

impl tower::Service<Uri> for Gathered {
    type Response = TokioIo<Gather<Stream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dialling = self.0.call(to);
        Box::pin(async move { Ok(TokioIo::new(Gather::new(dialling.await?.into_inner()))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A writer that flushes after every write, as HTTP/2 does, and then is polled once more.
    #[tokio::test]
    async fn all_of_it_arrives_in_order() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut gather = Gather::new(near);
        let sent: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            for part in sent.chunks(17_000) {
                gather.write_all(part).await.unwrap();
                gather.flush().await.unwrap();
            }
            gather.flush().await.unwrap();
            gather
        });
        let mut come = vec![0; expected.len()];
        far.read_exact(&mut come).await.unwrap();
        assert_eq!(come, expected);
        drop(writing.await.unwrap());
    }

    #[tokio::test]
    async fn the_end_takes_along_what_was_gathered() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut gather = Gather::new(near);
        gather.write_all(b"the last words").await.unwrap();
        gather.shutdown().await.unwrap();
        let mut come = String::new();
        far.read_to_string(&mut come).await.unwrap();
        assert_eq!(come, "the last words");
    }
}
