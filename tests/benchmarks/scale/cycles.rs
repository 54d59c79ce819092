//! Edges that come and go, half of them without a farewell: nothing may be stuck and nothing left.
//!
//! Each cycle starts an edge's router, waits for its link, opens a connection through the link and ends the router. That
//! connection must end, too, and the next router of the same site must be linked and reached.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use karez_lifecycle::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::Options;
use crate::hub::{DEADLINE, Hub, linked, start_edge};

/// A silent peer is noticed by then, and what it carried has ended.
const NOTICED: Duration = Duration::from_secs(25);

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    done: AtomicUsize,
    retried: AtomicUsize,
    slowest_ms: AtomicUsize,
}

/// Runs the cycles and prints; an error when something is stuck.
pub(crate) fn measure(options: &Options) -> anyhow::Result<()> {
    let helper = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let target = helper.block_on(echo())?;
    let edges = options.at_once.clamp(1, options.cycles);
    let hub = Hub::start(options, edges, edges, target)?;
    let (memory, files) = (hub.process.memory_kib(), hub.process.files());
    let counts = Counts::default();
    let started = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..edges)
            .map(|number| {
                let (hub, counts, helper) = (&hub, &counts, helper.handle());
                scope.spawn(move || edge(number, hub, options.cycles, counts, helper))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    let took = started.elapsed();
    println!(
        "{} cycles over {} in {:.1} s; from start to linked {} ms at most; {} connections needed another try",
        counts.done.load(Ordering::Relaxed),
        options.transport,
        took.as_secs_f64(),
        counts.slowest_ms.load(Ordering::Relaxed),
        counts.retried.load(Ordering::Relaxed)
    );
    let left = settled(&hub, files);
    println!(
        "memory: {:.1} MiB before, {:.1} MiB after; open files: {files} before, {left} after",
        memory / 1024.0,
        hub.process.memory_kib() / 1024.0
    );
    ensure!(
        left <= files + 2,
        "the router kept open files of edges that are gone"
    );
    Ok(())
}

/// Waits until the router has no more open files than before, and says how many it has.
fn settled(hub: &Hub, files: usize) -> usize {
    let deadline = Instant::now() + NOTICED;
    while hub.process.files() > files && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
    }
    hub.process.files()
}

/// One edge's cycles, until all of them together are enough.
fn edge(
    number: usize,
    hub: &Hub,
    cycles: usize,
    counts: &Counts,
    helper: &tokio::runtime::Handle,
) -> anyhow::Result<()> {
    let entrance = hub.entrances[number];
    let mut watched = Vec::new();
    while counts.begun.fetch_add(1, Ordering::Relaxed) < cycles {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let killed = counts.begun.load(Ordering::Relaxed).is_multiple_of(2);
        let stream = cycle(number, hub, &runtime, killed, counts, helper).with_context(|| {
            format!(
                "edge-{number}, after {} cycles",
                counts.done.load(Ordering::Relaxed)
            )
        })?;
        // A kill: tasks and sockets are gone at once, without a word to anybody.
        drop(runtime);
        counts.done.fetch_add(1, Ordering::Relaxed);
        watched.push(helper.spawn(ends(stream)));
    }
    for watched in watched {
        helper
            .block_on(watched)?
            .with_context(|| format!("a connection to {entrance} is stuck"))?;
    }
    Ok(())
}

fn cycle(
    number: usize,
    hub: &Hub,
    runtime: &Runtime,
    killed: bool,
    counts: &Counts,
    helper: &tokio::runtime::Handle,
) -> anyhow::Result<TcpStream> {
    let entrance = hub.entrances[number];
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let started = Instant::now();
        let router = start_edge(hub.edge(number)?, shutdown.clone()).await?;
        linked(&router).await?;
        let millis = usize::try_from(started.elapsed().as_millis()).unwrap_or(usize::MAX);
        counts.slowest_ms.fetch_max(millis, Ordering::Relaxed);
        // On the helper, whose runtime outlives this one.
        let (stream, tries) = helper.spawn(reach(entrance)).await??;
        counts.retried.fetch_add(tries - 1, Ordering::Relaxed);
        if !killed {
            shutdown.trigger();
            router.finished().await?;
        }
        Ok(stream)
    })
}

/// A connection that echoes, and how many tries it took.
async fn reach(entrance: SocketAddr) -> anyhow::Result<(TcpStream, usize)> {
    let deadline = Instant::now() + DEADLINE;
    for tries in 1.. {
        let opened = async {
            let mut stream = TcpStream::connect(entrance).await?;
            stream.write_all(b"?").await?;
            let mut back = [0];
            stream.read_exact(&mut back).await?;
            std::io::Result::Ok(stream)
        };
        match timeout(Duration::from_secs(5), opened).await {
            Ok(Ok(stream)) => return Ok((stream, tries)),
            failed => ensure!(
                Instant::now() < deadline,
                "{entrance} cannot be reached: {failed:?}"
            ),
        }
        sleep(Duration::from_millis(10)).await;
    }
    unreachable!("the loop above does not end by itself")
}

/// Waits until a connection to an edge that has left ends.
async fn ends(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut rest = [0; 16];
    match timeout(NOTICED, stream.read(&mut rest)).await {
        Err(_) => anyhow::bail!("open {NOTICED:?} after its edge was gone"),
        Ok(Ok(read)) => {
            ensure!(read == 0, "bytes came from an edge that is gone");
            Ok(())
        }
        Ok(Err(_)) => Ok(()),
    }
}

async fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // A client that leaves ends it.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Ok(address)
}
