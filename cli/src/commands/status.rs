//! `link status`, `service status`, `network status`, `status`.

use std::io::IsTerminal;
use std::process::ExitCode;

use karez_site::status::read::Reader;
use karez_site::status::{render_links, render_links_verbose, render_services};

use super::connect;
use crate::args::{LinkStatusArgs, ServiceStatusArgs, StatusArgs, Target};
use crate::output::print;

async fn reader(target: &Target) -> anyhow::Result<Reader> {
    let (client, namespace) = connect(target).await?;
    Ok(Reader::new(client, namespace))
}

pub(super) async fn link(args: LinkStatusArgs) -> anyhow::Result<ExitCode> {
    let mut links = reader(&args.target).await?.links().await?;
    if let Some(name) = &args.name {
        links.retain(|link| &link.name == name);
        if links.is_empty() {
            println!("No such link \"{name}\"");
            return Ok(ExitCode::from(1));
        }
    }
    print(args.output, &links, || match args.verbose {
        true => render_links_verbose(&links),
        false => render_links(&links),
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn service(args: ServiceStatusArgs) -> anyhow::Result<ExitCode> {
    let services = reader(&args.target).await?.services().await?;
    print(args.output, &services, || {
        render_services(&services, args.show_labels)
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn network(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let network = reader(&args.target).await?.network().await?;
    print(args.output, &network, || {
        network.tree(std::io::stdout().is_terminal())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn site(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let summary = reader(&args.target).await?.summary().await?;
    print(args.output, &summary, || summary.render())?;
    Ok(ExitCode::SUCCESS)
}
