use karez_collector_config::{ProcessorConfig, check};
use karez_document::Origin;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::*;

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Variant::StringValue(text.into())),
    })
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: text(value),
        ..KeyValue::default()
    }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource {
        attributes: vec![pair("service.name", service)],
        ..Resource::default()
    })
}

fn said(block: &str) -> Result<config::Filter, Vec<String>> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\nprocessors:\n  filter: {block}\n\
         service: {{pipelines: {{logs: {{receivers: [otlp], processors: [filter], exporters: [debug]}}}}}}"
    );
    let (config, said) = check(&document, &Origin::file("c"), &|_| None);
    let said = || said.iter().map(ToString::to_string).collect::<Vec<String>>();
    match &config.ok_or_else(said)?.processors[0].config {
        ProcessorConfig::Filter(config) => Ok((**config).clone()),
        other => panic!("{other:?}"),
    }
}

fn rules(block: &str) -> Rules {
    Rules::new(&said(block).unwrap()).unwrap()
}

fn metrics(rules: &Rules) -> Vec<String> {
    let metric = |name: &str| Metric {
        name: name.into(),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: vec![NumberDataPoint::default(); 2],
        })),
        ..Metric::default()
    };
    let of = |service: &str| ResourceMetrics {
        resource: resource(service),
        scope_metrics: vec![ScopeMetrics {
            metrics: vec![metric("a.one"), metric("a.two"), metric("b.one")],
            ..ScopeMetrics::default()
        }],
        ..ResourceMetrics::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![of("x"), of("y")],
    };
    let Some(left) = rules.sift(Batch::encode(Signal::Metrics, &request, 12)) else {
        return Vec::new();
    };
    let decoded: ExportMetricsServiceRequest = left.decode().unwrap();
    let mut names = Vec::new();
    for resource in decoded.resource_metrics {
        let service = resource.resource.unwrap().attributes[0]
            .value
            .clone()
            .unwrap()
            .value;
        let Some(Variant::StringValue(service)) = service else {
            panic!("a text")
        };
        for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            names.push(format!("{service}/{}", metric.name));
        }
    }
    assert_eq!(left.items, names.len() * 2);
    names
}

#[test]
fn metrics_are_kept_and_dropped_by_name_and_resource() {
    let strict = rules("{metrics: {include: {match_type: strict, metric_names: [a.one, b.one]}}}");
    assert_eq!(metrics(&strict), ["x/a.one", "x/b.one", "y/a.one", "y/b.one"]);
    let pattern = "{metrics: {include: {match_type: regexp, metric_names: ['^a']}, exclude: {match_type: regexp, metric_names: ['two$']}}}";
    assert_eq!(metrics(&rules(pattern)), ["x/a.one", "y/a.one"]);
    let by_resource =
        "{metrics: {exclude: {match_type: strict, resource_attributes: [{key: service.name, value: x}]}}}";
    assert_eq!(metrics(&rules(by_resource)), ["y/a.one", "y/a.two", "y/b.one"]);
    let either = "{metrics: {exclude: {match_type: strict, metric_names: [a.one], resource_attributes: [{key: service.name, value: x}]}}}";
    assert_eq!(metrics(&rules(either)), ["y/a.two", "y/b.one"]);
    let all = rules("{metrics: {exclude: {match_type: regexp, metric_names: ['.*']}}}");
    assert!(metrics(&all).is_empty());
}

#[test]
fn spans_are_kept_and_dropped_by_name_service_and_attribute() {
    let span = |name: &str| Span {
        name: name.into(),
        attributes: vec![pair("path", &format!("/{name}"))],
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource("x"),
            scope_spans: vec![ScopeSpans {
                spans: vec![span("one"), span("two"), span("three")],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let names = |block: &str| -> Vec<String> {
        let Some(left) = rules(block).sift(Batch::encode(Signal::Traces, &request, 3)) else {
            return Vec::new();
        };
        let decoded: ExportTraceServiceRequest = left.decode().unwrap();
        let spans = &decoded.resource_spans[0].scope_spans[0].spans;
        assert_eq!(left.items, spans.len());
        spans.iter().map(|span| span.name.clone()).collect()
    };
    let include = "{spans: {include: {match_type: regexp, services: ['^x$'], span_names: ['^t']}}}";
    assert_eq!(names(include), ["two", "three"]);
    let exclude = "{spans: {exclude: {match_type: strict, attributes: [{key: path, value: /two}]}}}";
    assert_eq!(names(exclude), ["one", "three"]);
    let nobody = "{spans: {include: {match_type: strict, services: [y]}}}";
    assert!(names(nobody).is_empty());
    let elsewhere = "{logs: {include: {match_type: strict, bodies: [y]}}}";
    assert_eq!(names(elsewhere).len(), 3);
}

#[test]
fn log_records_are_kept_and_dropped_by_severity_body_and_attribute() {
    let record = |body: &str, number| LogRecord {
        body: text(body),
        severity_number: number,
        attributes: vec![pair("k", body)],
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource("x"),
            scope_logs: vec![ScopeLogs {
                log_records: vec![record("a", 9), record("b", 17), record("c", 0)],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    let bodies = |block: &str| -> Vec<AnyValue> {
        let left = rules(block).sift(Batch::encode(Signal::Logs, &request, 3));
        let Some(left) = left else { return Vec::new() };
        let decoded: ExportLogsServiceRequest = left.decode().unwrap();
        let records = &decoded.resource_logs[0].scope_logs[0].log_records;
        records.iter().filter_map(|record| record.body.clone()).collect()
    };
    let of = |texts: &[&str]| -> Vec<AnyValue> { texts.iter().filter_map(|t| text(t)).collect() };
    let severe = "{logs: {include: {match_type: strict, severity_number: {min: warn}}}}";
    assert_eq!(bodies(severe), of(&["b"]));
    let undefined = "{logs: {include: {severity_number: {min: INFO2, match_undefined: true}}}}";
    assert_eq!(bodies(undefined), of(&["b", "c"]));
    let by_body = "{logs: {exclude: {match_type: regexp, bodies: ['[ab]']}}}";
    assert_eq!(bodies(by_body), of(&["c"]));
    let by_attribute = "{logs: {include: {match_type: strict, record_attributes: [{key: k, value: a}], resource_attributes: [{key: service.name, value: x}]}}}";
    assert_eq!(bodies(by_attribute), of(&["a"]));
}

#[test]
fn conditions_in_ottl_are_refused_with_what_is_supported() {
    let wrong = said("{metrics: {metric: ['name == \"x\"']}}")
        .unwrap_err()
        .join("\n");
    assert!(
        wrong.contains("processors.filter.metrics.metric: conditions in OTTL are not supported"),
        "{wrong}"
    );
    assert!(wrong.contains("metric_names"), "{wrong}");
    for block in [
        "{traces: {span: ['true']}}",
        "{log_conditions: ['true']}",
        "{metrics: {include: {match_type: expr, expressions: ['true']}}}",
        "{metrics: {include: {match_type: regexp, metric_names: ['(']}}}",
        "{logs: {include: {severity_number: {min: LOUD}}}}",
        "{spans: {include: {match_type: strict}}}",
        "{spams: {}}",
        "{}",
    ] {
        assert!(said(block).is_err(), "{block}");
    }
}
