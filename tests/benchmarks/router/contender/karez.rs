//! Two karez routers in processes of their own: an edge on the near side, linked by a token to an interior one.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Setting, Started};
use crate::arena::Side;
use crate::options::Options;
use crate::process::Process;

pub(super) async fn start(
    setting: &Setting<'_>,
    options: &Options,
    transport: &str,
) -> anyhow::Result<Started> {
    let far = run(setting, options, Side::Far, ("far", &far_document(setting)))?;
    let document = near_document(setting, &format!(", transport: {transport}"), &options.link_keys);
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
    let document = near_document(setting, "", &options.link_keys);
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
        if log.contains("document taken over") {
            return true;
        }
        if log.contains("document is not usable") {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

fn site(name: &str) -> String {
    format!("version: 1\nsite: {{id: {name}, name: {name}, namespace: default, version: 0.1.0}}\n")
}

fn far_document(setting: &Setting<'_>) -> String {
    format!(
        "{}router: {{mode: interior}}\ntls:\n- {{name: server, directory: {}}}\n\
         accept:\n- {{name: edge, role: edge, host: {}, port: {}, tls: server}}\n\
         tokens:\n- {{name: token, serial: \"{}\", fingerprint: \"{}\"}}\n\
         services:\n- {{address: bench, protocol: tcp, ports: [9000], targets: [{{name: server}}]}}\n\
         connectors:\n- {{name: bench, address: \"bench:9000\", host: 127.0.0.1, port: {}, target: server}}\n",
        site("far"),
        setting.folder.join("far").display(),
        setting.between.ip(),
        setting.between.port(),
        setting.token.serial,
        setting.token.fingerprint,
        setting.arena.server.port(),
    )
}

fn near_document(setting: &Setting<'_>, transport: &str, keys: &str) -> String {
    format!(
        "{}router: {{mode: edge}}\ntls:\n- {{name: token, directory: {}}}\n\
         links:\n- {{name: token, role: edge, host: {}, port: {}, cost: 1, tls: token{transport}{keys}}}\n\
         listeners:\n- {{name: bench, address: \"bench:9000\", host: 127.0.0.1, port: {}}}\n",
        site("near"),
        setting.folder.join("near").display(),
        setting.between.ip(),
        setting.between.port(),
        setting.entrance.port(),
    )
}
