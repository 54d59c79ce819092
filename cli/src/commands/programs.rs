//! `router`, `site-controller`, `service-controller`: programs that run until they are told to stop.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use karez_document::Source;
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_router::RouterOptions;
use karez_site_controller::{ServiceControllerOptions, SiteControllerOptions, WebhookOptions};

use super::program_client;
use crate::args::{RouterArgs, ServiceControllerArgs, SiteControllerArgs};

pub(super) async fn router(args: RouterArgs) -> anyhow::Result<ExitCode> {
    let config: Source = args
        .config
        .parse()
        .with_context(|| format!("--config {}", args.config))?;
    let shutdown = Shutdown::on_signals()?;
    let (client, namespace) = match &config {
        Source::Kube { namespace, .. } => {
            let namespace = namespace.clone();
            (Some(program_client(&args.target).await?.0), namespace)
        }
        // Its TLS profiles may name Secrets all the same.
        Source::File(_) => match program_client(&args.target).await {
            Ok((client, namespace)) => (Some(client), namespace),
            Err(_) => (None, "default".to_owned()),
        },
    };
    let options = RouterOptions {
        config,
        client,
        namespace,
        net: Net::from_env(),
    };
    karez_router::run(options, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn site_controller(args: SiteControllerArgs) -> anyhow::Result<ExitCode> {
    if args.print_crds {
        std::io::stdout().write_all(karez_kubernetes::crds_yaml().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shutdown = Shutdown::on_signals()?;
    let (client, namespace) = program_client(&args.target).await?;
    let options = SiteControllerOptions {
        watch_namespace: args.watch_namespace.filter(|namespace| !namespace.is_empty()),
        legacy_otlp_port: !args.no_legacy_otlp_port,
        webhook: args.webhook_listen.map(|listen| WebhookOptions {
            listen,
            namespace,
            service: args.webhook_service,
        }),
    };
    karez_site_controller::run_site_controller(client, options, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn service_controller(args: ServiceControllerArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signals()?;
    let options = ServiceControllerOptions::from_env()?;
    let (client, _) = program_client(&args.target).await?;
    karez_site_controller::run_service_controller(client, options, Net::from_env(), shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
