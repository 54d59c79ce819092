//! `telemetrygen traces`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use karez_collector::telemetrygen::{self, SendOptions, TlsOptions, TracesOptions, Transport};
use karez_net::{Net, split_host_port};

use crate::args::{TelemetrygenCommand, TracesArgs};

pub(super) async fn run(command: TelemetrygenCommand) -> anyhow::Result<ExitCode> {
    let TelemetrygenCommand::Traces(args) = command;
    let net = Net::from_env();
    let (traces, spans) = match args.jaeger_endpoint.clone() {
        Some(endpoint) => jaeger(&endpoint, args, &net).await?,
        None => otlp(args, &net).await?,
    };
    println!("{traces} traces with {spans} spans sent");
    Ok(ExitCode::SUCCESS)
}

async fn jaeger(endpoint: &str, args: TracesArgs, net: &Net) -> anyhow::Result<(usize, usize)> {
    let (host, port) = split_host_port(endpoint).with_context(|| format!("--jaeger-endpoint {endpoint}"))?;
    let addresses = net.resolve(&host, port).await?;
    let target = *addresses
        .first()
        .with_context(|| format!("{host} has no address"))?;
    let options = SendOptions {
        target,
        traces: args.traces,
        service: args.service,
    };
    let sent = telemetrygen::jaeger_compact(options).await?;
    Ok((sent.len(), 2 * sent.len()))
}

async fn otlp(args: TracesArgs, net: &Net) -> anyhow::Result<(usize, usize)> {
    let options = TracesOptions {
        endpoint: args.otlp_endpoint,
        transport: if args.otlp_http {
            Transport::Http
        } else {
            Transport::Grpc
        },
        tls: TlsOptions {
            insecure: args.otlp_insecure,
            ca_file: args.ca_cert,
            ..TlsOptions::default()
        },
        headers: args.otlp_header.into_iter().collect(),
        url_path: args.otlp_http_url_path,
        traces: args.traces,
        duration: args.duration.map(Duration::from_secs),
        rate: args.rate,
        service: args.service,
        attributes: args.otlp_attributes.into_iter().collect(),
        ..TracesOptions::default()
    };
    let report = telemetrygen::traces(options, net).await?;
    Ok((report.traces, report.spans))
}
