//! The command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, ValueEnum};

use super::scenario::{Scenario, Who};

/// Measures `karez collector` beside the OpenTelemetry Collector.
#[derive(Debug, Parser)]
#[command(name = "collector")]
pub(crate) struct Options {
    /// Whom to measure, separated by commas; both unless given.
    #[arg(long, value_delimiter = ',', value_enum)]
    contenders: Vec<Who>,
    /// What to measure, separated by commas; everything unless given.
    #[arg(long, value_delimiter = ',', value_enum)]
    scenarios: Vec<Scenario>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// How many requests are sent, of 100 spans each.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) requests: usize,
    /// How many requests a second; 0 for as many as are answered.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rate: usize,
    /// Connections of the load.
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Requests under way at once on each connection.
    #[arg(long, default_value_t = 4)]
    pub(crate) streams: usize,
    /// How many targets are scraped.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) targets: usize,
    /// How many series each target exposes.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) series: usize,
    /// Seconds between two scrapes of a target.
    #[arg(long, default_value_t = 15)]
    pub(crate) interval: u64,
    /// How many scrapes of each target are measured, after the first.
    #[arg(long, default_value_t = 2)]
    pub(crate) scrapes: u32,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// The karez binary to measure instead of the one built with the benchmark.
    #[arg(long, env = "KAREZ_BIN", default_value = env!("CARGO_BIN_EXE_karez"))]
    pub(crate) karez: String,
    /// The OpenTelemetry Collector; the one that `tests/peers/build` made unless given.
    #[arg(long, env = "OTELCOL_BIN")]
    otelcol: Option<PathBuf>,
    /// What `cargo bench` hands to every target.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Options {
    pub(crate) fn wants(&self, who: Who) -> bool {
        self.contenders.is_empty() || self.contenders.contains(&who)
    }

    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        match self.scenarios.is_empty() {
            true => Scenario::value_variants().to_vec(),
            false => self.scenarios.clone(),
        }
    }

    /// The real Collector, if there is one.
    pub(crate) fn otelcol(&self) -> Option<PathBuf> {
        if let Some(given) = &self.otelcol {
            return Some(given.clone());
        }
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/build");
        let located = Command::new(build).args(["--locate", "otelcol"]).output().ok()?;
        let folder = String::from_utf8(located.stdout).ok()?;
        let found = Path::new(folder.trim()).join("otelcol");
        (located.status.success() && found.is_file()).then_some(found)
    }
}
