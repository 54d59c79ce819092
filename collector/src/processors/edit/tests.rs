use karez_collector_config::{ProcessorConfig, check};
use karez_document::Origin;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;

use super::*;

fn pair(key: &str, value: Variant) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Variant::StringValue(value.into()))
}

fn plan(kind: &str, block: &str) -> Arc<Plan> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\nprocessors:\n  {kind}: {block}\n\
         service: {{pipelines: {{traces: {{receivers: [otlp], processors: [{kind}], exporters: [debug]}}}}}}"
    );
    let (config, said) = check(&document, &Origin::file("c"), &|_| None);
    match &config.unwrap_or_else(|| panic!("{said:#?}")).processors[0].config {
        ProcessorConfig::Resource(config) => Editor::resource(config).unwrap().plan,
        ProcessorConfig::Attributes(config) => Editor::attributes(config).unwrap().plan,
        other => panic!("{other:?}"),
    }
}

fn traces(resource: Vec<KeyValue>, spans: Vec<Span>) -> Batch {
    let items = spans.len();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource,
                dropped_attributes_count: 3,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                schema_url: "s".into(),
                ..ScopeSpans::default()
            }],
            schema_url: "r".into(),
        }],
    };
    Batch::encode(Signal::Traces, &request, items)
}

fn resource_after(batch: Batch, actions: &str) -> Vec<KeyValue> {
    let edited = plan("resource", &format!("{{attributes: [{actions}]}}")).edit(batch);
    let request: ExportTraceServiceRequest = edited.decode().unwrap();
    let resource = request.resource_spans[0].resource.clone().unwrap();
    assert_eq!(
        (
            resource.dropped_attributes_count,
            request.resource_spans[0].schema_url.as_str()
        ),
        (3, "r")
    );
    resource.attributes
}

#[test]
fn actions_do_what_they_say() {
    let batch = || {
        traces(
            vec![
                text("a", "1"),
                pair("n", Variant::IntValue(7)),
                text("url", "http://h:80/p"),
            ],
            vec![],
        )
    };
    let after = |actions: &str| resource_after(batch(), actions);
    assert_eq!(after("{key: z, value: v, action: insert}")[3], text("z", "v"));
    assert_eq!(after("{key: a, value: v, action: insert}")[0], text("a", "1"));
    assert_eq!(
        after("{key: a, value: 2, action: update}")[0],
        pair("a", Variant::IntValue(2))
    );
    assert_eq!(after("{key: z, value: 2, action: update}").len(), 3);
    assert_eq!(
        after("{key: z, from_attribute: a, action: upsert}")[3],
        text("z", "1")
    );
    assert_eq!(after("{key: z, from_attribute: no, action: upsert}").len(), 3);
    assert_eq!(
        after("{key: z, from_attribute: no, default_value: d, action: upsert}")[3],
        text("z", "d")
    );
    assert_eq!(
        after("{key: a, action: delete}, {key: n, action: DELETE}"),
        [text("url", "http://h:80/p")]
    );
    assert_eq!(
        after("{pattern: ^.$, action: delete}"),
        [text("url", "http://h:80/p")]
    );
    let sha = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    assert_eq!(after("{key: a, action: hash}")[0], text("a", sha));
    assert_eq!(
        after("{key: n, converted_type: string, action: convert}")[1],
        text("n", "7")
    );
    assert_eq!(
        after("{key: a, converted_type: double, action: convert}")[0],
        pair("a", Variant::DoubleValue(1.0))
    );
    let extracted = after("{key: url, pattern: '^(?P<scheme>\\w+)://(?P<host>\\w+)', action: extract}");
    assert_eq!(extracted[3..], [text("scheme", "http"), text("host", "h")]);
}

#[test]
fn a_missing_resource_is_made_when_needed() {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans::default()],
    };
    let batch = Batch::encode(Signal::Traces, &request, 0);
    let edited = plan("resource", "{attributes: [{key: a, value: 1, action: upsert}]}").edit(batch);
    let request: ExportTraceServiceRequest = edited.decode().unwrap();
    assert_eq!(
        request.resource_spans[0]
            .resource
            .as_ref()
            .unwrap()
            .attributes
            .len(),
        1
    );
}

#[test]
fn only_what_is_selected_is_edited() {
    let span = |name: &str, kind: i32| Span {
        name: name.into(),
        kind,
        attributes: vec![text("k", name)],
        ..Span::default()
    };
    let batch = traces(
        vec![text("service.name", "shop")],
        vec![span("get", 2), span("put", 3), span("gone", 2)],
    );
    let touched = |rules: &str| -> Vec<String> {
        let block = format!("{{actions: [{{key: t, value: 1, action: insert}}], {rules}}}");
        let request: ExportTraceServiceRequest =
            plan("attributes", &block).edit(batch.clone()).decode().unwrap();
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        spans
            .iter()
            .filter(|span| span.attributes.len() == 2)
            .map(|span| span.name.clone())
            .collect()
    };
    assert_eq!(touched("include: {services: [shop], span_names: [get]}"), ["get"]);
    assert_eq!(
        touched("include: {match_type: regexp, span_names: ['^g']}, exclude: {span_names: [gone]}"),
        ["get"]
    );
    assert_eq!(touched("include: {span_kinds: [SPAN_KIND_CLIENT]}"), ["put"]);
    assert_eq!(
        touched("include: {attributes: [{key: k, value: gone}]}"),
        ["gone"]
    );
    assert!(touched("exclude: {resources: [{key: service.name}]}").is_empty());
    assert!(touched("include: {services: [other]}").is_empty());
}

#[test]
fn data_points_are_edited() {
    let point = NumberDataPoint {
        attributes: vec![text("a", "1")],
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "m".into(),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: vec![point],
        })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![metric],
        ..ScopeMetrics::default()
    }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    };
    let batch = Batch::encode(Signal::Metrics, &request, 1);
    let edited = plan("attributes", "{actions: [{key: a, action: delete}]}").edit(batch);
    let request: ExportMetricsServiceRequest = edited.decode().unwrap();
    let Some(metric::Data::Gauge(gauge)) = &request.resource_metrics[0].scope_metrics[0].metrics[0].data
    else {
        panic!("a gauge");
    };
    assert!(gauge.data_points[0].attributes.is_empty());
}

proptest! {
    #[test]
    fn edits_are_those_of_owned_types(
        attributes in proptest::collection::vec(("[a-d]", "[a-z]{0,3}"), 0..5),
        key in "[a-e]", value in "[a-z]{0,3}", action in 0usize..4,
    ) {
        // Keys are unique, as OTLP demands.
        let mut owned: Vec<KeyValue> = Vec::new();
        for (key, value) in attributes {
            if owned.iter().all(|pair| pair.key != key) {
                owned.push(text(&key, &value));
            }
        }
        let span = Span { attributes: owned.clone(), name: "n".into(), dropped_attributes_count: 1, ..Span::default() };
        let name = ["insert", "update", "upsert", "delete"][action];
        let source = if action == 3 { String::new() } else { format!(", value: \"{value}\"") };
        let plan = plan("attributes", &format!("{{actions: [{{key: {key}, action: {name}{source}}}]}}"));
        let edited: ExportTraceServiceRequest = plan.edit(traces(vec![], vec![span.clone()])).decode().unwrap();
        let present = owned.iter().position(|pair| pair.key == key);
        match (name, present) {
            ("insert" | "upsert", None) => owned.push(text(&key, &value)),
            ("update" | "upsert", Some(at)) => owned[at] = text(&key, &value),
            ("delete", Some(at)) => { owned.remove(at); }
            _ => {}
        }
        let want = Span { attributes: owned, ..span };
        prop_assert_eq!(&edited.resource_spans[0].scope_spans[0].spans[0], &want);
    }
}
