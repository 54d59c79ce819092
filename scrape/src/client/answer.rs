//! An answer's body: read up to a bound, unpacked while it is read.

use std::io::Write;

use flate2::write::GzDecoder;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::{ClientError, chain};

/// The largest body where no limit is set.
const MAX_BODY: u64 = 512 << 20;

/// As much room is made for a body because its length is told; more as it comes.
const EAGER: u64 = 1 << 20;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, unpacked.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

pub(super) async fn read(answer: Response<Incoming>, limit: u64) -> Result<Answer, ClientError> {
    let limit = if limit == 0 { MAX_BODY } else { limit };
    let (parts, mut incoming) = answer.into_parts();
    let packed = parts
        .headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let length = incoming
        .size_hint()
        .exact()
        .unwrap_or_default()
        .min(limit)
        .min(EAGER);
    let mut body = match packed {
        true => Body::Packed(Box::new(GzDecoder::new(Bounded::new(limit, 0)))),
        false => Body::Plain(Bounded::new(limit, length)),
    };
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| ClientError::Connection(chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            body.take(data).map_err(|error| fault(&error, limit))?;
        }
    }
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.finish().map_err(|error| fault(&error, limit))?,
    })
}

fn fault(error: &std::io::Error, limit: u64) -> ClientError {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => ClientError::TooLarge(limit),
        _ => ClientError::Packed(error.to_string()),
    }
}

enum Body {
    Plain(Bounded),
    Packed(Box<GzDecoder<Bounded>>),
}

impl Body {
    fn take(&mut self, data: &[u8]) -> std::io::Result<()> {
        match self {
            Body::Plain(body) => body.write_all(data),
            Body::Packed(body) => body.write_all(data),
        }
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Body::Plain(body) => Ok(body.bytes),
            Body::Packed(body) => body.finish().map(|body| body.bytes),
        }
    }
}

/// Bytes up to a limit, so that a small packed body cannot become a large one.
struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
}

impl Bounded {
    /// With room for so many of them.
    fn new(limit: u64, length: u64) -> Self {
        Bounded {
            bytes: Vec::with_capacity(usize::try_from(length).unwrap_or_default()),
            limit,
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if (self.bytes.len() + data.len()) as u64 > self.limit {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
