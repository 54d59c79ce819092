use karez_collector_config::{ConnectorConfig, Signal, check};
use karez_document::Origin;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span::Event};

use super::*;
use crate::processors::edit::text;

fn counters(block: &str) -> Result<Vec<Counter>, String> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\nconnectors: {{count: {block}}}\n\
         service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [count]}}, metrics: {{receivers: [count], exporters: [debug]}}}}}}"
    );
    let (config, said) = check(&document, &Origin::file("c"), &|_| None);
    match &config.ok_or_else(|| format!("{said:#?}"))?.connectors[0].config {
        ConnectorConfig::Count(config) => Ok(tally::counters(config)),
        other => panic!("{other:?}"),
    }
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(text(value)),
        ..KeyValue::default()
    }
}

fn batch() -> Batch {
    let span = |env: Option<&str>, events: usize| Span {
        attributes: env.map(|env| pair("env", env)).into_iter().collect(),
        events: vec![Event::default(); events],
        ..Span::default()
    };
    let of = |service: &str, spans: Vec<Span>| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![pair("service.name", service)],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![
            of(
                "a",
                vec![
                    span(Some("x"), 2),
                    span(Some("y"), 0),
                    span(Some("x"), 0),
                    span(None, 0),
                ],
            ),
            of("b", vec![span(None, 1)]),
        ],
    };
    Batch::encode(Signal::Traces, &request, 5)
}

/// `service/metric{attributes}` and the count.
fn rows(block: &str) -> Vec<(String, i64)> {
    let Some(counts) = count(&counters(block).unwrap(), &batch(), 7) else {
        return Vec::new();
    };
    assert_eq!(
        Batch::scan(Signal::Metrics, counts.payload.clone())
            .unwrap()
            .items,
        counts.items
    );
    let request: ExportMetricsServiceRequest = counts.decode().unwrap();
    let mut rows = Vec::new();
    for resource in &request.resource_metrics {
        let service = resource.resource.as_ref().unwrap().attributes[0]
            .value
            .clone()
            .unwrap();
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let Some(Data::Sum(sum)) = &metric.data else {
                panic!("a sum")
            };
            assert!(sum.is_monotonic && sum.aggregation_temporality == 1);
            for point in &sum.data_points {
                let Some(Value::AsInt(count)) = point.value else {
                    panic!("a number")
                };
                let values = point
                    .attributes
                    .iter()
                    .map(|pair| shown(pair.value.as_ref().unwrap()));
                let values: Vec<String> = values.collect();
                rows.push((format!("{}/{}{values:?}", shown(&service), metric.name), count));
            }
        }
    }
    rows
}

fn shown(value: &opentelemetry_proto::tonic::common::v1::AnyValue) -> String {
    match &value.value {
        Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn row(name: &str, count: i64) -> (String, i64) {
    (name.to_owned(), count)
}

#[test]
fn counts_spans_and_events_of_each_resource() {
    assert_eq!(
        rows("{}"),
        [
            row("a/trace.span.count[]", 4),
            row("a/trace.span.event.count[]", 2),
            row("b/trace.span.count[]", 1),
            row("b/trace.span.event.count[]", 1),
        ]
    );
}

#[test]
fn counts_apart_by_attributes() {
    let with_default = "{spans: {n: {attributes: [{key: env, default_value: none}]}}, spanevents: {}}";
    assert_eq!(
        rows(with_default),
        [
            row("a/n[\"x\"]", 2),
            row("a/n[\"y\"]", 1),
            row("a/n[\"none\"]", 1),
            row("b/n[\"none\"]", 1)
        ]
    );
    let without = "{spans: {n: {attributes: [{key: env}, {key: service.name}]}}, spanevents: {}}";
    assert_eq!(
        rows(without),
        [row("a/n[\"x\", \"a\"]", 2), row("a/n[\"y\", \"a\"]", 1)]
    );
    assert!(rows("{spans: {}, spanevents: {}}").is_empty());
}

#[test]
fn what_it_cannot_do_is_refused() {
    let wrong = counters("{spans: {n: {conditions: ['true']}}}").unwrap_err();
    assert!(
        wrong.contains("connectors.count.spans.n.conditions") && wrong.contains("OTTL"),
        "{wrong}"
    );
    for block in [
        "{metrics: {n: {attributes: [{key: a}]}}}",
        "{profiles: {n: {}}}",
        "{spams: {}}",
    ] {
        assert!(counters(block).is_err(), "{block}");
    }
}
