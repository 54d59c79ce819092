//! `doctor`: what keeps a link from being made.

use std::process::ExitCode;

use anyhow::Context;
use karez_net::{Net, split_host_port};
use karez_router::doctor::{Examination, examine};
use karez_site::token;

use crate::args::{DoctorArgs, DoctorRole};
use crate::output::print;

/// Status 1 when something keeps a link from being made.
pub(super) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let token = args.token.as_deref().map(token::read).transpose()?;
    let (host, port) = match (&args.target, &token) {
        (Some(target), _) => split_host_port(target)?,
        (None, Some(token)) => match args.role {
            DoctorRole::Edge => token.edge.clone(),
            DoctorRole::InterRouter => token.inter_router.clone(),
        },
        (None, None) => anyhow::bail!("name HOST:PORT, or a token with --token FILE"),
    };
    let examination = Examination {
        host,
        port,
        claims_port: args.claims_port,
        token,
        net: Net::from_env(),
    };
    let report = examine(examination).await;
    print(args.output, &report, || report.render()).context("print the report")?;
    Ok(if report.is_healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
