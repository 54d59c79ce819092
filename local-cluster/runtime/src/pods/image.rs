//! What a container's image and command mean here: Karez itself, a program that Karez replaces, or something else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

/// What runs for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The binary with these arguments.
    Karez(Vec<String>),
    /// The binary as a collector with the document of [`all_in_one`].
    AllInOne,
    /// Nothing; the message says why.
    Other(String),
}

/// What runs for `container`.
pub(crate) fn program(container: &Container) -> Program {
    let image = container.image.as_deref().unwrap_or_default();
    let path = repository(image);
    let last = path.rsplit('/').next().unwrap_or_default();
    let command = container.command.as_deref().unwrap_or_default();
    let args = || container.args.iter().flatten().cloned();
    let entry = command
        .first()
        .map(|text| text.rsplit('/').next().unwrap_or_default());
    if entry == Some("karez") || (last == "karez" && entry.is_none()) {
        return Program::Karez(command.iter().skip(1).cloned().chain(args()).collect());
    }
    if last.contains("target-allocator") {
        if entry.is_some_and(|name| name != "target-allocator") {
            return Program::Other(format!(
                "image {image:?} is a target allocator, and its command is another program"
            ));
        }
        let all = ["allocator".to_owned()]
            .into_iter()
            .chain(command.iter().skip(1).cloned());
        return Program::Karez(all.chain(args()).collect());
    }
    let collector = last.starts_with("opentelemetry-collector") && !last.contains("operator");
    let jaeger = path.ends_with("jaegertracing/all-in-one") || path.ends_with("jaegertracing/jaeger");
    let own_entry = entry.is_none_or(|name| name.starts_with("otelcol") || name.starts_with("jaeger"));
    let as_collector = || {
        let all = ["collector".to_owned()]
            .into_iter()
            .chain(command.iter().skip(1).cloned());
        Program::Karez(all.chain(args()).collect())
    };
    if collector && own_entry {
        return as_collector();
    }
    if jaeger && own_entry {
        let configured = args().any(|arg| arg == "--config" || arg.starts_with("--config="));
        return if configured {
            as_collector()
        } else {
            Program::AllInOne
        };
    }
    Program::Other(format!(
        "image {image:?} is not one Karez runs; it runs its own programs and, in their place, the OpenTelemetry \
         Collector's and Jaeger's. Run this one beside the site"
    ))
}

/// The image without registry tag and digest.
fn repository(image: &str) -> &str {
    let untagged = image.split('@').next().unwrap_or_default();
    match untagged.rfind(':') {
        Some(at) if !untagged[at..].contains('/') => &untagged[..at],
        _ => untagged,
    }
}

/// Whether the container also takes its ports on 127.0.0.1: an injected sidecar, or one of ours beside a program that
/// runs elsewhere and expects it on its own machine.
pub(crate) fn takes_host_ports(pod: &Pod, container: &Container) -> bool {
    let injected =
        pod.labels().contains_key("sidecar.opentelemetry.io/injected") && container.name == "otc-container";
    let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    injected
        || containers
            .iter()
            .any(|other| matches!(program(other), Program::Other(_)))
}

/// The document of an all-in-one Jaeger, in a collector's words.
pub(crate) fn all_in_one(environment: &BTreeMap<String, String>) -> String {
    let otlp = environment
        .get("COLLECTOR_OTLP_ENABLED")
        .is_none_or(|value| value != "false");
    let limit = environment
        .get("MEMORY_MAX_TRACES")
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(100_000);
    let (receiver, name) = if otlp {
        (
            "  otlp:\n    protocols:\n      grpc:\n        endpoint: 0.0.0.0:4317\n      http:\n        endpoint: 0.0.0.0:4318\n",
            "otlp, ",
        )
    } else {
        ("", "")
    };
    format!(
        "extensions:\n  jaeger_storage:\n    backends:\n      memstore:\n        memory:\n          max_traces: {limit}\n\
         \x20 jaeger_query:\n    storage:\n      traces: memstore\n    http:\n      endpoint: 0.0.0.0:16686\n\
         \x20 health_check:\n    endpoint: 0.0.0.0:14269\n\
         receivers:\n{receiver}  jaeger:\n    protocols:\n      grpc:\n        endpoint: 0.0.0.0:14250\n\
         \x20     thrift_compact:\n        endpoint: 0.0.0.0:6831\n      thrift_http:\n        endpoint: 0.0.0.0:14268\n\
         exporters:\n  jaeger_storage_exporter:\n    trace_storage: memstore\n\
         service:\n  extensions: [jaeger_storage, jaeger_query, health_check]\n  pipelines:\n    traces:\n\
         \x20     receivers: [{name}jaeger]\n      exporters: [jaeger_storage_exporter]\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(image: &str, command: &[&str], args: &[&str]) -> Program {
        let value = json!({"name": "c", "image": image, "command": command, "args": args});
        program(&serde_json::from_value(value).unwrap())
    }

    fn karez(args: &[&str]) -> Program {
        Program::Karez(args.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn ours_and_what_we_replace() {
        assert_eq!(of("karez:0.1.0", &["karez"], &["router"]), karez(&["router"]));
        assert_eq!(
            of("registry.example:5000/x/karez", &[], &["router"]),
            karez(&["router"])
        );
        assert_eq!(
            of("anything", &["/usr/bin/karez", "collector"], &["-c"]),
            karez(&["collector", "-c"])
        );
        for image in [
            "otel/opentelemetry-collector-contrib:0.58.0",
            "ghcr.io/open-telemetry/opentelemetry-collector-releases/opentelemetry-collector@sha256:00",
        ] {
            assert_eq!(
                of(image, &[], &["--config=/conf/c.yaml"]),
                karez(&["collector", "--config=/conf/c.yaml"])
            );
        }
        assert_eq!(
            of("jaegertracing/jaeger:2", &[], &["--config", "x"]),
            karez(&["collector", "--config", "x"])
        );
        assert_eq!(
            of("jaegertracing/all-in-one", &[], &["--memory.max-traces=5"]),
            Program::AllInOne
        );
    }

    #[test]
    fn target_allocators_are_ours() {
        assert_eq!(
            of(
                "ghcr.io/open-telemetry/opentelemetry-operator/target-allocator:1",
                &[],
                &["--enable-prometheus-cr-watcher"]
            ),
            karez(&["allocator", "--enable-prometheus-cr-watcher"])
        );
    }

    #[test]
    fn everything_else_is_left_alone() {
        for (image, command) in [
            ("ghcr.io/frzifus/jaeger-otel-test:latest", &[][..]),
            ("karez", &["sh"]),
            ("otel/opentelemetry-collector", &["sh"]),
            ("", &[]),
        ] {
            assert!(matches!(of(image, command, &[]), Program::Other(_)), "{image}");
        }
    }

    #[test]
    fn the_all_in_one_document_has_otlp_unless_told_otherwise() {
        assert!(all_in_one(&BTreeMap::new()).contains("receivers: [otlp, jaeger]"));
        let off = BTreeMap::from([("COLLECTOR_OTLP_ENABLED".to_owned(), "false".to_owned())]);
        assert!(!all_in_one(&off).contains("otlp"));
    }
}
