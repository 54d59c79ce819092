//! HAProxy in TCP mode on both sides, mutual TLS 1.3 between them, a connection each.

use super::{SUITE, Setting, Started};
use crate::arena::Side;
use crate::process::{self, Process};

pub(super) fn start(setting: &Setting<'_>) -> anyhow::Result<Started> {
    if !process::exists("haproxy") {
        return Ok(Err("install the package haproxy".to_owned()));
    }
    let near = format!(
        "  bind {}\n  server far {} ssl crt {} ca-file {} verify required verifyhost skupper-router sni \
         str(skupper-router)\n",
        setting.entrance,
        setting.between,
        setting.pem("near", "both.pem"),
        setting.pem("near", "ca.crt"),
    );
    let far = format!(
        "  bind {} ssl crt {} ca-file {} verify required\n  server target {}\n",
        setting.between,
        setting.pem("far", "both.pem"),
        setting.pem("far", "ca.crt"),
        setting.arena.local_server(),
    );
    let far = run(setting, Side::Far, "far", &far)?;
    Ok(Ok(vec![far, run(setting, Side::Near, "near", &near)?]))
}

fn run(setting: &Setting<'_>, side: Side, name: &str, proxy: &str) -> anyhow::Result<Process> {
    let text = format!(
        "global\n  nbthread {}\n  maxconn 9950\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
         ssl-default-bind-ciphersuites {SUITE}\n  ssl-default-server-options ssl-min-ver TLSv1.3\n  \
         ssl-default-server-ciphersuites {SUITE}\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  \
         timeout server 1h\nlisten pair\n{proxy}",
        setting.arena.workers(),
    );
    let file = setting.write(&format!("{name}.cfg"), &text)?;
    let mut command = setting.arena.command(side, "haproxy");
    command.arg("-db").arg("-f").arg(file);
    Process::start(command, &setting.log(name))
}
