//! `token create` and `token inspect`.

use std::process::ExitCode;
use std::time::Duration;

use karez_site::claim::{self, ClaimOptions, Scope};
use karez_site::token;

use super::{connect, names_target};
use crate::args::{TokenCommand, TokenCreateArgs, TokenInspectArgs, TokenType};
use crate::output::print;

/// How long a claim can be redeemed when nothing is said, as Skupper has it.
const CLAIM_EXPIRY: Duration = Duration::from_secs(15 * 60);

pub(super) async fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::Inspect(args) => inspect(args).await,
    }
}

async fn create(args: TokenCreateArgs) -> anyhow::Result<ExitCode> {
    let (client, namespace) = connect(&args.target).await?;
    let timeout = Duration::from_secs(args.timeout);
    let list = |all: Option<Vec<String>>| -> Option<Vec<String>> {
        Some(all?.into_iter().filter(|one| !one.is_empty()).collect())
    };
    let scope = Scope {
        reach: list(args.reach),
        offer: list(args.offer),
        role: args.role,
        ..Scope::default()
    };
    let created = match args.token_type {
        TokenType::Cert => {
            let scope = claim::limited(scope, args.expiry, args.uses);
            let name = args.name.as_deref().unwrap_or("skupper");
            let created = token::create(client, &namespace, name, &scope, &args.file, timeout).await?;
            println!("Connection token written to {} ", args.file.display());
            created
        }
        TokenType::Claim => {
            let options = ClaimOptions {
                name: args.name,
                password: args.password,
                expiry: args.expiry.unwrap_or(CLAIM_EXPIRY),
                uses: args.uses.unwrap_or(1),
                scope,
            };
            let created = claim::create(client, &namespace, &options, &args.file, timeout).await?;
            println!("Token written to {} ", args.file.display());
            created
        }
    };
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
