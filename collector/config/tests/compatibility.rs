//! The table of what the collector takes of the OpenTelemetry Collector's configuration, made by trying each key.
//!
//! `KAREZ_UPDATE_DOCS=1 cargo test -p karez-collector-config --test compatibility` writes `docs/collector/compatibility.md`;
//! without it the page is compared with what would be written. A key that is not supported must be an error that names it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::PathBuf;

use karez_collector_config::check;
use karez_document::Origin;

/// A component: its section, its types (the usual one first), what it needs to be valid, and keys with a value each.
struct Tried {
    section: &'static str,
    kinds: &'static [&'static str],
    needs: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

const fn tried(
    section: &'static str,
    kinds: &'static [&'static str],
    needs: &'static str,
    keys: &'static [(&'static str, &'static str)],
) -> Tried {
    Tried {
        section,
        kinds,
        needs,
        keys,
    }
}

const GRPC_SERVER: &[(&str, &str)] = &[
    ("endpoint", "localhost:1"),
    ("transport", "tcp"),
    ("tls", "{cert_file: a, key_file: b}"),
    ("tls.client_ca_file", "a"),
    ("tls.client_ca_file_reload", "true"),
    ("tls.min_version", "\"1.3\""),
    ("tls.max_version", "\"1.3\""),
    ("tls.reload_interval", "1m"),
    ("tls.cipher_suites", "[TLS_AES_128_GCM_SHA256]"),
    ("tls.curve_preferences", "[X25519]"),
    ("max_recv_msg_size_mib", "8"),
    ("max_concurrent_streams", "16"),
    ("read_buffer_size", "1"),
    ("write_buffer_size", "1"),
    ("keepalive.server_parameters.time", "1m"),
    ("keepalive.server_parameters.timeout", "20s"),
    ("keepalive.server_parameters.max_connection_idle", "1m"),
    ("keepalive.server_parameters.max_connection_age", "1m"),
    ("keepalive.server_parameters.max_connection_age_grace", "1m"),
    (
        "keepalive.enforcement_policy",
        "{min_time: 10s, permit_without_stream: true}",
    ),
    ("auth", "{authenticator: basicauth}"),
    ("include_metadata", "true"),
    ("middlewares", "[]"),
];

const HTTP_SERVER: &[(&str, &str)] = &[
    ("endpoint", "localhost:1"),
    ("tls", "{cert_file: a, key_file: b}"),
    (
        "cors",
        "{allowed_origins: [a], allowed_headers: [b], exposed_headers: [c], max_age: 5}",
    ),
    ("auth", "{authenticator: basicauth}"),
    ("auth", "{authenticator: basicauth, request_params: [a]}"),
    ("max_request_body_size", "5"),
    ("include_metadata", "true"),
    ("response_headers", "{a: b}"),
    ("compression_algorithms", "[gzip]"),
    ("read_timeout", "5s"),
    ("read_header_timeout", "5s"),
    ("write_timeout", "5s"),
    ("idle_timeout", "5s"),
    ("keep_alives_enabled", "false"),
    ("middlewares", "[]"),
];

const CLIENT_TLS: &[(&str, &str)] = &[
    ("tls.insecure", "true"),
    ("tls.insecure_skip_verify", "true"),
    ("tls.server_name_override", "a"),
    ("tls.ca_file", "a"),
    ("tls.ca_pem", "a"),
    ("tls.include_system_ca_certs_pool", "true"),
    ("tls.cert_file, tls.key_file", "a"),
    ("tls.min_version", "\"1.2\""),
    ("tls.max_version", "\"1.3\""),
    ("tls.reload_interval", "1m"),
    ("tls.cipher_suites", "[TLS_AES_128_GCM_SHA256]"),
    ("tls.curve_preferences", "[X25519]"),
    ("tls.tpm", "{enabled: true}"),
];

const GRPC_CLIENT: &[(&str, &str)] = &[
    ("compression", "zstd"),
    (
        "keepalive",
        "{time: 10s, timeout: 5s, permit_without_stream: true}",
    ),
    ("read_buffer_size", "1"),
    ("write_buffer_size", "1"),
    ("wait_for_ready", "true"),
    ("headers", "{a: b}"),
    ("user_agent", "a"),
    ("balancer_name", "round_robin"),
    ("authority", "a"),
    ("auth", "{authenticator: bearertokenauth}"),
    ("middlewares", "[]"),
];

const HTTP_CLIENT: &[(&str, &str)] = &[
    ("proxy_url", "http://a:1"),
    ("timeout", "5s"),
    ("headers", "{a: b}"),
    ("auth", "{authenticator: bearertokenauth}"),
    ("compression", "zstd"),
    ("compression_params", "{level: 3}"),
    ("read_buffer_size", "1"),
    ("write_buffer_size", "1"),
    ("max_idle_conns", "5"),
    ("max_idle_conns_per_host", "5"),
    ("max_conns_per_host", "5"),
    ("idle_conn_timeout", "5s"),
    ("disable_keep_alives", "true"),
    ("http2_read_idle_timeout", "5s"),
    ("http2_ping_timeout", "5s"),
    ("cookies", "{enabled: true}"),
    ("force_attempt_http2", "true"),
    ("middlewares", "[]"),
];

const SENDING: &[(&str, &str)] = &[
    (
        "retry_on_failure",
        "{enabled: true, initial_interval: 5s, randomization_factor: 0.5, multiplier: 1.5, max_interval: 30s, max_elapsed_time: 5m}",
    ),
    (
        "sending_queue",
        "{enabled: true, num_consumers: 10, queue_size: 1000}",
    ),
    ("sending_queue.sizer", "bytes"),
    ("sending_queue.block_on_overflow", "true"),
    ("sending_queue.wait_for_result", "true"),
    ("sending_queue.storage", "file_storage"),
    (
        "sending_queue.batch",
        "{flush_timeout: 200ms, min_size: 10, max_size: 20, sizer: items}",
    ),
    ("sending_queue.batch.partition", "{metadata_keys: [a]}"),
];

const ACTIONS: &str = "attributes: [{key: a, value: b, action: upsert}]";

const COMPONENTS: &[Tried] = &[
    tried(
        "receivers",
        &["otlp"],
        "protocols: {grpc: }",
        &[(
            "protocols.http",
            "{traces_url_path: /a, metrics_url_path: /b, logs_url_path: /c}",
        )],
    ),
    tried(
        "receivers",
        &["jaeger"],
        "protocols: {grpc: }",
        &[
            ("protocols.grpc", "{endpoint: 'localhost:1'}"),
            ("protocols.thrift_http", "{endpoint: 'localhost:1'}"),
            (
                "protocols.thrift_compact",
                "{endpoint: 'localhost:1', queue_size: 1, max_packet_size: 1, workers: 1, socket_buffer_size: 1}",
            ),
            ("protocols.thrift_binary", "{endpoint: 'localhost:1'}"),
            ("remote_sampling", "{}"),
        ],
    ),
    tried(
        "receivers",
        &["zipkin"],
        "",
        &[("endpoint", "localhost:1"), ("parse_string_tags", "true")],
    ),
    tried(
        "receivers",
        &["prometheus"],
        "config: {scrape_configs: [{job_name: a, static_configs: [{targets: ['a:1']}]}]}",
        &[
            (
                "target_allocator",
                "{endpoint: 'http://a', interval: 30s, collector_id: a}",
            ),
            ("report_extra_scrape_metrics", "true"),
            ("trim_metric_suffixes", "true"),
            ("use_start_time_metric", "true"),
            ("start_time_metric_regex", "a"),
            ("api_server", "{enabled: true}"),
            ("ignore_metadata", "true"),
        ],
    ),
    tried("receivers", &["k8s_events"], "", &[]),
    tried("receivers", &["kubeletstats", "kubelet_stats"], "", &[]),
    tried("receivers", &["hostmetrics", "host_metrics"], "", &[]),
    tried("receivers", &["filelog", "file_log"], "", &[]),
    tried(
        "processors",
        &["batch"],
        "",
        &[
            ("timeout", "1s"),
            ("send_batch_size", "1"),
            ("send_batch_max_size", "10000"),
            ("metadata_keys", "[a]"),
            ("metadata_cardinality_limit", "5"),
        ],
    ),
    tried(
        "processors",
        &["memory_limiter"],
        "check_interval: 1s, limit_mib: 100",
        &[
            ("limit_percentage", "50"),
            ("spike_limit_mib", "10"),
            ("spike_limit_percentage", "10"),
            ("min_gc_interval_when_soft_limited", "10s"),
            ("min_gc_interval_when_hard_limited", "10s"),
            ("ballast_size_mib", "5"),
        ],
    ),
    tried("processors", &["resource"], ACTIONS, &[]),
    tried(
        "processors",
        &["attributes"],
        "actions: [{key: a, action: delete}]",
        &[
            ("include", "{match_type: regexp, services: [a]}"),
            ("exclude", "{match_type: strict, span_names: [a]}"),
        ],
    ),
    tried(
        "processors",
        &["k8sattributes", "k8s_attributes"],
        "",
        &[
            ("auth_type", "kubeConfig"),
            ("context", "a"),
            ("passthrough", "true"),
            ("extract", "{metadata: [k8s.pod.name]}"),
            ("filter", "{node: a}"),
            ("pod_association", "[{sources: [{from: connection}]}]"),
            ("exclude", "{pods: [{name: a}]}"),
            ("wait_for_metadata", "true"),
            ("wait_for_metadata_timeout", "5s"),
        ],
    ),
    tried(
        "processors",
        &["filter"],
        "metrics: {exclude: {match_type: strict, metric_names: [a]}}",
        &[
            ("error_mode", "ignore"),
            ("spans", "{include: {match_type: strict, services: [a]}}"),
            (
                "metrics.include",
                "{match_type: regexp, metric_names: [a], resource_attributes: [{key: a, value: b}]}",
            ),
            (
                "logs",
                "{include: {match_type: strict, bodies: [a], severity_number: {min: INFO}}}",
            ),
            ("metrics.include (expr)", "{match_type: expr, expressions: [a]}"),
            ("traces", "{span: [a]}"),
            ("metrics.metric", "[a]"),
            ("metrics.datapoint", "[a]"),
            ("logs.log_record", "[a]"),
            ("profiles", "{}"),
            ("trace_conditions", "[a]"),
            ("metric_conditions", "[a]"),
            ("log_conditions", "[a]"),
        ],
    ),
    tried(
        "processors",
        &["probabilistic_sampler"],
        "sampling_percentage: 5",
        &[
            ("hash_seed", "5"),
            ("mode", "equalizing"),
            ("fail_closed", "true"),
            ("sampling_precision", "4"),
            ("attribute_source", "traceID"),
            ("from_attribute", "a"),
            ("sampling_priority", "a"),
        ],
    ),
    tried(
        "processors",
        &["metricstransform", "metrics_transform"],
        "transforms: [{include: a, action: update, new_name: b}]",
        &[
            (
                "transforms",
                "[{include: a, match_type: regexp, action: combine, new_name: b, aggregation_type: sum, submatch_case: lower, experimental_match_labels: {a: b}, operations: [{action: aggregate_labels, label_set: [a], aggregation_type: median}]}]",
            ),
            (
                "transforms (group)",
                "[{include: a, action: group, group_resource_labels: {a: b}}]",
            ),
        ],
    ),
    tried("processors", &["transform"], "", &[]),
    tried("processors", &["tail_sampling"], "", &[]),
    tried("processors", &["groupbytrace"], "", &[]),
    tried(
        "exporters",
        &["otlp", "otlp_grpc"],
        "endpoint: 'a:1'",
        &[("timeout", "5s")],
    ),
    tried(
        "exporters",
        &["otlphttp", "otlp_http"],
        "endpoint: 'http://a:1'",
        &[
            ("traces_endpoint", "http://a:1/x"),
            ("metrics_endpoint", "http://a:1/x"),
            ("logs_endpoint", "http://a:1/x"),
            ("profiles_endpoint", "http://a:1/x"),
            ("encoding", "json"),
        ],
    ),
    tried(
        "exporters",
        &["debug"],
        "",
        &[
            ("verbosity", "detailed"),
            ("sampling_initial", "1"),
            ("sampling_thereafter", "1"),
            ("use_internal_logger", "false"),
            ("output_paths", "[stdout]"),
            ("sending_queue", "{}"),
        ],
    ),
    tried(
        "exporters",
        &["logging"],
        "",
        &[
            ("loglevel", "debug"),
            ("verbosity", "normal"),
            ("sampling_initial", "1"),
            ("sampling_thereafter", "1"),
        ],
    ),
    tried(
        "exporters",
        &["file"],
        "path: a",
        &[
            ("format", "proto"),
            (
                "rotation",
                "{max_megabytes: 1, max_days: 1, max_backups: 1, localtime: true}",
            ),
            ("compression", "zstd"),
            ("flush_interval", "1s"),
            ("append", "true"),
            ("create_directory", "true"),
            ("directory_permissions", "\"0755\""),
            ("encoding", "a"),
        ],
    ),
    tried(
        "exporters",
        &["file"],
        "path: a*",
        &[(
            "group_by",
            "{enabled: true, resource_attribute: a, max_open_files: 5}",
        )],
    ),
    tried(
        "exporters",
        &["prometheus"],
        "endpoint: 'localhost:1'",
        &[
            ("namespace", "a"),
            ("const_labels", "{a: b}"),
            ("send_timestamps", "true"),
            ("metric_expiration", "5m"),
            ("resource_to_telemetry_conversion", "{enabled: true}"),
            ("enable_open_metrics", "true"),
            ("add_metric_suffixes", "true"),
            ("translation_strategy", "UnderscoreEscapingWithSuffixes"),
        ],
    ),
    tried(
        "exporters",
        &["prometheusremotewrite", "prometheus_remote_write"],
        "endpoint: 'http://a:1'",
        &[
            ("namespace", "a"),
            ("external_labels", "{a: b}"),
            ("add_metric_suffixes", "true"),
            ("send_metadata", "true"),
            ("target_info", "{enabled: true}"),
            (
                "remote_write_queue",
                "{enabled: true, queue_size: 5, num_consumers: 1}",
            ),
            ("resource_to_telemetry_conversion", "{enabled: true}"),
            ("wal", "{directory: a}"),
            ("max_batch_size_bytes", "5"),
            ("protobuf_message", "io.prometheus.write.v2.Request"),
        ],
    ),
    tried(
        "exporters",
        &["zipkin"],
        "endpoint: 'http://a:1'",
        &[("format", "proto"), ("default_service_name", "a")],
    ),
    tried(
        "exporters",
        &["loadbalancing", "load_balancing"],
        "protocol: {otlp: {tls: {insecure: true}}}, resolver: {static: {hostnames: [a]}}",
        &[
            ("routing_key", "service"),
            ("routing_key", "resource"),
            ("routing_key", "metric"),
            ("routing_key", "streamID"),
            ("routing_key", "attributes"),
            ("routing_attributes", "[a]"),
            ("timeout", "5s"),
            ("retry_on_failure", "{enabled: true}"),
            ("sending_queue", "{enabled: true}"),
        ],
    ),
    tried(
        "exporters",
        &["loadbalancing"],
        "protocol: {otlp: }, resolver: {dns: {hostname: a}}",
        &[
            (
                "resolver.dns",
                "{hostname: a, port: 1, interval: 1s, timeout: 1s}",
            ),
            ("resolver.aws_cloud_map", "{namespace: a}"),
        ],
    ),
    tried(
        "exporters",
        &["loadbalancing"],
        "protocol: {otlp: }, resolver: {k8s: {service: a.b}}",
        &[(
            "resolver.k8s",
            "{service: a.b, ports: [1], timeout: 1s, return_hostnames: true}",
        )],
    ),
    tried(
        "exporters",
        &["jaeger"],
        "endpoint: 'a:1', tls: {insecure: true}",
        &[],
    ),
    tried("exporters", &["jaeger_storage_exporter"], "trace_storage: s", &[]),
    tried("exporters", &["kafka"], "", &[]),
    tried("connectors", &["forward"], "", &[]),
    tried(
        "connectors",
        &["count"],
        "",
        &[
            (
                "spans",
                "{a: {description: b, attributes: [{key: c, default_value: d}]}}",
            ),
            ("spanevents", "{a: }"),
            ("metrics", "{a: }"),
            ("datapoints", "{a: }"),
            ("logs", "{a: }"),
            ("spans (conditions)", "{a: {conditions: [b]}}"),
        ],
    ),
    tried(
        "connectors",
        &["spanmetrics", "span_metrics"],
        "",
        &[
            ("histogram", "{unit: s, explicit: {buckets: [1ms]}}"),
            ("histogram", "{exponential: {max_size: 160}}"),
            ("histogram", "{disable: true}"),
            ("histogram", "{dimensions: [{name: a}]}"),
            ("dimensions", "[{name: a, default: b}]"),
            ("calls_dimensions", "[{name: a}]"),
            ("exclude_dimensions", "[status.code]"),
            ("namespace", "a"),
            ("aggregation_temporality", "AGGREGATION_TEMPORALITY_DELTA"),
            ("metrics_flush_interval", "15s"),
            ("metrics_expiration", "5m"),
            ("series_expiration", "5m"),
            ("aggregation_cardinality_limit", "5"),
            ("resource_metrics_cache_size", "5"),
            ("resource_metrics_key_attributes", "[a]"),
            ("dimensions_cache_size", "5"),
            ("exemplars", "{enabled: true, max_per_data_point: 5}"),
            ("events", "{enabled: true, dimensions: [{name: a}]}"),
            ("include_instrumentation_scope", "[a]"),
            ("add_resource_attributes", "true"),
        ],
    ),
    tried("connectors", &["routing"], "", &[]),
    tried("connectors", &["servicegraph"], "", &[]),
    tried(
        "extensions",
        &["health_check"],
        "",
        &[
            ("endpoint", "localhost:1"),
            ("port", "5"),
            ("path", "/a"),
            ("response_body", "{healthy: a, unhealthy: b}"),
            ("check_collector_pipeline", "{enabled: true}"),
            ("http", "{}"),
            ("grpc", "{}"),
            ("component_health", "{}"),
        ],
    ),
    tried("extensions", &["pprof"], "", &[]),
    tried(
        "extensions",
        &["zpages"],
        "",
        &[("endpoint", "localhost:1"), ("expvar", "{enabled: true}")],
    ),
    tried(
        "extensions",
        &["basicauth"],
        "htpasswd: {inline: 'a:b'}",
        &[("htpasswd.file", "a")],
    ),
    tried(
        "extensions",
        &["basicauth"],
        "client_auth: {username: a, password: b}",
        &[
            ("client_auth.username_file", "a"),
            ("client_auth.password_file", "a"),
        ],
    ),
    tried(
        "extensions",
        &["bearertokenauth"],
        "token: a",
        &[
            ("scheme", "a"),
            ("header", "a"),
            ("tokens", "[a]"),
            ("filename", "a"),
        ],
    ),
    tried(
        "extensions",
        &["oidc"],
        "issuer_url: 'http://a', audience: a",
        &[
            ("attribute", "a"),
            ("issuer_ca_path", "a"),
            ("username_claim", "a"),
            ("groups_claim", "a"),
            ("ignore_audience", "true"),
            (
                "providers",
                "[{issuer_url: 'http://b', audience: b, public_keys_file: a}]",
            ),
        ],
    ),
    tried(
        "extensions",
        &["oauth2client"],
        "client_id: a, client_secret: b, token_url: 'http://a'",
        &[
            ("client_id_file", "a"),
            ("client_secret_file", "a"),
            ("scopes", "[a]"),
            ("endpoint_params", "{a: b}"),
            ("timeout", "5s"),
            ("expiry_buffer", "5m"),
            ("tls", "{insecure: true}"),
            ("grant_type", "client_credentials"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("audience", "a"),
            ("claims", "{a: b}"),
        ],
    ),
    tried(
        "extensions",
        &["headers_setter"],
        "headers: [{key: a, value: b}]",
        &[
            (
                "headers",
                "[{action: insert, key: a, from_context: b, default_value: c}]",
            ),
            ("headers", "[{action: update, key: a, from_attribute: b}]"),
            ("headers", "[{action: delete, key: a}]"),
            ("headers", "[{action: upsert, key: a, value_file: b}]"),
            ("additional_auth", "a"),
        ],
    ),
    tried(
        "extensions",
        &["file_storage"],
        "",
        &[
            ("directory", "a"),
            ("create_directory", "true"),
            ("directory_permissions", "\"0750\""),
            ("timeout", "1s"),
            ("fsync", "true"),
            ("compaction", "{on_start: true}"),
            ("recreate", "true"),
        ],
    ),
    tried(
        "extensions",
        &["jaeger_storage"],
        "backends: {s: {memory: }}",
        &[
            (
                "backends.t",
                "{disk: {directory: a, max_traces: 5, max_bytes: 5}}",
            ),
            ("backends.s.memory.max_traces", "5"),
            ("backends.s.badger", "{}"),
            ("backends.s.elasticsearch", "{}"),
            ("backends.s.opensearch", "{}"),
            ("backends.s.cassandra", "{}"),
            ("backends.s.grpc", "{}"),
            ("metric_backends", "{}"),
        ],
    ),
    tried(
        "extensions",
        &["jaeger_query"],
        "storage: {traces: s}",
        &[
            ("base_path", "/a"),
            ("http", "{endpoint: 'localhost:1'}"),
            ("grpc", "{endpoint: 'localhost:1'}"),
            ("ui", "{config_file: a}"),
            ("max_clock_skew_adjust", "1s"),
            ("bearer_token_propagation", "true"),
            ("enable_tracing", "true"),
        ],
    ),
    tried("extensions", &["memory_ballast"], "", &[]),
];

/// Keys with a value each.
type Keys = &'static [(&'static str, &'static str)];
/// A title, the component in which the blocks are tried, and their keys.
type Shared = (&'static str, Tried, &'static [Keys]);

/// Blocks that many components share, tried in one that has them.
const SHARED: &[Shared] = &[
    (
        "gRPC servers",
        tried("receivers", &["otlp"], "protocols.grpc", &[]),
        &[GRPC_SERVER],
    ),
    (
        "HTTP servers",
        tried("receivers", &["zipkin"], "", &[]),
        &[HTTP_SERVER],
    ),
    (
        "Servers on a socket of the file system",
        tried("receivers", &["zipkin"], "endpoint: /run/a.sock", &[]),
        &[&[("transport", "unix")]],
    ),
    (
        "gRPC clients",
        tried("exporters", &["otlp"], "endpoint: 'a:1'", &[]),
        &[GRPC_CLIENT, CLIENT_TLS],
    ),
    (
        "HTTP clients",
        tried("exporters", &["otlphttp"], "endpoint: 'https://a:1'", &[]),
        &[HTTP_CLIENT, CLIENT_TLS],
    ),
    (
        "Exporters that send",
        tried("exporters", &["otlp"], "endpoint: 'a:1'", &[]),
        &[SENDING],
    ),
];

/// A document with the component in use, its block as lines below its key.
fn document(section: &str, kind: &str, block: &[String]) -> String {
    let body = |own: bool| match own {
        true => block
            .iter()
            .map(|line| format!("    {line}\n"))
            .collect::<String>(),
        false => String::new(),
    };
    let mut text = String::new();
    let mut part = |name: &str, fixed: &str| {
        let own = name == section;
        let _ = writeln!(text, "{name}:\n{fixed}");
        if own {
            let _ = write!(text, "  {kind}:\n{}", body(true));
        }
    };
    part("receivers", "  otlp/in: {protocols: {grpc: }}");
    part("processors", "  batch/x: ");
    part("exporters", "  debug/out: ");
    part("connectors", "  forward/x: ");
    part(
        "extensions",
        "  basicauth/x: {htpasswd: {inline: 'a:b'}}\n  file_storage/x: \n  jaeger_storage/x: {backends: {s: {memory: }}}\n  bearertokenauth/x: {token: a}",
    );
    let mut traces = (vec!["otlp/in"], vec![], vec!["debug/out"]);
    let mut extensions = vec![
        "basicauth/x",
        "file_storage/x",
        "jaeger_storage/x",
        "bearertokenauth/x",
    ];
    let mut more = String::new();
    // A pipeline of a signal that the component carries.
    let signal = match (section, kind) {
        ("receivers" | "exporters", kind) if kind.starts_with("prometheus") => "metrics",
        ("processors", "metricstransform" | "metrics_transform") => "metrics",
        _ => "traces",
    };
    match section {
        "receivers" => traces.0 = vec![kind],
        "processors" => traces.1 = vec![kind],
        "exporters" => traces.2 = vec![kind],
        "connectors" => {
            traces.2 = vec![kind];
            let to = if kind == "forward" { "traces/b" } else { "metrics" };
            more = format!(", {to}: {{receivers: [{kind}], exporters: [debug/out]}}");
        }
        _ => extensions.push(kind),
    }
    let (receivers, processors, exporters) = traces;
    let _ = write!(
        text,
        "service:\n  extensions: {extensions:?}\n  pipelines: {{{signal}: {{receivers: {receivers:?}, processors: {processors:?}, exporters: {exporters:?}}}{more}}}\n"
    );
    text
}

/// The block with a key at a dotted path, as lines of flow mappings.
fn block(needs: &str, key: Option<(&str, &str)>) -> Vec<String> {
    let mut tree = serde_json::Map::new();
    let origin = Origin::file("needs");
    let mut merge = |yaml: &str| {
        let parsed = karez_document::yaml::parse(yaml, &origin).unwrap_or_else(|d| panic!("{yaml}: {d}"));
        if let Some(node) = parsed.first() {
            into(&mut tree, node.to_json());
        }
    };
    if let Some(path) = needs.strip_prefix("protocols.") {
        merge(&format!("{{protocols: {{{path}: }}}}"));
    } else {
        merge(&format!("{{{needs}}}"));
    }
    if let Some((path, value)) = key {
        let prefix = if needs.starts_with("protocols.") {
            format!("{needs}.")
        } else {
            String::new()
        };
        for path in path.split(", ") {
            let path = path.split(" (").next().unwrap();
            let path = format!("{prefix}{path}");
            let parts: Vec<&str> = path.split('.').collect();
            let opening: String = parts.iter().map(|part| format!("{{{part}: ")).collect();
            merge(&format!("{opening}{value}{}", "}".repeat(parts.len())));
        }
        // A server's TLS needs its certificate, whatever else is tried.
        if prefix.contains("grpc") && path.starts_with("tls.") {
            merge("{protocols: {grpc: {tls: {cert_file: a, key_file: b}}}}");
        }
    }
    tree.into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect()
}

fn into(tree: &mut serde_json::Map<String, serde_json::Value>, more: serde_json::Value) {
    let serde_json::Value::Object(more) = more else {
        return;
    };
    for (key, value) in more {
        match (tree.get_mut(&key), value) {
            (Some(serde_json::Value::Object(below)), value @ serde_json::Value::Object(_)) => {
                into(below, value)
            }
            (_, value) => {
                tree.insert(key, value);
            }
        }
    }
}

/// Keys that are taken and change nothing: there is nothing to tune, or what they would change is not there yet.
const WITHOUT_EFFECT: &[&str] = &[
    "read_buffer_size",
    "write_buffer_size",
    "wait_for_ready",
    "balancer_name",
    "max_idle_conns",
    "max_conns_per_host",
    "http2_read_idle_timeout",
    "http2_ping_timeout",
    "force_attempt_http2",
    "read_timeout",
    "read_header_timeout",
    "write_timeout",
    "idle_timeout",
    "compression_algorithms",
    "min_gc_interval_when_soft_limited",
    "min_gc_interval_when_hard_limited",
    "check_collector_pipeline",
    "recreate",
    "metric_backends",
    "grpc",
    "ui",
    "max_clock_skew_adjust",
    "bearer_token_propagation",
    "enable_tracing",
    "profiles_endpoint",
    "dimensions_cache_size",
    "error_mode",
];

/// What is said about a component.
#[derive(Debug, PartialEq)]
enum Said {
    Yes,
    Old(String),
    No(String),
}

fn said(section: &str, kind: &str, block: &[String]) -> Said {
    let text = document(section, kind, block);
    // Names that the shared blocks use.
    let text = text
        .replace(
            "\"authenticator\":\"basicauth\"",
            "\"authenticator\":\"basicauth/x\"",
        )
        .replace(
            "\"authenticator\":\"bearertokenauth\"",
            "\"authenticator\":\"bearertokenauth/x\"",
        )
        .replace("\"storage\":\"file_storage\"", "\"storage\":\"file_storage/x\"");
    let (_, diagnoses) = check(&text, &Origin::file("c.yaml"), &|_| None);
    let about = format!("{section}.{kind}");
    let mut of = diagnoses
        .iter()
        .filter(|d| d.key == about || d.key.starts_with(&format!("{about}.")));
    if let Some(error) = diagnoses.iter().find(|d| d.is_error()) {
        assert!(of.clone().any(|d| d.is_error()), "{about}: {error}\n{text}");
        return Said::No(error.message.clone());
    }
    match of.find(|d| d.message.contains("old spelling") || d.message.contains("no effect")) {
        Some(old) => Said::Old(format!("{}: {}", old.message, old.mend)),
        None => Said::Yes,
    }
}

fn row(page: &mut String, name: &str, said: &Said) {
    let key = name.trim_start_matches('`').split(':').next().unwrap_or(name);
    let _ = match said {
        Said::Yes if WITHOUT_EFFECT.contains(&key) => writeln!(page, "| {name} | taken | without effect |"),
        Said::Yes => writeln!(page, "| {name} | yes | |"),
        Said::Old(text) => writeln!(page, "| {name} | yes | {} |", text.replace('|', "\\|")),
        Said::No(text) => writeln!(
            page,
            "| {name} | **no** | an error: {} |",
            text.replace('|', "\\|").replace('\n', " ")
        ),
    };
}

fn page() -> String {
    let mut page = String::from(
        "# What is taken of the OpenTelemetry Collector's configuration\n\n\
         Made by trying each key (`collector/config/tests/compatibility.rs`). What is not supported is an error that says so, with file and\n\
         line; a component that is configured but in no pipeline is only mentioned. What is taken without effect changes nothing.\n",
    );
    let mut section = "";
    for tried in COMPONENTS {
        if tried.section != section {
            section = tried.section;
            let _ = write!(page, "\n## {}\n", section);
        }
        let names = tried
            .kinds
            .iter()
            .map(|kind| format!("`{kind}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let _ = write!(page, "\n{names}\n\n| key | supported | |\n|---|---|---|\n");
        let needed = block(tried.needs, None);
        let mut all = tried.kinds.iter().map(|kind| said(section, kind, &needed));
        let first = all.next().unwrap();
        assert!(
            all.all(|other| (other == Said::Yes) == (first == Said::Yes)),
            "{names} mean the same"
        );
        let shown = match tried.needs {
            "" => "(the component)".to_owned(),
            needs => format!("`{}`", needs.replace('|', "\\|")),
        };
        row(&mut page, &shown, &first);
        if matches!(first, Said::No(_)) {
            continue;
        }
        for (key, value) in tried.keys {
            let said = said(section, tried.kinds[0], &block(tried.needs, Some((key, value))));
            row(
                &mut page,
                &format!("`{key}: {}`", value.replace('|', "\\|")),
                &said,
            );
        }
    }
    page.push_str("\n## Blocks that components share\n");
    for (title, tried, lists) in SHARED {
        let _ = write!(page, "\n{title}\n\n| key | supported | |\n|---|---|---|\n");
        for (key, value) in lists.iter().flat_map(|list| list.iter()) {
            let said = said(
                tried.section,
                tried.kinds[0],
                &block(tried.needs, Some((key, value))),
            );
            row(
                &mut page,
                &format!("`{key}: {}`", value.replace('|', "\\|")),
                &said,
            );
        }
    }
    page
}

#[test]
fn the_page_says_what_holds() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/collector/compatibility.md");
    let page = page();
    if std::env::var_os("KAREZ_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/collector/compatibility.md is not what holds; write it with KAREZ_UPDATE_DOCS=1"
    );
}
