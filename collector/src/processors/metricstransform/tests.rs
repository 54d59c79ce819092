use karez_collector_config::{ProcessorConfig, check};
use karez_document::Origin;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, NumberDataPoint, Sum, metric::Data, number_data_point::Value,
};

use super::*;

fn processor(transforms: &str) -> Result<MetricsTransform, String> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\n\
         processors: {{metricstransform: {{transforms: {transforms}}}}}\n\
         service: {{pipelines: {{metrics: {{receivers: [otlp], processors: [metricstransform], exporters: [debug]}}}}}}"
    );
    let (config, said) = check(&document, &Origin::file("c"), &|_| None);
    match &config.ok_or_else(|| format!("{said:#?}"))?.processors[0].config {
        ProcessorConfig::MetricsTransform(config) => Ok(MetricsTransform::new(config).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn point(labels: &[(&str, &str)], value: i64) -> NumberDataPoint {
    let mut attributes = Vec::new();
    labels
        .iter()
        .for_each(|(key, value)| set(&mut attributes, key, value));
    NumberDataPoint {
        attributes,
        value: Some(Value::AsInt(value)),
        ..NumberDataPoint::default()
    }
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric {
        name: name.into(),
        data: Some(Data::Gauge(Gauge { data_points })),
        ..Metric::default()
    }
}

fn run(transforms: &str, metrics: Vec<Metric>) -> Vec<Vec<Metric>> {
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    let payload = Bytes::from(request.encode_to_vec());
    let batch = Batch::scan(Signal::Metrics, payload).unwrap();
    let Some(batch) = transform(&processor(transforms).unwrap().transforms, batch) else {
        return Vec::new();
    };
    assert_eq!(
        Batch::scan(Signal::Metrics, batch.payload.clone()).unwrap().items,
        batch.items
    );
    let decoded: ExportMetricsServiceRequest = batch.decode().unwrap();
    let resources = decoded.resource_metrics.into_iter();
    resources
        .map(|resource| {
            resource
                .scope_metrics
                .into_iter()
                .flat_map(|s| s.metrics)
                .collect()
        })
        .collect()
}

fn points(metric: &Metric) -> Vec<(Vec<(String, String)>, i64)> {
    let points = match &metric.data {
        Some(Data::Gauge(data)) => &data.data_points,
        Some(Data::Sum(data)) => &data.data_points,
        other => panic!("{other:?}"),
    };
    let label = |label: &KeyValue| {
        let Some(Variant::StringValue(text)) = label.value.clone().unwrap().value else {
            panic!("a text")
        };
        (label.key.clone(), text)
    };
    let row = |point: &NumberDataPoint| {
        let Some(Value::AsInt(value)) = point.value else {
            panic!("{point:?}")
        };
        (point.attributes.iter().map(label).collect(), value)
    };
    points.iter().map(row).collect()
}

fn row(labels: &[(&str, &str)], value: i64) -> (Vec<(String, String)>, i64) {
    (
        labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        value,
    )
}

#[test]
fn renames_and_copies() {
    let all = run(
        "[{include: a, action: update, new_name: b}]",
        vec![gauge("a", vec![]), gauge("c", vec![])],
    );
    let names: Vec<&str> = all[0].iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    let pattern =
        "[{include: '^system\\.(.*)$$', match_type: regexp, action: insert, new_name: 'host.$${1}.x'}]";
    let all = run(
        pattern,
        vec![gauge("system.cpu", vec![point(&[], 1)]), gauge("other", vec![])],
    );
    let names: Vec<&str> = all[0].iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["system.cpu", "other", "host.cpu.x"]);
}

#[test]
fn changes_labels() {
    let metric = || {
        gauge(
            "m",
            vec![
                point(&[("a", "1"), ("b", "x")], 1),
                point(&[("a", "2"), ("b", "x")], 2),
            ],
        )
    };
    let of = |operations: &str| {
        let transforms = format!("[{{include: m, action: update, operations: [{operations}]}}]");
        let all = run(&transforms, vec![metric()]);
        all.first().map(|metrics| points(&metrics[0])).unwrap_or_default()
    };
    let renamed =
        of("{action: update_label, label: a, new_label: c, value_actions: [{value: '1', new_value: one}]}");
    assert_eq!(
        renamed,
        [
            row(&[("b", "x"), ("c", "one")], 1),
            row(&[("b", "x"), ("c", "2")], 2)
        ]
    );
    let added = of("{action: add_label, new_label: n, new_value: v}");
    assert_eq!(added[0], row(&[("a", "1"), ("b", "x"), ("n", "v")], 1));
    let left = of("{action: delete_label_value, label: a, label_value: '1'}");
    assert_eq!(left, [row(&[("a", "2"), ("b", "x")], 2)]);
    assert!(of("{action: delete_label_value, label: b, label_value: x}").is_empty());
    assert_eq!(
        of("{action: experimental_scale_value, experimental_scale: 10}")[1].1,
        20
    );
}

#[test]
fn aggregates() {
    let metric = || {
        let points = [("u", "a", 1), ("v", "a", 2), ("w", "a", 6), ("u", "b", 10)];
        let points = points.map(|(state, cpu, value)| point(&[("state", state), ("cpu", cpu)], value));
        gauge("m", points.to_vec())
    };
    for (by, a) in [
        ("sum", 9),
        ("mean", 3),
        ("min", 1),
        ("max", 6),
        ("count", 3),
        ("median", 2),
    ] {
        let transforms = format!(
            "[{{include: m, action: update, operations: [{{action: aggregate_labels, label_set: [cpu], aggregation_type: {by}}}]}}]"
        );
        let b = if by == "count" { 1 } else { 10 };
        let found = points(&run(&transforms, vec![metric()])[0][0]);
        assert_eq!(found, [row(&[("cpu", "a")], a), row(&[("cpu", "b")], b)], "{by}");
    }
    let values = "[{include: m, action: update, operations: [{action: aggregate_label_values, label: state, aggregated_values: [u, v], new_value: uv, aggregation_type: sum}]}]";
    let found = points(&run(values, vec![metric()])[0][0]);
    assert_eq!(
        found,
        [
            row(&[("state", "uv"), ("cpu", "a")], 3),
            row(&[("state", "w"), ("cpu", "a")], 6),
            row(&[("state", "uv"), ("cpu", "b")], 10)
        ]
    );
}

#[test]
fn histograms_are_added_up() {
    let point = |value: &str, count| {
        let mut attributes = Vec::new();
        set(&mut attributes, "k", value);
        HistogramDataPoint {
            attributes,
            count,
            sum: Some(count as f64),
            min: Some(1.0),
            max: Some(count as f64),
            explicit_bounds: vec![1.0],
            bucket_counts: vec![1, count - 1],
            ..HistogramDataPoint::default()
        }
    };
    let metric = Metric {
        name: "m".into(),
        data: Some(Data::Histogram(Histogram {
            data_points: vec![point("a", 2), point("b", 5)],
            aggregation_temporality: 2,
        })),
        ..Metric::default()
    };
    let transforms = "[{include: m, action: update, operations: [{action: aggregate_labels, label_set: [], aggregation_type: sum}]}]";
    let all = run(transforms, vec![metric]);
    let Some(Data::Histogram(histogram)) = &all[0][0].data else {
        panic!("a histogram")
    };
    let merged = &histogram.data_points[0];
    assert_eq!(
        (histogram.data_points.len(), merged.count, merged.sum),
        (1, 7, Some(7.0))
    );
    assert_eq!(
        (merged.bucket_counts.as_slice(), merged.max),
        ([2, 5].as_slice(), Some(5.0))
    );
}

#[test]
fn combines_by_what_differs_in_the_name() {
    let transforms = "[{include: '^mem\\.(?P<state>.*)$$', match_type: regexp, action: combine, new_name: mem, submatch_case: upper}]";
    let metrics = vec![
        gauge("mem.used", vec![point(&[("n", "1")], 3)]),
        gauge("cpu", vec![]),
        gauge("mem.free", vec![point(&[("n", "1")], 4)]),
    ];
    let all = run(transforms, metrics);
    let names: Vec<&str> = all[0].iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["cpu", "mem"]);
    assert_eq!(
        points(&all[0][1]),
        [
            row(&[("n", "1"), ("state", "USED")], 3),
            row(&[("n", "1"), ("state", "FREE")], 4)
        ]
    );
    let mut sum = gauge("mem.free", vec![]);
    sum.data = Some(Data::Sum(Sum::default()));
    let all = run(transforms, vec![gauge("mem.used", vec![point(&[], 1)]), sum]);
    assert_eq!(all[0].len(), 2, "what does not fit stays as it is");
}

#[test]
fn groups_into_a_resource_of_their_own() {
    let transforms =
        "[{include: '^k8s', match_type: regexp, action: group, group_resource_labels: {group: k8s}}]";
    let all = run(
        transforms,
        vec![
            gauge("k8s.a", vec![point(&[], 1)]),
            gauge("b", vec![point(&[], 2)]),
        ],
    );
    assert_eq!(
        (all.len(), all[0][0].name.as_str(), all[1][0].name.as_str()),
        (2, "b", "k8s.a")
    );
}

#[test]
fn only_data_points_with_the_labels_change() {
    let transforms = "[{include: m, action: update, experimental_match_labels: {a: '1'}, new_name: n, operations: [{action: update_label, label: a, value_actions: [{value: '1', new_value: one}]}]}]";
    let all = run(
        transforms,
        vec![gauge("m", vec![point(&[("a", "1")], 1), point(&[("a", "2")], 2)])],
    );
    assert_eq!(all[0][0].name, "m", "a name is of all data points");
    assert_eq!(
        points(&all[0][0]),
        [row(&[("a", "one")], 1), row(&[("a", "2")], 2)]
    );
}

#[test]
fn what_is_missing_is_named() {
    for (transforms, key) in [
        ("[]", "transforms"),
        ("[{include: a, action: insert}]", "new_name"),
        ("[{action: update}]", "include"),
        ("[{include: '(', match_type: regexp, action: update}]", "include"),
        ("[{include: a, action: group}]", "group_resource_labels"),
        (
            "[{include: a, action: update, operations: [{action: update_label}]}]",
            "label",
        ),
        (
            "[{include: a, action: update, operations: [{action: add_label, new_label: b}]}]",
            "new_value",
        ),
        ("[{include: a, action: update, oprations: []}]", "oprations"),
    ] {
        let wrong = processor(transforms).err().unwrap_or_default();
        assert!(wrong.contains(key), "{transforms}: {wrong}");
    }
}
