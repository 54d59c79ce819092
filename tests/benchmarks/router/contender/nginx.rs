//! nginx' `stream` module on both sides, mutual TLS 1.3 between them, a connection each.

use std::path::Path;

use super::{SUITE, Setting, Started};
use crate::arena::Side;
use crate::process::{self, Process};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn start(setting: &Setting<'_>) -> anyhow::Result<Started> {
    if !process::exists("nginx") || !Path::new(MODULE).exists() {
        return Ok(Err(
            "install the packages nginx and libnginx-mod-stream".to_owned()
        ));
    }
    let near = format!(
        "server {{ listen {}; proxy_pass {}; proxy_ssl on; proxy_ssl_protocols TLSv1.3; \
         proxy_ssl_conf_command Ciphersuites {SUITE}; proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; \
         proxy_ssl_trusted_certificate {}; proxy_ssl_verify on; proxy_ssl_server_name on; \
         proxy_ssl_name skupper-router; }}",
        setting.entrance,
        setting.between,
        setting.pem("near", "tls.crt"),
        setting.pem("near", "tls.key"),
        setting.pem("near", "ca.crt"),
    );
    let far = format!(
        "server {{ listen {} ssl; proxy_pass {}; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {SUITE}; \
         ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on; \
         ssl_session_cache shared:link:4m; }}",
        setting.between,
        setting.arena.local_server(),
        setting.pem("far", "tls.crt"),
        setting.pem("far", "tls.key"),
        setting.pem("far", "ca.crt"),
    );
    let far = run(setting, Side::Far, "far", &far)?;
    Ok(Ok(vec![far, run(setting, Side::Near, "near", &near)?]))
}

fn run(setting: &Setting<'_>, side: Side, name: &str, server: &str) -> anyhow::Result<Process> {
    let folder = setting.folder.join(name);
    let text = format!(
        "load_module {MODULE}; daemon off; user root; worker_processes {}; pid {}; error_log stderr warn;\n\
         worker_rlimit_nofile 20000; events {{ worker_connections 20000; }}\nstream {{ {server} }}\n",
        setting.arena.workers(),
        folder.join("nginx.pid").display(),
    );
    let file = setting.write(&format!("{name}.conf"), &text)?;
    let mut command = setting.arena.command(side, "nginx");
    command
        .arg("-p")
        .arg(&folder)
        .arg("-e")
        .arg("stderr")
        .arg("-c")
        .arg(file);
    Process::start(command, &setting.log(name))
}
