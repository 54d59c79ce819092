//! The acceptance sites with the three mistakes mended that stop every span: real senders at the edge, the trace
//! store of the public site at the end.

use std::net::SocketAddr;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::Outcome;
use crate::support::cluster::text;
use crate::support::http::{complete_traces, trace};
use crate::support::manifests::{copy, replace};
use crate::support::peers::{acceptance, send};
use crate::support::site::Pair;
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) const ADDRESS: &str = "otel-liked-collector";

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Acceptance, Need::Peer("python")];
    vec![trial(
        "telemetry::real_senders_reach_the_public_trace_store",
        NEEDS,
        real_senders_reach_the_public_trace_store,
    )]
}

/// The two sites, mended, linked, with the public collector exposed as the example's documentation says.
pub(crate) fn mended(stage: &Stage) -> Outcome<Pair> {
    let public = copy(
        &acceptance("skupper-example/public-cloud"),
        stage.path("public-cloud"),
    )?;
    let edge = copy(
        &acceptance("skupper-example/private-cloud"),
        stage.path("private-cloud"),
    )?;
    let collector = public.join("10-otel-collector.yaml");
    replace(
        &collector,
        "14250\"\n",
        "14250\n        tls:\n          insecure: true\n",
    )?;
    replace(
        &edge.join("30-otel-collector.yaml"),
        "exporters: [logging]",
        "exporters: [logging,otlp]",
    )?;
    let pair = Pair::link(stage, &public, &edge)?;
    pair.public.cluster()?.wait(
        "/api/v1/namespaces/default/services/otel-collector-app-collector",
        30,
    )?;
    pair.public.karez(
        stage,
        &[
            "expose",
            "service/otel-collector-app-collector",
            "--address",
            ADDRESS,
        ],
    )?;
    Ok(pair)
}

fn real_senders_reach_the_public_trace_store(stage: &Stage) -> Outcome {
    let pair = mended(stage)?;
    let (public, edge) = (pair.public.cluster()?, pair.edge.cluster()?);
    edge.wait(&format!("/api/v1/namespaces/default/services/{ADDRESS}"), 30)?;
    edge.wait_endpoint("default", ADDRESS, "4317", 30)?;
    let query = public.wait_endpoint("default", "jaeger-skupper-query", "16686", 60)?;
    let pod = edge.wait_pod("default", "app=myapp", 60)?;
    let sidecar = text(&pod, "/status/podIP").to_owned();
    let mut ids = Vec::new();
    for (protocol, port, service, traces) in [
        ("jaeger-compact", 6831, "python-jaeger", 5),
        ("otlp-grpc", 4317, "python-otlp-grpc", 3),
        ("otlp-http", 4318, "python-otlp-http", 2),
    ] {
        let to: SocketAddr = format!("{sidecar}:{port}").parse()?;
        let sent = send(protocol, to, service, traces)?;
        wait_for(
            format_args!("{traces} traces of {service} in the trace store"),
            60,
            || {
                let complete = complete_traces(query, &sent)?;
                Ok(if complete == traces {
                    Ok(())
                } else {
                    Err(format!("{complete} of {traces} traces are complete"))
                })
            },
        )?;
        check_trace(query, &sent[0], service)?;
        ids.extend(sent);
    }
    ensure!(
        complete_traces(query, &ids)? == 10,
        "a trace of an earlier sender has gone"
    );
    Ok(())
}

/// What the sender wrote is what the store tells.
fn check_trace(query: SocketAddr, id: &str, service: &str) -> Outcome {
    let trace = trace(query, id)?.unwrap_or(Value::Null);
    let empty = Vec::new();
    let spans = trace["spans"].as_array().unwrap_or(&empty);
    let span = |name: &str| {
        spans
            .iter()
            .find(|span| text(span, "/operationName") == name)
            .cloned()
            .unwrap_or(Value::Null)
    };
    let (parent, child) = (span("parent"), span("child"));
    let process = text(&parent, "/processID");
    ensure!(
        text(&trace, &format!("/processes/{process}/serviceName")) == service,
        "service of {trace}"
    );
    ensure!(
        text(&child, "/references/0/refType") == "CHILD_OF",
        "reference of {child}"
    );
    ensure!(
        text(&child, "/references/0/spanID") == text(&parent, "/spanID"),
        "parent of {child}"
    );
    let tag = |span: &Value, key: &str| {
        span["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|tag| text(tag, "/key") == key)
            .map(|tag| tag["value"].clone())
    };
    ensure!(
        tag(&parent, "span.kind") == Some(Value::from("server")),
        "kind of {parent}"
    );
    ensure!(
        tag(&child, "span.kind") == Some(Value::from("client")),
        "kind of {child}"
    );
    ensure!(
        tag(&parent, "number") == Some(Value::from(0)),
        "attribute of {parent}"
    );
    Ok(())
}
