use std::time::Duration;

use karez_document::{Origin, yaml};

use super::*;
use crate::values::Compression;

fn telemetry(text: &str) -> (Telemetry, Vec<String>) {
    let documents = yaml::parse(text, &Origin::file("c")).unwrap();
    let mut diagnoses = Vec::new();
    let telemetry = read(documents.first(), &mut diagnoses);
    (telemetry, diagnoses.iter().map(ToString::to_string).collect())
}

#[test]
fn periodic_readers_push_by_grpc_and_http() {
    let (telemetry, said) = telemetry(
        "
metrics:
  readers:
    - pull: {exporter: {prometheus: {host: '::1', port: 1}}}
    - periodic:
        interval: 5000
        exporter:
          otlp: {protocol: grpc, endpoint: 'http://a:4317', headers: [{name: x, value: y}], timeout: 2000}
    - periodic:
        exporter:
          otlp: {protocol: http/protobuf, endpoint: 'https://b:4318', headers: {x: y}, compression: gzip, certificate: ca.pem}
    - periodic: {exporter: {otlp_http: {endpoint: 'http://c/own/path', headers_list: 'x=1,y=2', tls: {ca_file: d}}}}
    - periodic: {exporter: {otlp_grpc: {endpoint: 'd:1', tls: {insecure: true}}}}
resource: {service.name: mine, service.instance.id: null, replicas: 3}
",
    );
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(telemetry.metrics, ["[::1]:1"]);
    let endpoints: Vec<_> = telemetry.pushes.iter().map(|p| p.exporter.endpoint()).collect();
    assert_eq!(
        endpoints,
        [
            "http://a:4317",
            "https://b:4318/v1/metrics",
            "http://c/own/path",
            "d:1"
        ]
    );
    let [first, second, third, fourth] = &telemetry.pushes[..] else {
        panic!("four")
    };
    assert_eq!(first.interval, Duration::from_secs(5));
    assert_eq!(second.interval, Duration::from_secs(60));
    let PushExporter::Grpc(grpc) = &first.exporter else {
        panic!("gRPC")
    };
    assert_eq!(grpc.sending.timeout, Duration::from_secs(2));
    assert_eq!(grpc.client.headers["x"].expose(), "y");
    assert_eq!(grpc.client.compression, Compression::None);
    let PushExporter::Http(http) = &second.exporter else {
        panic!("HTTP")
    };
    assert_eq!(
        (http.client.compression, http.client.tls.ca_file.as_str()),
        (Compression::Gzip, "ca.pem")
    );
    assert_eq!(http.client.headers["x"].expose(), "y");
    let PushExporter::Http(http) = &third.exporter else {
        panic!("HTTP")
    };
    assert_eq!(
        (http.client.headers.len(), http.client.tls.ca_file.as_str()),
        (2, "d")
    );
    let PushExporter::Grpc(grpc) = &fourth.exporter else {
        panic!("gRPC")
    };
    assert!(grpc.client.tls.insecure);
    assert_eq!(telemetry.resource["service.name"].as_deref(), Some("mine"));
    assert_eq!(telemetry.resource["service.instance.id"], None);
    assert_eq!(telemetry.resource["replicas"].as_deref(), Some("3"));
}

#[test]
fn only_pushed_metrics_are_served_nowhere_and_none_are_neither() {
    let reader = "readers: [{periodic: {exporter: {otlp: {protocol: grpc, endpoint: 'a:1'}}}}]";
    let (pushed, said) = telemetry(&format!("metrics: {{{reader}}}"));
    assert!(said.is_empty(), "{said:?}");
    assert!(pushed.metrics.is_empty() && pushed.pushes.len() == 1);
    let (none, _) = telemetry(&format!("metrics: {{level: none, {reader}}}"));
    assert!(none.metrics.is_empty() && none.pushes.is_empty());
}

#[test]
fn what_cannot_be_pushed_is_named_with_its_key() {
    let at = "service.telemetry.metrics.readers[0].periodic";
    for (periodic, key) in [
        ("{exporter: {console: {}}}", ".exporter.console"),
        ("{}", ".exporter"),
        ("{exporter: {otlp: {endpoint: 'a:1'}}}", ".exporter.otlp.protocol"),
        (
            "{exporter: {otlp: {protocol: http/json, endpoint: 'http://a:1'}}}",
            ".exporter.otlp.protocol",
        ),
        (
            "{exporter: {otlp: {protocol: grpc, endpoint: a}}}",
            ".exporter.otlp.endpoint",
        ),
        (
            "{exporter: {otlp: {protocol: http/protobuf, endpoint: 'a:1'}}}",
            ".exporter.otlp.endpoint",
        ),
        (
            "{exporter: {otlp_grpc: {endpoint: 'a:1', temporality_preference: delta}}}",
            ".exporter.otlp_grpc.temporality_preference",
        ),
        (
            "{exporter: {otlp_grpc: {endpoint: 'a:1', compression: zstd}}}",
            ".exporter.otlp_grpc.compression",
        ),
        (
            "{exporter: {otlp_http: {endpoint: 'http://a:1', encoding: json}}}",
            ".exporter.otlp_http.encoding",
        ),
        (
            "{exporter: {otlp_http: {endpoint: 'http://a:1', headers_list: x}}}",
            ".exporter.otlp_http.headers_list",
        ),
        (
            "{exporter: {otlp_http: {endpoint: 'http://a:1', surely: x}}}",
            ".exporter.otlp_http.surely",
        ),
        ("{every: 1, exporter: {otlp_grpc: {endpoint: 'a:1'}}}", ".every"),
    ] {
        let (_, said) = telemetry(&format!("metrics: {{readers: [{{periodic: {periodic}}}]}}"));
        let wanted = format!("error: {at}{key}:");
        assert!(
            said.iter().any(|line| line.contains(&wanted)),
            "{wanted} {said:?}"
        );
    }
}
