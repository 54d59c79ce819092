//! Collectors that prove themselves to each other with tokens that a real OpenID provider grants them.
//!
//! ```text
//! sender ─▶ edge: oauth2client ══ Bearer ══▶ hub: oidc ─▶ backend
//!                  └── asks ─▶ provider ◀── keys ──┘
//! ```

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;

use crate::support::Outcome;
use crate::support::backend::post;
use crate::support::daemon::{Daemon, run};
use crate::support::http::get;
use crate::support::namespace::alone;
use crate::support::peers::locate;
use crate::support::stage::{Need, Stage};
use crate::support::wait::{wait_for, wait_for_text};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Peer("oidc"), Need::Namespaces];
    vec![trial(
        "granted::a_collector_proves_itself_with_a_token_of_a_real_provider",
        NEEDS,
        proves_itself,
    )]
}

const ISSUER: &str = "http://localhost:8080/realm";
const CONTROL: u16 = 8081;

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The hub, which lets in whom the provider knows.
fn hub(stage: &Stage) -> Outcome<Daemon> {
    let document = format!(
        "extensions: {{oidc: {{issuer_url: '{ISSUER}', audience: control-plane}}}}
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:6318', auth: {{authenticator: oidc}}}}}}}}}}
exporters: {{debug: {{verbosity: basic}}}}
service:
  extensions: [oidc]
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: 8890}}}}}}}}]}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"
    );
    Daemon::karez(stage, "hub", &document)?.listens(&[local(6318), local(8890)])
}

/// An edge collector with this secret, at a port of its own.
fn edge(stage: &Stage, name: &str, secret: &str, port: u16) -> Outcome<Daemon> {
    let document = format!(
        "extensions:
  oauth2client:
    client_id: agent
    client_secret: {secret}
    token_url: {ISSUER}/token
    scopes: [write]
    endpoint_params: {{resource: ['urn:control-plane']}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'}}}}}}}}
exporters:
  otlphttp:
    endpoint: http://127.0.0.1:6318
    auth: {{authenticator: oauth2client}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 500ms}}
service:
  extensions: [oauth2client]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlphttp]}}}}
"
    );
    Daemon::karez(stage, name, &document)?.listens(&[local(port)])
}

fn proves_itself(stage: &Stage) -> Outcome {
    alone(|| {
        let provider = locate("oidc").context("the peer oidc is not built")?;
        let mut command = Command::new("node");
        command
            .arg(provider.join("provider.mjs"))
            .args([ISSUER, &CONTROL.to_string()]);
        let _provider = Daemon::start(stage, "provider", &mut command)?.listens(&[local(CONTROL)])?;
        wait_for("the provider", 20, || {
            // It listens where `localhost` leads first.
            let open = ["127.0.0.1:8080", "[::1]:8080"]
                .into_iter()
                .any(|at| TcpStream::connect(at).is_ok());
            Ok(if open {
                Ok(())
            } else {
                Err("port 8080 is closed".to_owned())
            })
        })?;
        let _hub = hub(stage)?;
        let (status, _) = post(
            local(6318),
            "/v1/traces",
            "Content-Type: application/x-protobuf\r\n",
            b"",
        )?;
        ensure!(status == 401, "without a token the hub answers {status}");
        let _edge = edge(stage, "edge", "secret", 4317)?;
        send(4317)?;
        taken(10)?;
        // Who has the wrong secret is given no token, says so, and delivers nothing.
        let _stranger = edge(stage, "stranger", "guessed", 5317)?;
        send(5317)?;
        let log = stage.path("stranger.log");
        wait_for_text("the provider gives no token", 30, || {
            Ok(std::fs::read_to_string(&log)?)
        })?;
        let said = std::fs::read_to_string(&log)?;
        ensure!(
            said.contains("invalid_client") && !said.contains("guessed"),
            "{said}"
        );
        send(4317)?;
        taken(20)
    })
}

/// Five traces, of two spans each.
fn send(port: u16) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
    command.args(["telemetrygen", "traces", "--otlp-insecure", "--traces=5"]);
    run(command.arg(format!("--otlp-endpoint=127.0.0.1:{port}")))?;
    Ok(())
}

/// Waits until the hub has taken exactly so many spans.
fn taken(spans: u64) -> Outcome {
    wait_for(format_args!("{spans} spans at the hub"), 30, || {
        let (_, page) = get(local(8890), "/metrics")?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("otelcol_receiver_accepted_spans_total{"));
        let now: u64 = line
            .and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0);
        Ok(match now {
            now if now == spans => Ok(Ok(())),
            now if now > spans => Ok(Err(anyhow::anyhow!("{now} spans, which is more than were sent"))),
            now => Err(format!("{now} are there")),
        })
    })?
}
