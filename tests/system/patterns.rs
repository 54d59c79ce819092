//! The deployment patterns that others published, run as they are but for what they leave to the user: certificates,
//! tokens, placeholders. Each in a network of its own, since their ports are fixed.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use karez_identity::{Authority, Subject, Usage};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Outcome;
use crate::support::backend::post;
use crate::support::daemon::Daemon;
use crate::support::http::complete_traces;
use crate::support::manifests::{copy, replace};
use crate::support::namespace::alone;
use crate::support::peers::{acceptance, locate, send};
use crate::support::stage::{Need, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const AS_IT_IS: &[Need] = &[Need::Acceptance, Need::Peer("python"), Need::Namespaces];
    const GUARDED: &[Need] = &[
        Need::Acceptance,
        Need::Peer("python"),
        Need::Peer("oidc"),
        Need::Namespaces,
    ];
    vec![
        trial(
            "patterns::the_control_plane_pattern_runs_as_it_is",
            AS_IT_IS,
            as_it_is,
        ),
        trial(
            "patterns::the_control_plane_takes_only_good_tokens",
            GUARDED,
            guarded,
        ),
    ]
}

const ISSUER: &str = "http://localhost:8080/auth/realms/opentelemetry";
/// The second port of the provider, for tokens of the test's own making.
const CONTROL: u16 = 8081;

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The folder of the pattern, with the certificates that it asks for.
fn prepare(stage: &Stage) -> Outcome<PathBuf> {
    let folder = copy(&acceptance("pattern-5"), stage.path("pattern-5"))?;
    let authority = Authority::new("pattern", Timestamp::now(), Duration::from_secs(86_400))?;
    let subject = Subject {
        common_name: "control-plane".to_owned(),
        dns_names: vec!["localhost".to_owned()],
        usage: Usage::Server,
        lifetime: Duration::from_secs(36_000),
        uri: None,
    };
    let server = authority.issue(&subject, Timestamp::now())?;
    fs::write(folder.join("ca.pem"), &server.ca_pem)?;
    fs::write(folder.join("control-plane.pem"), &server.certificate_pem)?;
    fs::write(folder.join("control-plane-key.pem"), &server.key_pem)?;
    Ok(folder)
}

/// A part of the pattern, started as its text says.
fn part(stage: &Stage, folder: &Path, name: &str, metrics: u16, opens: u16) -> Outcome<Daemon> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
    command.current_dir(folder).args(["collector", "--config"]);
    command
        .arg(format!("{name}.yaml"))
        .args(["--metrics-addr", &format!(":{metrics}")]);
    Daemon::start(stage, name, &mut command)?.listens(&[local(opens), local(metrics)])
}

/// What the control plane sends to: Jaeger's gRPC and its query API.
fn jaeger(stage: &Stage) -> Outcome<Daemon> {
    let document = "
receivers: {jaeger: {protocols: {grpc: {endpoint: 'localhost:14250'}}}}
exporters: {jaeger_storage_exporter: {trace_storage: main}}
extensions:
  jaeger_query: {storage: {traces: main}, http: {endpoint: 'localhost:16686'}}
  jaeger_storage: {backends: {main: {memory: {max_traces: 1000}}}}
service:
  telemetry: {metrics: {level: none}}
  extensions: [jaeger_query, jaeger_storage]
  pipelines: {traces: {receivers: [jaeger], exporters: [jaeger_storage_exporter]}}
";
    Daemon::karez(stage, "jaeger", document)?.listens(&[local(14250), local(16686)])
}

/// Spans of a real SDK go in at the agent and are found in the store.
fn carries(service: &str) -> Outcome {
    let ids = send("otlp-grpc", local(4317), service, 3)?;
    wait_for(format_args!("the traces of {service}"), 30, || {
        let complete = complete_traces(local(16686), &ids)?;
        Ok(if complete == ids.len() {
            Ok(())
        } else {
            Err(format!("{complete} are complete"))
        })
    })
}

fn as_it_is(stage: &Stage) -> Outcome {
    alone(|| {
        let folder = prepare(stage)?;
        replace(&folder.join("workload.yaml"), "<token>", "of-no-use-yet")?;
        let _jaeger = jaeger(stage)?;
        let _control = part(stage, &folder, "control-plane", 8890, 6317)?;
        let _workload = part(stage, &folder, "workload", 8889, 5317)?;
        let _agent = part(stage, &folder, "agent", 8888, 4317)?;
        carries("as-it-is")
    })
}

/// The extensions wired in, as the pattern's text says.
fn wire(folder: &Path, token: &str) -> Outcome {
    let control = folder.join("control-plane.yaml");
    replace(&control, "extensions: []", "extensions: [oidc]")?;
    let endpoint = "        endpoint: localhost:6317\n";
    replace(
        &control,
        endpoint,
        &format!("{endpoint}        auth: {{authenticator: oidc}}\n"),
    )?;
    let workload = folder.join("workload.yaml");
    replace(&workload, "<token>", token)?;
    replace(&workload, "extensions: []", "extensions: [bearertokenauth]")?;
    let trust = "    ca_file: ca.pem\n";
    replace(
        &workload,
        trust,
        &format!("{trust}    auth: {{authenticator: bearertokenauth}}\n"),
    )
}

fn guarded(stage: &Stage) -> Outcome {
    alone(|| {
        let folder = prepare(stage)?;
        let provider = locate("oidc").context("the peer oidc is not built")?;
        let mut command = Command::new("node");
        command
            .arg(provider.join("provider.mjs"))
            .args([ISSUER, &CONTROL.to_string()]);
        let _provider = Daemon::start(stage, "provider", &mut command)?.listens(&[local(CONTROL)])?;
        let granted = granted()?;
        wire(&folder, &granted)?;
        let _jaeger = jaeger(stage)?;
        let _control = part(stage, &folder, "control-plane", 8890, 6317)?;
        let _workload = part(stage, &folder, "workload", 8889, 5317)?;
        let _agent = part(stage, &folder, "agent", 8888, 4317)?;
        carries("with-a-granted-token")?;
        ensure!(
            try_token(&folder, Some(&granted))?,
            "the provider's own token is refused"
        );
        let good = sign(&json!({"claims": claims(0, 300)}))?;
        ensure!(try_token(&folder, Some(&good))?, "a good token is refused");
        ensure!(!try_token(&folder, None)?, "no token at all is taken");
        for (what, token) in bad_tokens(&good)? {
            ensure!(
                !try_token(&folder, Some(&token))?,
                "a token that is {what} is taken"
            );
        }
        rotate(&folder, &good)
    })
}

/// New keys are followed, old ones forgotten, while everything runs.
fn rotate(folder: &Path, old: &str) -> Outcome {
    let (status, said) = post(local(CONTROL), "/rotate", "", b"")?;
    ensure!(status == 200, "{status}: {said}");
    let new = sign(&json!({"claims": claims(0, 300)}))?;
    wait_until("a token of the new key to be taken", 20, || {
        try_token(folder, Some(&new))
    })?;
    ensure!(
        !try_token(folder, Some(old))?,
        "a token of the withdrawn key is taken"
    );
    Ok(())
}

fn claims(from: i64, until: i64) -> Value {
    let now = Timestamp::now().as_second();
    json!({"iss": ISSUER, "aud": "control-plane", "sub": "agent", "iat": now, "nbf": now + from, "exp": now + until})
}

/// Tokens that must be refused, each for one reason.
fn bad_tokens(good: &str) -> Outcome<Vec<(&'static str, String)>> {
    let with = |key: &str, value: &str| {
        let mut changed = claims(0, 300);
        changed[key] = value.into();
        changed
    };
    let cases = [
        ("expired", json!({"claims": claims(-600, -60)})),
        ("not yet valid", json!({"claims": claims(600, 900)})),
        ("for another audience", json!({"claims": with("aud", "agent")})),
        (
            "of another issuer",
            json!({"claims": with("iss", "http://localhost:8080/other")}),
        ),
        (
            "of an unknown key",
            json!({"claims": claims(0, 300), "kid": "unknown", "foreign": true}),
        ),
        (
            "signed by another key of the same name",
            json!({"claims": claims(0, 300), "foreign": true}),
        ),
        ("not signed", json!({"claims": claims(0, 300), "alg": "none"})),
    ];
    let mut bad = Vec::new();
    for (what, asked) in cases {
        bad.push((what, sign(&asked)?));
    }
    let mut parts: Vec<&str> = good.split('.').collect();
    let other = sign(&json!({"claims": with("sub", "somebody")}))?;
    parts[1] = other.split('.').nth(1).context("a token has three parts")?;
    bad.push(("tampered with", parts.join(".")));
    Ok(bad)
}

/// A token of the test's own making.
fn sign(asked: &Value) -> Outcome<String> {
    let (status, token) = post(local(CONTROL), "/sign", "", &serde_json::to_vec(asked)?)?;
    ensure!(status == 200, "{asked}: {status}: {token}");
    Ok(token.trim().to_owned())
}

/// A token as a program gets it: with its own credentials.
fn granted() -> Outcome<String> {
    let credentials = BASE64.encode("agent:secret");
    let headers =
        format!("Authorization: Basic {credentials}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
    let form = b"grant_type=client_credentials&scope=write&resource=urn:control-plane";
    let provider = wait_for("the provider", 20, || {
        // It listens where `localhost` leads first.
        let open = ["127.0.0.1:8080", "[::1]:8080"]
            .into_iter()
            .find(|at| TcpStream::connect(at).is_ok());
        Ok(open.ok_or_else(|| "port 8080 is closed".to_owned()))
    })?;
    let (status, answer) = post(
        provider.parse()?,
        "/auth/realms/opentelemetry/token",
        &headers,
        form,
    )?;
    ensure!(status == 200, "{status}: {answer}");
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["access_token"]
        .as_str()
        .context("an access token")?
        .to_owned())
}

/// Whether the control plane takes a span with this token.
fn try_token(folder: &Path, token: Option<&str>) -> Outcome<bool> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
    command
        .current_dir(folder)
        .args(["telemetrygen", "traces", "--traces=1"]);
    command.args(["--otlp-endpoint=localhost:6317", "--ca-cert=ca.pem"]);
    if let Some(token) = token {
        command.arg(format!("--otlp-header=authorization=Bearer {token}"));
    }
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() || said.contains("nauthenticated"),
        "not for the token: {said}"
    );
    Ok(output.status.success())
}
