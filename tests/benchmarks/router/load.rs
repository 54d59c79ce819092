//! The client: one thread that opens connections and counts.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::server;

/// A connection that has said nothing for this long fails the measurement.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request, and its answer.
const REQUEST: usize = 64;
/// How much is read at once.
const BLOCK: usize = 256 << 10;

/// Bytes that begin at a page: copies between some other alignments are many times slower, which would be measured.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![7; length + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        Self { bytes, start, length }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

async fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(to))
        .await
        .context("connect")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, buffer: &mut [u8; REQUEST]) -> anyhow::Result<()> {
    stream.write_all(buffer).await?;
    stream.read_exact(buffer).await?;
    Ok(())
}

/// A connection that works: one request was answered.
pub(crate) async fn open(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = connect(to).await?;
    let answered = timeout(PATIENCE, exchange(&mut stream, &mut [1; REQUEST])).await;
    answered.context("no answer")??;
    Ok(stream)
}

/// Counts what tasks do in a window that begins after they are warm; the window's observer is called at both ends.
async fn window<T>(
    mut tasks: JoinSet<anyhow::Result<()>>,
    counter: Arc<AtomicU64>,
    (warm, lasting): (Duration, Duration),
    mut observe: impl FnMut() -> T,
) -> anyhow::Result<(f64, T, T)> {
    let measured = async {
        sleep(warm).await;
        let (started, from, before) = (Instant::now(), counter.load(Ordering::Relaxed), observe());
        sleep(lasting).await;
        let (seconds, to, after) = (
            started.elapsed().as_secs_f64(),
            counter.load(Ordering::Relaxed),
            observe(),
        );
        (to.saturating_sub(from) as f64 / seconds, before, after)
    };
    let outcome = tokio::select! {
        measured = measured => Ok(measured),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Err(error)) => Err(error),
            other => Err(anyhow::anyhow!("a connection ended early: {other:?}")),
        },
    };
    tasks.shutdown().await;
    outcome
}

/// What bulk connections carried.
pub(crate) struct Bulk {
    pub(crate) gigabits: f64,
    pub(crate) cpu_seconds_a_gigabyte: f64,
}

/// Streams from the server on some connections.
pub(crate) async fn bulk(
    to: SocketAddr,
    connections: usize,
    lasting: Duration,
    cpu: impl Fn() -> f64,
) -> anyhow::Result<Bulk> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut stream = connect(to).await?;
        stream.write_all(&[server::BULK]).await?;
        let counter = counter.clone();
        tasks.spawn(async move {
            let mut buffer = Aligned::new(BLOCK);
            loop {
                let read = timeout(PATIENCE, stream.read(&mut buffer)).await;
                let read = read.context("nothing came for 10 s")??;
                ensure!(read > 0, "the stream ended early");
                counter.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
    }
    let times = (Duration::from_millis(700), lasting);
    let started = Instant::now();
    let clock = || (cpu(), started.elapsed().as_secs_f64());
    let (rate, before, after) = window(tasks, counter, times, clock).await?;
    let gigabytes = rate * (after.1 - before.1) / 1e9;
    Ok(Bulk {
        gigabits: rate * 8.0 / 1e9,
        cpu_seconds_a_gigabyte: (after.0 - before.0) / gigabytes,
    })
}

/// Microseconds of a request on one connection: the median and the 99th percentile.
pub(crate) async fn latency(to: SocketAddr, lasting: Duration) -> anyhow::Result<(f64, f64)> {
    let mut stream = open(to).await?;
    let mut buffer = [1; REQUEST];
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < lasting {
        let asked = Instant::now();
        timeout(PATIENCE, exchange(&mut stream, &mut buffer))
            .await
            .context("no answer")??;
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    let warm = times.len() / 10;
    let times = &mut times[warm..];
    times.sort_by(f64::total_cmp);
    ensure!(!times.is_empty(), "no request was answered");
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Requests a second on connections that stay open.
pub(crate) async fn requests(to: SocketAddr, connections: usize, lasting: Duration) -> anyhow::Result<f64> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut stream = open(to).await?;
        let counter = counter.clone();
        tasks.spawn(async move {
            let mut buffer = [1; REQUEST];
            loop {
                exchange(&mut stream, &mut buffer).await?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    Ok(
        window(tasks, counter, (Duration::from_millis(300), lasting), || ())
            .await?
            .0,
    )
}

/// Connections a second, some at once: opened, one request, closed.
pub(crate) async fn connections(to: SocketAddr, at_once: usize, lasting: Duration) -> anyhow::Result<f64> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let counter = counter.clone();
        tasks.spawn(async move {
            loop {
                let mut stream = open(to).await?;
                stream.shutdown().await?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    Ok(
        window(tasks, counter, (Duration::from_millis(300), lasting), || ())
            .await?
            .0,
    )
}

/// Opens many connections and keeps them; fewer than asked for when one fails, and why it did.
pub(crate) async fn hold(to: SocketAddr, count: usize) -> (Vec<TcpStream>, Option<anyhow::Error>) {
    let mut held = Vec::with_capacity(count);
    let mut tasks = JoinSet::new();
    let mut started = 0;
    loop {
        while started < count && tasks.len() < 64 {
            started += 1;
            tasks.spawn(open(to));
        }
        match tasks.join_next().await {
            None => return (held, None),
            Some(Ok(Ok(stream))) => held.push(stream),
            Some(Ok(Err(error))) => return (held, Some(error)),
            Some(Err(error)) => return (held, Some(error.into())),
        }
    }
}
