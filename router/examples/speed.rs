//! How fast a linked pair of routers is on this machine: bulk, CPU, latency, new connections, requests, memory.
//!
//! ```text
//!  cargo run --release -p karez-router --example speed -- [THREADS [PARTS]]
//! ```
//!
//! Two routers run as processes of their own; clients and targets are threads of this one. What counts against peers
//! is measured by `tests/benchmarks`; this is for a quick look while working on the router.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use karez_lifecycle::Shutdown;
use karez_router::RouterOptions;
use karez_router_config::Mode;
use support::Site;

const RUN: Duration = Duration::from_secs(4);

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("router") => router(&arguments.next().unwrap(), &arguments.next().unwrap()),
        threads => drive(
            threads.unwrap_or("2"),
            &arguments.next().unwrap_or("bceh1m".into()),
        ),
    }
}

fn router(document: &str, threads: &str) {
    let threads: usize = threads.parse().unwrap();
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build().unwrap();
    let options = RouterOptions {
        config: karez_document::Source::File(document.into()),
        client: None,
        namespace: "default".into(),
        net: karez_net::Net::system(),
    };
    runtime
        .block_on(karez_router::run(options, Shutdown::new()))
        .unwrap();
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(document: &Path, threads: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("router").arg(document).arg(threads);
    Process(command.spawn().unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn drive(threads: &str, parts: &str) {
    let target = target();
    let mut public = Site::public();
    public.serve(target);
    public.document.accept[0].port = free_port();
    let token = public.token("token1", Timestamp::now());
    let port = public.document.accept[0].port;
    public.write();
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(([127, 0, 0, 1], port).into(), &token);
    edge.listen();
    edge.document.listeners[0].port = free_port();
    let listener = ([127, 0, 0, 1], edge.document.listeners[0].port).into();
    edge.write();
    // Keys of links are taken from the environment, so that settings can be compared: `transport: tls`.
    if let Ok(extra) = std::env::var("LINK") {
        let text = edge.document.to_yaml();
        let text = text.replace(
            "  cost: 1\n",
            &format!("  cost: 1\n  {}\n", extra.replace(';', "\n  ")),
        );
        edge.write_text(&text);
    }
    if let Ok(extra) = std::env::var("ACCEPT") {
        let text = public.document.to_yaml();
        let role = "  role: edge\n";
        public.write_text(&text.replace(role, &format!("{role}  {}\n", extra.replace(';', "\n  "))));
    }
    let routers = [spawn(&public.path(), threads), spawn(&edge.path(), threads)];
    let ready = Instant::now();
    while exchange(listener).is_err() {
        assert!(ready.elapsed() < Duration::from_secs(20), "the link is not up");
        std::thread::sleep(Duration::from_millis(50));
    }
    for part in parts.chars() {
        match part {
            'b' => bulk(listener, 1, &routers),
            'B' => bulk(listener, 4, &routers),
            'e' => bulk(listener, 8, &routers),
            'c' => connections(listener, &routers),
            'h' => requests(listener, 64, &routers),
            '1' => requests(listener, 1, &routers),
            'm' => memory(listener, &routers),
            _ => {}
        }
    }
}

/// Sinks what begins with `S`, echoes what does not.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || serve(stream))
                .unwrap();
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 4096];
    let Ok(first) = stream.read(&mut buffer) else {
        return;
    };
    if first > 0 && buffer[0] == b'S' {
        buffer = vec![0; 256 << 10];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        return;
    }
    let mut filled = first;
    while filled > 0 && stream.write_all(&buffer[..filled]).is_ok() {
        filled = stream.read(&mut buffer).unwrap_or(0);
    }
}

fn exchange(listener: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(listener)?;
    stream.set_nodelay(true)?;
    let mut buffer = [b'x'; 64];
    stream.write_all(&buffer)?;
    stream.read_exact(&mut buffer)
}

/// CPU seconds of both routers so far.
fn cpu(routers: &[Process]) -> f64 {
    let of = |process: &Process| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    routers.iter().map(of).sum::<f64>() / 100.0
}

fn resident(routers: &[Process]) -> u64 {
    let of = |process: &Process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap()
            .to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    routers.iter().map(of).sum()
}

fn bulk(listener: SocketAddr, streams: usize, routers: &[Process]) {
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..streams)
        .map(|_| {
            let (sent, stop) = (sent.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(listener).unwrap();
                let block = vec![b'S'; 256 << 10];
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&block).unwrap();
                    sent.fetch_add(block.len() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let (before, used, started) = (sent.load(Ordering::Relaxed), cpu(routers), Instant::now());
    std::thread::sleep(RUN);
    let bytes = (sent.load(Ordering::Relaxed) - before) as f64;
    let (used, took) = (cpu(routers) - used, started.elapsed().as_secs_f64());
    println!(
        "bulk {streams}: {:.2} Gbit/s, {:.2} CPU s/GB",
        bytes * 8e-9 / took,
        used / bytes * 1e9
    );
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
}

fn connections(listener: SocketAddr, routers: &[Process]) {
    let (used, deadline) = (cpu(routers), Instant::now() + RUN);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut count = 0;
                while Instant::now() < deadline {
                    exchange(listener).unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let count: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let per = (cpu(routers) - used) / count as f64 * 1e6;
    println!(
        "connections: {:.0}/s, {per:.0} CPU µs each",
        count as f64 / RUN.as_secs_f64()
    );
}

fn requests(listener: SocketAddr, streams: usize, routers: &[Process]) {
    let used = cpu(routers);
    let deadline = Instant::now() + RUN;
    let threads: Vec<_> = (0..streams)
        .map(|_| {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let mut stream = TcpStream::connect(listener).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let (mut times, mut buffer) = (Vec::new(), [b'x'; 200]);
                    while Instant::now() < deadline {
                        let started = Instant::now();
                        stream.write_all(&buffer).unwrap();
                        stream.read_exact(&mut buffer).unwrap();
                        times.push(started.elapsed().as_micros() as u64);
                    }
                    times
                })
                .unwrap()
        })
        .collect();
    let mut times: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    times.sort_unstable();
    let count = times.len();
    println!(
        "requests on {streams}: {:.0}/s, p50 {} µs, p99 {} µs, {:.0} CPU µs each",
        count as f64 / RUN.as_secs_f64(),
        times[count / 2],
        times[count * 99 / 100],
        (cpu(routers) - used) / count as f64 * 1e6
    );
}

fn memory(listener: SocketAddr, routers: &[Process]) {
    let before = resident(routers);
    let held: Vec<_> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(listener).unwrap();
            let mut buffer = [b'x'; 64];
            stream.write_all(&buffer).unwrap();
            stream.read_exact(&mut buffer).unwrap();
            stream
        })
        .collect();
    let during = resident(routers);
    println!(
        "memory: {:.1} KiB a carried idle connection (from {before} to {during} KiB)",
        (during - before) as f64 / held.len() as f64
    );
}
