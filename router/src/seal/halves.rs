//! The two halves of a sealed connection: chunks into records and back.
//!
//! ```text
//!  chunks ──▶ SealedSend: records of up to 16 KiB ──▶ the stream
//!  chunks ◀── SealedReceive: records opened in place ◀── the stream
//! ```
//!
//! Whoever carries may drop a call that has to wait, and call again: what was sealed is kept until it is handed on.
//!
//! The end of what one side says is a record of its own (`close_notify`): a stream that ends without it was cut by
//! somebody on its way, which is no end but a failure.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use karez_topology::Address;

use super::complain;
use crate::link::record::{ALERT, Content, DATA, HEADER, LONGEST, Opener, RecordError, Sealer, TRAILER};
use crate::link::{RecvStream, SendStream};
use crate::shared::Shared;

/// Plaintext that is sealed at once.
const BATCH: usize = 4 * LONGEST;
/// Chunks that are taken from the stream at once.
const CHUNKS: usize = 8;
/// The level that TLS 1.3 gives all alerts that end a connection in peace.
const WARNING: u8 = 1;
/// The level of those that do not.
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const ACCESS_DENIED: u8 = 49;

/// What is said when something is wrong with a connection.
pub(super) struct About {
    pub(super) shared: Arc<Shared>,
    pub(super) address: Address,
    pub(super) site: String,
}

/// The half that we say.
pub(crate) struct SealedSend {
    stream: SendStream,
    sealer: Sealer,
    /// Sealed, and not handed on yet.
    waiting: [Bytes; 1],
    /// The farewell is sealed.
    ended: bool,
}

impl SealedSend {
    pub(super) fn new(stream: SendStream, sealer: Sealer) -> Self {
        Self {
            stream,
            sealer,
            waiting: [Bytes::new()],
            ended: false,
        }
    }

    /// Seals and writes all chunks, and what waits from before; they are empty afterwards.
    pub(crate) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        loop {
            self.flush().await?;
            let left: usize = chunks.iter().map(Bytes::len).sum();
            if left == 0 {
                return Ok(());
            }
            self.waiting = [self.seal(chunks, left.min(BATCH)).map_err(broken)?];
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.waiting[0].is_empty() {
            return Ok(());
        }
        Ok(self.stream.write_chunks(&mut self.waiting).await?)
    }

    /// The first `left` bytes of the chunks, as records.
    fn seal(&mut self, chunks: &mut [Bytes], mut left: usize) -> Result<Bytes, RecordError> {
        let records = left.div_ceil(LONGEST);
        let mut out = BytesMut::with_capacity(left + (records + 1) * (HEADER + TRAILER) + 8);
        if self.sealer.is_used_up() {
            out.extend_from_slice(&self.sealer.renew()?);
        }
        let mut chunks = chunks.iter_mut().filter(|chunk| !chunk.is_empty());
        let mut chunk = chunks.next();
        while left > 0 {
            let start = out.len();
            out.put_bytes(0, HEADER);
            let mut room = left.min(LONGEST);
            while let Some(from) = chunk.as_mut().filter(|_| room > 0) {
                let length = from.len().min(room);
                out.extend_from_slice(&from[..length]);
                from.advance(length);
                (room, left) = (room - length, left - length);
                if from.is_empty() {
                    chunk = chunks.next();
                }
            }
            out.put_bytes(0, TRAILER);
            self.sealer.seal(&mut out[start..], DATA)?;
        }
        Ok(out.freeze())
    }

    /// Ends what we say; everything written still arrives.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.alert(WARNING, CLOSE_NOTIFY).await?;
        Ok(self.stream.finish()?)
    }

    /// Tells the far site that it is not allowed to do this.
    pub(super) async fn refuse(&mut self) {
        if self.alert(FATAL, ACCESS_DENIED).await.is_ok() {
            let _ = self.stream.finish();
        }
    }

    /// The last record.
    async fn alert(&mut self, level: u8, number: u8) -> io::Result<()> {
        self.flush().await?;
        if !self.ended {
            let mut record = [0; HEADER + 2 + TRAILER];
            record[HEADER..HEADER + 2].copy_from_slice(&[level, number]);
            self.sealer.seal(&mut record, ALERT).map_err(broken)?;
            self.waiting = [Bytes::copy_from_slice(&record)];
            self.ended = true;
        }
        self.flush().await
    }

    /// Abandons what we say.
    pub(crate) fn reset(&mut self, code: u32) {
        self.stream.reset(code);
    }
}

/// The half that the far site says.
pub(crate) struct SealedReceive {
    stream: RecvStream,
    opener: Opener,
    buffer: BytesMut,
    ready: VecDeque<Bytes>,
    ended: bool,
    about: About,
}

impl SealedReceive {
    pub(super) fn new(stream: RecvStream, opener: Opener, early: &[u8], about: About) -> Self {
        Self {
            stream,
            opener,
            buffer: early.into(),
            ready: VecDeque::new(),
            ended: false,
            about,
        }
    }

    /// Takes what has arrived into the first of the chunks; 0 at the end.
    pub(crate) async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> io::Result<usize> {
        loop {
            let filled = self.ready.len().min(chunks.len());
            if filled > 0 {
                for (chunk, ready) in chunks.iter_mut().zip(self.ready.drain(..filled)) {
                    *chunk = ready;
                }
                return Ok(filled);
            }
            if self.ended {
                return self.rest().await;
            }
            self.open()?;
            if self.ended || !self.ready.is_empty() {
                continue;
            }
            let mut arrived: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
            match self.stream.read_chunks(&mut arrived).await? {
                Some(filled) => {
                    for chunk in &arrived[..filled] {
                        self.buffer.extend_from_slice(chunk);
                    }
                }
                None => return Err(self.wrong("it was cut on its way: the far site did not end it")),
            }
        }
    }

    /// Reads on to the stream's own end: whoever leaves something unread breaks what carries it, and with it what is said the
    /// other way. The far site has said that nothing follows; that the stream breaks now takes nothing away.
    async fn rest(&mut self) -> io::Result<usize> {
        let mut arrived = [Bytes::new()];
        match self.stream.read_chunks(&mut arrived).await {
            Ok(Some(_)) => Err(self.wrong("something follows its end")),
            Ok(None) | Err(_) => Ok(0),
        }
    }

    /// Opens all records that are whole.
    fn open(&mut self) -> io::Result<()> {
        loop {
            let length = Opener::length(&self.buffer).map_err(|error| self.altered(error))?;
            let Some(length) = length.filter(|length| self.buffer.len() >= *length) else {
                return Ok(());
            };
            let mut record = self.buffer.split_to(length);
            match self
                .opener
                .open(&mut record)
                .map_err(|error| self.altered(error))?
            {
                Content::Data(range) if range.is_empty() => {}
                Content::Data(range) => self.ready.push_back(record.freeze().slice(range)),
                Content::Alert(CLOSE_NOTIFY) => {
                    self.ended = true;
                    return Ok(());
                }
                Content::Alert(ACCESS_DENIED) => {
                    return Err(self.wrong("the far site does not let this site reach the address"));
                }
                Content::Alert(_) => return Err(self.wrong("the far site broke it off")),
                Content::Nothing => {}
            }
        }
    }

    fn altered(&self, error: RecordError) -> io::Error {
        self.wrong(&format!("it was altered on its way: {error}"))
    }

    /// Says once what is wrong, and gives it to whoever reads.
    fn wrong(&self, reason: &str) -> io::Error {
        complain(&self.about.shared, &self.about.address, &self.about.site, reason);
        io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
    }

    /// Tells the far site that nobody reads on.
    pub(crate) fn stop(&mut self, code: u32) {
        self.stream.stop(code);
    }
}

fn broken(error: RecordError) -> io::Error {
    io::Error::other(error)
}
