//! What only the manifests together can tell: a workload that sends its spans to a port of its own Pod.
//!
//! Pure: manifests go in, diagnoses come out. What a collector's own configuration has wrong is found by the
//! controllers, which publish it as Events, so that `kubectl apply` gives the same answers as a file.

use karez_document::Diagnosis;
use karez_document::yaml::Node;
use karez_kubernetes::labels::SIDECAR_INJECT;

use crate::manifest::Manifest;

/// The port of Jaeger's agent, compact Thrift over UDP.
const AGENT_PORT: &str = "6831";
/// Kinds that make Pods of a template.
const WORKLOADS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"];

/// All diagnoses of a site's manifests.
pub fn diagnose(manifests: &[Manifest]) -> Vec<Diagnosis> {
    let workloads = manifests
        .iter()
        .filter(|manifest| WORKLOADS.contains(&manifest.kind()));
    workloads
        .filter_map(|workload| agent_port(workload, manifests))
        .collect()
}

/// A container told to send to UDP 6831 of its own Pod: only an injected sidecar listens there.
fn agent_port(workload: &Manifest, all: &[Manifest]) -> Option<Diagnosis> {
    let template = workload.node.at_path(&["spec", "template"])?;
    let containers = template.at_path(&["spec", "containers"])?.items();
    let (place, key) = containers
        .iter()
        .enumerate()
        .find_map(|(index, container)| sends(container, index))?;
    let annotation = template
        .at_path(&["metadata", "annotations", SIDECAR_INJECT])
        .and_then(Node::as_str);
    let sidecars: Vec<&Manifest> = all.iter().filter(|manifest| is_sidecar(manifest)).collect();
    let name = format!("{} {}", workload.kind(), workload.name());
    let diagnosis = match (wanted(annotation), sidecars.as_slice()) {
        (false, _) => {
            let message =
                format!("{name} sends spans to UDP {AGENT_PORT} of its own Pod, where nothing listens");
            let mend = format!(
                "annotate the Pod template with {SIDECAR_INJECT}: \"true\", or send to a collector's Service"
            );
            Diagnosis::error(place, key, message, mend)
        }
        (true, []) => {
            let message = format!(
                "{name} sends spans to UDP {AGENT_PORT} of its own Pod and asks for a sidecar, but no OpenTelemetryCollector in mode sidecar with the receiver jaeger, protocol thrift_compact, is among the manifests"
            );
            Diagnosis::warning(place, key, message, "add one, or send to a collector's Service")
        }
        (true, [sidecar, ..]) => {
            let message = format!(
                "{name} sends spans to UDP {AGENT_PORT} of its own Pod; this only works with the injected sidecar {} ({})",
                sidecar.name(),
                sidecar.place()
            );
            let mend = format!(
                "keep the annotation {SIDECAR_INJECT}; an application started on the host itself reaches the sidecar at 127.0.0.1:{AGENT_PORT}"
            );
            Diagnosis::warning(place, key, message, mend)
        }
    };
    Some(diagnosis)
}

fn wanted(annotation: Option<&str>) -> bool {
    annotation.is_some_and(|value| !value.is_empty() && !value.eq_ignore_ascii_case("false"))
}

/// Where a container is told to send to the agent's port on localhost, if it is.
fn sends(container: &Node, index: usize) -> Option<(karez_document::Place, String)> {
    let key = format!("spec.template.spec.containers[{index}]");
    for list in ["args", "command"] {
        let items = container.get(list).map_or(&[][..], Node::items);
        let names_port = |item: &&Node| item.as_str().is_some_and(ends_with_port);
        if let Some(item) = items.iter().find(names_port) {
            return local(items.iter().filter_map(Node::as_str))
                .then(|| (item.place(), format!("{key}.{list}")));
        }
    }
    let env = container.get("env").map_or(&[][..], Node::items);
    let value = |entry: &'_ Node| entry.get("value").and_then(Node::as_str).map(str::to_owned);
    let port = env
        .iter()
        .find(|entry| value(entry).is_some_and(|text| ends_with_port(&text)))?;
    let values: Vec<String> = env.iter().filter_map(value).collect();
    local(values.iter().map(String::as_str)).then(|| (port.place(), format!("{key}.env")))
}

fn ends_with_port(text: &str) -> bool {
    let before = text.strip_suffix(AGENT_PORT);
    before.is_some_and(|before| !before.ends_with(|c: char| c.is_ascii_digit()))
}

/// Whether the host among these is the Pod itself; without any host the usual one is localhost.
fn local<'a>(texts: impl Iterator<Item = &'a str>) -> bool {
    let texts: Vec<&str> = texts.collect();
    let names_local = texts
        .iter()
        .any(|text| text.contains("localhost") || text.contains("127.0.0.1"));
    let names_host = texts
        .iter()
        .any(|text| text.to_ascii_lowercase().contains("host"));
    names_local || !names_host
}

fn is_sidecar(manifest: &Manifest) -> bool {
    manifest.kind() == "OpenTelemetryCollector"
        && manifest.object["spec"]["mode"] == "sidecar"
        && manifest.object["spec"]["config"]
            .to_string()
            .contains("thrift_compact")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;

    const APP: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: myapp}\nspec:\n  template:\n    metadata:\n      annotations: {sidecar.opentelemetry.io/inject: \"true\"}\n    spec:\n      containers:\n      - name: myapp\n        args: [\"-address.host=localhost\", \"-address.port=6831\"]\n";
    const SIDECAR: &str = "apiVersion: opentelemetry.io/v1alpha1\nkind: OpenTelemetryCollector\nmetadata: {name: side}\nspec:\n  mode: sidecar\n  config: |\n    receivers: {jaeger: {protocols: {thrift_compact: }}}\n";

    fn diagnoses(texts: &[&str]) -> Vec<String> {
        let manifests: Vec<Manifest> = texts
            .iter()
            .enumerate()
            .flat_map(|(i, text)| parse(&format!("{i}.yaml"), text).unwrap())
            .collect();
        diagnose(&manifests).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn says_that_only_the_sidecar_makes_it_work() {
        let found = diagnoses(&[APP, SIDECAR]);
        assert!(
            found[0].starts_with("0.yaml:11: warning: spec.template.spec.containers[0].args: "),
            "{found:?}"
        );
        assert!(
            found[0].contains("only works with the injected sidecar side (1.yaml:1)"),
            "{found:?}"
        );
    }

    #[test]
    fn a_missing_sidecar_or_annotation_is_pointed_out() {
        assert!(diagnoses(&[APP])[0].contains("no OpenTelemetryCollector in mode sidecar"));
        let bare = APP.replace("\"true\"", "\"false\"");
        assert!(diagnoses(&[&bare, SIDECAR])[0].contains(": error: "));
    }

    #[test]
    fn another_host_is_nobodys_business() {
        let other = APP.replace("localhost", "agent.tracing");
        assert!(diagnoses(&[&other, SIDECAR]).is_empty());
    }
}
