use karez_collector_config::{ConnectorConfig, check};
use karez_document::Origin;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};

use super::*;
use crate::processors::edit::text;

const SECOND: u64 = 1_000_000_000;

fn aggregator(block: &str) -> Result<Aggregator, String> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\nconnectors: {{spanmetrics: {block}}}\n\
         service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [spanmetrics]}}, metrics: {{receivers: [spanmetrics], exporters: [debug]}}}}}}"
    );
    let (config, said) = check(&document, &Origin::file("c"), &|_| None);
    match &config.ok_or_else(|| format!("{said:#?}"))?.connectors[0].config {
        ConnectorConfig::SpanMetrics(config) => Ok(Aggregator::new(config)),
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

fn span(name: &str, milliseconds: u64) -> Span {
    Span {
        name: name.into(),
        kind: 2,
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: SECOND,
        end_time_unix_nano: SECOND + milliseconds * 1_000_000,
        status: Some(Status {
            code: 2,
            ..Status::default()
        }),
        ..Span::default()
    }
}

fn payload(service: &str, spans: Vec<Span>) -> Vec<u8> {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![pair("service.name", service), pair("host", "h")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "lib".into(),
                    version: "1".into(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn collected(aggregator: &mut Aggregator, now: u64) -> Vec<(usize, Metric)> {
    aggregator.expire(now);
    let batch = write(aggregator, 0, now);
    aggregator.written();
    let Some(batch) = batch else { return Vec::new() };
    assert_eq!(
        Batch::scan(Signal::Metrics, batch.payload.clone()).unwrap().items,
        batch.items
    );
    let request: ExportMetricsServiceRequest = batch.decode().unwrap();
    let mut found = Vec::new();
    for resource in request.resource_metrics {
        let attributes = resource.resource.map_or(0, |resource| resource.attributes.len());
        let metrics = resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        found.extend(metrics.map(|metric| (attributes, metric)));
    }
    found
}

fn shown(attributes: &[KeyValue]) -> Vec<String> {
    let show = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Variant::StringValue(text)) => format!("{}={text}", pair.key),
        other => format!("{}={other:?}", pair.key),
    };
    attributes.iter().map(show).collect()
}

/// The attributes and count of each series of a sum.
fn sums(metrics: &[(usize, Metric)], name: &str) -> Vec<(Vec<String>, i64)> {
    let mut found = Vec::new();
    for (_, metric) in metrics.iter().filter(|(_, metric)| metric.name == name) {
        let Some(Data::Sum(sum)) = &metric.data else {
            panic!("a sum")
        };
        for point in &sum.data_points {
            let Some(Value::AsInt(count)) = point.value else {
                panic!("a count")
            };
            found.push((shown(&point.attributes), count));
        }
    }
    found.sort();
    found
}

#[test]
fn calls_and_durations_by_service_name_kind_and_status() {
    let mut aggregator = aggregator("{}").unwrap();
    aggregator.add(
        &payload("s", vec![span("a", 3), span("a", 7), span("b", 20_000)]),
        1,
    );
    let metrics = collected(&mut aggregator, 2);
    let common = |name: &str| {
        let name = format!("span.name={name}");
        [
            "service.name=s",
            &name,
            "span.kind=SPAN_KIND_SERVER",
            "status.code=STATUS_CODE_ERROR",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    assert_eq!(
        sums(&metrics, "traces.span.metrics.calls"),
        [(common("a"), 2), (common("b"), 1)]
    );
    let duration = metrics
        .iter()
        .find(|(_, metric)| metric.name == "traces.span.metrics.duration")
        .unwrap();
    assert_eq!(
        (duration.0, duration.1.unit.as_str()),
        (0, "ms"),
        "no attributes of the resource"
    );
    let Some(Data::Histogram(histogram)) = &duration.1.data else {
        panic!("a histogram")
    };
    let a = histogram
        .data_points
        .iter()
        .find(|point| point.count == 2)
        .unwrap();
    assert_eq!((a.sum, a.min, a.max), (Some(10.0), Some(3.0), Some(7.0)));
    assert_eq!(
        (a.bucket_counts[1], a.bucket_counts[3], a.bucket_counts.len()),
        (1, 1, 17)
    );
    let b = histogram
        .data_points
        .iter()
        .find(|point| point.count == 1)
        .unwrap();
    assert_eq!(b.bucket_counts[16], 1);
    // Counts from the start go on.
    aggregator.add(&payload("s", vec![span("a", 3)]), 3);
    assert_eq!(
        sums(&collected(&mut aggregator, 4), "traces.span.metrics.calls")[0].1,
        3
    );
}

#[test]
fn dimensions_events_scopes_and_what_is_left_out() {
    let block = "{namespace: '', dimensions: [{name: host}, {name: env, default: none}], exclude_dimensions: [status.code, span.kind],
        include_instrumentation_scope: [lib], events: {enabled: true, dimensions: [{name: kind}]}, histogram: {disable: true}}";
    let mut aggregator = aggregator(block).unwrap();
    let mut with_events = span("a", 1);
    with_events.events = ["x", "x", "y"]
        .map(|kind| Event {
            attributes: vec![pair("kind", kind)],
            ..Event::default()
        })
        .to_vec();
    aggregator.add(&payload("s", vec![with_events]), 1);
    let metrics = collected(&mut aggregator, 2);
    assert!(metrics.iter().all(|(_, metric)| metric.name != "duration"));
    let calls = sums(&metrics, "calls");
    let expected = [
        "service.name=s",
        "span.name=a",
        "span.instrumentation.scope.name=lib",
        "span.instrumentation.scope.version=1",
        "host=h",
        "env=none",
    ];
    assert_eq!(calls, [(expected.map(str::to_owned).to_vec(), 1)]);
    let counts: Vec<i64> = sums(&metrics, "events")
        .into_iter()
        .map(|(_, count)| count)
        .collect();
    assert_eq!(counts, [2, 1]);
}

#[test]
fn differences_begin_anew_and_examples_are_told_once() {
    let block = "{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, histogram: {unit: s, exponential: {max_size: 10}}, exemplars: {enabled: true, max_per_data_point: 2}}";
    let mut aggregator = aggregator(block).unwrap();
    aggregator.add(
        &payload("s", vec![span("a", 100), span("a", 200), span("a", 0)]),
        1,
    );
    let metrics = collected(&mut aggregator, 2);
    let Some(Data::ExponentialHistogram(histogram)) = &metrics[1].1.data else {
        panic!("{metrics:?}")
    };
    let point = &histogram.data_points[0];
    assert_eq!(
        (
            point.count,
            point.zero_count,
            point.exemplars.len(),
            metrics[1].1.unit.as_str()
        ),
        (3, 1, 2, "s")
    );
    assert!(collected(&mut aggregator, 3).is_empty());
    aggregator.add(&payload("s", vec![span("a", 100)]), 4);
    assert_eq!(
        sums(&collected(&mut aggregator, 5), "traces.span.metrics.calls")[0].1,
        1
    );
}

#[test]
fn series_and_resources_are_bounded_and_expire() {
    let mut limited = aggregator("{aggregation_cardinality_limit: 2, histogram: {disable: true}}").unwrap();
    let spans = (0..5).map(|index| span(&format!("n{index}"), 1)).collect();
    limited.add(&payload("s", spans), 1);
    let calls = sums(&collected(&mut limited, 2), "traces.span.metrics.calls");
    assert_eq!(calls.len(), 3);
    let overflow = vec!["otel.metric.overflow=Some(BoolValue(true))".to_owned()];
    assert!(calls.contains(&(overflow, 3)), "{calls:?}");

    let block = "{add_resource_attributes: true, resource_metrics_cache_size: 2, metrics_expiration: 10s, series_expiration: 5s, histogram: {disable: true}}";
    let mut resources = aggregator(block).unwrap();
    for (index, service) in ["a", "b", "c"].into_iter().enumerate() {
        resources.add(&payload(service, vec![span("n", 1)]), SECOND * (index as u64 + 1));
    }
    let metrics = collected(&mut resources, 4 * SECOND);
    assert_eq!(
        (metrics.len(), metrics[0].0),
        (2, 2),
        "the oldest of three is gone, attributes are there"
    );
    assert_eq!(
        collected(&mut resources, 8 * SECOND).len(),
        1,
        "of b nothing was seen for six seconds"
    );
    assert!(collected(&mut resources, 20 * SECOND).is_empty());
    assert!(resources.resources.is_empty());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for block in [
        "{histogram: {explicit: {}, exponential: {}}}",
        "{histogram: {explicit: {buckets: [1]}}}",
        "{histogram: {explicit: {buckets: [2ms, 1ms]}}}",
        "{dimensions: [{name: span.name}]}",
        "{dimensions: [{name: a}, {name: a}]}",
        "{metrics_flush_interval: 0}",
        "{events: {enabled: true}}",
        "{namespaze: x}",
    ] {
        assert!(aggregator(block).is_err(), "{block}");
    }
}
