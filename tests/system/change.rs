//! What changes while sites run takes effect without a restart.

use std::fs;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::manifests::replace;
use crate::support::site::{Pair, Site, plain_sites};
use crate::support::stage::Stage;
use crate::support::wait::{wait_for, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "change::manifests_added_changed_and_removed_take_effect",
            &[],
            manifests_take_effect,
        ),
        trial(
            "change::a_collectors_new_configuration_takes_effect",
            &[],
            collector_reloads,
        ),
        trial(
            "change::expose_brings_an_address_to_the_edge_and_unexpose_takes_it_away",
            &[],
            expose_and_unexpose,
        ),
        trial(
            "change::an_annotated_service_is_exposed_by_its_annotations",
            &[],
            annotated_service,
        ),
        trial(
            "change::removing_the_token_from_the_edge_ends_the_link",
            &[],
            removing_the_token,
        ),
    ]
}

fn manifests_take_effect(stage: &Stage) -> Outcome {
    let manifests = stage.folder("manifests")?;
    let site = Site::start(stage, "local", &manifests)?;
    let cluster = site.cluster()?;
    let path = "/api/v1/namespaces/default/configmaps/settings";
    let file = manifests.join("settings.yml");
    fs::write(
        &file,
        "# nothing but a comment\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n",
    )?;
    cluster.wait(path, 10)?;
    replace(&file, "blue", "red")?;
    wait_until("the new colour", 10, || {
        Ok(cluster
            .get(path)?
            .is_some_and(|map| text(&map, "/data/colour") == "red"))
    })?;
    // What somebody else has set stays when the file changes.
    cluster.merge(path, &json!({"metadata": {"labels": {"by": "hand"}}}))?;
    replace(&file, "red", "green")?;
    wait_until("the next colour", 10, || {
        Ok(cluster
            .get(path)?
            .is_some_and(|map| text(&map, "/data/colour") == "green"))
    })?;
    let map = cluster.wait(path, 5)?;
    ensure!(
        text(&map, "/metadata/labels/by") == "hand",
        "a label set by hand was taken away: {map}"
    );
    fs::create_dir(manifests.join("deeper"))?;
    fs::rename(&file, manifests.join("deeper/settings.yml"))?;
    fs::write(
        manifests.join("other.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n",
    )?;
    cluster.wait("/api/v1/namespaces/default/configmaps/other", 10)?;
    ensure!(
        cluster
            .get(path)?
            .is_some_and(|now| text(&now, "/metadata/uid") == text(&map, "/metadata/uid")),
        "a moved file's object was made anew"
    );
    fs::remove_file(manifests.join("deeper/settings.yml"))?;
    cluster.wait_gone(path, 20)
}

const COLLECTOR: &str = "apiVersion: opentelemetry.io/v1alpha1
kind: OpenTelemetryCollector
metadata: {name: simple}
spec:
  config: |
    receivers:
      otlp:
        protocols:
          http:
            endpoint: 0.0.0.0:4318
    exporters:
      debug:
    service:
      pipelines:
        traces: {receivers: [otlp], exporters: [debug]}
";

fn collector_reloads(stage: &Stage) -> Outcome {
    let manifests = stage.folder("manifests")?;
    fs::write(manifests.join("collector.yaml"), COLLECTOR)?;
    let site = Site::start(stage, "local", &manifests)?;
    let cluster = site.cluster()?;
    cluster.wait_endpoint("default", "simple-collector", "4318", 45)?;
    replace(&manifests.join("collector.yaml"), "0.0.0.0:4318", "0.0.0.0:14318")?;
    wait_for("an answer on the new port", 60, || {
        let found = cluster.endpoint("default", "simple-collector", "14318")?;
        let Ok(address) = found else {
            return Ok(found.map(|_| ()));
        };
        ensure!(address.port() == 14318, "the Service still leads to {address}");
        Ok(crate::support::http::get(address, "/")
            .map(|_| ())
            .map_err(|error| format!("{error:#}")))
    })
}

/// A Service of the public site that something answers behind: the site's own API would do as well as any.
fn backend(cluster: &Cluster, annotations: &Value) -> Outcome {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "backend", "annotations": annotations},
        "spec": {"selector": {"skupper.io/component": "router"}, "ports": [{"name": "health", "port": 9090, "targetPort": 9090}]}});
    cluster
        .create("/api/v1/namespaces/default/services", &service)
        .map(|_| ())
}

fn expose_and_unexpose(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    let (public, edge) = (pair.public.cluster()?, pair.edge.cluster()?);
    backend(&public, &json!({}))?;
    pair.public
        .karez(stage, &["expose", "service/backend", "--address", "far-away"])?;
    let service = edge.wait("/api/v1/namespaces/default/services/far-away", 30)?;
    ensure!(
        text(&service, "/metadata/annotations/internal.skupper.io~1controlled") == "true",
        "{service}"
    );
    let address = edge.wait_endpoint("default", "far-away", "9090", 30)?;
    wait_for(format_args!("an answer through {address}"), 30, || {
        let (status, body) = crate::support::http::get(address, "/healthz")?;
        Ok(if status == 200 {
            Ok(())
        } else {
            Err(format!("{status}: {body}"))
        })
    })?;
    let status = pair.public.karez(stage, &["service", "status"])?;
    ensure!(
        status.contains("far-away") && status.contains("backend"),
        "{status}"
    );
    let tree = pair.edge.karez(stage, &["network", "status"])?;
    ensure!(tree.contains("far-away"), "{tree}");
    pair.public
        .karez(stage, &["unexpose", "service/backend", "--address", "far-away"])?;
    edge.wait_gone("/api/v1/namespaces/default/services/far-away", 30)?;
    wait_until("the end of the listener", 15, || {
        Ok(crate::support::http::get(address, "/healthz").is_err())
    })
}

fn annotated_service(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    let (public, edge) = (pair.public.cluster()?, pair.edge.cluster()?);
    backend(
        &public,
        &json!({"skupper.io/proxy": "tcp", "skupper.io/address": "annotated"}),
    )?;
    edge.wait("/api/v1/namespaces/default/services/annotated", 30)?;
    let address = edge.wait_endpoint("default", "annotated", "9090", 30)?;
    wait_for(format_args!("an answer through {address}"), 30, || {
        let (status, body) = crate::support::http::get(address, "/healthz")?;
        Ok(if status == 200 {
            Ok(())
        } else {
            Err(format!("{status}: {body}"))
        })
    })?;
    let none = json!({"metadata": {"annotations": {"skupper.io/proxy": null, "skupper.io/address": null}}});
    public.merge("/api/v1/namespaces/default/services/backend", &none)?;
    edge.wait_gone("/api/v1/namespaces/default/services/annotated", 30)
}

fn removing_the_token(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    fs::remove_file(pair.edge.manifests.join("90-token.yaml"))?;
    pair.edge
        .wait_link(stage, "There are no links configured or active", 30)?;
    Ok(())
}
