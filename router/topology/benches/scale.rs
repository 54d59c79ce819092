//! What large networks cost: messages, bytes, virtual time to converge, processor time and memory.
//!
//! `cargo bench -p karez-topology --bench scale` runs all; a word after `--` runs those whose names contain it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on fails"
)]

#[path = "../tests/networks/mod.rs"]
mod networks;
#[path = "../tests/simulation/mod.rs"]
mod simulation;

use std::time::Instant;

use networks::{Measured, Size, edges, mesh};

type Run = fn(Size) -> Measured;

fn main() {
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let networks: [(&str, Run, Size); 3] = [
        (
            "10000-edges-at-10-routers",
            edges,
            Size {
                interior: 10,
                edges: 10_000,
                degree: 9,
            },
        ),
        (
            "sparse-mesh-of-200-routers",
            mesh,
            Size {
                interior: 200,
                edges: 0,
                degree: 8,
            },
        ),
        (
            "full-mesh-of-200-routers",
            mesh,
            Size {
                interior: 200,
                edges: 0,
                degree: 199,
            },
        ),
    ];
    for (name, run, size) in networks {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !name.contains(wanted.as_str()))
        {
            continue;
        }
        report(name, run, size);
    }
}

fn report(name: &str, run: Run, size: Size) {
    let before = memory();
    let started = Instant::now();
    let measured = run(size);
    let took = started.elapsed();
    println!(
        "{name}: {} links, all reached: {}",
        measured.links, measured.all_reached
    );
    let traffic = |traffic: simulation::Traffic| {
        format!(
            "{} messages, {:.2} MB",
            traffic.messages,
            traffic.bytes as f64 / 1e6
        )
    };
    println!(
        "  start: {}; {} ms after the last link all tables stand",
        traffic(measured.traffic),
        measured.converged
    );
    println!("  an hour at rest: {}", traffic(measured.at_rest));
    if measured.edge_flap.messages > 0 {
        println!("  an edge goes and comes back: {}", traffic(measured.edge_flap));
    }
    println!(
        "  an interior link dies: {}; all tables stand after {} ms",
        traffic(measured.loss),
        measured.after_loss
    );
    println!(
        "  a router keeps {} records, about {} kB",
        measured.records.0,
        measured.records.1 / 1000
    );
    let nodes = size.interior + size.edges;
    println!(
        "  the simulation of all {nodes} routers took {:.1} s of one core and {} MB at its peak",
        took.as_secs_f64(),
        (memory().saturating_sub(before)) / 1024
    );
}

/// The most that this process has taken so far, KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
