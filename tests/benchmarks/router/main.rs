//! What a linked pair of routers costs beside what its users would pick instead: nginx, HAProxy and rathole with TLS, and
//! the bare connection, on one machine in interleaved rounds. See `docs/benchmarks.md`.
//!
//! ```text
//!            near side, core 0                       far side, core 1
//!  load.rs ──▶ a contender's near proxy ══ TLS/QUIC ══▶ its far proxy ──▶ server.rs
//!     └─────────────────────── bare ───────────────────────────────────────▶
//! ```
//!
//! `arena.rs` makes the network and pins the programs, `awake.rs` keeps their cores from resting, `contender/` starts the pairs, `rounds.rs` measures, `report.rs`
//! tells. The numbers are of this machine at this moment; their ratios are what to look at.

mod arena;
mod awake;
mod contender;
mod load;
mod options;
#[path = "../../pair.rs"]
mod pair;
#[path = "../process.rs"]
#[expect(dead_code, reason = "shared with the benchmark of many links")]
mod process;
mod report;
mod rounds;
mod server;

use clap::Parser;

use options::Options;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(server::COMMAND) => return server::run(),
        Some(awake::COMMAND) => awake::run(),
        _ => {}
    }
    let options = Options::parse();
    if !arena::inside() && !options.no_namespaces {
        return arena::enter();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(rounds::run(&options))?;
    report.print(options.output)
}
