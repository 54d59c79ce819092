//! What a link costs: bulk throughput and request latency through a linked pair of routers on loopback, beside the
//! bare connection, in one run. Both sides and their ratio are printed.
//!
//! `cargo bench -p karez-router --bench link [-- --quick]`

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const CHUNK: usize = 256 * 1024;
const MESSAGE: usize = 512;

/// How much is measured.
struct Plan {
    bulk: u64,
    requests: usize,
    connections: usize,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let plan = match quick {
        true => Plan {
            bulk: 32 << 20,
            requests: 200,
            connections: 50,
        },
        false => Plan {
            bulk: 2 << 30,
            requests: 20_000,
            connections: 2_000,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure(&plan));
}

async fn measure(plan: &Plan) {
    let sink = sink().await;
    let (mut public, mut edge) = support::pair(sink).await;
    let link = edge.listener().await;
    println!(
        "{:<36} {:>14} {:>14} {:>8}",
        "", "bare TCP", "over a link", "ratio"
    );
    for streams in [1, 4] {
        let (bare, linked) = (
            bulk(sink, plan.bulk, streams).await,
            bulk(link, plan.bulk, streams).await,
        );
        let name = format!("bulk, {streams} connection(s), MiB/s");
        row(&name, bare, linked, linked / bare);
    }
    for (at, clients) in [("alone", 1), ("16 at once", 16)] {
        let (bare, linked) = (echo(sink, plan, clients).await, echo(link, plan, clients).await);
        for (name, pick) in [("median", 50), ("99th percentile", 99)] {
            let (bare, linked) = (percentile(&bare, pick), percentile(&linked, pick));
            row(&format!("request, {at}, {name}, µs"), bare, linked, linked / bare);
        }
    }
    let (bare, linked) = (
        connect(sink, plan.connections).await,
        connect(link, plan.connections).await,
    );
    let (bare, linked) = (percentile(&bare, 50), percentile(&linked, 50));
    row(
        "connect and first answer, median, µs",
        bare,
        linked,
        linked / bare,
    );
    edge.stop().await;
    public.stop().await;
}

fn row(name: &str, bare: f64, linked: f64, ratio: f64) {
    println!("{name:<36} {bare:>14.1} {linked:>14.1} {ratio:>8.2}");
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e6)
}

/// The first byte says what a client wants: `b` to be drained and told so at the end, `e` to be echoed.
async fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; CHUNK];
    if stream.read_u8().await? == b'b' {
        while stream.read(&mut buffer).await? > 0 {}
        return stream.write_all(b"!").await;
    }
    while stream.read_exact(&mut buffer[..MESSAGE]).await.is_ok() {
        stream.write_all(&buffer[..MESSAGE]).await?;
    }
    Ok(())
}

/// MiB/s of all connections together, until the far end has read everything.
async fn bulk(to: SocketAddr, bytes: u64, connections: u64) -> f64 {
    let started = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..connections {
        running.spawn(async move {
            let mut stream = TcpStream::connect(to).await.expect("connects");
            stream.write_all(b"b").await.expect("is taken");
            let chunk = vec![7; CHUNK];
            for _ in 0..(bytes / connections) / CHUNK as u64 {
                stream.write_all(&chunk).await.expect("is taken");
            }
            stream.shutdown().await.expect("ends its output");
            stream.read_u8().await.expect("everything was read");
        });
    }
    running.join_all().await;
    bytes as f64 / (1 << 20) as f64 / started.elapsed().as_secs_f64()
}

/// Times of requests on open connections, sorted.
async fn echo(to: SocketAddr, plan: &Plan, clients: usize) -> Vec<Duration> {
    let mut running = JoinSet::new();
    let requests = plan.requests / clients;
    for _ in 0..clients {
        running.spawn(async move {
            let mut stream = TcpStream::connect(to).await.expect("connects");
            stream.set_nodelay(true).expect("a socket option");
            stream.write_all(b"e").await.expect("is taken");
            let mut times = Vec::with_capacity(requests);
            for _ in 0..requests {
                times.push(request(&mut stream).await);
            }
            times
        });
    }
    sorted(running.join_all().await.into_iter().flatten())
}

/// Times from nothing to the first answer, sorted.
async fn connect(to: SocketAddr, times: usize) -> Vec<Duration> {
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        let mut stream = TcpStream::connect(to).await.expect("connects");
        stream.set_nodelay(true).expect("a socket option");
        stream.write_all(b"e").await.expect("is taken");
        request(&mut stream).await;
        all.push(started.elapsed());
    }
    sorted(all.into_iter())
}

async fn request(stream: &mut TcpStream) -> Duration {
    let mut message = [1; MESSAGE];
    let started = Instant::now();
    stream.write_all(&message).await.expect("is taken");
    stream.read_exact(&mut message).await.expect("is answered");
    started.elapsed()
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}
