//! rathole with TLS: its server on the near side, its client on the far one, a TLS connection for each carried one.
//! It proves only its server's certificate; its client has a shared secret.

use std::path::Path;
use std::process::Command;

use super::{Setting, Started};
use crate::arena::Side;
use crate::process::{self, Process};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/build");

pub(super) fn start(setting: &Setting<'_>) -> anyhow::Result<Started> {
    let located = Command::new(PEERS).args(["--locate", "rathole"]).output()?;
    if !located.status.success() {
        return Ok(Err("build it with: tests/peers/build rathole".to_owned()));
    }
    let program = Path::new(String::from_utf8_lossy(&located.stdout).trim()).join("bin/rathole");
    let program = program.display().to_string();
    let bundle = setting.folder.join("far.p12").display().to_string();
    process::succeed(Command::new("openssl").args([
        "pkcs12",
        "-export",
        "-passout",
        "pass:bench",
        "-in",
        &setting.pem("far", "tls.crt"),
        "-inkey",
        &setting.pem("far", "tls.key"),
        "-out",
        &bundle,
    ]))?;
    // The far side dials, so the roles of the sides are turned: the near one listens for it.
    let meet = if setting.between.ip().is_loopback() {
        setting.between
    } else {
        ([10, 77, 0, 1], setting.between.port()).into()
    };
    let near = format!(
        "[server]\nbind_addr = \"{meet}\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = \"{bundle}\"\npkcs12_password = \"bench\"\n\
         [server.services.bench]\nbind_addr = \"{}\"\n",
        setting.entrance,
    );
    let far = format!(
        "[client]\nremote_addr = \"{meet}\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"skupper-router\"\n\
         [client.services.bench]\nlocal_addr = \"{}\"\n",
        setting.pem("far", "ca.crt"),
        setting.arena.local_server(),
    );
    let near = run(setting, Side::Near, ("near", "--server"), &program, &near)?;
    Ok(Ok(vec![
        near,
        run(setting, Side::Far, ("far", "--client"), &program, &far)?,
    ]))
}

fn run(
    setting: &Setting<'_>,
    side: Side,
    (name, role): (&str, &str),
    program: &str,
    text: &str,
) -> anyhow::Result<Process> {
    let file = setting.write(&format!("{name}.toml"), text)?;
    let mut command = setting.arena.command(side, program);
    command.arg(role).arg(file);
    Process::start(command, &setting.log(name))
}
