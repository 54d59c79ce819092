//! Many quiet links: memory of each at the router, its CPU time when nothing happens, and what is given back.

use std::time::{Duration, Instant};

use karez_lifecycle::Shutdown;
use tokio::time::sleep;

use crate::Options;
use crate::hub::{Hub, linked, start_edge};

/// How many edges begin at the same time: a real start is not one of all at once.
const STARTING: usize = 50;
/// For how long CPU time at rest is looked at.
const REST: Duration = Duration::from_secs(20);

/// Measures and prints.
pub(crate) fn measure(options: &Options) -> anyhow::Result<()> {
    // Nothing is carried: nobody dials the target.
    let hub = Hub::start(options, options.edges, 0, ([127, 0, 0, 1], 9).into())?;
    let idle = hub.process.memory_kib();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run(options, &hub, idle));
    runtime.shutdown_timeout(Duration::from_secs(10));
    result
}

async fn run(options: &Options, hub: &Hub, idle: f64) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let started = Instant::now();
    let mut routers = Vec::with_capacity(options.edges);
    while routers.len() < options.edges {
        let first = routers.len();
        for number in first..options.edges.min(first + STARTING) {
            routers.push(start_edge(hub.edge(number)?, shutdown.clone()).await?);
        }
        for router in &routers[first..] {
            linked(router).await?;
        }
    }
    let took = started.elapsed();
    let cpu = hub.process.cpu_seconds();
    println!(
        "{} edges linked over {} in {:.1} s; the router used {:.2} ms CPU a link",
        routers.len(),
        options.transport,
        took.as_secs_f64(),
        cpu * 1e3 / routers.len() as f64
    );
    sleep(Duration::from_secs(5)).await;
    let (before, from) = (hub.process.cpu_seconds(), Instant::now());
    sleep(REST).await;
    let rest = (hub.process.cpu_seconds() - before) / from.elapsed().as_secs_f64();
    let memory = hub.process.memory_kib();
    println!(
        "memory: {:.1} MiB before, {:.1} MiB linked: {:.1} KiB a link; CPU at rest: {:.2} % of a core",
        idle / 1024.0,
        memory / 1024.0,
        (memory - idle) / routers.len() as f64,
        rest * 100.0
    );
    shutdown.trigger();
    for router in routers {
        router.finished().await?;
    }
    sleep(Duration::from_secs(15)).await;
    println!(
        "memory when they have left: {:.1} MiB",
        hub.process.memory_kib() / 1024.0
    );
    Ok(())
}
