//! A site killed without a chance to clean up.

use anyhow::ensure;
use libtest_mimic::Trial;

use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::http::complete_traces;
use crate::support::peers::send;
use crate::support::site::{Pair, Site, TOKEN, plain_sites};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::telemetry;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "survival::a_killed_public_site_keeps_authority_token_and_link",
            &[],
            killed_public_site,
        ),
        trial("survival::a_killed_edge_site_links_again", &[], killed_edge_site),
        trial(
            "survival::telemetry_flows_again_after_both_sites_were_killed",
            &[Need::Acceptance, Need::Peer("python")],
            telemetry_flows_again,
        ),
    ]
}

/// What must outlive the site's process.
fn identity(cluster: &Cluster) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for (secret, key) in [
        ("skupper-site-ca", "tls.crt"),
        ("skupper-local-ca", "tls.crt"),
        (TOKEN, "tls.crt"),
        (TOKEN, "ca.crt"),
    ] {
        let object = cluster.wait(&format!("/api/v1/namespaces/default/secrets/{secret}"), 30)?;
        let value = text(&object, &format!("/data/{key}")).to_owned();
        ensure!(!value.is_empty(), "{secret} has no {key}");
        all.push(value);
    }
    let map = cluster.wait("/api/v1/namespaces/default/configmaps/skupper-site", 30)?;
    all.push(text(&map, "/metadata/uid").to_owned());
    let token = cluster.wait(&format!("/api/v1/namespaces/default/secrets/{TOKEN}"), 30)?;
    all.push(text(&token, "/metadata/annotations/edge-host").to_owned());
    all.push(text(&token, "/metadata/labels/skupper.io~1type").to_owned());
    Ok(all)
}

fn killed_public_site(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    let before = identity(&pair.public.cluster()?)?;
    let Pair {
        public: running,
        edge,
    } = pair;
    running.kill()?;
    edge.wait_link(stage, "not active", 45)?;
    let public = Site::start(stage, "public", &public)?;
    let cluster = public.cluster()?;
    edge.wait_link(stage, &format!("Link {TOKEN} is active"), 90)?;
    ensure!(
        identity(&cluster)? == before,
        "the authority, the token or the site's id changed"
    );
    ensure!(public.stop()?.success(), "the public site's status after SIGTERM");
    ensure!(edge.stop()?.success(), "the edge site's status after SIGTERM");
    Ok(())
}

fn killed_edge_site(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    pair.edge.kill()?;
    let edge = Site::start(stage, "edge", &edge)?;
    edge.cluster()?;
    edge.wait_link(stage, &format!("Link {TOKEN} is active"), 60)?;
    Ok(())
}

fn telemetry_flows_again(stage: &Stage) -> Outcome {
    let Pair { public, edge } = telemetry::mended(stage)?;
    let (public_manifests, edge_manifests) = (public.manifests.clone(), edge.manifests.clone());
    edge.cluster()?.wait(
        &format!("/api/v1/namespaces/default/services/{}", telemetry::ADDRESS),
        30,
    )?;
    public.kill()?;
    edge.kill()?;
    let public = Site::start(stage, "public", &public_manifests)?;
    let edge = Site::start(stage, "edge", &edge_manifests)?;
    let (public_cluster, edge_cluster) = (public.cluster()?, edge.cluster()?);
    edge.wait_link(stage, &format!("Link {TOKEN} is active"), 90)?;
    edge_cluster.wait_endpoint("default", telemetry::ADDRESS, "4317", 60)?;
    let query = public_cluster.wait_endpoint("default", "jaeger-skupper-query", "16686", 60)?;
    let pod = edge_cluster.wait_pod("default", "app=myapp", 60)?;
    let sent = send(
        "jaeger-compact",
        format!("{}:6831", text(&pod, "/status/podIP")).parse()?,
        "after-the-kill",
        3,
    )?;
    wait_for("3 traces in the trace store", 60, || {
        let complete = complete_traces(query, &sent)?;
        Ok(if complete == 3 {
            Ok(())
        } else {
            Err(format!("{complete} of 3 traces are complete"))
        })
    })
}
