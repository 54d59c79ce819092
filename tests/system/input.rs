//! Bad input: the message names file, line, key and what to do, and what already runs keeps running.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use anyhow::ensure;
use libtest_mimic::Trial;

use crate::support::Outcome;
use crate::support::cluster::Cluster;
use crate::support::manifests::{diagnosed, line_of, replace};
use crate::support::site::{Pair, Site, finish, karez, plain_sites};
use crate::support::stage::Stage;
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "input::a_broken_yaml_file_is_named_and_the_others_run",
            &[],
            broken_yaml,
        ),
        trial("input::a_bad_secret_is_named_and_the_others_run", &[], bad_secret),
        trial(
            "input::an_unknown_component_is_named_and_what_ran_keeps_running",
            &[],
            unknown_component,
        ),
        trial("input::a_port_in_use_is_named_with_what_to_do", &[], port_in_use),
        trial(
            "input::a_manifest_folder_that_is_not_there_is_named",
            &[],
            no_such_folder,
        ),
        trial(
            "input::validate_names_every_mistake_at_once",
            &[],
            validate_names_every_mistake,
        ),
        trial(
            "input::a_second_start_on_the_same_state_is_refused",
            &[],
            second_start,
        ),
    ]
}

/// A collector with two receivers' ports; good as it stands.
const COLLECTOR: &str = "apiVersion: opentelemetry.io/v1alpha1
kind: OpenTelemetryCollector
metadata:
  name: simple
spec:
  config: |
    receivers:
      otlp:
        protocols:
          grpc:
          http:
    exporters:
      debug:
    service:
      pipelines:
        traces:
          receivers: [otlp]
          exporters: [debug]
";

/// A site that runs one good collector.
fn collector_site(stage: &Stage) -> Outcome<(Site, Cluster)> {
    let manifests = stage.folder("manifests")?;
    fs::write(manifests.join("10-collector.yaml"), COLLECTOR)?;
    let site = Site::start(stage, "local", &manifests)?;
    let cluster = site.cluster()?;
    runs(&cluster)?;
    Ok((site, cluster))
}

/// The collector answers on its port.
fn runs(cluster: &Cluster) -> Outcome {
    let address = cluster.wait_endpoint("default", "simple-collector", "4318", 45)?;
    wait_for(format_args!("an answer from {address}"), 20, || {
        Ok(crate::support::http::get(address, "/")
            .map(|_| ())
            .map_err(|error| format!("{error:#}")))
    })
}

/// Waits until the site prints a diagnosis of this place with all the words.
fn printed(site: &Site, file: &Path, line: usize, words: &[&str]) -> Outcome {
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

fn broken_yaml(stage: &Stage) -> Outcome {
    let (site, cluster) = collector_site(stage)?;
    let broken = site.manifests.join("20-broken.yaml");
    fs::write(
        &broken,
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: [unclosed\ndata: {}\n",
    )?;
    wait_for(
        "a message that names the broken file and a line of it",
        30,
        || {
            let output = site.output()?;
            let named = (4..=6).any(|line| diagnosed(&output, "20-broken.yaml", line, &["error"]).is_some());
            Ok(if named { Ok(()) } else { Err(output) })
        },
    )?;
    runs(&cluster)?;
    fs::write(
        &broken,
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mended\ndata: {}\n",
    )?;
    cluster
        .wait("/api/v1/namespaces/default/configmaps/mended", 20)
        .map(|_| ())
}

fn bad_secret(stage: &Stage) -> Outcome {
    let (site, cluster) = collector_site(stage)?;
    let file = site.manifests.join("20-secret.yaml");
    fs::write(
        &file,
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: bad\ndata:\n  tls.crt: \"%%% not base64\"\n",
    )?;
    wait_for("a message that names the Secret's file, key and mend", 30, || {
        let output = site.output()?;
        let named = output.lines().any(|line| {
            line.contains("20-secret.yaml:")
                && line.contains("error")
                && line.contains("tls.crt")
                && line.contains("base64")
                && !line.contains("%%%")
        });
        Ok(if named { Ok(()) } else { Err(output) })
    })?;
    runs(&cluster)?;
    fs::write(
        &file,
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: bad\ndata:\n  tls.crt: Z29vZA==\n",
    )?;
    cluster
        .wait("/api/v1/namespaces/default/secrets/bad", 20)
        .map(|_| ())
}

fn unknown_component(stage: &Stage) -> Outcome {
    let (site, cluster) = collector_site(stage)?;
    let file = site.manifests.join("10-collector.yaml");
    let address = cluster.wait_endpoint("default", "simple-collector", "4318", 10)?;
    replace(&file, "      debug:\n", "      debug:\n      carrier_pigeon:\n")?;
    printed(
        &site,
        &file,
        line_of(&file, "carrier_pigeon")?,
        &["error", "exporters.carrier_pigeon"],
    )?;
    ensure!(
        crate::support::http::get(address, "/").is_ok(),
        "the collector that ran at {address} is gone"
    );
    replace(&file, "      carrier_pigeon:\n", "")?;
    runs(&cluster)
}

fn port_in_use(stage: &Stage) -> Outcome {
    let (public, _) = plain_sites(stage)?;
    // An address of no site's network: those are chosen by hash, and this test is the only one that names it.
    let address = "127.83.2.1";
    let held = (
        TcpListener::bind((address, 45671)),
        UdpSocket::bind((address, 45671)),
    );
    let site = Site::start_with(stage, "public", &public, &["--host", address])?;
    let cluster = site.cluster()?;
    wait_for(
        "a line of the site that names the port, who holds it and the mend",
        60,
        || {
            let said = site.output()?;
            let named = said.lines().any(|line| {
                line.contains("45671")
                    && line.contains(address)
                    && line.contains("in use")
                    && line.contains("stop")
            });
            Ok(if named { Ok(()) } else { Err(said) })
        },
    )?;
    cluster.wait("/api/v1/namespaces/default/configmaps/skupper-internal", 30)?;
    drop(held);
    cluster
        .wait_pod("default", "skupper.io/component=router", 60)
        .map(|_| ())
}

fn no_such_folder(stage: &Stage) -> Outcome {
    let mut command = karez(stage)?;
    command
        .args(["site", "run"])
        .arg(stage.path("absent"))
        .arg("--state")
        .arg(stage.path("state"));
    let output = finish(command, 20)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && error.contains("absent"),
        "{}: {error}",
        output.status
    );
    Ok(())
}

fn validate_names_every_mistake(stage: &Stage) -> Outcome {
    let file = stage.path("collector.yaml");
    let text = "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpint: localhost:1\nexporters:\n  pigeon:\n  debug:\n    verbosity: shouting\n\
                service:\n  pipelines:\n    traces:\n      receivers: [otlp, absent]\n      exporters: [debug]\n";
    fs::write(&file, text)?;
    let mut command = karez(stage)?;
    command
        .args(["collector", "validate"])
        .arg(format!("--config={}", file.display()));
    let output = finish(command, 20)?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1),
        "status {}: {said}",
        output.status
    );
    for (line, words) in [(5, "endpint"), (7, "pigeon"), (9, "verbosity"), (13, "absent")] {
        ensure!(
            diagnosed(&said, "collector.yaml", line, &[words]).is_some(),
            "nothing at line {line} about {words}:\n{said}"
        );
    }
    Ok(())
}

fn second_start(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    let mut command = karez(stage)?;
    command
        .args(["site", "run"])
        .arg(&public)
        .arg("--state")
        .arg(&pair.public.state);
    let output = finish(command, 30)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "a second process took the same state");
    ensure!(
        error.contains(&pair.public.state.display().to_string()),
        "it does not name the state: {error}"
    );
    ensure!(
        pair.edge.wait_link(stage, "is active", 10).is_ok(),
        "the first one was disturbed"
    );
    Ok(())
}
