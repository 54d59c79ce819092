//! What is said about a document, and what it means.

use karez_collector_config::common::Sizer;
use karez_collector_config::values::Compression;
use karez_collector_config::{CollectorConfig, ExporterConfig, ReceiverConfig, Text, check, check_all};
use karez_document::Origin;
use proptest::prelude::*;

fn said(text: &str) -> (Option<CollectorConfig>, Vec<String>) {
    let (config, diagnoses) = check(text, &Origin::file("c.yaml"), &|_| None);
    (config, diagnoses.iter().map(ToString::to_string).collect())
}

const GOOD: &str = "
receivers:
  otlp: {protocols: {grpc:, http: {endpoint: 0.0.0.0:1, traces_url_path: /x}}}
exporters:
  otlp/a:
    endpoint: a:4317
    compression: zstd
    sending_queue: {sizer: bytes, queue_size: 5}
    retry_on_failure: {initial_interval: 1s}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp/a]}
";

#[test]
fn a_good_document_means_what_it_says() {
    let (config, said) = said(GOOD);
    assert_eq!(said, Vec::<String>::new());
    let config = config.unwrap();
    let ReceiverConfig::Otlp(otlp) = &config.receivers[0].config else {
        panic!("otlp")
    };
    assert_eq!(otlp.grpc.as_ref().unwrap().endpoint, "");
    assert_eq!(otlp.http.as_ref().unwrap().paths.traces_url_path, "/x");
    let ExporterConfig::Otlp(otlp) = &config.exporters[0].config else {
        panic!("otlp")
    };
    assert_eq!(otlp.client.compression, Compression::Zstd);
    assert_eq!(
        (
            otlp.sending.sending_queue.sizer,
            otlp.sending.sending_queue.queue_size
        ),
        (Sizer::Bytes, 5)
    );
    assert_eq!(otlp.sending.retry_on_failure.initial_interval.as_secs(), 1);
    assert_eq!(config.telemetry.metrics, ["localhost:8888"]);
}

#[test]
fn all_errors_are_named_at_once() {
    let (config, said) = said(
        "
receivers:
  otpl: {protocols: {grpc: {}}}
  otlp: {protocols: {grpc: {endpoint: localhost, tsl: {}}}}
processors:
  batch: {timeout: soon}
  resource: {attributes: [{key: a, action: upsrt, value: 1}, {key: b, action: insert}]}
  file_storage: {}
exporters:
  otlp: {endpoint: 'a:1', auth: {authenticator: basicauth}}
  debug: {verbosity: loud}
service:
  extensions: [health]
  pipelines:
    traces: {receivers: [otlp], processors: [batch, filter], exporters: [dbug]}
    spans: {receivers: [otlp], exporters: [debug]}
",
    );
    assert!(config.is_none());
    let expected = [
        "c.yaml:3: error: receivers.otpl: unknown receiver `otpl`; did you mean `otlp`?",
        "c.yaml:4: error: receivers.otlp.protocols.grpc.endpoint: `localhost` has no port; write HOST:PORT, such as 0.0.0.0:4317",
        "c.yaml:4: error: receivers.otlp.protocols.grpc.tsl: unknown key; did you mean `tls`?",
        "c.yaml:6: error: processors.batch.timeout: `soon` is no duration; write a number with a unit, such as 200ms, 5s or 1m",
        "c.yaml:7: error: processors.resource.attributes[0].action: `upsrt` is not known here; did you mean `upsert`?",
        "c.yaml:7: error: processors.resource.attributes[1].value: is missing; add `value:`, `from_attribute:` or `from_context:`",
        "c.yaml:8: error: processors.file_storage: unknown processor `file_storage`; known: batch, memory_limiter, resource, attributes",
        "c.yaml:10: error: exporters.otlp.auth.authenticator: names the extension `basicauth`, which is not configured; add it below `extensions:` and to `service.extensions`",
        "c.yaml:11: error: exporters.debug.verbosity: `loud` is not known here; write one of",
        "c.yaml:13: error: service.extensions: references extension \"health\" which is not configured; add it below `extensions:` or remove it here",
        "c.yaml:15: error: service.pipelines.traces.processors: references processor \"filter\" which is not configured",
        "c.yaml:15: error: service.pipelines.traces.exporters: references exporter \"dbug\" which is not configured; did you mean `debug`?",
        "c.yaml:16: error: service.pipelines.spans: `spans` is no signal that Karez carries; write traces, metrics or logs, with an optional /name",
    ];
    let errors: Vec<_> = said.iter().filter(|line| line.contains(": error: ")).collect();
    for want in expected {
        assert!(
            errors.iter().any(|line| line.starts_with(want)),
            "missing: {want}\nin {errors:#?}"
        );
    }
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
}

#[test]
fn an_empty_document_says_what_is_needed() {
    let (config, said) = said("");
    assert!(config.is_none());
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said.iter()
            .any(|line| line.contains("no receiver configuration specified in config"))
    );
}

#[test]
fn several_documents_and_sets_are_merged() {
    let text = |text: &str, inline| Text {
        text: text.into(),
        origin: Origin::file("c"),
        inline,
    };
    let texts = [
        text(GOOD, false),
        text("exporters: {otlp/a: {endpoint: '${HOST}:1'}}", false),
        text("service::telemetry::metrics::level: none", true),
    ];
    let sets = ["exporters.otlp/a.tls.insecure=true".to_owned()];
    let (config, said) = check_all(&texts, &sets, &|name| (name == "HOST").then(|| "h".to_owned()));
    assert!(said.is_empty(), "{said:#?}");
    let config = config.unwrap();
    let ExporterConfig::Otlp(otlp) = &config.exporters[0].config else {
        panic!("otlp")
    };
    assert_eq!(
        (otlp.client.endpoint.as_str(), otlp.client.tls.insecure),
        ("h:1", true)
    );
    assert!(config.telemetry.metrics.is_empty());
}

#[test]
fn credentials_in_the_clear_are_the_exporters_fault() {
    let (config, said) = said(
        "
extensions: {basicauth: {client_auth: {username: u, password: secret-word}}}
receivers: {otlp: {protocols: {grpc: }}}
exporters: {otlp: {endpoint: 'a:1', tls: {insecure: true}, auth: {authenticator: basicauth}}}
service: {extensions: [basicauth], pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
",
    );
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(
        said[0].contains("exporters.otlp.auth: basic credentials would travel in the clear"),
        "{said:#?}"
    );
    let config = config.unwrap();
    assert!(config.exporters[0].fault.is_some());
    assert!(!format!("{config:?}").contains("secret-word"));
}

#[test]
fn keys_without_effect_are_named() {
    let (config, said) = said(
        "
receivers: {otlp: {protocols: {grpc: {keepalive: {enforcement_policy: {min_time: 1s}}}}}}
exporters: {otlp: {endpoint: 'a:1', tls: {cipher_suites: [a], curve_preferences: []}}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
",
    );
    assert!(config.is_none());
    assert_eq!(
        said,
        [
            "c.yaml:2: warning: receivers.otlp.protocols.grpc.keepalive.enforcement_policy: has no effect; pings are tolerated, however often they come",
            "c.yaml:3: error: exporters.otlp.tls.cipher_suites: is not supported: the TLS library's own suites are used; remove it",
        ]
    );
}

#[test]
fn a_queue_on_disk_needs_a_storage_that_is_started_and_gives_nothing_up() {
    let document = |started: &str, storage: &str| {
        format!(
            "
receivers: {{otlp: {{protocols: {{grpc: }}}}}}
exporters: {{otlp: {{endpoint: 'a:1', tls: {{insecure: true}}, sending_queue: {{storage: {storage}}}}}}}
extensions: {{file_storage: {{directory: /q}}, health_check: }}
service: {{extensions: [{started}], pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}}}
"
        )
    };
    let (config, _) = said(&document("file_storage, health_check", "file_storage"));
    let config = config.unwrap();
    let ExporterConfig::Otlp(otlp) = &config.exporters[0].config else {
        panic!("otlp")
    };
    assert!(otlp.sending.retry_on_failure.max_elapsed_time.is_zero());
    for (started, storage, expected) in [
        (
            "health_check",
            "file_storage",
            "which `service.extensions` does not start",
        ),
        ("health_check", "health_check", "cannot keep a queue"),
        ("health_check", "other", "which is not configured"),
    ] {
        let (config, said) = said(&document(started, storage));
        assert!(config.is_none(), "{said:?}");
        assert!(said.iter().any(|line| line.contains(expected)), "{said:?}");
    }
}

proptest! {
    #[test]
    fn no_document_panics(lines in proptest::collection::vec("( {0,6})(- )?(receivers|otlp|exporters|tls|service|pipelines|traces|a)?(: )?(\\[otlp\\]|\\$\\{A|1s|~|<REPLACE: x>|\\{|x)?", 0..30)) {
        let _ = said(&lines.join("\n"));
    }
}

#[test]
fn headers_that_a_queue_would_lose_are_told() {
    let lost = |queue: &str, change: &str| {
        let (config, said) = said(&format!(
            "
receivers: {{otlp: {{protocols: {{grpc: {{include_metadata: true}}}}}}}}
exporters:
  otlp:
    endpoint: a:4317
    auth: {{authenticator: headers_setter}}
    sending_queue: {{{queue}}}
extensions:
  headers_setter: {{headers: [{{key: X-Scope-OrgID, {change}}}]}}
  file_storage: {{directory: /tmp}}
service:
  extensions: [headers_setter, file_storage]
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp]}}
"
        ));
        assert!(config.is_some(), "{said:?}");
        said.iter().filter(|said| said.contains("headers_setter")).count()
    };
    assert_eq!(lost("storage: file_storage", "from_context: tenant"), 1);
    assert_eq!(lost("storage: file_storage", "value: fixed"), 0);
    assert_eq!(lost("batch: {}", "from_context: tenant"), 1);
    assert_eq!(
        lost(
            "batch: {partition: {metadata_keys: [tenant]}}",
            "from_context: tenant"
        ),
        0
    );
    assert_eq!(lost("", "from_context: tenant"), 0);
}

#[test]
fn servers_listen_on_tcp_or_on_a_path() {
    let at = |block: &str| {
        said(&format!(
            "receivers: {{otlp: {{protocols: {{grpc: {block}}}}}}}\nexporters: {{debug: }}\nservice: {{pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}"
        ))
        .1
    };
    assert!(at("{transport: unix, endpoint: /run/a.sock}").is_empty());
    assert!(at("{transport: tcp, endpoint: 'localhost:1'}").is_empty());
    for (block, key) in [
        ("{transport: unix}", "receivers.otlp.protocols.grpc.endpoint"),
        (
            "{transport: unix, endpoint: 'localhost:1'}",
            "receivers.otlp.protocols.grpc.endpoint",
        ),
        (
            "{transport: udp, endpoint: 'localhost:1'}",
            "receivers.otlp.protocols.grpc.transport",
        ),
        (
            "{endpoint: /run/a.sock}",
            "receivers.otlp.protocols.grpc.endpoint",
        ),
    ] {
        let said = at(block);
        assert!(
            said.iter().any(|line| line.contains(&format!("error: {key}:"))),
            "{block}: {said:?}"
        );
    }
}
