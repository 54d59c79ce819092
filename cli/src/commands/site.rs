//! `demo`, `site run`, `expose`, `unexpose`.

use std::process::ExitCode;

use karez_lifecycle::Shutdown;
use karez_site::console::Console;
use karez_site::demo::{self, DemoOptions};
use karez_site::expose::{self, Exposure, TargetName};
use karez_site::run::{LocalSite, SiteOptions};

use super::connect;
use crate::args::{DemoArgs, ExposeArgs, SiteRunArgs, UnexposeArgs};

pub(super) async fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signals()?;
    demo::run(
        DemoOptions {
            exit: args.exit,
            state: args.state,
        },
        Console::stdout(),
        shutdown,
    )
    .await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(args: SiteRunArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signals()?;
    let options = SiteOptions {
        directory: args.dir,
        state: args.state,
        name: args.name,
        host: args.host,
        namespace: args.namespace,
    };
    let site = LocalSite::start(options, Console::stdout()).await?;
    shutdown.triggered().await;
    site.stop().await;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn expose(args: ExposeArgs) -> anyhow::Result<ExitCode> {
    let target = TargetName::parse(&args.what)?;
    let (client, namespace) = connect(&args.target).await?;
    let (kind, name) = (target.kind_name(), target.name.clone());
    let exposure = Exposure {
        target,
        address: args.address,
        protocol: args.protocol,
        ports: args.port,
        target_ports: args.target_port,
        sealed: args.sealed,
    };
    let address = expose::expose(client, &namespace, &exposure).await?;
    println!("{kind} {name} exposed as {address}");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn unexpose(args: UnexposeArgs) -> anyhow::Result<ExitCode> {
    let target = TargetName::parse(&args.what)?;
    let (client, namespace) = connect(&args.target).await?;
    expose::unexpose(client, &namespace, &target, args.address.as_deref()).await?;
    println!("{} {} unexposed", target.kind_name(), target.name);
    Ok(ExitCode::SUCCESS)
}
