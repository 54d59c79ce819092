//! `seal authority` and `seal issue`.

use std::process::ExitCode;

use karez_site::seal::{self, SealOptions};

use crate::args::SealCommand;

pub(super) fn run(command: SealCommand) -> anyhow::Result<ExitCode> {
    match command {
        SealCommand::Authority(args) => {
            seal::create_authority(&args.file, args.lifetime)?;
            println!("Seal authority written to {}", args.file.display());
            println!("(Note: keep it with you; whoever has it can speak for every site)");
        }
        SealCommand::Issue(args) => {
            let options = SealOptions {
                authority: args.authority,
                site: args.site,
                serve: args.serve,
                reach: args.reach,
                lifetime: args.lifetime,
            };
            seal::issue(&args.file, &options)?;
            println!("Seal of site {} written to {}", options.site, args.file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
