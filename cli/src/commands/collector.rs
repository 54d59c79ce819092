//! `collector`, `collector validate`, `collector components`, `collector status`.

use std::process::ExitCode;

use karez_collector::CollectorOptions;
use karez_document::has_errors;
use karez_lifecycle::Shutdown;
use karez_net::Net;

use super::program_client;
use crate::args::{CollectorArgs, CollectorCommand, CollectorRunArgs, Output};
use crate::output::print;

pub(super) async fn run(args: CollectorArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(CollectorCommand::Validate(args)) => validate(args).await,
        Some(CollectorCommand::Components) => {
            let text = karez_collector::components();
            print(Output::Text, &(), || text)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(CollectorCommand::Status(args)) => {
            let status = karez_collector::status(&Net::from_env(), &args.address).await?;
            print(args.output, &status, || status.render())?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let options = options(args.run).await?;
            karez_collector::run(options, Shutdown::on_signals()?).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Status 1 when something is wrong enough that it would not run as written.
async fn validate(args: CollectorRunArgs) -> anyhow::Result<ExitCode> {
    let diagnoses = karez_collector::validate(&options(args).await?).await?;
    for diagnosis in &diagnoses {
        eprintln!("{diagnosis}");
    }
    Ok(if has_errors(&diagnoses) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

async fn options(args: CollectorRunArgs) -> anyhow::Result<CollectorOptions> {
    let from_cluster = args.config.iter().any(|config| config.starts_with("kube:"));
    let client = if from_cluster {
        Some(program_client(&args.target).await?.0)
    } else {
        None
    };
    Ok(CollectorOptions {
        configs: args.config,
        sets: args.set,
        feature_gates: args.feature_gates,
        metrics_addr: args.metrics_addr,
        net: Net::from_env(),
        client,
    })
}
