//! One function a command: from arguments to a call.

mod allocator;
mod collector;
mod doctor;
mod programs;
mod seal;
mod site;
mod status;
mod telemetrygen;
mod token;

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use karez_lifecycle::{LogFormat, init_logs};
use karez_site::access::{self, AccessOptions};
use kube::Client;

use crate::args::{
    AllocatorArgs, Cli, Command, LinkCommand, LogFormat as LogFormatArg, NetworkCommand, ServiceCommand,
    SiteCommand, Target,
};

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = match cli.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    // Programs tell an operator what they do; commands speak for themselves and log only what is wrong.
    let usual = match cli.command {
        Command::Router(_)
        | Command::Collector(_)
        | Command::Allocator(AllocatorArgs { command: None, .. })
        | Command::SiteController(_)
        | Command::ServiceController(_) => "info",
        _ => "error",
    };
    init_logs(cli.log_level.as_deref().unwrap_or(usual), format);
    match cli.command {
        Command::Demo(args) => site::demo(args).await,
        Command::Site(SiteCommand::Run(args)) => site::run(args).await,
        Command::Router(args) => programs::router(args).await,
        Command::Collector(args) => collector::run(args).await,
        Command::Allocator(args) => allocator::run(args).await,
        Command::SiteController(args) => programs::site_controller(args).await,
        Command::ServiceController(args) => programs::service_controller(args).await,
        Command::Token(command) => token::run(command).await,
        Command::Seal(command) => seal::run(command),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Link(LinkCommand::Status(args)) => status::link(args).await,
        Command::Expose(args) => site::expose(args).await,
        Command::Unexpose(args) => site::unexpose(args).await,
        Command::Service(ServiceCommand::Status(args)) => status::service(args).await,
        Command::Network(NetworkCommand::Status(args)) => status::network(args).await,
        Command::Status(args) => status::site(args).await,
        Command::Telemetrygen(command) => telemetrygen::run(command).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "karez", &mut script);
            // A reader that has seen enough is no failure.
            match std::io::stdout().write_all(&script) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// The client of the site that a command acts on.
async fn connect(target: &Target) -> anyhow::Result<(Client, String)> {
    let options = AccessOptions {
        kubeconfig: target.kubeconfig.clone(),
        context: target.context.clone(),
        namespace: target.namespace.clone(),
        site: target.site.clone(),
    };
    Ok(access::connect(&options).await?)
}

/// Whether a target is named at all.
fn names_target(target: &Target) -> bool {
    target.kubeconfig.is_some()
        || target.context.is_some()
        || target.site.is_some()
        || target.namespace.is_some()
}

/// The client of a program that runs for a cluster: as `kubectl` finds it, or as its Pod has it.
async fn program_client(target: &Target) -> anyhow::Result<(Client, String)> {
    if target.site.is_some() {
        return connect(target).await;
    }
    Ok(karez_kubernetes::client(&karez_kubernetes::ClientOptions {
        kubeconfig: target.kubeconfig.clone(),
        context: target.context.clone(),
        namespace: target.namespace.clone(),
    })
    .await?)
}
