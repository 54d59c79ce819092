//! The configurations of others, as they stand: what is said about them.

use std::path::PathBuf;

use karez_collector_config::{CollectorConfig, check};
use karez_document::{Origin, yaml};

/// The input; nothing where it is missing and may be.
fn folder() -> Option<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let folder = std::env::var_os("KAREZ_ACCEPTANCE")
        .map_or_else(|| format!("{root}/../shared/acceptance").into(), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let missing = format!(
        "no acceptance input at {}; set KAREZ_ACCEPTANCE",
        folder.display()
    );
    let required = std::env::var("KAREZ_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "{missing}");
    eprintln!("SKIPPED: {missing}");
    None
}

/// Checks a file, or the `config: |` of the collector in it.
fn check_file(name: &str) -> Option<(Option<CollectorConfig>, Vec<String>)> {
    check_filled(name, &[])
}

/// The same with these texts in the place of others.
fn check_filled(name: &str, filled: &[(&str, &str)]) -> Option<(Option<CollectorConfig>, Vec<String>)> {
    let path = folder()?.join(name);
    let mut text = std::fs::read_to_string(&path).expect("the file");
    for (placeholder, value) in filled {
        assert!(text.contains(placeholder), "{placeholder}");
        text = text.replace(placeholder, value);
    }
    let origin = Origin::file(name.rsplit('/').next().expect("a name"));
    let embedded = yaml::parse(&text, &origin).ok().and_then(|documents| {
        let collector = documents
            .iter()
            .find_map(|d| d.at_path(&["spec", "config"]))?
            .clone();
        let inner = Origin::embedded(origin.file.clone(), collector.text_line());
        Some((collector.as_str()?.to_owned(), inner))
    });
    let (text, origin) = embedded.unwrap_or((text, origin));
    let (config, diagnoses) = check(&text, &origin, &|_| None);
    Some((config, diagnoses.iter().map(ToString::to_string).collect()))
}

#[test]
fn the_private_clouds_sidecar() {
    let Some((config, said)) = check_file("skupper-example/private-cloud/30-otel-collector.yaml") else {
        return;
    };
    assert_eq!(
        said,
        [
            "30-otel-collector.yaml:19: warning: processors: the section is empty; remove the key, or write components below it",
            "30-otel-collector.yaml:22: warning: exporters.logging: `logging` is an old spelling; write `debug`",
            "30-otel-collector.yaml:23: warning: exporters.otlp: the exporter is configured but in no pipeline, so nothing is sent by it; add `otlp` to the `exporters` of a pipeline, or remove it",
            "30-otel-collector.yaml:24: warning: exporters.otlp.endpoint: a gRPC endpoint needs no scheme; `http://` means without TLS; write `otel-liked-collector:4317` and `tls: {insecure: true}`",
        ]
    );
    assert_eq!(config.expect("a configuration").receivers.len(), 2);
}

#[test]
fn the_public_clouds_collector() {
    let Some((config, said)) = check_file("skupper-example/public-cloud/10-otel-collector.yaml") else {
        return;
    };
    assert_eq!(
        said,
        [
            "10-otel-collector.yaml:14: warning: processors: the section is empty; remove the key, or write components below it",
            "10-otel-collector.yaml:17: warning: exporters.logging: `logging` is an old spelling; write `debug`",
            "10-otel-collector.yaml:18: warning: exporters.jaeger.tls: there is no `tls:` block, so TLS is insisted on, which a Jaeger collector does not serve unless it is told to; write `tls: {insecure: true}`, or `tls: {}` if it does serve TLS",
            "10-otel-collector.yaml:19: error: exporters.jaeger.endpoint: `14250\"` is no port; write 14250",
        ]
    );
    let config = config.expect("the others run");
    let faulty: Vec<_> = config
        .exporters
        .values()
        .filter(|c| c.fault.is_some())
        .map(|c| c.id.to_string())
        .collect();
    assert_eq!(faulty, ["jaeger"]);
}

#[test]
fn the_blogs_placeholders_are_refused_with_their_keys() {
    let Some((config, said)) = check_file("blog/remote.yaml") else {
        return;
    };
    assert!(config.is_none());
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(
        said[0].starts_with(
            "remote.yaml:18: error: extensions.basicauth/server.htpasswd.inline: still holds the placeholder"
        ),
        "{said:#?}"
    );
    let Some((config, said)) = check_file("blog/edge.yaml") else {
        return;
    };
    assert!(config.is_none());
    let keys: Vec<_> = said
        .iter()
        .map(|line| line.split(": ").nth(2).unwrap_or_default())
        .collect();
    assert_eq!(
        keys,
        [
            "extensions.basicauth/client.client_auth.username",
            "extensions.basicauth/client.client_auth.password",
            "processors.resource.attributes.value",
            "processors.resource.attributes.value",
            "exporters.otlp.endpoint",
        ]
    );
}

#[test]
fn the_blog_filled_in_runs_and_its_mistake_is_named() {
    let filled = [(
        "<REPLACE: your backend credentials, e.g.: \"user-1:1234\">",
        "user-1:1234",
    )];
    let Some((config, said)) = check_filled("blog/remote.yaml", &filled) else {
        return;
    };
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(config.expect("a configuration").extensions.len(), 1);
    let filled = [
        ("<REPLACE: your basicauth username, e.g.: \"user-1\">", "user-1"),
        ("<REPLACE: your basicauth password, e.g.: \"1234\">", "\"1234\""),
        (
            "<REPLACE: your availability zone, e.g.: \"eu-west-1\">",
            "eu-west-1",
        ),
        ("<REPLACE: your cluster name, e.g.: \"edge-cluster-1\">", "edge-1"),
        (
            "<REPLACE: your domain endpoint, e.g.: \"traces.example.com:443\">",
            "traces.example.com:443",
        ),
    ];
    let Some((config, said)) = check_filled("blog/edge.yaml", &filled) else {
        return;
    };
    assert_eq!(
        said,
        [
            "edge.yaml:60: warning: processors.resource: the processor is configured but in no pipeline, so it changes nothing; add `resource` to the `processors` of a pipeline, or remove it",
            "edge.yaml:77: warning: exporters.logging: `logging` is an old spelling; write `debug`",
        ]
    );
    let config = config.expect("a configuration");
    assert!(config.exporters.values().all(|exporter| exporter.fault.is_none()));
}

#[test]
fn pattern_5() {
    let Some((config, said)) = check_file("pattern-5/agent.yaml") else {
        return;
    };
    assert!(config.is_some());
    assert_eq!(
        said,
        [
            "agent.yaml:1: warning: extensions: the section is empty; remove the key, or write components below it",
            "agent.yaml:8: warning: processors: the section is empty; remove the key, or write components below it",
            "agent.yaml:13: warning: exporters.otlp.insecure: is an old spelling; write it below `tls:`, as `tls: {insecure: …}`",
        ]
    );
    let Some((config, said)) = check_file("pattern-5/control-plane.yaml") else {
        return;
    };
    assert!(config.is_some());
    assert_eq!(
        said,
        [
            "control-plane.yaml:2: warning: extensions.oidc: the extension is configured but neither in `service.extensions` nor named by a receiver's `auth`: the receivers are open to anyone; write `service: {extensions: [oidc]}` and `auth: {authenticator: oidc}`, or remove it",
            "control-plane.yaml:11: warning: receivers.otlp.protocols.grpc.tls_settings: is an old spelling; write `tls`",
            "control-plane.yaml:15: warning: processors: the section is empty; remove the key, or write components below it",
            "control-plane.yaml:20: warning: exporters.jaeger.insecure: is an old spelling; write it below `tls:`, as `tls: {insecure: …}`",
        ]
    );
    let Some((config, said)) = check_file("pattern-5/workload.yaml") else {
        return;
    };
    assert!(config.is_some());
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said[0].contains("extensions.bearertokenauth") && said[0].contains("open to anyone"),
        "{said:#?}"
    );
    assert!(
        said[2].contains("exporters.otlp.ca_file: is an old spelling"),
        "{said:#?}"
    );
}
