//! One call of gRPC with one message each way, as bytes: what OTLP needs of gRPC and no more, so that a request costs
//! one copy of its message.
//!
//! ```text
//! request: frames of the body ─▶ one message, bounded ─▶ decompressed, bounded ─▶ Bytes
//! answer:  Bytes, or a Status ─▶ one frame and trailers
//! ```

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::{Code, Status};

/// The header that names the compression.
pub(crate) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The header that names those which can be read.
pub(crate) const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Those.
pub(crate) const ENCODINGS: &str = "gzip,zstd,snappy,identity";
/// A flag and the length.
const HEAD: usize = 5;
/// How hard gzip tries: a third of the time of the usual 6 for a few per cent more bytes.
const GZIP_LEVEL: u32 = 3;
/// More than this is set aside only as the bytes come: a length alone takes no memory.
const EAGER: usize = 64 << 10;
/// A message that comes in one piece of this size is not copied: what else its memory holds is little beside it.
const PIECE: usize = 16 << 10;

/// How messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// `gzip`
    Gzip,
    /// `zstd`
    Zstd,
    /// `snappy`, in its framed form.
    Snappy,
}

impl Packing {
    /// Its name in headers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
            Packing::Snappy => "snappy",
        }
    }

    /// How the messages with these headers are compressed.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        match headers.get(&ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(None),
            Some(b"gzip") => Ok(Some(Packing::Gzip)),
            Some(b"zstd") => Ok(Some(Packing::Zstd)),
            Some(b"snappy") => Ok(Some(Packing::Snappy)),
            Some(other) => {
                let other = String::from_utf8_lossy(other).into_owned();
                let message = format!("the compression `{other}` is not known; known are {ENCODINGS}");
                Err(Status::unimplemented(message))
            }
        }
    }

    /// A message as it travels.
    pub(crate) fn pack(self, message: &[u8]) -> io::Result<Bytes> {
        let out = BytesMut::with_capacity(message.len() / 4 + 64).writer();
        let out = match self {
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(message)?;
                encoder.finish()?
            }
            Packing::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, 0)?;
                encoder.write_all(message)?;
                encoder.finish()?
            }
            Packing::Snappy => {
                let mut encoder = snap::write::FrameEncoder::new(out);
                encoder.write_all(message)?;
                encoder
                    .into_inner()
                    .map_err(|error| io::Error::other(error.to_string()))?
            }
        };
        Ok(out.into_inner().freeze())
    }

    /// A message as it was; at most so many bytes of it.
    pub(crate) fn unpack(self, message: &[u8], most: usize) -> Result<Bytes, Status> {
        let reader: Box<dyn Read + '_> = match self {
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(message)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(message).map_err(broken)?),
            Packing::Snappy => Box::new(snap::read::FrameDecoder::new(message)),
        };
        // As much as most messages need; more is set aside as it comes.
        let mut out = Vec::with_capacity((message.len() * 4).min(most).min(1 << 20));
        let limit = most as u64 + 1;
        let read = reader.take(limit).read_to_end(&mut out).map_err(broken)?;
        match read > most {
            true => Err(too_large(most)),
            false => Ok(out.into()),
        }
    }
}

fn broken(error: io::Error) -> Status {
    Status::internal(format!("the message cannot be decompressed: {error}"))
}

fn too_large(most: usize) -> Status {
    Status::resource_exhausted(format!("the message is larger than {most} bytes"))
}

/// Reads the one message of a request.
pub(crate) async fn read<B>(headers: &HeaderMap, body: &mut B, most: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let packing = Packing::of(headers)?;
    let (message, _) = collect(body, most).await?;
    message.unpacked(packing)
}

/// Reads the answer to a call.
pub(crate) async fn read_answer<B>(answer: Response<B>, most: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, mut body) = answer.into_parts();
    // Without a message the status stands in the headers.
    if let Some(status) = Status::from_header_map(&head.headers) {
        return match status.code() {
            Code::Ok => Ok(Bytes::new()),
            _ => Err(status),
        };
    }
    if head.status != StatusCode::OK {
        return Err(no_grpc(head.status));
    }
    let packing = Packing::of(&head.headers)?;
    let (message, trailers) = collect(&mut body, most).await?;
    match trailers.as_ref().and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) => message.unpacked(packing),
        None => Err(Status::unknown("the answer has no grpc-status")),
    }
}

/// What an answer of something else than a gRPC server means, as gRPC says it.
fn no_grpc(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the other side answers with HTTP status {status}"))
}

/// The parts of a message, and the trailers if they were waited for.
async fn collect<B>(body: &mut B, most: usize) -> Result<(Message, Option<HeaderMap>), Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut message = Message::new(most);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        match frame.into_data() {
            Ok(data) => message.add(data)?,
            Err(frame) => return Ok((message, frame.into_trailers().ok())),
        }
        if message.is_whole() && body.is_end_stream() {
            break;
        }
    }
    Ok((message, None))
}

/// A message that comes in parts.
struct Message {
    most: usize,
    head: [u8; HEAD],
    read: usize,
    body: BytesMut,
    /// All of it, when it came in one piece.
    piece: Option<Bytes>,
}

impl Message {
    fn new(most: usize) -> Self {
        Message {
            most,
            head: [0; HEAD],
            read: 0,
            body: BytesMut::new(),
            piece: None,
        }
    }

    /// How much of it is here.
    fn come(&self) -> usize {
        self.piece.as_ref().map_or(self.body.len(), Bytes::len)
    }

    fn length(&self) -> usize {
        u32::from_be_bytes([self.head[1], self.head[2], self.head[3], self.head[4]]) as usize
    }

    fn is_whole(&self) -> bool {
        self.read == HEAD && self.come() == self.length()
    }

    fn add(&mut self, mut data: Bytes) -> Result<(), Status> {
        if self.read < HEAD {
            let count = data.len().min(HEAD - self.read);
            data.copy_to_slice(&mut self.head[self.read..self.read + count]);
            self.read += count;
            if self.read < HEAD {
                return Ok(());
            }
            if self.length() > self.most {
                return Err(too_large(self.most));
            }
            if data.len() == self.length() && data.len() >= PIECE {
                self.piece = Some(data);
                return Ok(());
            }
            self.body.reserve(self.length().min(EAGER));
        }
        if data.len() > self.length() - self.come() {
            return Err(Status::internal("more than one message in a call that has one"));
        }
        self.body.extend_from_slice(&data);
        Ok(())
    }

    /// What it holds.
    fn unpacked(self, packing: Option<Packing>) -> Result<Bytes, Status> {
        if !self.is_whole() {
            return Err(Status::internal("the message is not whole"));
        }
        let body = self.piece.unwrap_or_else(|| self.body.freeze());
        match (self.head[0], packing) {
            (0, _) => Ok(body),
            (1, Some(packing)) => packing.unpack(&body, self.most),
            (1, None) => Err(Status::internal("a compressed message without grpc-encoding")),
            (flag, _) => Err(Status::internal(format!("a message with the flag {flag}"))),
        }
    }
}

/// One message as a body: its head, and it; not copied. A request ends so, an answer ends with trailers.
#[derive(Debug)]
pub(crate) struct Sent {
    head: Option<Bytes>,
    message: Bytes,
    trailers: Option<HeaderMap>,
}

impl Sent {
    /// A message, compressed or not. `None` if it is larger than any can be.
    pub(crate) fn new(message: Bytes, packed: bool) -> Option<Self> {
        let mut head = BytesMut::with_capacity(HEAD);
        head.put_u8(u8::from(packed));
        head.put_u32(u32::try_from(message.len()).ok()?);
        Some(Sent {
            head: Some(head.freeze()),
            message,
            trailers: None,
        })
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if !self.message.is_empty() {
            let message = std::mem::take(&mut self.message);
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_none() && self.message.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.trailers {
            Some(_) => SizeHint::default(),
            None => {
                SizeHint::with_exact((self.head.as_ref().map_or(0, Bytes::len) + self.message.len()) as u64)
            }
        }
    }
}

/// The answer to a call: an empty message, or why there is none.
pub(crate) fn answer(taken: Result<(), Status>) -> Response<axum::body::Body> {
    let status = match taken {
        Ok(()) => {
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Sent {
                head: Some(Bytes::from_static(&[0; HEAD])),
                message: Bytes::new(),
                trailers: Some(trailers),
            };
            let mut response = Response::new(axum::body::Body::new(body));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            return response;
        }
        Err(status) => status,
    };
    let mut response = status.clone().into_http::<axum::body::Body>();
    if status.code() == Code::Unimplemented {
        let headers = response.headers_mut();
        headers.insert(ACCEPTED, HeaderValue::from_static(ENCODINGS));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    /// A body of the bytes, cut into frames of so many.
    fn body(bytes: &[u8], size: usize) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: Vec<_> = bytes
            .chunks(size)
            .map(|part| Ok(Frame::data(Bytes::copy_from_slice(part))))
            .collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut out = vec![flag];
        out.extend((message.len() as u32).to_be_bytes());
        out.extend(message);
        out
    }

    fn headers(encoding: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ENCODING, HeaderValue::from_static(encoding));
        headers
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        for length in [1000, PIECE, PIECE + 1] {
            let message = vec![7; length];
            for size in [1, 3, 5, 6, 999, 5000, length + HEAD] {
                let mut body = body(&framed(0, &message), size);
                let read = read(&HeaderMap::new(), &mut body, length).await.unwrap();
                assert_eq!(read, message, "{length} in parts of {size}");
            }
        }
    }

    #[tokio::test]
    async fn every_packing_comes_back_and_is_bounded() {
        let message = b"the same again and again, ".repeat(200);
        for packing in [Packing::Gzip, Packing::Zstd, Packing::Snappy] {
            let packed = packing.pack(&message).unwrap();
            assert!(packed.len() < message.len() / 2);
            let sent = framed(1, &packed);
            let back = read(&headers(packing.name()), &mut body(&sent, 700), message.len()).await;
            assert_eq!(back.unwrap(), message, "{packing:?}");
            let cut = read(&headers(packing.name()), &mut body(&sent, 700), message.len() - 1).await;
            assert_eq!(cut.unwrap_err().code(), Code::ResourceExhausted, "{packing:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_single_message_is_refused() {
        let two = [framed(0, b"one"), framed(0, b"two")].concat();
        let cases = [
            (&b"\0\0\0"[..], Code::Internal),
            (&framed(0, b"abc")[..7], Code::Internal),
            (&two, Code::Internal),
            (&framed(2, b"abc"), Code::Internal),
            (&framed(1, b"abc"), Code::Internal),
            (b"\0\xff\xff\xff\xff", Code::ResourceExhausted),
        ];
        let long = framed(0, &[7; PIECE]);
        let mut more = StreamBody::new(futures::stream::iter(
            [&long[..], b"x"].map(|part| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(part)))),
        ));
        let refused = read(&HeaderMap::new(), &mut more, PIECE).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal);
        for (bytes, code) in cases {
            let refused = read(&HeaderMap::new(), &mut body(bytes, 4), 100)
                .await
                .unwrap_err();
            assert_eq!(refused.code(), code, "{bytes:?}: {refused}");
        }
        let unknown = read(&headers("lz4"), &mut body(&framed(1, b"abc"), 4), 100)
            .await
            .unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
        let broken = read(&headers("gzip"), &mut body(&framed(1, b"abc"), 4), 100)
            .await
            .unwrap_err();
        assert_eq!(broken.code(), Code::Internal);
    }
}
