//! `allocator`, `allocator explain`, `allocator validate`.

use std::process::ExitCode;

use anyhow::Context;
use karez_allocator::{AllocatorOptions, Flags};
use karez_document::{Origin, has_errors};
use karez_lifecycle::{Shutdown, volumes};
use karez_net::Net;

use crate::args::{AllocatorArgs, AllocatorCommand, AllocatorExplainArgs, AllocatorRunArgs};
use crate::output::print;

pub(super) async fn run(args: AllocatorArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(AllocatorCommand::Explain(args)) => explain(args).await,
        Some(AllocatorCommand::Validate(args)) => validate(&args),
        None => {
            let options = AllocatorOptions {
                config: volumes::locate(&args.run.config_file),
                flags: flags(&args.run),
                net: Net::from_env(),
                client: None,
            };
            karez_allocator::run(options, Shutdown::on_signals()?).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn explain(args: AllocatorExplainArgs) -> anyhow::Result<ExitCode> {
    let explained = karez_allocator::explain(&Net::from_env(), &args.address, &args.target).await?;
    print(args.output, &explained, || karez_allocator::render(&explained))?;
    Ok(match explained.is_empty() {
        true => ExitCode::from(1),
        false => ExitCode::SUCCESS,
    })
}

/// Status 1 when something is wrong enough that it would not run as written.
fn validate(args: &AllocatorRunArgs) -> anyhow::Result<ExitCode> {
    let file = args.config_file.display().to_string();
    let text = std::fs::read_to_string(&args.config_file).with_context(|| file.clone())?;
    let (_, diagnoses) = karez_allocator::read(&text, &Origin::file(file), &flags(args));
    for diagnosis in &diagnoses {
        eprintln!("{diagnosis}");
    }
    Ok(match has_errors(&diagnoses) {
        true => ExitCode::from(1),
        false => ExitCode::SUCCESS,
    })
}

fn flags(args: &AllocatorRunArgs) -> Flags {
    Flags {
        listen_addr: args.listen_addr.clone(),
        watch_prometheus: args.enable_prometheus_cr_watcher,
        kubeconfig: args.kubeconfig_path.clone(),
        https: args.enable_https_server,
        https_listen_addr: args.listen_addr_https.clone(),
        https_ca_file: args.https_ca_file.clone(),
        https_cert_file: args.https_tls_cert_file.clone(),
        https_key_file: args.https_tls_key_file.clone(),
        allow_insecure_secrets: args.allow_insecure_auth_secrets.unwrap_or(false),
        namespace: args
            .collector_namespace
            .clone()
            .filter(|namespace| !namespace.is_empty()),
    }
}
