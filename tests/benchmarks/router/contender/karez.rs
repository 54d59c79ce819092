//! Two karez routers in processes of their own: an edge on the near side, linked by a token to an interior one.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Setting, Started};
use crate::arena::Side;
use crate::options::Options;
use crate::pair;
use crate::process::Process;

pub(super) async fn start(
    setting: &Setting<'_>,
    options: &Options,
    transport: &str,
) -> anyhow::Result<Started> {
    let far = run(
        setting,
        options,
        Side::Far,
        ("far", &far_document(setting, options)),
    )?;
    let document = near_document(setting, &format!(", transport: {transport}{}", options.link_keys));
    let near = run(setting, options, Side::Near, ("near", &document))?;
    if accepted(setting).await {
        return Ok(Ok(vec![far, near]));
    }
    drop(near);
    if transport != "quic" {
        return Ok(Err(format!(
            "this karez takes no link with transport: {transport}\n{}",
            setting.logs()
        )));
    }
    // A version without a choice of transports has QUIC only.
    let document = near_document(setting, &options.link_keys);
    let near = run(setting, options, Side::Near, ("near", &document))?;
    Ok(Ok(vec![far, near]))
}

fn run(
    setting: &Setting<'_>,
    options: &Options,
    side: Side,
    (name, document): (&str, &str),
) -> anyhow::Result<Process> {
    let file = setting.write(&format!("{name}.yaml"), document)?;
    let mut command = setting.arena.command(side, &options.karez);
    command.args(["router", "--config"]).arg(file);
    Process::start(command, &setting.log(name))
}

/// Whether the document just started is usable: it was taken over, or refused.
async fn accepted(setting: &Setting<'_>) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let log = fs::read_to_string(setting.log("near")).unwrap_or_default();
        if let Some(accepted) = pair::accepted(&log) {
            return accepted;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

fn far_document(setting: &Setting<'_>, options: &Options) -> String {
    let target = setting.arena.local_server();
    let document = pair::far_document(setting.folder, setting.between, &setting.token, target);
    document.replace("tls: server}", &format!("tls: server{}}}", options.accept_keys))
}

fn near_document(setting: &Setting<'_>, keys: &str) -> String {
    pair::near_document(setting.folder, setting.between, setting.entrance, keys)
}
