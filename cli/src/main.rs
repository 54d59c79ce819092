//! `karez`: parses the command line and calls one crate; what a command does is there.
//!
//! Exit status: 0 when it went well, 1 when it failed, 2 when the command line is wrong.

mod args;
mod commands;
mod normalise;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Every TLS configuration that does not name a provider uses this one; it is the only one there is.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = args::Cli::parse_from(normalise::arguments(std::env::args_os()));
    if matches!(cli.command, args::Command::Collector(_)) {
        karez_collector::share_heaps();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::failure(&anyhow::anyhow!("cannot start threads: {error}")),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => output::failure(&error),
    }
}
