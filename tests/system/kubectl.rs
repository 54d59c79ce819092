//! A real kubectl with nothing but the site's kubeconfig.

use anyhow::ensure;
use libtest_mimic::Trial;

use crate::support::Outcome;
use crate::support::cluster::Cluster;
use crate::support::site::{Site, plain_sites};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const KUBECTL: &[Need] = &[Need::Peer("kubectl")];
    vec![
        trial(
            "kubectl::applies_changes_and_deletes",
            KUBECTL,
            applies_changes_and_deletes,
        ),
        trial(
            "kubectl::labels_annotates_and_selects",
            KUBECTL,
            labels_annotates_and_selects,
        ),
        trial(
            "kubectl::gets_with_the_usual_columns_and_describes",
            KUBECTL,
            gets_with_the_usual_columns_and_describes,
        ),
        trial(
            "kubectl::waits_follows_a_rollout_and_reads_logs",
            KUBECTL,
            waits_follows_a_rollout_and_reads_logs,
        ),
        trial("kubectl::is_told_what_is_wrong", KUBECTL, is_told_what_is_wrong),
        trial(
            "kubectl::applies_on_the_server_with_owned_fields",
            KUBECTL,
            applies_on_the_server_with_owned_fields,
        ),
        trial(
            "kubectl::applies_a_collector_that_runs",
            KUBECTL,
            applies_a_collector_that_runs,
        ),
    ]
}

/// A site without manifests: a small cluster.
fn empty_site(stage: &Stage) -> Outcome<(Site, Cluster)> {
    let site = Site::start(stage, "local", &stage.folder("manifests")?)?;
    let cluster = site.cluster()?;
    Ok((site, cluster))
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
";

fn applies_changes_and_deletes(stage: &Stage) -> Outcome {
    let (_site, cluster) = empty_site(stage)?;
    let first = cluster.kubectl(&["apply", "-f", "-"], SERVICE)?;
    ensure!(
        first.contains("service/web created") && first.contains("configmap/settings created"),
        "{first}"
    );
    let again = cluster.kubectl(&["apply", "-f", "-"], SERVICE)?;
    ensure!(
        again.contains("service/web unchanged") && again.contains("configmap/settings unchanged"),
        "{again}"
    );
    let changed = SERVICE.replace("blue", "red").replace(
        "targetPort: 8080}",
        "targetPort: 8080}\n  - {name: https, port: 443, targetPort: 8443}",
    );
    let second = cluster.kubectl(&["apply", "-f", "-"], &changed)?;
    ensure!(
        second.contains("service/web configured") && second.contains("configmap/settings configured"),
        "{second}"
    );
    let ports = cluster.kubectl(
        &["get", "service", "web", "-o", "jsonpath={.spec.ports[*].port}"],
        "",
    )?;
    ensure!(ports == "80 443", "ports after the change: {ports:?}");
    let colour = cluster.kubectl(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"], "")?;
    ensure!(colour == "red", "after the change: {colour:?}");
    let back = cluster.kubectl(&["apply", "-f", "-"], SERVICE)?;
    ensure!(back.contains("service/web configured"), "{back}");
    let ports = cluster.kubectl(
        &["get", "service", "web", "-o", "jsonpath={.spec.ports[*].port}"],
        "",
    )?;
    ensure!(ports == "80", "a port that the manifest lost stays: {ports:?}");
    let difference = cluster.kubectl_output(&["diff", "-f", "-"], &changed)?;
    ensure!(difference.status.code() == Some(1), "diff: {difference:?}");
    let patched = cluster.kubectl(
        &[
            "patch",
            "cm",
            "settings",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/data/size","value":"xl"}]"#,
        ],
        "",
    )?;
    ensure!(patched.contains("configmap/settings patched"), "{patched}");
    let gone = cluster.kubectl(&["delete", "-f", "-"], SERVICE)?;
    ensure!(
        gone.contains("\"web\" deleted") && gone.contains("\"settings\" deleted"),
        "{gone}"
    );
    let left = cluster.kubectl(&["get", "svc,cm", "--ignore-not-found", "-o", "name"], "")?;
    ensure!(!left.contains("web") && !left.contains("settings"), "{left}");
    Ok(())
}

fn labels_annotates_and_selects(stage: &Stage) -> Outcome {
    let (_site, cluster) = empty_site(stage)?;
    cluster.kubectl(&["create", "configmap", "one", "--from-literal=a=b"], "")?;
    cluster.kubectl(&["create", "configmap", "two", "--from-literal=a=b"], "")?;
    cluster.kubectl(&["label", "configmap", "one", "tier=front"], "")?;
    cluster.kubectl(&["annotate", "configmap", "one", "example.org/why=test"], "")?;
    let selected = cluster.kubectl(&["get", "cm", "-l", "tier=front", "-o", "name"], "")?;
    ensure!(selected.trim() == "configmap/one", "{selected:?}");
    let selected = cluster.kubectl(&["get", "cm", "-l", "tier notin (front)", "-o", "name"], "")?;
    ensure!(
        selected.contains("two") && !selected.contains("one"),
        "{selected:?}"
    );
    let by_field = cluster.kubectl(
        &["get", "cm", "--field-selector", "metadata.name=two", "-o", "name"],
        "",
    )?;
    ensure!(by_field.trim() == "configmap/two", "{by_field:?}");
    let refused = cluster.kubectl_output(&["label", "configmap", "one", "tier=back"], "")?;
    ensure!(
        !refused.status.success(),
        "a label was overwritten without --overwrite"
    );
    cluster.kubectl(&["label", "--overwrite", "configmap", "one", "tier=back"], "")?;
    cluster.kubectl(&["label", "configmap", "one", "tier-"], "")?;
    cluster.kubectl(&["annotate", "configmap", "one", "example.org/why-"], "")?;
    let metadata = cluster.kubectl(
        &[
            "get",
            "cm",
            "one",
            "-o",
            "jsonpath={.metadata.labels}{.metadata.annotations}",
        ],
        "",
    )?;
    ensure!(
        !metadata.contains("tier") && !metadata.contains("example.org"),
        "{metadata}"
    );
    Ok(())
}

fn gets_with_the_usual_columns_and_describes(stage: &Stage) -> Outcome {
    let (public, _) = plain_sites(stage)?;
    let site = Site::start(stage, "public", &public)?;
    let cluster = site.cluster()?;
    cluster.wait_pod("default", "skupper.io/component=router", 60)?;
    let pods = cluster.kubectl(&["get", "pods"], "")?;
    let mut head = pods.lines().next().unwrap_or_default().split_whitespace();
    ensure!(
        head.by_ref().eq(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]),
        "{pods}"
    );
    ensure!(
        pods.lines()
            .any(|line| line.starts_with("skupper-router-") && line.contains("Running")),
        "{pods}"
    );
    let wide = cluster.kubectl(&["get", "services", "-o", "wide"], "")?;
    ensure!(
        ["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "SELECTOR"]
            .iter()
            .all(|column| wide.contains(column)),
        "{wide}"
    );
    ensure!(
        wide.lines().any(|line| line.starts_with("skupper-router ")
            && line.contains("LoadBalancer")
            && line.contains("55671")),
        "{wide}"
    );
    let deployments = cluster.kubectl(&["get", "deployments"], "")?;
    ensure!(
        ["READY", "UP-TO-DATE", "AVAILABLE"]
            .iter()
            .all(|column| deployments.contains(column)),
        "{deployments}"
    );
    cluster.kubectl(
        &[
            "get",
            "nodes,replicasets,secrets,configmaps,endpointslices,events",
            "-A",
        ],
        "",
    )?;
    let described = cluster.kubectl(&["describe", "deployment", "skupper-router"], "")?;
    ensure!(
        described.contains("Replicas:")
            && described.contains("Pod Template:")
            && described.contains("Available"),
        "{described}"
    );
    let described = cluster.kubectl(&["describe", "pods", "-l", "skupper.io/component=router"], "")?;
    ensure!(
        described.contains("Controlled By:  ReplicaSet/") && described.contains("State:"),
        "{described}"
    );
    let described = cluster.kubectl(&["describe", "service", "skupper-router"], "")?;
    ensure!(
        described.contains("Endpoints:") && described.contains("LoadBalancer"),
        "{described}"
    );
    let kinds = cluster.kubectl(&["api-resources", "-o", "name"], "")?;
    ensure!(
        kinds.contains("deployments.apps") && kinds.contains("opentelemetrycollectors.opentelemetry.io"),
        "{kinds}"
    );
    let version = cluster.kubectl(&["version"], "")?;
    ensure!(version.contains("Server Version:"), "{version}");
    Ok(())
}

fn waits_follows_a_rollout_and_reads_logs(stage: &Stage) -> Outcome {
    let (public, _) = plain_sites(stage)?;
    let site = Site::start(stage, "public", &public)?;
    let cluster = site.cluster()?;
    cluster.wait("/apis/apps/v1/namespaces/default/deployments/skupper-router", 60)?;
    cluster.kubectl(
        &[
            "wait",
            "--for=condition=Available",
            "deployment/skupper-router",
            "--timeout=45s",
        ],
        "",
    )?;
    cluster.kubectl(
        &["rollout", "status", "deployment/skupper-router", "--timeout=30s"],
        "",
    )?;
    cluster.kubectl(
        &[
            "wait",
            "--for=condition=Ready",
            "pod",
            "-l",
            "skupper.io/component=router",
            "--timeout=45s",
        ],
        "",
    )?;
    let logs = wait_for("the router's logs", 20, || {
        let logs = cluster.kubectl(&["logs", "deployment/skupper-router", "-c", "router"], "")?;
        Ok(if logs.trim().is_empty() {
            Err("empty".to_owned())
        } else {
            Ok(logs)
        })
    })?;
    let last = cluster.kubectl(
        &["logs", "deployment/skupper-router", "-c", "router", "--tail=1"],
        "",
    )?;
    ensure!(
        last.lines().count() == 1 && logs.lines().count() >= 1,
        "--tail=1: {last:?}"
    );
    let pod = cluster.kubectl(
        &["get", "pod", "-l", "skupper.io/component=router", "-o", "name"],
        "",
    )?;
    let pod = pod.trim();
    cluster.kubectl(&["delete", pod, "--wait=false"], "")?;
    cluster.kubectl(&["wait", "--for=delete", pod, "--timeout=45s"], "")?;
    let successor = cluster.wait_pod("default", "skupper.io/component=router", 45)?;
    ensure!(
        !pod.ends_with(crate::support::cluster::text(&successor, "/metadata/name")),
        "the Pod came back under its name"
    );
    Ok(())
}

fn is_told_what_is_wrong(stage: &Stage) -> Outcome {
    let (_site, cluster) = empty_site(stage)?;
    let refused = |arguments: &[&str], input: &str, words: &[&str]| -> Outcome {
        let output = cluster.kubectl_output(arguments, input)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "kubectl {arguments:?} succeeded");
        ensure!(
            words.iter().all(|word| error.contains(word)),
            "kubectl {arguments:?}: no {words:?} in {error}"
        );
        Ok(())
    };
    refused(
        &["get", "configmap", "absent"],
        "",
        &["NotFound", "configmaps \"absent\" not found"],
    )?;
    refused(
        &["create", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatta: {a: b}\n",
        &["datta"],
    )?;
    refused(
        &["create", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n",
        &["Not_A_Name", "metadata.name"],
    )?;
    refused(
        &["create", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: absent}\n",
        &["absent", "not found"],
    )?;
    refused(
        &["apply", "-f", "-"],
        "apiVersion: example.dev/v1\nkind: Unheard\nmetadata: {name: x}\n",
        &["no matches for kind \"Unheard\" in version \"example.dev/v1\""],
    )?;
    cluster.kubectl(&["create", "configmap", "twice"], "")?;
    refused(&["create", "configmap", "twice"], "", &["already exists"])?;
    let stale = cluster.kubectl(&["get", "cm", "twice", "-o", "yaml"], "")?;
    cluster.kubectl(&["label", "cm", "twice", "a=b"], "")?;
    refused(&["replace", "-f", "-"], &stale, &["Conflict"])?;
    Ok(())
}

fn applies_on_the_server_with_owned_fields(stage: &Stage) -> Outcome {
    let (_site, cluster) = empty_site(stage)?;
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {mine: '1', both: a}\n";
    cluster.kubectl(
        &["apply", "--server-side", "--field-manager=first", "-f", "-"],
        map,
    )?;
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {both: b}\n";
    let conflict = cluster.kubectl_output(
        &["apply", "--server-side", "--field-manager=second", "-f", "-"],
        other,
    )?;
    let error = String::from_utf8_lossy(&conflict.stderr);
    ensure!(
        !conflict.status.success()
            && error.contains("conflict")
            && error.contains("first")
            && error.contains(".data.both"),
        "{error}"
    );
    cluster.kubectl(
        &[
            "apply",
            "--server-side",
            "--field-manager=second",
            "--force-conflicts",
            "-f",
            "-",
        ],
        other,
    )?;
    let dropped = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {}\n";
    cluster.kubectl(
        &["apply", "--server-side", "--field-manager=first", "-f", "-"],
        dropped,
    )?;
    let data = cluster.kubectl(&["get", "cm", "shared", "-o", "jsonpath={.data}"], "")?;
    ensure!(data == r#"{"both":"b"}"#, "each manager's fields: {data}");
    Ok(())
}

fn applies_a_collector_that_runs(stage: &Stage) -> Outcome {
    let (_site, cluster) = empty_site(stage)?;
    let collector = "
apiVersion: opentelemetry.io/v1beta1
kind: OpenTelemetryCollector
metadata: {name: simple}
spec:
  mode: deployment
  config:
    receivers: {otlp: {protocols: {grpc: {}, http: {}}}}
    exporters: {debug: {}}
    service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";
    cluster.kubectl(&["apply", "-f", "-"], collector)?;
    cluster.wait(
        "/apis/apps/v1/namespaces/default/deployments/simple-collector",
        30,
    )?;
    cluster.kubectl(
        &[
            "wait",
            "--for=condition=Available",
            "deployment/simple-collector",
            "--timeout=45s",
        ],
        "",
    )?;
    cluster.wait_endpoint("default", "simple-collector", "4317", 20)?;
    let otelcols = cluster.kubectl(&["get", "otelcol"], "")?;
    ensure!(otelcols.contains("simple"), "{otelcols}");
    cluster.kubectl(&["delete", "otelcol", "simple"], "")?;
    cluster.wait_gone(
        "/apis/apps/v1/namespaces/default/deployments/simple-collector",
        30,
    )?;
    cluster.wait_gone("/api/v1/namespaces/default/services/simple-collector", 30)
}
