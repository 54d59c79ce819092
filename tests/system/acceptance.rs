//! Manifests that others wrote, unmodified.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Outcome;
use crate::support::cluster::text;
use crate::support::manifests::{copy, diagnosed, line_of};
use crate::support::peers::acceptance;
use crate::support::site::{Pair, Site, TOKEN, finish, karez, take_token};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const INPUT: &[Need] = &[Need::Acceptance];
    vec![
        trial(
            "acceptance::public_site_fills_the_requested_token",
            INPUT,
            public_site_fills_the_requested_token,
        ),
        trial(
            "acceptance::public_site_consists_of_the_named_objects",
            INPUT,
            public_site_consists_of_the_named_objects,
        ),
        trial(
            "acceptance::edge_site_links_with_the_filled_token",
            INPUT,
            edge_site_links_with_the_filled_token,
        ),
        trial(
            "acceptance::mistakes_of_the_public_site_are_named",
            INPUT,
            mistakes_of_the_public_site_are_named,
        ),
        trial(
            "acceptance::mistakes_of_the_edge_site_are_named",
            INPUT,
            mistakes_of_the_edge_site_are_named,
        ),
        trial(
            "acceptance::open_receivers_of_pattern_5_are_named",
            INPUT,
            open_receivers_are_named,
        ),
        trial(
            "acceptance::placeholders_are_refused_by_name",
            INPUT,
            placeholders_are_refused,
        ),
        trial(
            "acceptance::mistakes_are_named_when_the_object_came_through_the_api",
            INPUT,
            mistakes_through_the_api,
        ),
    ]
}

fn public_site_fills_the_requested_token(stage: &Stage) -> Outcome {
    let site = Site::start(stage, "public", &acceptance("skupper-example/public-cloud"))?;
    let cluster = site.cluster()?;
    let token = take_token(&cluster, "default", TOKEN)?;
    let map = cluster.wait("/api/v1/namespaces/default/configmaps/skupper-site", 10)?;
    let annotation = |key: &str| text(&token, &format!("/metadata/annotations/{key}")).to_owned();
    ensure!(
        annotation("inter-router-port") == "55671" && annotation("edge-port") == "45671",
        "ports: {token}"
    );
    ensure!(
        !annotation("inter-router-host").is_empty() && !annotation("edge-host").is_empty(),
        "hosts: {token}"
    );
    ensure!(
        annotation("skupper.io~1generated-by") == text(&map, "/metadata/uid"),
        "generated-by: {token}"
    );
    ensure!(
        !annotation("skupper.io~1site-version").is_empty(),
        "site-version: {token}"
    );
    let data = token["data"]
        .as_object()
        .map(|data| data.keys().cloned().collect::<Vec<_>>())
        .unwrap_or_default();
    ensure!(
        ["ca.crt", "tls.crt", "tls.key"]
            .iter()
            .all(|key| data.iter().any(|has| has == key)),
        "data: {data:?}"
    );
    let router = cluster.wait("/api/v1/namespaces/default/services/skupper-router", 10)?;
    let address = text(&router, "/status/loadBalancer/ingress/0/ip");
    ensure!(
        annotation("edge-host") == address,
        "the token names {} but the load balancer is {address:?}",
        annotation("edge-host")
    );
    let status = site.stop()?;
    ensure!(status.success(), "after SIGTERM: {status}");
    Ok(())
}

fn public_site_consists_of_the_named_objects(stage: &Stage) -> Outcome {
    let site = Site::start(stage, "public", &acceptance("skupper-example/public-cloud"))?;
    let cluster = site.cluster()?;
    for path in [
        "apis/apps/v1/namespaces/default/deployments/skupper-router",
        "apis/apps/v1/namespaces/default/deployments/skupper-service-controller",
        "apis/apps/v1/namespaces/default/deployments/otel-collector-app-collector",
        "apis/apps/v1/namespaces/default/deployments/jaeger-skupper",
        "api/v1/namespaces/default/configmaps/skupper-internal",
        "api/v1/namespaces/default/configmaps/otel-collector-app-collector",
        "api/v1/namespaces/default/secrets/skupper-site-ca",
        "api/v1/namespaces/default/secrets/skupper-site-server",
        "api/v1/namespaces/default/secrets/skupper-local-ca",
        "api/v1/namespaces/default/secrets/skupper-local-server",
        "api/v1/namespaces/default/secrets/skupper-local-client",
    ] {
        cluster.wait(&format!("/{path}"), 60)?;
    }
    let services: [(&str, &[u64]); 9] = [
        ("skupper-router", &[55671, 45671]),
        ("skupper-router-local", &[5671]),
        ("skupper", &[8080, 8081]),
        ("otel-collector-app-collector", &[4317, 4318, 55681]),
        ("otel-collector-app-collector-headless", &[4317, 4318, 55681]),
        ("otel-collector-app-collector-monitoring", &[8888]),
        (
            "jaeger-skupper-collector",
            &[9411, 14250, 14267, 14268, 4317, 4318],
        ),
        ("jaeger-skupper-query", &[16686]),
        ("jaeger-skupper-agent", &[5775, 5778, 6831, 6832]),
    ];
    for (name, ports) in services {
        let service = cluster.wait(&format!("/api/v1/namespaces/default/services/{name}"), 60)?;
        let has: Vec<u64> = service
            .pointer("/spec/ports")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|port| port["port"].as_u64())
            .collect();
        ensure!(
            ports.iter().all(|port| has.contains(port)),
            "Service {name} has ports {has:?}, not all of {ports:?}"
        );
    }
    cluster.wait_pod("default", "skupper.io/component=router", 60)?;
    cluster.wait_pod("default", "app.kubernetes.io/instance=jaeger-skupper", 60)?;
    cluster.wait_endpoint("default", "jaeger-skupper-query", "16686", 30)?;
    Ok(())
}

fn edge_site_links_with_the_filled_token(stage: &Stage) -> Outcome {
    let edge = copy(
        &acceptance("skupper-example/private-cloud"),
        stage.path("private-cloud"),
    )?;
    let pair = Pair::link(stage, &acceptance("skupper-example/public-cloud"), &edge)?;
    for (site, local, remote) in [
        (&pair.edge, "edge-site", "public-site"),
        (&pair.public, "public-site", "edge-site"),
    ] {
        wait_for(
            format_args!("both sites in the network status of {}", site.name),
            30,
            || {
                let tree = site.karez(stage, &["network", "status"])?;
                let both = tree
                    .lines()
                    .any(|line| line.contains("[local]") && line.contains(local))
                    && tree
                        .lines()
                        .any(|line| line.contains("[remote]") && line.contains(remote));
                Ok(if both { Ok(()) } else { Err(tree) })
            },
        )?;
    }
    let edge = pair.edge.cluster()?;
    ensure!(
        edge.get("/api/v1/namespaces/default/services/skupper-router")?
            .is_none(),
        "an edge site offers no links"
    );
    edge.wait_pod("default", "app=myapp", 30)?;
    Ok(())
}

/// Waits until the site has printed, for this place, a line with all the words.
pub(crate) fn named(site: &Site, file: &Path, needle: &str, words: &[&str]) -> Outcome {
    let line = line_of(file, needle)?;
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    wait_for(
        format_args!("a diagnosis at {name}:{line} with {words:?}"),
        30,
        || {
            let output = site.output()?;
            Ok(diagnosed(&output, name, line, words).map(|_| ()).ok_or(output))
        },
    )
}

fn mistakes_of_the_public_site_are_named(stage: &Stage) -> Outcome {
    let site = Site::start(stage, "public", &acceptance("skupper-example/public-cloud"))?;
    let file = acceptance("skupper-example/public-cloud/10-otel-collector.yaml");
    named(
        &site,
        &file,
        "14250\"",
        &["error", "exporters.jaeger.endpoint", "14250"],
    )?;
    let output = site.output()?;
    let tls = output.lines().find(|line| {
        line.contains("10-otel-collector.yaml:") && line.contains("exporters.jaeger") && line.contains("tls")
    });
    ensure!(
        tls.is_some_and(|line| line.contains("insecure")),
        "nothing says that the jaeger exporter insists on TLS, or the mend"
    );
    Ok(())
}

fn mistakes_of_the_edge_site_are_named(stage: &Stage) -> Outcome {
    let site = Site::start(stage, "edge", &acceptance("skupper-example/private-cloud"))?;
    let file = acceptance("skupper-example/private-cloud/30-otel-collector.yaml");
    otlp_exporter(&site, &file)?;
    named(
        &site,
        &file,
        "endpoint: http://",
        &["exporters.otlp.endpoint", "http"],
    )?;
    named(&site, &file, "    processors:", &["processors", "empty"])?;
    Ok(())
}

/// The exporter's key stands a line above its endpoint.
fn otlp_exporter(site: &Site, file: &Path) -> Outcome {
    let line = line_of(file, "endpoint: http://")? - 1;
    wait_for(
        format_args!("a diagnosis of the unused exporter at line {line}"),
        30,
        || {
            let output = site.output()?;
            Ok(diagnosed(
                &output,
                "30-otel-collector.yaml",
                line,
                &["exporters.otlp", "pipeline"],
            )
            .map(|_| ())
            .ok_or(output))
        },
    )
}

fn mistakes_through_the_api(stage: &Stage) -> Outcome {
    let empty = stage.folder("empty")?;
    let site = Site::start(stage, "api", &empty)?;
    let cluster = site.cluster()?;
    let config = "receivers:\n  otlp:\n    protocols:\n      grpc:\nexporters:\n  jaeger:\n    endpoint: store:14250\"\n\
                  service:\n  pipelines:\n    traces: {receivers: [otlp], exporters: [jaeger]}\n";
    let collector = json!({"apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
        "metadata": {"name": "through-api"}, "spec": {"mode": "deployment", "config": config}});
    cluster.create(
        "/apis/opentelemetry.io/v1alpha1/namespaces/default/opentelemetrycollectors",
        &collector,
    )?;
    let words = ["through-api", "exporters.jaeger.endpoint"];
    wait_for("an Event that names the mistake", 30, || {
        let events = cluster.list("/api/v1/namespaces/default/events")?;
        let found = events.iter().any(|event| {
            text(event, "/type") == "Warning"
                && text(event, "/involvedObject/name") == words[0]
                && text(event, "/message").contains(words[1])
                && text(event, "/message").contains(":7:")
        });
        Ok(if found { Ok(()) } else { Err(format!("{events:?}")) })
    })?;
    site.wait_output(words[1], 15)?;
    Ok(())
}

fn open_receivers_are_named(stage: &Stage) -> Outcome {
    for (file, extension) in [
        ("control-plane.yaml", "oidc"),
        ("workload.yaml", "bearertokenauth"),
    ] {
        let path = acceptance("pattern-5").join(file);
        let mut command = karez(stage)?;
        command
            .args(["collector", "validate"])
            .arg(format!("--config={}", path.display()));
        let output = finish(command, 20)?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let key = format!("extensions.{extension}");
        let line = line_of(&path, &format!("  {extension}:"))?;
        ensure!(
            diagnosed(&said, file, line, &[&key]).is_some(),
            "nothing about {key} of {file}:{line}:\n{said}"
        );
    }
    Ok(())
}

fn placeholders_are_refused(stage: &Stage) -> Outcome {
    let folder = stage.folder("blog")?;
    let file = folder.join("remote.yaml");
    fs::copy(acceptance("blog/remote.yaml"), &file)?;
    let site = Site::start(stage, "blog", &folder)?;
    named(
        &site,
        &file,
        "<REPLACE",
        &["error", "extensions.basicauth/server.htpasswd.inline"],
    )
}
