//! `token create` and `token inspect`.

use std::process::ExitCode;
use std::time::Duration;

use karez_site::token;

use super::{connect, names_target};
use crate::args::{TokenCommand, TokenCreateArgs, TokenInspectArgs, TokenType};
use crate::output::print;

pub(super) async fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::Inspect(args) => inspect(args).await,
    }
}

async fn create(args: TokenCreateArgs) -> anyhow::Result<ExitCode> {
    if args.token_type == TokenType::Claim {
        anyhow::bail!(
            "claims: not yet; leave --token-type out, or write --token-type cert, for a certificate token"
        );
    }
    let (client, namespace) = connect(&args.target).await?;
    let timeout = Duration::from_secs(args.timeout);
    let created = token::create(client, &namespace, &args.name, &args.file, timeout).await?;
    println!("Connection token written to {} ", args.file.display());
    if created.local_only {
        println!("(Note: token will only be valid for local cluster)");
    }
    Ok(ExitCode::SUCCESS)
}

/// Status 1 when the token cannot link: a script can ask.
async fn inspect(args: TokenInspectArgs) -> anyhow::Result<ExitCode> {
    let issuer = if names_target(&args.target) {
        Some(connect(&args.target).await?)
    } else {
        None
    };
    let inspected = token::inspect(&args.file, issuer).await?;
    print(args.output, &inspected, || inspected.render())?;
    Ok(if inspected.usable() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
