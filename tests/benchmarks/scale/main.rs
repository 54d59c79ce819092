//! Many edges at one router: what a link costs when it is quiet, and what is left of edges that come and go.
//!
//! ```text
//!  this process                                       a router process
//!  edges (in-process routers) ══ links ══▶ interior router ──▶ listener of each edge's address
//!     └── connector ──▶ echo here   ◀──────────────────────────── probes of this process
//! ```
//!
//! `cargo bench -p karez --bench scale`; `docs/benchmarks.md` says more. The status is 1 when something is stuck or left.

#[path = "../process.rs"]
#[expect(dead_code, reason = "shared with the benchmark of routers")]
mod process;

mod cycles;
mod edges;
mod hub;

use clap::Parser;

/// Links many edges to one router.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Options {
    /// How many edges are linked at once.
    #[arg(long, default_value_t = 2_000)]
    edges: usize,
    /// How often an edge is killed or stopped and started again.
    #[arg(long, default_value_t = 1_000)]
    cycles: usize,
    /// How many edges come and go at the same time.
    #[arg(long, default_value_t = 20)]
    at_once: usize,
    /// The transport of all links: `quic` or `tls`.
    #[arg(long, default_value = "quic")]
    transport: String,
    /// The karez binary of the router.
    #[arg(long, env = "KAREZ_BIN", default_value = env!("CARGO_BIN_EXE_karez"))]
    karez: String,
    /// What `cargo bench` hands to every target.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Somebody else may have installed one; any will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if options.edges > 0 {
        edges::measure(&options)?;
    }
    if options.cycles > 0 {
        cycles::measure(&options)?;
    }
    Ok(())
}
