//! What the collector costs beside the OpenTelemetry Collector: the same YAML, the same load, one machine, interleaved.
//! See `docs/benchmarks.md`.
//!
//! ```text
//!  load.rs ══ OTLP/gRPC ══▶ a contender: the program under test ══ OTLP/gRPC ══▶ sink.rs, which counts items
//!  targets.rs ◀── scrapes ──┘
//! ```
//!
//! `scenario.rs` writes the documents, `payload.rs` the requests, `measure.rs` runs one contender, `report.rs` tells. What
//! counts are the CPU seconds and the peak memory of the program under test, not how fast the load can be made.

mod load;
mod measure;
mod options;
mod payload;
#[path = "../process.rs"]
#[expect(dead_code, reason = "shared with the benchmarks of routers")]
mod process;
mod report;
mod scenario;
mod sink;
mod targets;

use clap::Parser;

use options::Options;
use report::Report;
use scenario::Who;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let otelcol = options.otelcol();
    if otelcol.is_none() && options.wants(Who::Otelcol) {
        eprintln!("skipped: otelcol; tests/peers/build otelcol builds it");
    }
    for round in 0..options.rounds {
        for scenario in options.scenarios() {
            for who in Who::ALL.into_iter().filter(|who| options.wants(*who)) {
                let program = match who {
                    Who::Karez => options.karez.clone().into(),
                    Who::Otelcol => match &otelcol {
                        Some(program) => program.clone(),
                        None => continue,
                    },
                };
                let figures = measure::run(options, scenario, who, &program).await?;
                eprintln!("round {} {scenario:?} {who:?}: {figures}", round + 1);
                report.add(scenario, who, figures);
            }
        }
    }
    report.print(options.output)
}
