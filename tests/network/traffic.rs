//! What goes through the link: probes that ask whether it carries, and streams that must come back byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A probe without an answer is given up then.
const PROBE: Duration = Duration::from_millis(1500);

/// Errors that say nothing about the stream; a process that was stopped and continued sees the last.
const RETRY: [ErrorKind; 3] = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];

/// A connection that echoes.
pub(crate) fn open(entrance: SocketAddr, patience: Duration) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&entrance, patience)?;
    stream.set_nodelay(true)?;
    echoes(&mut stream, patience)?;
    Ok(stream)
}

/// Whether a connection still echoes.
pub(crate) fn echoes(stream: &mut TcpStream, patience: Duration) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"?")?;
    let mut back = [0];
    stream.read_exact(&mut back)?;
    ensure!(back == *b"?", "something else came back");
    Ok(())
}

/// How long it takes until a new connection echoes. Several are tried at once: one that was caught by a loss must not
/// hide that the link is back.
pub(crate) fn until_carried(entrance: SocketAddr, deadline: Duration) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let (found, finds) = std::sync::mpsc::channel();
    while started.elapsed() < deadline {
        let found = found.clone();
        thread::spawn(move || {
            if open(entrance, PROBE).is_ok() {
                // Somebody else may have been first.
                let _ = found.send(started.elapsed());
            }
        });
        if let Ok(elapsed) = finds.recv_timeout(Duration::from_millis(100)) {
            return Ok(elapsed);
        }
    }
    bail!("no new connection was carried within {deadline:?}")
}

/// Sends bytes and compares what comes back, to the end of the stream both ways; how long that took.
pub(crate) fn carry(entrance: SocketAddr, bytes: usize, deadline: Duration) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let stream = TcpStream::connect_timeout(&entrance, deadline)?;
    let mut sender = stream.try_clone()?;
    sender.set_write_timeout(Some(deadline))?;
    let writer = thread::spawn(move || -> std::io::Result<()> {
        for block in blocks(bytes) {
            sender.write_all(&block)?;
        }
        sender.shutdown(Shutdown::Write)
    });
    let compared = compare(stream, bytes, started + deadline);
    // When the comparison failed the writer fails too: the stream is closed under it.
    let written = writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    compared?;
    written.context("writing")?;
    Ok(started.elapsed())
}

fn compare(mut stream: TcpStream, bytes: usize, deadline: Instant) -> anyhow::Result<()> {
    let mut seen = 0;
    let result = (|| {
        for block in blocks(bytes) {
            let mut back = vec![0; block.len()];
            read_exact(&mut stream, &mut back, deadline)
                .with_context(|| format!("after {seen} of {bytes} bytes"))?;
            ensure!(
                back == block,
                "other bytes came back, within the {} after {seen}",
                back.len()
            );
            seen += back.len();
        }
        match read_exact(&mut stream, &mut [0], deadline) {
            Ok(()) => bail!("more came back than was sent"),
            Err(error) if error.is::<Ended>() => Ok(()),
            Err(error) => Err(error.context("waiting for the end of the stream")),
        }
    })();
    let _ = stream.shutdown(Shutdown::Both);
    result
}

/// The stream has ended.
#[derive(Debug)]
struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stream ended early")
    }
}

impl std::error::Error for Ended {}

fn read_exact(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> anyhow::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "not done by the deadline");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(Ended.into()),
            Ok(read) => filled += read,
            Err(error) if RETRY.contains(&error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Bytes that repeat late enough to show any that are lost, doubled or exchanged.
fn blocks(bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    const BLOCK: usize = 16 << 10;
    (0..bytes.div_ceil(BLOCK)).map(move |index| {
        let start = index * BLOCK;
        let word = |at: usize| {
            ((at / 8) as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()[at % 8]
        };
        (start..bytes.min(start + BLOCK)).map(word).collect()
    })
}
