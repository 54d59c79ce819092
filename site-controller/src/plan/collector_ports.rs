//! Which ports a collector's configuration opens, as the operator infers them (0.98; the legacy OTLP port as 0.58).

use k8s_openapi::api::core::v1::{ContainerPort, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// Receivers with one port: name, port, protocol, application protocol.
const SINGLE: &[(&str, u16, Option<&str>, Option<&str>)] = &[
    ("zipkin", 9411, Some("TCP"), Some("http")),
    ("opencensus", 55678, None, Some("http")),
    ("awsxray", 2000, None, None),
    ("carbon", 2003, None, None),
    ("collectd", 8081, None, None),
    ("fluentforward", 8006, None, None),
    ("influxdb", 8086, None, None),
    ("sapm", 7276, None, None),
    ("signalfx", 9943, None, None),
    ("splunk_hec", 8088, None, None),
    ("statsd", 8125, Some("UDP"), None),
    ("wavefront", 2003, None, None),
];

/// Receivers that scrape or read: an endpoint of theirs is where they go, not where they listen.
const SCRAPERS: &[&str] = &[
    "prometheus",
    "kubeletstats",
    "sshcheck",
    "cloudfoundry",
    "vcenter",
    "oracledb",
    "snmp",
    "googlecloudpubsub",
    "chrony",
    "jmx",
    "podman_stats",
    "pulsar",
    "docker_stats",
    "aerospike",
    "zookeeper",
    "prometheus_simple",
    "saphana",
    "riak",
    "redis",
    "rabbitmq",
    "purefb",
    "postgresql",
    "nsxt",
    "nginx",
    "mysql",
    "memcached",
    "httpcheck",
    "haproxy",
    "flinkmetrics",
    "couchdb",
    "hostmetrics",
    "filelog",
    "k8s_cluster",
    "k8s_events",
    "k8sobjects",
];

/// One protocol of a receiver with several.
struct Protocol {
    name: &'static str,
    port: u16,
    transport: Option<&'static str>,
    application: Option<&'static str>,
    target: bool,
}

const fn protocol(
    name: &'static str,
    port: u16,
    transport: Option<&'static str>,
    application: Option<&'static str>,
    target: bool,
) -> Protocol {
    Protocol {
        name,
        port,
        transport,
        application,
        target,
    }
}

const OTLP: &[Protocol] = &[
    protocol("grpc", 4317, None, Some("grpc"), true),
    protocol("http", 4318, None, Some("http"), true),
];
const JAEGER: &[Protocol] = &[
    protocol("grpc", 14250, Some("TCP"), Some("grpc"), false),
    protocol("thrift_http", 14268, Some("TCP"), Some("http"), false),
    protocol("thrift_compact", 6831, Some("UDP"), None, false),
    protocol("thrift_binary", 6832, Some("UDP"), None, false),
];
const SKYWALKING: &[Protocol] = &[
    protocol("grpc", 11800, None, Some("grpc"), true),
    protocol("http", 12800, None, Some("http"), true),
];
const LOKI: &[Protocol] = &[
    protocol("grpc", 9095, None, Some("grpc"), true),
    protocol("http", 3100, None, Some("http"), true),
];

/// Ports of the receivers in use and of `prometheus` exporters with an endpoint, sorted by name.
pub(crate) fn service_ports(config: &Value, legacy_otlp: bool) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for id in in_use(config, "receivers") {
        let settings = config.pointer("/receivers").and_then(|all| all.get(&id));
        if let Some(settings) = settings {
            ports.extend(receiver(&id, settings, legacy_otlp));
        }
    }
    for id in in_use(config, "exporters") {
        if !kind(&id).starts_with("prometheus") || kind(&id) == "prometheusremotewrite" {
            continue;
        }
        let endpoint = config
            .pointer("/exporters")
            .and_then(|all| all.get(&id))
            .and_then(endpoint);
        ports.extend(endpoint.map(|port| service_port(&id, port, Some("TCP"), None, None)));
    }
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

/// The listed ports first, then the inferred ones that do not collide with them.
pub(crate) fn merged(listed: &[ServicePort], inferred: Vec<ServicePort>) -> Vec<ServicePort> {
    let transport = |port: &ServicePort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let mut all = listed.to_vec();
    for mut port in inferred {
        let same_number =
            |other: &ServicePort| other.port == port.port && transport(other) == transport(&port);
        if listed.iter().any(same_number) {
            continue;
        }
        if all.iter().any(|other| other.name == port.name) {
            port.name = Some(format!("port-{}", port.port));
            if all.iter().any(|other| other.name == port.name) {
                continue;
            }
        }
        all.push(port);
    }
    all
}

/// The container's ports: those that it really opens, and its own metrics.
pub(crate) fn container_ports(service_ports: &[ServicePort], metrics: u16) -> Vec<ContainerPort> {
    let mut ports: Vec<ContainerPort> = service_ports
        .iter()
        // A Service port that leads to another one's target is no port of the container.
        .filter(|port| !matches!(&port.target_port, Some(IntOrString::Int(target)) if *target != port.port))
        .map(|port| ContainerPort {
            name: port.name.clone().map(|name| short(&name, port.port)),
            container_port: port.port,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            ..ContainerPort::default()
        })
        .collect();
    ports.push(ContainerPort {
        name: Some("metrics".to_owned()),
        container_port: i32::from(metrics),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    });
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports.dedup_by(|a, b| a.container_port == b.container_port && a.protocol == b.protocol);
    ports
}

/// The port of the collector's own metrics.
pub(crate) fn metrics_port(config: &Value) -> u16 {
    config
        .pointer("/service/telemetry/metrics/address")
        .and_then(Value::as_str)
        .and_then(port_of)
        .unwrap_or(8888)
}

/// Ids that some pipeline names under `receivers` or `exporters`, each once, in order.
fn in_use(config: &Value, section: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    let pipelines = config.pointer("/service/pipelines").and_then(Value::as_object);
    for pipeline in pipelines.into_iter().flat_map(|map| map.values()) {
        let named = pipeline.get(section).and_then(Value::as_array);
        for id in named.into_iter().flatten().filter_map(Value::as_str) {
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
    }
    ids
}

fn kind(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}

fn receiver(id: &str, settings: &Value, legacy_otlp: bool) -> Vec<ServicePort> {
    let protocols = match kind(id) {
        "otlp" => OTLP,
        "jaeger" => JAEGER,
        "skywalking" => SKYWALKING,
        "loki" => LOKI,
        other => return single(id, other, settings).into_iter().collect(),
    };
    let written = settings.get("protocols");
    let mut ports = Vec::new();
    for protocol in protocols {
        // `grpc:` alone counts as given.
        let Some(block) = written.and_then(|written| written.get(protocol.name)) else {
            continue;
        };
        let name = format!("{id}-{}", protocol.name);
        if let Some(port) = endpoint(block) {
            let transport = protocol.transport.unwrap_or("TCP");
            ports.push(service_port(
                &name,
                port,
                Some(transport),
                protocol.application,
                None,
            ));
            continue;
        }
        let target = protocol.target.then_some(protocol.port);
        ports.push(service_port(
            &name,
            protocol.port,
            protocol.transport,
            protocol.application,
            target,
        ));
        if kind(id) == "otlp" && protocol.name == "http" && legacy_otlp {
            let mut legacy = service_port("", 55681, None, Some("http"), Some(4318));
            legacy.name = Some(clean(&format!("{id}-http-legacy")));
            ports.push(legacy);
        }
    }
    ports
}

fn single(id: &str, kind: &str, settings: &Value) -> Option<ServicePort> {
    if SCRAPERS.contains(&kind) {
        return None;
    }
    let known = SINGLE.iter().find(|(name, ..)| *name == kind);
    let written = endpoint(settings);
    match (known, written) {
        (Some((_, port, transport, application)), written) => Some(service_port(
            id,
            written.unwrap_or(*port),
            *transport,
            *application,
            None,
        )),
        (None, Some(port)) => {
            let udp = kind == "udplog" || (kind == "syslog" && settings.get("udp").is_some());
            let transport =
                matches!(kind, "tcplog" | "udplog" | "syslog").then_some(if udp { "UDP" } else { "TCP" });
            Some(service_port(id, port, transport, None, None))
        }
        (None, None) => None,
    }
}

fn service_port(
    name: &str,
    port: u16,
    transport: Option<&str>,
    application: Option<&str>,
    target: Option<u16>,
) -> ServicePort {
    ServicePort {
        name: Some(short(name, i32::from(port))),
        port: i32::from(port),
        target_port: target.map(|port| IntOrString::Int(i32::from(port))),
        protocol: transport.map(ToOwned::to_owned),
        app_protocol: application.map(ToOwned::to_owned),
        ..ServicePort::default()
    }
}

/// A port's name, or `port-<number>` when it is longer than the 15 characters that a container's may have.
fn short(name: &str, port: i32) -> String {
    let cleaned = clean(name);
    let valid = cleaned
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && cleaned.chars().any(|c| c.is_ascii_lowercase())
        && !cleaned.starts_with('-')
        && !cleaned.ends_with('-');
    if name.len() > 15 || !valid {
        format!("port-{port}")
    } else {
        cleaned
    }
}

fn clean(name: &str) -> String {
    name.replace(['/', '_'], "-")
}

fn endpoint(settings: &Value) -> Option<u16> {
    let nested = |path: &str| settings.pointer(path).and_then(Value::as_str);
    [
        "/endpoint",
        "/listen_address",
        "/udp/listen_address",
        "/tcp/listen_address",
    ]
    .into_iter()
    .find_map(nested)
    .and_then(port_of)
}

/// The first `:<digits>` of a text.
pub(crate) fn port_of(text: &str) -> Option<u16> {
    text.split(':').skip(1).find_map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|port| *port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(ports: &[ServicePort]) -> Vec<(String, i32)> {
        ports
            .iter()
            .map(|port| (port.name.clone().unwrap(), port.port))
            .collect()
    }

    #[test]
    fn null_protocols_open_the_usual_ports_and_the_legacy_one() {
        let config = json!({
            "receivers": {"otlp": {"protocols": {"grpc": null, "http": null}}, "jaeger": {"protocols": {"grpc": null}}},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}}},
        });
        let ports = service_ports(&config, true);
        let expected = [
            ("otlp-grpc", 4317),
            ("otlp-http", 4318),
            ("otlp-http-legacy", 55681),
        ];
        assert_eq!(
            names(&ports),
            expected.map(|(name, port)| (name.to_owned(), port))
        );
        assert_eq!(ports[2].target_port, Some(IntOrString::Int(4318)));
        assert_eq!(ports[0].protocol, None);
        assert_eq!(ports[0].app_protocol.as_deref(), Some("grpc"));
        assert_eq!(service_ports(&config, false).len(), 2);
        let in_container: Vec<i32> = container_ports(&ports, 8888)
            .iter()
            .map(|p| p.container_port)
            .collect();
        assert_eq!(in_container, [8888, 4317, 4318]);
    }

    #[test]
    fn an_endpoint_sets_protocol_and_drops_target_and_legacy() {
        let config = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:14318"}}}},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"]}}},
        });
        let ports = service_ports(&config, true);
        assert_eq!(names(&ports), [("otlp-http".to_owned(), 14318)]);
        assert_eq!(ports[0].protocol.as_deref(), Some("TCP"));
        assert_eq!(ports[0].target_port, None);
    }

    #[test]
    fn long_names_become_numbers() {
        let config = json!({
            "receivers": {
                "jaeger": {"protocols": {"thrift_compact": null}},
                "otlp/basicauth": {"protocols": {"grpc": null}},
            },
            "service": {"pipelines": {"traces": {"receivers": ["jaeger", "otlp/basicauth"]}}},
        });
        let expected = [("port-4317", 4317), ("port-6831", 6831)];
        assert_eq!(
            names(&service_ports(&config, true)),
            expected.map(|(n, p)| (n.to_owned(), p))
        );
    }

    #[test]
    fn listed_ports_win() {
        let listed = vec![service_port("mine", 4317, None, None, None)];
        let inferred = vec![
            service_port("otlp-grpc", 4317, Some("TCP"), None, None),
            service_port("mine", 4318, None, None, None),
        ];
        assert_eq!(
            names(&merged(&listed, inferred)),
            [("mine".to_owned(), 4317), ("port-4318".to_owned(), 4318)]
        );
    }

    #[test]
    fn a_stray_quote_is_not_part_of_the_port() {
        assert_eq!(port_of("host:14250\""), Some(14250));
        assert_eq!(port_of("http://host:4317"), Some(4317));
        assert_eq!(port_of("host"), None);
        assert_eq!(port_of("host:99999"), None);
    }
}
