//! The OpenTelemetry Collector before ours and behind it: three signals, over gRPC and HTTP, with each compression.
//!
//! ```text
//! test ──▶ first ══ a link for each protocol and compression ══▶ second, which marks what comes ──▶ backend
//! ```

use std::net::SocketAddr;

use anyhow::ensure;
use libtest_mimic::Trial;

use super::data::{MARK, PATHS, items, requests};
use crate::support::Outcome;
use crate::support::backend::{Backend, post};
use crate::support::daemon::{Daemon, free};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

const COMPRESSIONS: [&str; 4] = ["none", "gzip", "zstd", "snappy"];

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Peer("otelcol")];
    vec![
        trial("interop::the_collector_before_ours", NEEDS, before_ours),
        trial("interop::the_collector_behind_ours", NEEDS, behind_ours),
    ]
}

fn before_ours(stage: &Stage) -> Outcome {
    chain(stage, Daemon::otelcol, Daemon::karez)
}

fn behind_ours(stage: &Stage) -> Outcome {
    chain(stage, Daemon::karez, Daemon::otelcol)
}

type Start = fn(&Stage, &str, &str) -> Outcome<Daemon>;

/// A way between the two.
struct Link {
    name: String,
    grpc: bool,
    compression: &'static str,
    at: SocketAddr,
}

fn chain(stage: &Stage, first: Start, second: Start) -> Outcome {
    let backend = Backend::start()?;
    let entry = free()?;
    let mut links = Vec::new();
    for grpc in [true, false] {
        for compression in COMPRESSIONS {
            let protocol = if grpc { "grpc" } else { "http" };
            let name = format!("{protocol}-{compression}");
            let at = free()?;
            links.push(Link {
                name,
                grpc,
                compression,
                at,
            });
        }
    }
    let open: Vec<SocketAddr> = links.iter().map(|link| link.at).collect();
    let second = second(stage, "second", &behind(&links, &backend))?.listens(&open)?;
    let first = first(stage, "first", &before(&links, entry))?.listens(&[entry])?;
    let sent = requests();
    for (path, body) in PATHS.into_iter().zip(&sent) {
        let (status, said) = post(entry, path, "Content-Type: application/x-protobuf\r\n", body)?;
        ensure!(status == 200, "{path}: {status}: {said}");
    }
    for (path, body) in PATHS.into_iter().zip(&sent) {
        let expected = items(path, [body.as_slice()])?.remove("").unwrap_or_default();
        ensure!(!expected.is_empty(), "nothing is sent");
        for link in &links {
            wait_for(format_args!("{path} over {}", link.name), 30, || {
                let came = backend.came(path);
                let mut come = items(path, came.iter().map(AsRef::as_ref))?;
                let come = come.remove(&link.name).unwrap_or_default();
                Ok(match come.len() {
                    count if count < expected.len() => Err(format!("{count} of {} items", expected.len())),
                    _ if come == expected => Ok(Ok(())),
                    // More will not mend it.
                    _ => Ok(Err(difference(&link.name, path, &expected, &come))),
                })
            })??;
        }
    }
    first.stop()?;
    second.stop()
}

fn difference(link: &str, path: &str, expected: &[Vec<u8>], come: &[Vec<u8>]) -> anyhow::Error {
    let missing = expected.iter().find(|item| !come.contains(item));
    let strange = come.iter().find(|item| !expected.contains(item));
    anyhow::anyhow!(
        "{path} over {link}: {} items for {}; missing {missing:02x?}; strange {strange:02x?}",
        come.len(),
        expected.len()
    )
}

const QUIET: &str = "  telemetry: {metrics: {level: none}}\n";

/// Receives, and exports over every link.
fn before(links: &[Link], entry: SocketAddr) -> String {
    let (mut exporters, mut names) = (String::new(), Vec::new());
    for link in links {
        let (kind, scheme) = if link.grpc {
            ("otlp", "")
        } else {
            ("otlphttp", "http://")
        };
        let name = format!("{kind}/{}", link.name);
        exporters.push_str(&format!(
            "  {name}: {{endpoint: '{scheme}{}', compression: {}, tls: {{insecure: true}}}}\n",
            link.at, link.compression
        ));
        names.push(name);
    }
    let names = names.join(", ");
    let pipelines = ["traces", "metrics", "logs"]
        .map(|signal| format!("    {signal}: {{receivers: [otlp], exporters: [{names}]}}\n"))
        .concat();
    format!(
        "receivers:\n  otlp: {{protocols: {{http: {{endpoint: '{entry}'}}}}}}\nexporters:\n{exporters}service:\n{QUIET}  \
         pipelines:\n{pipelines}"
    )
}

/// Receives from every link, marks what came by which, and hands all of it to the backend.
fn behind(links: &[Link], backend: &Backend) -> String {
    let (mut receivers, mut marks, mut pipelines) = (String::new(), String::new(), String::new());
    for link in links {
        let (name, at) = (&link.name, link.at);
        let protocol = if link.grpc { "grpc" } else { "http" };
        receivers.push_str(&format!(
            "  otlp/{name}: {{protocols: {{{protocol}: {{endpoint: '{at}'}}}}}}\n"
        ));
        marks.push_str(&format!(
            "  resource/{name}: {{attributes: [{{key: {MARK}, value: {name}, action: insert}}]}}\n"
        ));
        for signal in ["traces", "metrics", "logs"] {
            pipelines.push_str(&format!(
                "    {signal}/{name}: {{receivers: [otlp/{name}], processors: [resource/{name}], exporters: [otlphttp]}}\n"
            ));
        }
    }
    format!(
        "receivers:\n{receivers}processors:\n{marks}exporters:\n  otlphttp: {{endpoint: 'http://{}', compression: \
         none}}\nservice:\n{QUIET}  pipelines:\n{pipelines}",
        backend.address()
    )
}
